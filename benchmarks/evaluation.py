"""`eval`: COCO box evaluation, from annotation file and detections to the numbers, beside pycocotools."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.parity import differing_numbers
from benchmarks.reference.evaluation import Found, baseline_evaluation
from benchmarks.report import Row, Target
from benchmarks.settings import Settings
from benchmarks.timing import interleaved
from mmdet.evaluation import CocoMetric

SIZES = (5_000, 36_335, 200)  # images and objects of val2017, detections of an image
QUICK_SIZES = (40, 300, 20)
CLASSES, WIDTH, HEIGHT = 80, 640, 480
POINTS = 25  # of an outline, as of COCO's on average: they are most of an annotation file
NUMBERS = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'bbox_mAP_s', 'bbox_mAP_m', 'bbox_mAP_l')
PARITY = 'AP numbers and AP per class to the last bit'
ROW = Row('eval', 'COCO box evaluation', 's', Target(20, of='ratio'), parity=PARITY)


def run(settings: Settings) -> list[Row]:
    """Measure the whole evaluation."""
    images, objects, per_image = QUICK_SIZES if settings.quick else SIZES
    ann_file = settings.work_dir / f'evaluation_{images}.json'
    if not ann_file.exists():
        write_annotations(ann_file, images, objects)
    found = detections(ann_file, images, per_image)
    result_file = settings.work_dir / 'evaluation_results.json'
    contenders: dict[str, Callable[[], Any]] = {
        'ours': our_evaluation(ann_file, found),
        'reference': lambda: baseline_evaluation(ann_file, found, result_file),
    }
    times = interleaved(contenders, settings.repeats, torch.device('cpu'))
    faults = check(times['ours'].result, *times['reference'].result)
    total = sum(len(labels) for *_, labels in found)
    note = f'{images} images, {total} detections, {objects} objects; annotations and results are read'
    return [ROW.measured(times, images, faults=faults, note=note)]


def write_annotations(file: Path, images: int, objects: int) -> None:
    """Write seeded annotations in COCO's format; every hundredth is a crowd."""
    rng = np.random.default_rng(0)
    sides = (0.02 + 0.6 * rng.random((objects, 2)) ** 2) * (WIDTH, HEIGHT)
    corners = rng.random((objects, 2)) * ((WIDTH, HEIGHT) - sides)
    outlines = corners[:, None] + rng.random((objects, POINTS, 2)) * sides[:, None]
    boxes = np.concatenate([corners, sides], 1).round(2).tolist()  # xywh
    places = rng.integers(1, [images + 1, CLASSES + 1], (objects, 2)).tolist()
    annotations = [
        {
            'id': number,
            'image_id': image,
            'category_id': category,
            'bbox': box,
            'area': 0.6 * box[2] * box[3],
            'iscrowd': int(number % 100 == 0),
            'segmentation': {'counts': [0, 10], 'size': [1, 10]} if number % 100 == 0 else [outline],
        }
        for number, ((image, category), box, outline) in enumerate(
            zip(places, boxes, outlines.round(2).reshape(objects, -1).tolist(), strict=True), start=1
        )
    ]
    content = {
        'images': [
            {'id': number, 'file_name': f'{number:012d}.jpg', 'width': WIDTH, 'height': HEIGHT}
            for number in range(1, images + 1)
        ],
        'annotations': annotations,
        'categories': [{'id': number, 'name': f'class {number:02d}'} for number in range(1, CLASSES + 1)],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.encode(content))


def detections(ann_file: Path, images: int, per_image: int) -> list[Found]:
    """Draw seeded detections: a third near objects, the rest anywhere; one image in ten has equal scores.

    One image in a hundred has none.
    """
    given = msgspec.json.decode(ann_file.read_bytes())['annotations']
    objects = np.array([(*one['bbox'], one['category_id'], one['image_id']) for one in given])
    rng = np.random.default_rng(1)
    near = rng.choice(objects, images * per_image // 3)  # xywh, category, image
    near[:, :4] += rng.normal(0, 0.08, (len(near), 4)) * np.tile(near[:, 2:4], 2)
    rest = images * per_image - len(near)
    anywhere = [
        rng.random((rest, 4)) * [320, 240, 320, 240],
        rng.integers(1, [CLASSES + 1, images + 1], (rest, 2)),
    ]
    drawn = np.concatenate([near, np.concatenate(anywhere, 1)])
    scores = rng.random(len(drawn)) ** 2
    scores = np.where(drawn[:, 5] % 10 == 0, scores.round(1), scores)
    table = np.concatenate([drawn[:, :2], drawn[:, :2] + drawn[:, 2:4].clip(0), scores[:, None]], 1)
    order = np.lexsort((-scores, drawn[:, 5]))
    table, labels = table[order].astype(np.float32), drawn[order, 4].astype(np.int64) - 1
    ends = np.searchsorted(drawn[order, 5], np.arange(images + 2))
    slices = [slice(ends[i], ends[i + 1] if i % 100 else ends[i]) for i in range(1, images + 1)]
    return [(i, table[rows], labels[rows]) for i, rows in enumerate(slices, start=1)]


def our_evaluation(ann_file: Path, found: list[Found]) -> Callable[[], dict[str, float]]:
    """Evaluate with `CocoMetric`, as after a test."""
    samples = []
    for img_id, rows, labels in found:
        boxes = torch.from_numpy(rows)
        instances = {'bboxes': boxes[:, :4], 'scores': boxes[:, 4], 'labels': torch.from_numpy(labels)}
        samples.append({'img_id': img_id, 'pred_instances': instances})

    def evaluate() -> dict[str, float]:
        metric = CocoMetric(str(ann_file), classwise=True)
        metric.process(None, samples)
        return metric.evaluate(len(samples))

    return evaluate


def check(ours: dict[str, float], stats: list[float], per_class: list[float]) -> list[str]:
    """Compare the numbers of ours with pycocotools'."""
    expected = {f'coco/{name}': value for name, value in zip(NUMBERS, stats, strict=False)}
    expected |= {f'coco/class {k:02d}_precision': value for k, value in enumerate(per_class, start=1)}
    return differing_numbers(ours, expected, 0.0)

"""`eval`: COCO box evaluation, from annotation file and detections to the numbers, beside pycocotools."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger

from benchmarks.reference.evaluation import Found, baseline_evaluation
from benchmarks.report import Row, Target
from benchmarks.settings import Settings
from benchmarks.step import peaks
from benchmarks.synthetic import CLASSES, write_annotations
from benchmarks.timing import interleaved, ratio
from mmdet.evaluation import CocoMetric

SIZES = (5_000, 36_335, 200)  # images and objects of val2017, detections of an image
QUICK_SIZES = (40, 300, 20)
NUMBERS = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'bbox_mAP_s', 'bbox_mAP_m', 'bbox_mAP_l')
PARITY = 'AP numbers and AP per class to the last bit, the AR numbers to the 4 digits of the log'


def run(settings: Settings) -> list[Row]:
    """One row: the whole evaluation."""
    images, objects, per_image = QUICK_SIZES if settings.quick else SIZES
    ann_file = settings.work_dir / f'evaluation_{images}.json'
    if not ann_file.exists():
        write_annotations(ann_file, images, objects, [('one.jpg', 480, 640)])
    found = detections(ann_file, images, per_image)
    result_file = settings.work_dir / 'evaluation_results.json'
    contenders = {
        'ours': our_evaluation(ann_file, found),
        'reference': lambda: baseline_evaluation(ann_file, found, result_file),
    }
    times = interleaved(contenders, settings.repeats, torch.device('cpu'))
    row = Row(
        'eval',
        'COCO box evaluation',
        's',
        Target(20, of='ratio'),
        ours=times['ours'].spread,
        reference=times['reference'].spread,
        ratio=ratio(times['reference'], times['ours']),
        peak_mib=peaks(times),
        faults=check(times['ours'].result, *times['reference'].result),
        parity=PARITY,
        note=f'{images} images x {per_image} detections, {objects} objects; annotations and results are read',
    )
    return [row]


def detections(ann_file: Path, images: int, per_image: int) -> list[Found]:
    """Seeded detections: a third near an object each, the rest anywhere; one image in ten has ties of scores.

    One image in a hundred has none.
    """
    objects_of: dict[int, list[dict[str, Any]]] = {}
    for one in json.loads(ann_file.read_bytes())['annotations']:
        objects_of.setdefault(one['image_id'], []).append(one)
    rng = np.random.default_rng(1)
    found: list[Found] = []
    for img_id in range(1, images + 1):
        if img_id % 100 == 0:
            found.append((img_id, np.zeros((0, 5), np.float32), np.zeros(0, np.int64)))
            continue
        boxes = (rng.random((per_image, 4)) * [320, 240, 320, 240]).astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        labels, scores = rng.integers(0, CLASSES, per_image), rng.random(per_image) ** 3
        objects = objects_of.get(img_id, [])
        for row in range(per_image // 3 if objects else 0):
            one = objects[row % len(objects)]
            x, y, w, h = one['bbox']
            moved = np.array([x, y, x + w, y + h]) + rng.normal(0, 0.08, 4) * [w, h, w, h]
            boxes[row], labels[row], scores[row] = moved, one['category_id'] - 1, rng.random()
        if img_id % 10 == 0:
            scores = scores.round(1)
        order = np.argsort(-scores, kind='stable')
        rows = np.concatenate([boxes, scores[:, None]], 1).astype(np.float32)[order]
        found.append((img_id, rows, labels[order]))
    return found


def our_evaluation(ann_file: Path, found: list[Found]) -> Callable[[], dict[str, float]]:
    """Through `CocoMetric`, as after a test; adds the numbers that only the log gives."""
    samples = [
        {
            'img_id': img_id,
            'pred_instances': {
                'bboxes': torch.from_numpy(rows[:, :4]),
                'scores': torch.from_numpy(rows[:, 4]),
                'labels': torch.from_numpy(labels),
            },
        }
        for img_id, rows, labels in found
    ]

    def evaluate() -> dict[str, float]:
        metric = CocoMetric(str(ann_file), classwise=True)
        log = _Log()
        logger = MMLogger.get_current_instance()
        level = logger.level
        logger.addHandler(log)
        logger.setLevel(logging.INFO)
        try:
            metric.process(None, samples)
            numbers = metric.evaluate(len(samples))
        finally:
            logger.removeHandler(log)
            logger.setLevel(level)
        return {**numbers, **{f'log {i}': value for i, value in enumerate(log.twelve())}}

    return evaluate


def check(ours: dict[str, float], stats: list[float], per_class: list[float]) -> list[str]:
    """Compare the numbers of ours with pycocotools'."""
    expected = {f'coco/{name}': value for name, value in zip(NUMBERS, stats, strict=False)}
    expected |= {f'coco/class {k:02d}_precision': value for k, value in enumerate(per_class, start=1)}
    faults = [
        f'{name} is {ours.get(name)}, pycocotools says {value}'
        for name, value in expected.items()
        if ours.get(name) != value
    ]
    logged = [ours.get(f'log {i}') for i in range(12)]
    if logged != [float(f'{value:.4f}') for value in stats]:
        faults.append(f'the log says {logged}, pycocotools {stats}')
    return faults


class _Log(logging.Handler):
    """Keeps the table of the 12 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ''

    def emit(self, record: Any) -> None:
        """Keep what holds the table."""
        message = record.getMessage()
        if 'AR@100' in message:
            self.text = message

    def twelve(self) -> list[float]:
        """In the order of the table; none when there was no table."""
        return [float(number) for number in re.findall(r'\| (\d\.\d{4}) ', self.text)]

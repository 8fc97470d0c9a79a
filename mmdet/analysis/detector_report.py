"""Write the report on a test: numbers by class, score threshold, confusions, curves, worst photos, speed.

K classes
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmdet.analysis.judge import (
    ERRORS_NOTE,
    SCORES,
    Curves,
    Judged,
    confusion_matrix,
    curves,
    judge,
    numbers,
    rank_photos,
)
from mmdet.analysis.markdown import table, write_page
from mmdet.analysis.plots import plot_class_curves, plot_confusion
from mmdet.analysis.runs import describe_commit
from mmdet.datasets import BadImageError, CocoDataset
from mmdet.engine.state import unwrap_model
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.coco_eval import mean_precision
from mmdet.models.detectors import BaseDetector
from mmdet.visualization.canvas import write_picture
from mmdet.visualization.detections import draw_beside_truth

UNDECIDED = 300  # place in `SCORES` of the threshold that is shown where no detection is right
WORST = 12  # photos, and confusions
PHOTO_SIDE = 480  # pixels
TEXT = """# Detector report

- checkpoint `{checkpoint}`, config `{config}`
- {images} photos, {objects} objects of {classes} classes: `{annotations}`
- {size_and_speed}

{metrics}

Percent, as COCO defines them.

## Score threshold

{advice} All classes together, an object is hit at IoU 0.5: precision is the share of the detections that hit,
recall the share of the objects that are hit, F1 the harmonic mean of both.

![F1 over the score threshold](f1.svg) ![Precision over recall](precision_recall.svg)

## Classes

{by_class}

Percent. Precision, recall and F1 of the detections that score {threshold:.3f} or more; in the last columns
the threshold that is best for the class alone, and F1 there.

## Confusion

![Confusion matrix](confusion.svg)

Detections that score {threshold:.3f} or more. Each hits the object that it overlaps most, of whatever class,
at IoU 0.5 or more. Last column: objects that nothing hits. Last row: detections that hit nothing. The
stronger the color of a cell, the larger its share of the row.

{confused}

## Errors

{errors}

{errors_note}

## Worst photos

{worst}
"""


def write_detector_report(runner: Runner, config: str, out_dir: Path) -> str:
    """Write report.html, report.md, report.json and pictures on the test that a runner has just finished.

    Its `CocoMetric` has written the detections as JSON. Returns the main numbers in a few lines.

    Raises:
        ImportError: hotcoco is not installed.
    """
    loop = runner.test_loop
    metric = next(one for one in loop.evaluator.metrics if isinstance(one, CocoMetric))
    assert metric.outfile is not None  # asked for by the command
    judged = judge(metric, json.loads(metric.outfile.read_text()))
    whole = curves(judged, judged.category_ids)
    by_class = [curves(judged, [category]) for category in judged.category_ids]
    best = whole.best()
    place = UNDECIDED if best is None else best
    threshold = float(SCORES[place])
    confusion = confusion_matrix(judged, threshold)
    report = {
        'config': config,
        'checkpoint': str(runner.cfg.load_from),
        'annotations': str(metric.ann_file),
        'images': len(judged.coco.imgs),
        'objects': len(judged.objects),
        'best_f1': None if best is None else {'score_threshold': threshold, **whole.at(place)},
        'classes': [
            class_numbers(judged, label, name, curve, place)
            for label, (name, curve) in enumerate(zip(metric.classes, by_class, strict=True))
        ],
        **numbers(judged),
        'confusion_matrix': confusion.tolist(),
        'worst_photos': draw_worst(judged, loop.dataloader.dataset, threshold, out_dir),
        **size_and_speed(runner),
    }
    draw_curves(judged, metric.classes, whole, by_class, best, out_dir)
    plot_confusion(confusion, metric.classes, out_dir / 'confusion.svg')
    (out_dir / 'report.json').write_text(json.dumps(report, indent=1, ensure_ascii=False) + '\n')
    page = write_page(out_dir / 'report.md', lay_out(report, threshold))
    return f'{describe_speed(report)}\n{advise(report)}\nreport: {page}'


def class_numbers(judged: Judged, label: int, name: str, curve: Curves, place: int) -> dict[str, Any]:
    """Collect the numbers of a class; None where there is nothing to measure."""
    precision, best = judged.scores.precision[..., label], curve.best()
    found = {'AP': mean_precision(precision), 'AP50': mean_precision(precision[0])}
    return {
        'name': name,
        'objects': int((judged.objects[:, 1] == judged.category_ids[label]).sum()),
        **{key: None if value < 0 else value for key, value in found.items()},
        **curve.at(place),
        'best_score_threshold': None if best is None else float(SCORES[best]),
        'best_f1': None if best is None else float(curve.f1[best]),
    }


def size_and_speed(runner: Runner) -> dict[str, Any]:
    """Count parameters and multiply-adds, take the median time of a test's batches, name device and code."""
    loader, model = runner.test_loop.dataloader, unwrap_model(runner.model)
    images = min(loader.batch_size * runner.world_size, len(loader.dataset))
    times = (runner.message_hub.get_scalar(f'test/{name}').data[0] for name in ('time', 'data_time'))
    ms, waiting = (1e3 * float(np.median(seconds)) / images for seconds in times)
    cpu = f'CPU, {torch.get_num_threads()} thread(s) a process'
    gmacs, shape = None, None
    if isinstance(model, BaseDetector) and not runner.cfg.get('compile'):  # it would be compiled for it
        image = model.data_preprocessor(loader.collate_fn([loader.dataset[0]]))['inputs']
        gmacs, shape = model.count_multiply_adds(image), [image.shape[3], image.shape[2]]
    return {
        'parameters': sum(parameter.numel() for parameter in model.parameters()),
        'gmacs': gmacs,
        'input_size': shape,
        'ms_per_image': ms,
        'of_which_waiting_for_data': waiting,
        'images_per_batch': images,
        'processes': runner.world_size,
        'commit': describe_commit(),
        'device': torch.cuda.get_device_name() if torch.cuda.is_available() else cpu,
        'torch': torch.__version__,
    }


def describe_speed(report: Mapping[str, Any]) -> str:
    """Say how large and how fast the detector is, in one line."""
    size, ms = report['input_size'], report['ms_per_image']
    gmacs = '' if size is None else f', {report["gmacs"]:.3f} GMACs at {size[0]} x {size[1]}'
    batches = f'{report["images_per_batch"]} in {report["processes"]} process'
    return (
        f'{report["parameters"] / 1e6:.2f} M parameters{gmacs}; {ms:.1f} ms an image '
        f'({1e3 / ms:.0f} a second): network, NMS and {report["of_which_waiting_for_data"]:.1f} ms of '
        f'waiting for data, in batches of {batches}{"es" * (report["processes"] > 1)} on {report["device"]}'
    )


def advise(report: Mapping[str, Any]) -> str:
    """Say which score threshold is best."""
    best = report['best_f1']
    if best is None:
        return 'No detection is right, whatever its score.'
    f1, precision, recall = (f'{best[name]:.1%}' for name in ('f1', 'precision', 'recall'))
    return (
        f'F1 is best, {f1}, with detections that score {best["score_threshold"]:.3f} or more: precision '
        f'{precision}, recall {recall}.'
    )


def draw_curves(
    judged: Judged,
    names: Sequence[str],
    whole: Curves,
    by_class: Sequence[Curves],
    best: int | None,
    out_dir: Path,
) -> None:
    """Draw F1 over the score threshold, and precision over recall as AP50 averages it."""
    plot_class_curves(
        SCORES,
        {name: curve.f1 for name, curve in zip(names, by_class, strict=True)},
        whole.f1,
        out_dir / 'f1.svg',
        ('all classes', 'score threshold', 'F1'),
        None if best is None else float(SCORES[best]),
    )
    precision = np.where(judged.scores.precision[0] < 0, np.nan, judged.scores.precision[0])  # (R, K)
    plot_class_curves(
        np.linspace(0, 1, len(precision)),
        dict(zip(names, precision.T, strict=True)),
        np.nanmean(precision[:, ~np.isnan(precision).all(0)], 1),
        out_dir / 'precision_recall.svg',
        ('mean of the classes', 'recall', 'precision'),
    )


def draw_worst(judged: Judged, dataset: CocoDataset, threshold: float, out_dir: Path) -> list[dict[str, Any]]:
    """Draw the photos with most errors; those that cannot be read are passed over."""
    drawn: list[dict[str, Any]] = []
    found, category_ids = judged.counted, list(judged.category_ids)
    for img_id, missed, false in rank_photos(judged, threshold):
        try:
            image = dataset.read(img_id)
        except BadImageError:
            continue
        scale = PHOTO_SIDE / max(image.shape[:2])
        size = [max(round(side * scale), 1) for side in image.shape[1::-1]]  # width, height
        rows = found.image_ids == img_id
        bboxes = found.bboxes[rows]  # (D, 4) xywh
        detections = InstanceData(
            bboxes=np.concatenate([bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]], 1),
            labels=np.array([*map(category_ids.index, found.category_ids[rows].tolist())], int),
            scores=found.scores[rows],
        )
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        picture = draw_beside_truth(small, dataset, img_id, detections, threshold, scale)
        name = f'worst_{len(drawn) + 1:02}.jpg'
        write_picture(out_dir / name, picture, quality=85)
        file = dataset.image_file(img_id).relative_to(dataset.img_folder).as_posix()
        drawn.append({'file': file, 'missed': missed, 'false': false, 'picture': name})
        if len(drawn) == WORST:
            break
    return drawn


def lay_out(report: Mapping[str, Any], threshold: float) -> str:
    """Lay the report out in Markdown."""
    metrics, classes = report['metrics'], report['classes']
    columns = ('AP', 'AP50', 'precision', 'recall', 'f1')
    lines = [
        (one['name'], one['objects'], *(_percent(one[key]) for key in columns),
         _percent(one['best_score_threshold'], 1, '.2f'), _percent(one['best_f1']))
        for one in classes
    ]  # fmt: skip
    heads = ('class', 'objects', *columns[:4], 'F1', 'own threshold', 'F1 there')
    kinds = [(kind.replace('_', ' '), _percent(value)) for kind, value in report['errors'].items()][1:]
    photos = [
        f'`{one["file"]}`: {one["missed"]} missed, {one["false"]} false\n\n![{one["file"]}]({one["picture"]})'
        for one in report['worst_photos']
    ]
    laid_out = {
        'classes': len(classes),
        'size_and_speed': describe_speed(report),
        'metrics': table(list(metrics), [[_percent(value) for value in metrics.values()]]),
        'threshold': threshold,
        'advice': advise(report),
        'by_class': table(heads, lines, '---:'),
        'confused': confusions(np.array(report['confusion_matrix']), [one['name'] for one in classes]),
        'errors': table(('kind', 'AP50 to gain'), kinds, '---:'),
        'errors_note': ERRORS_NOTE,
        'worst': '\n\n'.join(photos) or 'No photo has an error.',
    }
    return TEXT.format(**{**report, **laid_out})


def confusions(counts: np.ndarray, names: Sequence[str]) -> str:
    """List the most frequent confusions of one class with another. counts (K + 1, K + 1)."""
    places = sorted(np.argwhere(counts[:-1, :-1]).tolist(), key=lambda place: -counts[tuple(place)])
    rows = [
        (names[true], names[found], counts[true, found], _percent(counts[true, found] / counts[true].sum()))
        for true, found in places
        if true != found
    ]
    head = ('object is', 'found as', 'times', 'share of the objects, %')
    return table(head, rows[:WORST], '---:') if rows else 'No class is taken for another.'


def _percent(value: float | None, factor: float = 100, form: str = '.1f') -> str:
    return '-' if value is None or value < 0 else f'{factor * value:{form}}'

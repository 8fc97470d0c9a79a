"""`data`: the training pipeline of SSD300 beside the baseline and beside bare JPEG decoding, on one core."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.parity import CHECKED, differing_pixels
from benchmarks.reference.augmentation import baseline_pipeline, reference_sample
from benchmarks.report import Row, Target
from benchmarks.settings import Settings
from benchmarks.students import CONFIG
from benchmarks.timing import Spread, Timing, interleaved, ratio
from mmdet.config.resolve import load_config
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import read_image
from mmdet.engine import DetRunner
from mmdet.registry import DATASETS

PARITY = 'same random numbers: boxes 0.001 pixels, mean of the photo 0.45 gray levels, each photo 1.2'
SPEED = Row('data', 'training pipeline, one core', 'images/s', Target(240), parity=PARITY)
SHARE = Row('data', 'share of bare JPEG decoding', 'x', Target(0.65), parity=PARITY)
LINEAR = Target(0.9)


def run(settings: Settings) -> list[Row]:
    """Measure one core, the share of bare decoding, and the scaling over loader workers."""
    cfg = load_config(CONFIG, {'model.backbone.weights': None}, settings.data_root)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    count = min(len(dataset), 4 if settings.quick else 400)
    torch.set_num_threads(1)
    faults = check(dataset, min(count, CHECKED))
    times = interleaved(contenders(dataset, count), settings.repeats, torch.device('cpu'))
    torch.set_num_threads(settings.threads)
    decoding = times['decoding'].rate(count).median
    note = f'{count} photos a round; bare decoding {decoding:.0f} images/s'
    speed = SPEED.measured(times, count, faults=faults, note=note)
    share = SHARE._replace(
        ours=ratio(times['decoding'], times['ours']),
        reference=ratio(times['decoding'], times['reference']),
        ratio=speed.ratio,
        faults=faults,
    )
    return [speed, share, scaling(settings, cfg, times['ours'].rate(count).median)]


def contenders(dataset: CocoDataset, count: int) -> dict[str, Callable[[], None]]:
    """Build passes over the same photos: our pipeline, the baseline's, and the JPEG decoder alone."""
    files = [
        np.frombuffer(_given(dataset, row, 0)['img_path'].read_bytes(), np.uint8) for row in range(count)
    ]
    own, theirs = itertools.count(), itertools.count()

    def ours() -> None:
        for row in range(count):
            dataset[row, next(own)]

    def baseline() -> None:
        for row in range(count):
            given = _given(dataset, row, next(theirs))
            boxes, labels, _ = given['annotations']
            baseline_pipeline(given['img_path'], boxes, labels, given['rng'])

    def decoding() -> None:
        for file in files:  # in memory: decoding and nothing else, not even reading
            cv2.imdecode(file, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)

    return {'ours': ours, 'reference': baseline, 'decoding': decoding}


def _given(dataset: CocoDataset, row: int, draw: int) -> dict[str, Any]:
    """Return what the pipeline starts from."""
    return dict(dataset._results(row, draw))


def check(dataset: CocoDataset, count: int) -> list[str]:
    """Compare samples of ours with those of the baseline: the same draws must give the same picture."""
    faults, differences = [], {}
    for row in range(count):
        given = _given(dataset, row, row)
        photo = read_image(given['img_path'], given['ori_shape'])
        boxes, labels, _ = given['annotations']
        theirs = reference_sample(photo, boxes, labels, given['rng'], contrast_first=bool(row % 2))
        ours: Any = dataset[row, row]
        img, boxes = ours['img'].numpy().transpose(1, 2, 0), ours['bboxes'].numpy()
        name = f'image {given["img_id"]}'
        same_labels = ours['labels'].tolist() == theirs.labels
        if not (same_labels and np.allclose(boxes, theirs.bboxes, rtol=0, atol=1e-3)):
            faults.append(f'{name} has other boxes or labels')
        of_canvas, differences[name] = theirs.differences(img, photo.shape[:2])
        if of_canvas > 0.5:
            faults.append(f'the canvas of {name} differs by {of_canvas:.2f} gray levels')
    return faults + differing_pixels(differences)


def scaling(settings: Settings, cfg: Any, one_core: float) -> Row:
    """Measure images/s of loader workers over as many times the speed of one core."""
    workers = settings.workers
    row = Row('data', f'{workers} loader workers / {workers} x one core', 'x', LINEAR)
    if missing := settings.missing_cores:
        return row._replace(note=missing)
    loader = cfg.train_dataloader.to_dict()
    loader.update(num_workers=workers, batch_size=settings.batch_size or 8)
    loader['sampler']['times'] = 1000
    batches = iter(DetRunner.build_dataloader(loader))
    marks = []
    for _ in range(1 + settings.repeats):  # first: every worker starts, and the queue gets its usual length
        for _ in range(4 * workers):
            next(batches)
        marks.append(time.perf_counter())
    seconds = tuple(end - start for start, end in itertools.pairwise(marks))
    rate = Timing(seconds).rate(4 * workers * loader['batch_size'])
    share = Spread(*(value / (workers * one_core) for value in rate))
    return row._replace(ours=share, note=f'{rate.median:.0f} images/s with {workers} workers')

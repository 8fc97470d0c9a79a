"""`data`: the training pipeline of SSD300 beside the baseline and beside bare JPEG decoding, on one core."""

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.device_data import device_row
from benchmarks.parity import CHECKED, MEAN_DIFFERENCE, MOST_DIFFERENCE
from benchmarks.reference.augmentation import baseline_pipeline, reference_sample
from benchmarks.report import Row, Target
from benchmarks.settings import Settings
from benchmarks.step import peaks
from benchmarks.students import CONFIG
from benchmarks.timing import Spread, Timing, interleaved, ratio
from mmdet.config.resolve import load_config
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import read_image
from mmdet.engine import DetRunner
from mmdet.registry import DATASETS

PARITY = 'same random numbers: boxes 0.001 pixels, mean of the photo 0.45 gray levels, each photo 1.2'
LINEAR = Target(0.9)


def run(settings: Settings) -> list[Row]:
    """Speed of one core, share of bare decoding, scaling over loader workers, speed of a device."""
    cfg = load_config(CONFIG, {'model.backbone.weights': None}, settings.data_root)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    count = min(len(dataset), 4 if settings.quick else 400)
    torch.set_num_threads(1)
    faults = check(dataset, min(count, CHECKED))
    times = interleaved(
        {
            'ours': our_pass(dataset, count),
            'reference': baseline_pass(dataset, count),
            'decoding': decoding_pass(dataset, count),
        },
        settings.repeats,
        torch.device('cpu'),
    )
    torch.set_num_threads(settings.threads)
    speed = Row(
        'data',
        'training pipeline, one core',
        'images/s',
        Target(240),
        ours=times['ours'].rate(count),
        reference=times['reference'].rate(count),
        ratio=ratio(times['reference'], times['ours']),
        peak_mib=peaks(times),
        faults=faults,
        parity=PARITY,
        note=f'{count} photos a round; bare decoding {times["decoding"].rate(count).median:.0f} images/s',
    )
    share = Row(
        'data',
        'share of bare JPEG decoding',
        'x',
        Target(0.65),
        ours=ratio(times['decoding'], times['ours']),
        reference=ratio(times['decoding'], times['reference']),
        ratio=speed.ratio,
        faults=faults,
        parity=PARITY,
    )
    return [speed, share, scaling(settings, cfg, times['ours'].rate(count)), device_row(settings, cfg)]


def our_pass(dataset: CocoDataset, count: int) -> Callable[[], None]:
    """All photos once; other draws in each pass."""
    passes = itertools.count()

    def run() -> None:
        first = next(passes) * count
        for row in range(count):
            dataset[row, first + row]

    return run


def baseline_pass(dataset: CocoDataset, count: int) -> Callable[[], None]:
    """The same photos and draws through the baseline pipeline."""
    passes = itertools.count()

    def run() -> None:
        first = next(passes) * count
        for row in range(count):
            given: Any = dataset._results(row, first + row)
            boxes, labels = given['annotations']
            baseline_pipeline(given['img_path'], boxes, labels, given['rng'])

    return run


def decoding_pass(dataset: CocoDataset, count: int) -> Callable[[], None]:
    """Decoding and nothing else, not even reading: the files are in memory."""
    files = [np.frombuffer(given_path(dataset, row).read_bytes(), np.uint8) for row in range(count)]

    def run() -> None:
        for file in files:
            cv2.imdecode(file, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)

    return run


def given_path(dataset: CocoDataset, row: int) -> Any:
    """File of a row."""
    return dataset._results(row, row)['img_path']


def check(dataset: CocoDataset, count: int) -> list[str]:
    """Compare samples of ours with those of the reference: the same draws must give the same picture."""
    faults, differences = [], []
    for row in range(count):
        given: Any = dataset._results(row, row)
        photo = read_image(given['img_path'], given['ori_shape'])
        boxes, labels = given['annotations']
        theirs = reference_sample(photo, boxes, labels, given['rng'], contrast_first=bool(row % 2))
        ours: Any = dataset[row, row]
        img, boxes = ours['img'].numpy().transpose(1, 2, 0), ours['bboxes'].numpy()
        name = f'image {given["img_id"]}'
        if img.shape != (300, 300, 3) or img.dtype != np.uint8:
            faults.append(f'{name} is {img.dtype} {img.shape}, not uint8 (300, 300, 3)')
            continue
        if (boxes < 0).any() or (boxes > 300).any():
            faults.append(f'{name} has boxes outside the image')
        if ours['labels'].tolist() != theirs.labels or not np.allclose(
            boxes, theirs.bboxes, rtol=0, atol=1e-3
        ):
            faults.append(f'{name} has other boxes or labels')
        of_canvas, of_photo = theirs.differences(img, photo.shape[:2])
        if of_canvas > 0.5 or of_photo > MOST_DIFFERENCE:
            faults.append(f'{name} differs by {of_photo:.2f} gray levels, its canvas by {of_canvas:.2f}')
        differences.append(of_photo)
    if np.mean(differences) > MEAN_DIFFERENCE:
        faults.append(f'{count} photos differ by {np.mean(differences):.2f} gray levels on average')
    return faults


def scaling(settings: Settings, cfg: Any, one_core: Spread) -> Row:
    """Images/s of loader workers over as many times the speed of one core."""
    workers = settings.workers
    row = Row('data', f'{workers} loader workers / {workers} x one core', 'x', LINEAR)
    cores = len(os.sched_getaffinity(0))
    if cores < workers:
        return row._replace(note=f'needs {workers} cores, here are {cores}')
    loader = cfg.train_dataloader.to_dict()
    loader.update(num_workers=workers, batch_size=settings.batch_size or 8)
    loader['sampler']['times'] = 1000
    batches = iter(DetRunner.build_dataloader(loader))
    measured = 4 * workers
    for _ in range(4 * workers):  # every worker has started, and the queue has its usual length
        next(batches)
    seconds = []
    for _ in range(settings.repeats):
        start = time.perf_counter()
        for _ in range(measured):
            next(batches)
        seconds.append(time.perf_counter() - start)
    rate = Timing(tuple(seconds), None, None).rate(measured * loader['batch_size'])
    share = Spread(*(value / (workers * one_core.median) for value in rate))
    return row._replace(ours=share, note=f'{rate.median:.0f} images/s with {workers} workers')

"""Decoding and drawing a batch on the device, beside one core that does the work of a data worker."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.parity import CHECKED, MEAN_DIFFERENCE, MOST_DIFFERENCE
from benchmarks.report import Row
from benchmarks.settings import Settings
from benchmarks.step import peaks
from benchmarks.timing import interleaved, ratio
from mmdet.datasets import CocoDataset, collate_detection
from mmdet.models import DetDataPreprocessor
from mmdet.models.device_decoding import draw_images
from mmdet.registry import DATASETS

BATCH = 64
ROW = Row(
    'data',
    f'decoding and drawing on the device, batch {BATCH}',
    'images/s',
    parity='same draws, drawn by the worker and by the device: 0.45 gray levels on average, each photo 1.2',
)


def device_row(settings: Settings, cfg: Any) -> Row:
    """Files in memory to network input, on the device; checked on a CPU, too, but timed on a GPU only.

    The reference is one core that reads, decodes and draws the same photos.
    """
    here, there = (DATASETS.build(_decoding(cfg, where)) for where in ('worker', 'device'))
    row = ROW._replace(faults=check(here, there, min(len(here), CHECKED), settings.device))
    if not (settings.on_gpu or settings.quick):
        return row._replace(note='no GPU in this run')
    count = 4 if settings.quick else BATCH
    draws = [(number % len(here), number) for number in range(count)]
    data = collate_detection([there[draw] for draw in draws])
    preprocessor = DetDataPreprocessor(mean=[123.675, 116.28, 103.53], std=[1, 1, 1]).to(settings.device)
    contenders: dict[str, Callable[[], Any]] = {
        'ours': lambda: preprocessor(data),
        'reference': lambda: [here[draw] for draw in draws],
    }
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=2)
    return row._replace(
        ours=times['ours'].rate(count),
        reference=times['reference'].rate(count),
        ratio=ratio(times['reference'], times['ours']),
        peak_mib=peaks(times),
        note='from files in memory; the reference is one core of a data worker',
    )


def _decoding(cfg: Any, where: str) -> dict[str, Any]:
    dataset: dict[str, Any] = cfg.train_dataloader.dataset.to_dict()
    *before, pack = dataset['pipeline']
    return {**dataset, 'pipeline': [*before, {**pack, 'decode': where}]}


def check(here: CocoDataset, there: CocoDataset, count: int, device: torch.device) -> list[str]:
    """Compare the same draws of two data sets that differ in where they decode."""
    faults, differences = [], []
    for number in range(count):
        sample: Any = here[number, number]
        img_id, encoded = sample['img_id'], there[number, number]['img']
        drawn = draw_images(encoded, device, [img_id])[0].cpu()
        differences.append((drawn - sample['img'].float()).abs().mean().item())
        if differences[-1] > MOST_DIFFERENCE:
            faults.append(f'image {img_id} differs by {differences[-1]:.2f} gray levels')
    mean = sum(differences) / count
    if mean > MEAN_DIFFERENCE:
        faults.append(f'{count} photos differ by {mean:.2f} gray levels on average')
    return faults

"""Compare checkpoints and logs bit for bit."""

import json
from pathlib import Path
from typing import Any

import torch

from mmdet.checkpoint.io import load_checkpoint

CLOCK = ('time', 'data_time', 'memory', 'images/s', 'eta')  # of a process, never the same twice
NOT_COMPARED = {'.meta.time', '.meta.cfg', *(f'.log.train/{name}' for name in CLOCK)}


def flatten(value: Any, place: str = '') -> dict[str, Any]:
    """Everything inside nested dicts and lists, by its place; without what the clock and the machine say."""
    if place in NOT_COMPARED:
        return {}
    if not isinstance(value, (dict, list)):
        return {place: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: part for key, item in items for name, part in flatten(item, f'{place}.{key}').items()}


def differences(one: Any, other: Any) -> list[str]:
    """Places where two nested values differ by a bit; NaN is equal to itself."""
    left, right = flatten(one), flatten(other)
    return [name for name in left | right if not _same(left.get(name), right.get(name))]


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return repr(one) == repr(other)
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(*(tensor.detach().flatten().view(torch.uint8) for tensor in (one, other)))


def assert_same_checkpoints(one: Path, other: Path) -> None:
    """Two files, or all files of two folders: weights, optimizer, schedules, counts, generators, log."""
    files = [sorted(path.glob('*.pth')) if path.is_dir() else [path] for path in (one, other)]
    if one.is_dir():
        assert [file.name for file in files[0]] == [file.name for file in files[1]]
    for left, right in zip(*files, strict=True):
        assert differences(load_checkpoint(left), load_checkpoint(right)) == [], left.name


def scalars_of(work_dir: Path) -> dict[tuple[int, bool], dict[str, Any]]:
    """What all runs in a folder have logged by (step, whether it is of training); later ones count."""
    lines: dict[tuple[int, bool], dict[str, Any]] = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json'), key=lambda file: file.stat().st_mtime_ns):
        for line in map(json.loads, file.read_text().splitlines()):
            if not any(name.startswith('grad_norm/') for name in line):
                kept = {name: value for name, value in line.items() if name not in CLOCK}
                lines[line['step'], 'loss' in line] = kept
    return lines

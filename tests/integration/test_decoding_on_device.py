"""Trainings whose images are decoded on the device, here a CPU."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from mmdet.commands import browse_dataset
from tests.helpers.tiny_run import (
    PLAIN,
    as_arguments,
    be_quick,
    options_of,
    small_config,
    train,
    without_evaluation,
    write_sets,
)

OPTION = 'train_dataloader.dataset.pipeline.4.decode'  # of ssd_tiny
SKIP = {'train_dataloader__dataset__on_bad_image': 'skip'}
LOSS_TOLERANCE = 1e-2  # relative; workers round each pixel to whole gray levels, the device does not


def write_mixed_set(tiny_coco: Callable[..., Path], root: Path) -> Path:
    """Six images: one of them a PNG, one cut off."""
    write_sets(tiny_coco, root)
    files = [root / f'train/{number}.jpg' for number in range(1, 7)]
    files[1].write_bytes(cv2.imencode('.png', cv2.imread(str(files[1])))[1].tobytes())
    files[4].write_bytes(files[4].read_bytes()[:-20])
    return root


def losses_of(root: Path, work_dir: Path, **options: Any) -> list[dict[str, float]]:
    """The losses of each step of a training."""
    batches = {
        'train_cfg__max_iters': 2,
        'train_dataloader__batch_size': 3,
        'train_dataloader__num_workers': 1,
    }
    train(without_evaluation(small_config(root, work_dir, **SKIP, **batches, **options)))
    (file,) = work_dir.rglob('scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: line[key] for key in line if key.startswith('loss')} for line in lines if 'loss' in line]


def test_a_training(
    tiny_coco: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    be_quick(monkeypatch)
    root = write_mixed_set(tiny_coco, tmp_path / 'set')
    worker = losses_of(root, tmp_path / 'worker')
    device = losses_of(root, tmp_path / 'device', **{OPTION: 'device'})
    assert len(worker) == len(device) == 2
    for ours, theirs in zip(device, worker, strict=True):
        assert ours == pytest.approx(theirs, rel=LOSS_TOLERANCE)
    assert device != worker  # the option was not lost on the way
    said = capfd.readouterr()
    assert 'could not be decoded' not in said.out + said.err
    listed = [json.loads((tmp_path / where / 'bad_data.json').read_text()) for where in ('worker', 'device')]
    assert listed[0] == listed[1]
    assert [image['img_id'] for image in listed[1]['images']] == [5]


def test_browsing_shows_what_the_device_draws(tiny_coco: Callable[..., Path], tmp_path: Path) -> None:
    root = write_sets(tiny_coco, tmp_path / 'set')
    shown = []
    for decode in ('worker', 'device'):
        options = as_arguments({**options_of(), OPTION: decode})
        out = tmp_path / decode
        typed = [str(PLAIN), '--data-root', str(root), '--out-dir', str(out), '--number', '3', *options]
        browse_dataset.main(typed)
        shown.append({file.name: cv2.imread(str(file)).astype(int) for file in out.glob('[0-9]*.png')})
    assert len(shown[0]) == 3
    assert shown[0].keys() == shown[1].keys()
    for name, picture in shown[0].items():
        assert abs(picture - shown[1][name]).mean() < 1

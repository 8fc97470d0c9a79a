"""The units of the proof table: real processes on a few generated photos."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdet.checkpoint.io import load_checkpoint
from mmdet.commands.run_rows import METRICS, keep_row, main, run, student_numbers
from mmdet.distributed.signals import StoppedBySignal
from mmdet.registry import MODELS
from tests.helpers.tiny_run import (
    DISTILLED,
    NARROW,
    ROOT,
    SHORT,
    SPLITS,
    as_arguments,
    save_teacher,
    small_config,
    write_sets,
)

TEACHER = ROOT / 'configs_dev/teachers/resnet18_tiny.py'
OPTIONS = {**SPLITS, **NARROW, **SHORT}


def distilled_model(**kd_loc: Any) -> Any:
    cfg = Config.fromfile(DISTILLED)
    cfg.model.distiller.kd_loc.update(kd_loc)
    return cfg.model


def test_rows_of_a_distilled_config() -> None:
    whole = distilled_model().distiller
    rows = {}
    for row in ('plain', 'cls', 'loc', 'loc_kdloc', 'all'):
        model = distilled_model()
        keep_row(model, row)
        rows[row] = model.distiller
    assert rows['plain'] is None
    assert (rows['cls'].kd_cls, rows['cls'].kd_loc) == (whole.kd_cls, None)
    assert (rows['loc'].kd_cls, rows['loc'].teacher) == (None, None)
    assert rows['loc'].kd_loc == whole.kd_loc | {'levels': ('pixels',), 'pool_sizes': (4,)}
    assert (rows['loc_kdloc'].kd_cls, rows['loc_kdloc'].kd_loc) == (None, whole.kd_loc)
    assert rows['loc_kdloc'].teacher == whole.teacher
    assert rows['all'] == whole


def test_the_pixel_level_keeps_its_own_size_and_weight() -> None:
    model = distilled_model(levels=('stem', 'pixels'), pool_sizes=(8, 2), loss_weight=(0.3, 0.7))
    keep_row(model, 'loc')
    assert (model.distiller.kd_loc.pool_sizes, model.distiller.kd_loc.loss_weight) == ((2,), 0.7)


@pytest.mark.parametrize(('row', 'missing'), [('cls', 'kd_cls'), ('loc', 'kd_loc'), ('all', 'kd_cls')])
def test_a_row_that_the_config_does_not_have(row: str, missing: str) -> None:
    model = distilled_model()
    model.distiller[missing] = None
    with pytest.raises(ValueError, match=f'row {row} needs model.distiller.{missing}'):
        keep_row(model, row)
    model = distilled_model(levels=('stem',), pool_sizes=(8,))
    with pytest.raises(ValueError, match='row loc needs the level pixels'):
        keep_row(model, 'loc')


@pytest.fixture
def set_root(tiny_coco: Callable[..., Path], tmp_path: Path) -> Path:
    return write_sets(tiny_coco, tmp_path / 'set')


def arguments(root: Path, out_dir: Path, *more: str, **options: Any) -> list[str]:
    typed = as_arguments({**OPTIONS, **options})
    return [
        str(DISTILLED),
        '--data-root',
        str(root),
        '--out-dir',
        str(out_dir),
        '--seeds',
        '3',
        *typed,
        *more,
    ]


def test_a_unit_with_its_teacher(set_root: Path, tmp_path: Path) -> None:
    out_dir = tmp_path / 'rows'
    teacher_options = [
        'train_cfg.max_iters=2',
        'train_dataloader.num_workers=0',
        'val_dataloader.num_workers=0',
    ]
    command = arguments(set_root, out_dir, '--rows', 'all', '--teacher-config', str(TEACHER))
    command += ['--teacher-options', *teacher_options]
    tool = [sys.executable, str(ROOT / 'tools/analysis/run_rows.py')]
    done = subprocess.run(
        [*tool, *command],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((out_dir / 'all_seed3.json').read_text())
    assert (found['row'], found['seed'], found['data']) == ('all', 3, 'set')
    assert (found['train_images'], found['val_images'], found['iterations'], found['batch_size']) == (
        6,
        3,
        3,
        2,
    )
    assert tuple(found['metrics']) == METRICS
    assert len(found['ap_per_iou']) == 10
    mean = sum(found['ap_per_iou'].values()) / 10
    assert mean == pytest.approx(found['metrics']['AP'], abs=1e-12)
    assert found['errors']['ap50'] == pytest.approx(found['metrics']['AP50'], abs=1e-9)
    assert set(found['losses']) == {'loss', 'loss_cls', 'loss_bbox', 'loss_kd_cls', 'loss_kd_loc'}
    teacher = load_checkpoint(out_dir / 'work/teacher_seed3/model_best.pth.tar')
    assert found['teacher']['top1'] == pytest.approx(teacher['metrics']['top1'])
    assert found['teacher']['crops'] == 6
    assert found['student']['latency_ms'] > 0
    assert len(json.dumps(found)) < 6000

    before = (out_dir / 'all_seed3.json').read_bytes()
    again = main(command)  # in this process: nothing is left to run
    assert again is None
    assert (out_dir / 'all_seed3.json').read_bytes() == before
    with pytest.raises(ValueError, match='choose another --out-dir'):
        main([*command, '--cfg-options', 'train_cfg.max_iters=4'])


def test_a_unit_that_was_begun_otherwise_and_one_that_fails(set_root: Path, tmp_path: Path) -> None:
    out_dir = tmp_path / 'rows'
    (out_dir / 'work').mkdir(parents=True)
    (out_dir / 'work/plain_seed3.py').write_text('model = None\n')
    with pytest.raises(ValueError, match='is another config'):
        main(arguments(set_root, out_dir, '--rows', 'plain'))
    with pytest.raises(ChildProcessError, match='teacher file '):
        main(arguments(set_root, tmp_path / 'other', '--rows', 'cls', '--teacher', str(tmp_path / 'none')))
    assert not list(out_dir.glob('*.json'))


def test_size_of_the_student(set_root: Path, tmp_path: Path) -> None:
    cfg = small_config(set_root, tmp_path / 'work', save_teacher(tmp_path / 'teacher.pth.tar'))
    model = MODELS.build(cfg.model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'student.pth')
    macs = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, _, out: macs.append(layer.weight.numel() * out.shape[2] * out.shape[3])
            )
    model.eval()(torch.zeros(1, 3, 96, 96), mode='tensor')
    found = student_numbers(cfg, tmp_path / 'student.pth')
    assert cfg.model.distiller.teacher is not None  # the caller's config stays as it is
    assert found['gmacs'] == pytest.approx(sum(macs) / 1e9)
    assert found['parameters'] == sum(parameter.numel() for parameter in model.parameters())
    assert found['latency_ms'] > 0


def test_a_training_that_is_told_to_end_saves_first(tmp_path: Path) -> None:
    """SIGTERM of the tool alone, as a scheduler sends it: the training ends before the tool does."""
    training = (
        'import pathlib, signal, sys, time\n'
        'def save(*_):\n'
        '    time.sleep(0.5)\n'
        f'    pathlib.Path({str(tmp_path / "saved")!r}).touch()\n'
        '    sys.exit(143)\n'
        'signal.signal(signal.SIGTERM, save)\n'
        f'pathlib.Path({str(tmp_path / "ready")!r}).touch()\n'
        'while True: time.sleep(0.05)\n'
    )

    def end() -> None:
        while not (tmp_path / 'ready').exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=end, daemon=True).start()
    with pytest.raises(StoppedBySignal) as stopped:
        run([sys.executable, '-c', training], tmp_path / 'log')
    assert stopped.value.status == 143
    assert (tmp_path / 'saved').exists()
    assert signal.getsignal(signal.SIGTERM) == before

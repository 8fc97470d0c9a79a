"""Runs of rows on a few generated photos; the tools run in this process."""

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmdet.analysis import rows
from mmdet.analysis.judge import METRICS
from mmdet.checkpoint.io import load_checkpoint
from mmdet.commands.run_rows import main
from mmdet.config.schedule import input_size
from mmdet.distributed.signals import StoppedBySignal
from tests.helpers.tiny_run import (
    CLASSES,
    DISTILLED,
    NARROW,
    ROOT,
    SHORT,
    SPLITS,
    as_arguments,
    save_teacher,
)

TEACHER = ROOT / 'configs_dev/teachers/resnet18_tiny.py'


def arguments(root: Path, out_dir: Path, *more: str, **options: Any) -> list[str]:
    typed = as_arguments({**SPLITS, **NARROW, **SHORT, **options})
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


def test_a_row_with_its_teacher(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out_dir, tools = tmp_path / 'rows', []

    def run_tool(command: Sequence[str], log: Path, processes: int = 1) -> None:
        tools.append(command[2])
        import_module(f'mmdet.commands.{tools[-1]}').main(command[3:])

    monkeypatch.setattr(rows, 'run_tool', run_tool)
    command = arguments(root, out_dir, '--rows', 'all', '--teacher-config', str(TEACHER))
    workers = [f'{split}_dataloader.num_workers=0' for split in ('train', 'val')]
    command += ['--teacher-options', 'train_cfg.max_iters=2', *workers]
    main(command)
    assert tools == ['train', 'train', 'test']
    found = json.loads((out_dir / 'all_seed3.json').read_text())
    expected = {
        'row': 'all', 'seed': 3, 'data': 'set', 'train_images': 6, 'val_images': 3, 'iterations': 3,
        'batch_size': 2,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert tuple(found['metrics']) == METRICS
    assert sum(found['ap_per_iou'].values()) / 10 == pytest.approx(found['metrics']['AP'], abs=1e-12)
    assert found['errors']['ap50'] == pytest.approx(found['metrics']['AP50'], abs=1e-9)
    assert set(found['losses']) == {'loss', 'loss_cls', 'loss_bbox', 'loss_kd_cls', 'loss_kd_loc'}
    teacher = load_checkpoint(out_dir / 'work/teacher_seed3/model_best.pth.tar')
    assert found['teacher']['top1'] == pytest.approx(teacher['metrics']['top1'])
    assert found['teacher']['crops'] == 6
    assert found['student'].keys() == set(rows.OF_STUDENT)
    assert (out_dir / 'work/all_seed3/report/report.html').is_file()

    main(command)  # nothing is left to run
    assert len(tools) == 3
    with pytest.raises(ValueError, match='choose another folder'):
        main([*command, '--cfg-options', 'train_cfg.max_iters=4'])


def test_a_result_of_another_teacher_data_set_or_precision_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    metrics = {'metrics': {'AP': 0.1, 'AP50': 0.2}}
    monkeypatch.setattr(rows, 'train_and_test', lambda row, *_: made.append(row) or metrics)
    for name, content in (('one', b'1'), ('same', b'1'), ('other', b'2')):
        (tmp_path / name).write_bytes(content)
    one, same, other = (['--teacher', str(tmp_path / name)] for name in ('one', 'same', 'other'))
    out_dir, copied = tmp_path / 'rows', tmp_path / 'copy/set'
    out_dir.mkdir()
    command = arguments(root, out_dir, '--rows', 'all')
    main([*command, *one])
    shutil.copytree(root, copied)
    main([*command, *same, '--data-root', str(copied)])  # equal content in other places
    refused = {
        r'amp False, not True': [*one, '--amp'],
        r'teacher\.sha256 \w+, not \w+': other,
        r'teacher_config None, not .*tiny\.py': ['--teacher-config', str(TEACHER)],
        r'data set, not elsewhere': [*one, '--data-root', str(shutil.copytree(root, tmp_path / 'elsewhere'))],
    }
    for told, more in refused.items():
        with pytest.raises(ValueError, match=f'was made with {told}: choose another folder'):
            main([*command, *more])
    annotations = copied / 'annotations/train.json'
    annotations.write_text(annotations.read_text() + '\n')
    with pytest.raises(ValueError, match=r'made with annotations\.train \w+, not'):
        main([*command, *one, '--data-root', str(copied)])
    assert made == ['all']

    old = json.loads((out_dir / 'all_seed3.json').read_text())
    for name in ('amp', 'annotations', 'data', 'teacher_config', 'teacher_options', 'teacher'):
        del old[name]
    (out_dir / 'all_seed3.json').write_text(json.dumps(old))
    main([*command, *other, '--amp'])  # not known, and so not refused
    main([*arguments(root, out_dir, '--rows', 'plain'), *one])
    main([*arguments(root, out_dir, '--rows', 'plain'), *other])  # it has no teacher
    assert made == ['all', 'plain']


def test_a_teacher_of_other_options_and_a_training_in_another_precision_are_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools: list[Sequence[str]] = []

    def run_tool(command: Sequence[str], log: Path, processes: int = 1) -> None:
        tools.append(command)
        cfg = Config.fromfile(command[3])
        save_teacher(Path(cfg.default_hooks.save_teacher.file), classes=CLASSES[1:])

    monkeypatch.setattr(rows, 'run_tool', run_tool)
    args = argparse.Namespace(
        config=DISTILLED, cfg_options={**SPLITS, 'classes': CLASSES[1:], 'input_size': [64, 32]},
        data_root=root, teacher=None, teacher_config=TEACHER, teacher_options={}, amp=False,
        out_dir=tmp_path / 'rows', processes=1,
    )  # fmt: skip
    student = rows.load_row('all', args)
    file = rows.train_teacher(3, student, args)
    cfg = Config.fromfile(tools[0][3])
    assert input_size(cfg) == [64, 32]
    assert cfg.train_dataloader.dataset.metainfo.classes == CLASSES[1:]
    assert rows.train_teacher(3, student, args) == file
    for changes in ({'amp': True}, {'teacher_options': {'train_cfg.max_iters': 7}}):
        other = argparse.Namespace(**{**vars(args), **changes})
        with pytest.raises(ValueError, match=r'teacher_seed3\.py is another config or precision: choose'):
            rows.train_teacher(3, student, other)
    assert len(tools) == 1
    own = argparse.Namespace(**{**vars(args), 'teacher_options': {'input_size': 32}})
    own.out_dir = tmp_path / 'own'
    rows.train_teacher(3, student, own)
    assert input_size(Config.fromfile(tools[1][3])) == [32, 32]


def test_a_test_that_scores_nothing_is_no_row(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / 'work/plain_seed3/report/report.json'  # of an earlier test
    old.parent.mkdir(parents=True)
    old.write_text('{}')
    monkeypatch.setattr(rows, 'run_tool', lambda *_: None)
    with pytest.raises(ValueError, match=r'nothing was scored: see .*test\.log, and val_ann'):
        main(arguments(root, tmp_path, '--rows', 'plain'))
    assert not list(tmp_path.glob('*.json'))


def test_a_teacher_that_is_not_there_ends_the_series_before_its_first_row(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'row all: teacher file .*none\.pth not found'):
        main(arguments(root, tmp_path / 'rows', '--rows', 'plain', 'all', '--teacher', 'none.pth'))
    assert not (tmp_path / 'rows').exists()


def test_how_far_a_series_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'plain_seed0.json').touch()  # is there already, and says nothing of how long one takes
    clock = iter(range(0, 1000, 90))
    monkeypatch.setattr('time.monotonic', lambda: next(clock))
    monkeypatch.setattr(rows, 'load_row', lambda *_: None)
    monkeypatch.setattr(rows, 'run_row', lambda *_: {'metrics': {'AP': 0.1, 'AP50': 0.2}})
    main(['c.py', '--rows', 'plain', 'all', '--seeds', '0', '1', '--out-dir', str(tmp_path)])
    said = capsys.readouterr().out.splitlines()
    assert said[2:6] == [
        'all, seed 0 (2 of 4)',
        'all, seed 0: AP 0.100, AP50 0.200',
        '0:01:30 so far, about 0:03:00 left',
        'plain, seed 1 (3 of 4)',
    ]
    assert [line for line in said if 'left' in line][1:] == ['0:03:00 so far, about 0:01:30 left']


def test_a_row_that_was_begun_otherwise_and_a_tool_that_fails(root: Path, tmp_path: Path) -> None:
    out_dir = tmp_path / 'rows'
    (out_dir / 'work').mkdir(parents=True)
    (out_dir / 'work/plain_seed3.py').write_text('model = None\n')
    with pytest.raises(ValueError, match='is another config'):
        main(arguments(root, out_dir, '--rows', 'plain'))
    assert not list(out_dir.glob('*.json'))
    with pytest.raises(ChildProcessError, match=r'The end of .*log:\nwhy'):
        rows.run_tool([sys.executable, '-c', 'raise SystemExit("why")'], tmp_path / 'log')


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
        rows.run_tool([sys.executable, '-c', training], tmp_path / 'log')
    assert stopped.value.status == 143
    assert (tmp_path / 'saved').exists()
    assert signal.getsignal(signal.SIGTERM) == before

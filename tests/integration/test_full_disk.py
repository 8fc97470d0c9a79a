"""Disks that are full or may not be written: what is said, what is left, and what goes on."""

import ctypes
import errno
import logging
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from mmdet.checkpoint.io import load_checkpoint
from mmdet.cli import run_main
from mmdet.engine import DetRunner
from mmdet.engine.state import choose_checkpoint
from tests.helpers.forked import Fate, finish, said, start, train_config
from tests.helpers.tiny_run import be_quick, train
from tests.unit.engine.conftest import evaluating, make_toy_config

NO_NAMESPACE = 77  # exit status
NEW_MOUNTS = 0x20000  # CLONE_NEWNS
SIZE = 40_000  # of a toy whose checkpoints have about a megabyte


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


def wide(folder: Path, **keys: Any) -> Config:
    cfg = make_toy_config(folder, **keys)
    cfg.default_hooks.checkpoint.update(interval=2, by_epoch=False)
    cfg.model.width = SIZE
    return cfg


def train_on(cfg: Config, options: str, out: Path) -> None:
    """Train in a file system that this process alone sees, and copy what is left."""
    folder = Path(cfg.work_dir)
    folder.mkdir()
    if ctypes.CDLL(None).unshare(NEW_MOUNTS):
        os._exit(NO_NAMESPACE)
    for words in (['--make-rprivate', '/'], ['-t', 'tmpfs', '-o', options, 'small', str(folder)]):
        if subprocess.run(['mount', *words], check=False).returncode:
            os._exit(NO_NAMESPACE)
    try:
        train_config(cfg)
    finally:
        shutil.copytree(folder, out, symlinks=True)


def run_on(cfg: Config, options: str, out: Path) -> str:
    """What is said by a process that fails to train there; the test is skipped where none can be mounted."""
    fate = Fate(Path(cfg.work_dir))
    status = finish(start(train_on, cfg, options, out, fate=fate))
    if status == NO_NAMESPACE:
        pytest.skip('no file system can be mounted here')
    assert status == 1, said(fate)
    return said(fate)


def check_what_is_left(folder: Path, last: str) -> None:
    assert choose_checkpoint(folder) == (folder / 'latest.pth', [])
    assert (folder / 'latest.pth').readlink() == Path(last)
    assert load_checkpoint(folder / last)['meta']['iter'] > 0
    assert not list(folder.glob('.*'))


def check_message(text: str, file: Path, reason: str) -> None:
    (line,) = re.findall(r'^error: .*$', text, re.MULTILINE)
    assert re.match(rf'error: {file} cannot be written: {reason}; [\d.,]+ MB is free there', line)
    for words in ('--work-dir', 'max_keep_ckpts', '--resume'):
        assert words in line


def test_a_disk_that_is_full_within_a_checkpoint(tmp_path):
    """The second checkpoint has no room: the first stays, and the run can go on from it elsewhere."""
    text = run_on(wide(tmp_path / 'run'), 'size=3m', tmp_path / 'left')
    check_message(text, tmp_path / 'run/iter_4.pth', 'No space left on device')
    check_what_is_left(tmp_path / 'left', 'iter_2.pth')
    assert train(wide(tmp_path / 'left', resume=True)).iter == 10


@pytest.mark.parametrize('limit', [50_000, 1_000_000])
def test_a_file_that_may_not_grow(tmp_path, limit):
    """No room from the first checkpoint on, wherever the writer stands."""
    fate = Fate(tmp_path / 'run', full_beyond=limit)
    assert finish(start(train_config, wide(fate.folder), fate=fate)) == 1, said(fate)
    check_message(said(fate), fate.folder / 'iter_2.pth', 'File too large')
    assert not list(fate.folder.glob('.*'))
    assert not list(fate.folder.glob('*.pth'))


class FullLogs(Hook):
    """From the second step to the fifth no log has room."""

    priority = 'VERY_HIGH'

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        (file,) = (one for one in runner.logger.handlers if isinstance(one, logging.FileHandler))
        if runner.iter == 1:
            scalars = Path(runner.log_dir, 'vis_data/scalars.json')
            scalars.rename(scalars.with_name('first.json'))
            scalars.symlink_to('/dev/full')
            self.room, file.stream = file.stream, open('/dev/full', 'w')  # noqa: PTH123, SIM115
        if runner.iter == 5:
            file.stream = self.room


def test_logs_without_room_cost_no_checkpoint(tmp_path, monkeypatch, capfd):
    """Scalars, text, the list of bad data, the picture of curves, TensorBoard as it is closed."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    cfg = evaluating(make_toy_config(tmp_path / 'run', log_level='INFO'), [0.5, 0.6])
    cfg.default_hooks.curves = {'type': 'CurvesHook'}
    cfg.train_dataloader.dataset.bad = [3]
    runner = DetRunner.from_cfg(cfg)
    runner.register_hook(FullLogs())
    monkeypatch.setattr('mmdet.engine.hooks.bad_data.write_bad_data', fail)
    monkeypatch.setattr('mmdet.visualization.curves.plot_curves', fail)
    monkeypatch.setattr('mmengine.visualization.TensorboardVisBackend.close', fail)
    runner.train()
    check_what_is_left(tmp_path / 'run', 'epoch_2.pth')
    assert load_checkpoint(tmp_path / 'run/latest.pth')['meta']['iter'] == 10
    told = capfd.readouterr()
    text = told.out + told.err
    (log,) = (tmp_path / 'run').glob('*/*.log')
    files = ('the log of scalars', log, tmp_path / 'run/bad_data.json', tmp_path / 'run/curves.png')
    for file in files:  # each once
        assert len(re.findall(rf'WARNING - {file} cannot be written: .*No space left on device', text)) == 1
    assert 'Logging error' not in text and 'Traceback' not in text
    assert 'Epoch(train) [2][5/5]' in log.read_text()  # there is room again


def test_a_work_dir_that_cannot_be_written(tmp_path, capsys):
    """Told before anything is read or trained: below a file, and in a file system that is read-only."""
    (tmp_path / 'file').write_text('')
    with pytest.raises(SystemExit):
        run_main(lambda: train(wide(tmp_path / 'file/run')))
    texts = {'file/run': ('Not a directory', capsys.readouterr().err)}
    texts['run'] = 'Read-only file system', run_on(wide(tmp_path / 'run'), 'ro', tmp_path / 'left')
    for folder, (reason, text) in texts.items():
        assert f'error: the work dir {tmp_path}/{folder} cannot be written: {reason}. Choose' in text
        assert '--work-dir DIR' in text
        assert 'Epoch(train)' not in text

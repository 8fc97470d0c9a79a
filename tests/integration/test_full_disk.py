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
from mmengine.logging import MMLogger

from mmdet.checkpoint.io import load_checkpoint
from mmdet.cli import run_main
from mmdet.engine import DetRunner
from mmdet.engine.logs import warn_of_lost_lines
from mmdet.engine.state import choose_checkpoint
from mmdet.visualization.curves import read_curves
from tests.helpers.forked import Fate, finish, said, start, start_server, train_config
from tests.helpers.tiny_run import be_quick, train
from tests.unit.engine.conftest import toy_config, with_evaluation  # noqa: F401 (fixtures)

NO_NAMESPACE = 77  # exit status
NEW_MOUNTS = 0x20000  # CLONE_NEWNS
SIZE = 40_000  # of a toy whose checkpoints have about a megabyte


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


@pytest.fixture
def wide(toy_config, tmp_path):  # noqa: F811
    def make(folder: str = 'run', **keys: Any) -> Config:
        cfg = toy_config(work_dir=str(tmp_path / folder), **keys)
        cfg.default_hooks.checkpoint.update(interval=2, by_epoch=False)
        cfg.model.width = SIZE
        return cfg

    return make


def mounted(options: list[str], folder: str) -> None:
    """Mount something that this process alone sees, or end where that is not allowed."""
    if ctypes.CDLL(None).unshare(NEW_MOUNTS):
        os._exit(NO_NAMESPACE)
    for words in (['--make-rprivate', '/'], [*options, folder]):
        if subprocess.run(['mount', *words], check=False).returncode:
            os._exit(NO_NAMESPACE)


def train_on_a_small_disk(cfg: Config, size: str, out: str) -> None:
    """Train in a file system of a size, and copy what is left."""
    Path(cfg.work_dir).mkdir()
    mounted(['-t', 'tmpfs', '-o', f'size={size}', 'small'], cfg.work_dir)
    try:
        train_config(cfg)
    finally:
        shutil.copytree(cfg.work_dir, out, symlinks=True)


def train_where_nothing_may_be_written(cfg: Config) -> None:
    """Train in a folder that is mounted read-only."""
    Path(cfg.work_dir).mkdir()
    mounted(['-t', 'tmpfs', '-o', 'ro', 'small'], cfg.work_dir)
    train_config(cfg)


def check_what_is_left(folder: Path, last: str) -> None:
    assert choose_checkpoint(folder) == (folder / 'latest.pth', [])
    assert (folder / 'latest.pth').readlink() == Path(last)
    assert load_checkpoint(folder / last)['meta']['iter'] > 0
    assert not list(folder.glob('.*'))


def check_message(text: str, file: Path, reason: str) -> None:
    (line,) = re.findall(r'^error: .*$', text, re.MULTILINE)
    assert line.startswith(f'error: {file} cannot be written: {reason}; ')
    assert re.search(r'[\d.,]+ MB is free there', line)
    for words in ('--work-dir', 'max_keep_ckpts', '--resume'):
        assert words in line


def test_a_disk_that_is_full_within_a_checkpoint(wide, tmp_path):
    """The second checkpoint has no room: the first stays, and the run can go on from it elsewhere."""
    start_server()
    fate = Fate(tmp_path / 'run')
    process = start(train_on_a_small_disk, wide(), '3m', str(tmp_path / 'left'), fate=fate)
    status = finish(process)
    if status == NO_NAMESPACE:
        pytest.skip('no file system can be mounted here')
    assert status == 1, said(fate)
    check_message(said(fate), tmp_path / 'run/iter_4.pth', 'No space left on device')
    check_what_is_left(tmp_path / 'left', 'iter_2.pth')
    assert train(wide('left', resume=True)).iter == 10


def test_a_file_that_may_not_grow(wide, tmp_path):
    """No room from the first checkpoint on, wherever the writer stands."""
    start_server()
    train(wide('whole'))
    size = (tmp_path / 'whole/iter_2.pth').stat().st_size
    for number, share in enumerate((0.001, 0.3, 0.7, 0.999)):
        fate = Fate(tmp_path / f'run_{number}', full_beyond=max(int(share * size), 50_000))
        assert finish(start(train_config, wide(fate.folder.name), fate=fate)) == 1, said(fate)
        check_message(said(fate), fate.folder / 'iter_2.pth', 'File too large')
        assert not list(fate.folder.glob('.*'))
        assert not list(fate.folder.glob('*.pth'))


class FullLogs(Hook):
    """From the second step on no log has room."""

    priority = 'VERY_HIGH'

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter == 1:
            scalars = Path(runner.log_dir, 'vis_data/scalars.json')
            scalars.rename(scalars.with_name('first.json'))
            scalars.symlink_to('/dev/full')
            (file,) = (one for one in runner.logger.handlers if isinstance(one, logging.FileHandler))
            file.stream = open('/dev/full', 'w')  # noqa: PTH123, SIM115 (the handler closes it)


def test_logs_without_room_cost_no_checkpoint(with_evaluation, tmp_path, monkeypatch, capfd):  # noqa: F811
    """Scalars, text, the list of bad data, the picture of curves, TensorBoard as it is closed."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    cfg = with_evaluation([0.5, 0.6])
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
    assert text.count('WARNING - the log of scalars cannot be written: No space left on device') == 1
    assert 'No space left on device' in text
    for name in ('bad_data.json', 'curves.png'):
        assert f'{tmp_path}/run/{name} cannot be written: No space left on device. The run goes on' in text
    (file,) = (tmp_path / 'run').glob('*/*.log')
    assert text.count(f'WARNING - {file} cannot be written: ') == 1
    assert 'Logging error' not in text and 'Traceback' not in text


def test_a_text_log_goes_on_once_there_is_room(tmp_path, capfd):
    logger = MMLogger.get_instance(str(tmp_path), log_file=str(tmp_path / 'some.log'))
    (handler,) = (one for one in logger.handlers if isinstance(one, logging.FileHandler))
    warn_of_lost_lines(logger)
    room, handler.stream = handler.stream, open('/dev/full', 'w')  # noqa: PTH123, SIM115
    logger.warning('first')
    logger.warning('second')
    told = capfd.readouterr()
    assert (told.out + told.err).count('some.log cannot be written: ') == 1
    handler.stream = room
    logger.warning('third')
    assert 'third' in (tmp_path / 'some.log').read_text()


def test_a_work_dir_that_cannot_be_written(wide, tmp_path, capsys):
    """Told before anything is read or trained: below a file, and in a file system that is read-only."""
    (tmp_path / 'file').write_text('')
    with pytest.raises(SystemExit):
        run_main(lambda: train(wide('file/run')))
    said_here = capsys.readouterr().err
    start_server()
    fate = Fate(tmp_path / 'run')
    status = finish(start(train_where_nothing_may_be_written, wide(), fate=fate))
    texts = {'file/run': ('Not a directory', said_here)}
    if status != NO_NAMESPACE:
        assert status == 1
        texts['run'] = 'Read-only file system', said(fate)
    for folder, (reason, text) in texts.items():
        assert f'error: the work dir {tmp_path}/{folder} cannot be written: {reason}. Choose' in text
        assert '--work-dir DIR' in text
        assert 'Epoch(train)' not in text
    assert not (tmp_path / 'file').read_text()


def test_a_log_that_ends_within_a_line(wide, tmp_path):
    """As a killed run leaves it: the run goes on, and its curves have all steps."""
    train(wide(train_cfg={'type': 'TrainLoop', 'max_iters': 4}))
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    text = scalars.read_text()
    for cut in (1, 10, len(text.splitlines()[-1])):
        scalars.write_text(text[:-cut])
        assert read_curves(scalars)['loss'][0] == [1, 2, 3, 4][: 4 - (cut > 1)]
    cfg = wide(resume=True)
    cfg.default_hooks.curves = {'type': 'CurvesHook'}
    assert train(cfg).iter == 10
    assert (tmp_path / 'run/curves.png').stat().st_size > 1000

"""Trainings that are killed anywhere: what is on disk stays good, and they end with the same bits."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from mmengine.config import Config

from mmdet.checkpoint.io import load_checkpoint
from mmdet.commands import test as test_tool
from mmdet.engine.state import choose_checkpoint
from tests.helpers.forked import Fate, changes, finish, said, start, train_as_typed, train_config
from tests.helpers.same import assert_same_checkpoints
from tests.helpers.tiny_run import (
    PLAIN,
    as_arguments,
    be_quick,
    options_of,
    train,
    write_sets,
)
from tests.unit.engine.conftest import evaluating, make_toy_config

LONG = bool(os.environ.get('DISTILL_LONG'))
SIGKILL, SIGXFSZ = -9, -25


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


def check_folder(folder: Path) -> list[Path]:
    """The checkpoints of a killed run, each of them whole."""
    files = [file for file in folder.glob('*.pth') if not file.is_symlink()]
    for file in files:
        assert load_checkpoint(file)['state_dict']
    chosen, skipped = choose_checkpoint(folder)
    assert (chosen is None) == all(file.name.startswith('best') for file in files)
    assert all('weights only' in reason for reason in skipped)
    return files


def assert_same_end(one: Path, other: Path) -> None:
    assert_same_checkpoints(one / 'latest.pth', other / 'latest.pth')
    assert not list(one.glob('.*.tmp'))


@pytest.fixture
def toy(tmp_path) -> Callable[..., Config]:
    """Four steps in two epochs, two evaluations: a checkpoint a step, two are kept, and the best."""

    def make(folder: str, **keys: Any) -> Config:
        cfg = evaluating(make_toy_config(tmp_path / folder, **keys), [0.1, 0.2])
        hook = {'interval': 1, 'by_epoch': False, 'max_keep_ckpts': 2, 'save_best': 'toy/score'}
        cfg.default_hooks.checkpoint.update(hook)
        cfg.model.width = 64
        cfg.train_dataloader.batch_size = 5
        cfg.train_dataloader.dataset.bad = [3]
        return cfg

    return make


def test_killed_before_a_change_of_a_file_and_within_a_checkpoint(toy, tmp_path):
    """All changes in the long part; else those of one checkpoint and of the end."""
    whole = Fate(tmp_path / 'whole', die_at=10**9)
    assert finish(start(train_config, toy('whole'), fate=whole)) == 0, said(whole)
    events = [line.replace(str(tmp_path), '') for line in changes(whole)]
    assert len([line for line in events if '.pth' in line]) > 25
    (third,) = (number for number, line in enumerate(events) if line.startswith('open /whole/.iter_3.'))
    assert [line.split()[0] for line in events[third : third + 5]] == [
        *('open', 'os.rename', 'os.symlink', 'os.rename', 'os.remove'),  # the last of the oldest
    ]
    ending = next(number for number, line in enumerate(events) if line.startswith('open /whole/.epoch_2.'))
    tried = range(len(events)) if LONG else [*range(third, third + 5), ending, len(events) - 1]
    killed = [(SIGKILL, {'die_at': number + 1}) for number in tried]

    # the system ends the process as a file grows beyond a limit, below the size of the smallest checkpoint
    size = min(file.stat().st_size for file in whole.folder.glob('iter_*.pth'))
    largest_log = max(file.stat().st_size for file in whole.folder.glob('2*/**/*') if file.is_file())
    random = Random(0)
    cut = [(SIGXFSZ, {'die_beyond': random.randrange(largest_log, size)}) for _ in range(40 if LONG else 2)]

    for number, (status, how) in enumerate([*killed, *cut]):
        folder = tmp_path / f'run_{number}'
        fate = Fate(folder, **how)
        assert finish(start(train_config, toy(folder.name), fate=fate)) == status, said(fate)
        if fate.die_beyond:
            (left,) = folder.glob('.*.pth.*.tmp')
            assert left.stat().st_size == fate.die_beyond
        check_folder(folder)
        train(toy(folder.name, resume=True))
        assert_same_end(folder, whole.folder)
    print(f'\nkilled before {len(killed)} of {len(events)} changes of files, within {len(cut)} checkpoints')


def test_killed_at_random_moments(tiny_coco, tmp_path):
    """`tools/train.py` on photos, killed and resumed until it comes to its end; checkpoints are tested."""
    root = write_sets(tiny_coco, tmp_path / 'set')
    random = Random(0)
    options: dict[str, Any] = {
        'default_hooks__checkpoint__by_epoch': False,
        'default_hooks__checkpoint__interval': 1,
        'default_hooks__checkpoint__max_keep_ckpts': 2,
        'train_cfg__max_iters': 7 if LONG else 4,
        'train_cfg__val_interval': 1 if LONG else 100,
        'train_dataloader__num_workers': 1,
        'train_dataloader__persistent_workers': False,
    }

    def run(folder: Path, *words: str) -> Any:
        arguments = [str(PLAIN), '--data-root', str(root), '--work-dir', str(folder), *words]
        arguments += as_arguments(options_of(**options))
        return start(train_as_typed, arguments, fate=Fate(folder))

    whole = tmp_path / 'whole'
    assert finish(run(whole)) == 0, said(Fate(whole))
    kills, chains, tested, wanted = 0, 0, 0, 60 if LONG else 2
    while kills < wanted:
        folder = tmp_path / f'chain_{chains}'
        chains += 1
        process = run(folder, '--resume')
        while kills < wanted:
            process.join(random.uniform(0.2, 4 if LONG else 2))
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            kills += 1
            for file in check_folder(folder)[: None if LONG else 1]:
                words = ['--data-root', str(root), '--work-dir', str(tmp_path / 'test')]
                numbers = test_tool.main([str(PLAIN), str(file), *words, *as_arguments(options_of())])
                assert 'coco/bbox_mAP' in numbers
                tested += 1
            process = run(folder, '--resume')
        assert finish(process) == 0, said(Fate(folder))
        assert_same_end(folder, whole)
    print(f'\n{kills} kills of {chains} runs, {tested} checkpoints tested')


@pytest.mark.long
def test_data_workers_end_with_a_killed_process(toy, tmp_path):
    """They look for it every five seconds."""
    cfg = toy('run')
    cfg.train_cfg.max_epochs = 10**6
    cfg.train_dataloader.num_workers = 2
    process = start(train_config, cfg, fate=Fate(tmp_path / 'run'))
    end = time.monotonic() + 60
    while len(workers := psutil.Process(process.pid).children()) < 2:
        assert time.monotonic() < end, said(Fate(tmp_path / 'run'))
        time.sleep(0.1)
    process.kill()
    process.join()
    _, left = psutil.wait_procs(workers, timeout=8)  # on a busy machine
    assert left == []

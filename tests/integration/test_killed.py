"""Trainings that are killed anywhere: what is on disk stays good, and they end with the same bits."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from mmengine.config import Config

from mmdet.checkpoint.io import load_checkpoint
from mmdet.commands import test as test_tool
from mmdet.engine.state import choose_checkpoint
from tests.helpers.forked import (
    Fate,
    changes,
    finish,
    said,
    start,
    start_server,
    train_as_typed,
    train_config,
)
from tests.helpers.tiny_run import (
    DISTILLED,
    PLAIN,
    as_arguments,
    be_quick,
    options_of,
    save_teacher,
    write_sets,
)
from tests.integration.test_resume import numbers_of, same
from tests.unit.engine.conftest import toy_config, with_evaluation  # noqa: F401 (fixtures)

LONG = bool(os.environ.get('DISTILL_LONG'))
SIGKILL, SIGXFSZ = -9, -25
PARTS = ('state_dict', 'optimizer', 'param_schedulers', 'rng')


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)
    start_server()


def check_folder(folder: Path) -> list[Path]:
    """The checkpoints of a killed run, each of them whole."""
    files = [file for file in folder.glob('*.pth') if not file.is_symlink()]
    for file in files:
        assert load_checkpoint(file)['state_dict']
    chosen, skipped = choose_checkpoint(folder)
    assert (chosen is None) == (not any(not file.name.startswith('best') for file in files))
    assert all('weights only' in reason for reason in skipped)
    return files


def assert_same_end(one: Path, other: Path) -> None:
    left, right = (numbers_of(load_checkpoint(folder / 'latest.pth')) for folder in (one, other))
    assert left.keys() == right.keys()
    assert [name for name in left if not same(left[name], right[name])] == []
    assert not [file for file in one.glob('.*') if file.name.endswith('.tmp')]


# Toys: every change of a file


@pytest.fixture
def toy(with_evaluation, tmp_path) -> Callable[..., Config]:  # noqa: F811
    """Four steps in two epochs, two evaluations: a checkpoint a step, two are kept, and the best."""

    def make(folder: str, resume: bool = False) -> Config:
        scores = [0.1, 0.2, 0.3, 0.4]
        cfg = with_evaluation(scores, work_dir=str(tmp_path / folder), resume=resume)
        cfg.default_hooks.checkpoint.update(
            interval=1, by_epoch=False, max_keep_ckpts=2, save_best='toy/score'
        )
        cfg.model.width = 64
        cfg.train_dataloader.batch_size = 5
        cfg.train_dataloader.dataset.bad = [3]
        return cfg

    return make


def test_killed_before_every_change_of_a_file(toy, tmp_path):
    """All in the long part; else those of one checkpoint and of the end."""
    whole = Fate(tmp_path / 'whole', die_at=10**9)
    assert finish(start(train_config, toy('whole'), fate=whole)) == 0, said(whole)
    events = [line.replace(str(tmp_path), '') for line in changes(whole)]
    kinds = {line.split()[0] for line in events}
    assert kinds >= {'open', 'os.rename', 'os.symlink', 'os.remove'}
    assert len([line for line in events if '.pth' in line]) > 30
    (third,) = (
        number for number, line in enumerate(events, start=1) if line.startswith('open /whole/.iter_3.')
    )
    assert [line.split()[0] for line in events[third - 1 : third + 5]] == [
        *('open', 'os.rename'),
        *('os.remove', 'os.symlink', 'os.rename', 'os.remove'),  # of a link that is left, and of the oldest
    ]
    ending = 1 + next(i for i, line in enumerate(events) if line.startswith('open /whole/.epoch_2.'))
    last = len(events)
    tried = range(1, last + 1) if LONG else [*range(third, third + 6), ending, last]
    for number in tried:
        fate = Fate(tmp_path / f'killed_{number}', die_at=number)
        assert finish(start(train_config, toy(fate.folder.name), fate=fate)) == SIGKILL, said(fate)
        check_folder(fate.folder)
        again = toy(fate.folder.name, resume=True)
        assert finish(start(train_config, again, fate=Fate(fate.folder))) == 0, said(fate)
        assert_same_end(fate.folder, whole.folder)
    print(f'\nkilled before {len(tried)} of {len(events)} changes of files')


def test_killed_within_the_bytes_of_a_checkpoint(toy, tmp_path):
    """The system ends the process as a file grows beyond its limit."""
    whole = tmp_path / 'whole'
    fate = Fate(whole)
    assert finish(start(train_config, toy('whole'), fate=fate)) == 0, said(fate)
    sizes = sorted(file.stat().st_size for file in whole.glob('iter_*.pth'))
    random = Random(0)
    largest_log = max(file.stat().st_size for file in whole.glob('2*/**/*') if file.is_file())
    for number in range(40 if LONG else 2):
        beyond = random.randrange(largest_log, sizes[0])
        fate = Fate(tmp_path / f'cut_{number}', die_beyond=beyond)
        assert finish(start(train_config, toy(fate.folder.name), fate=fate)) == SIGXFSZ, said(fate)
        (left,) = fate.folder.glob('.*.pth.*.tmp')
        assert left.stat().st_size == beyond
        assert check_folder(fate.folder) == []
        again = toy(fate.folder.name, resume=True)
        assert finish(start(train_config, again, fate=Fate(fate.folder))) == 0, said(fate)
        assert_same_end(fate.folder, whole)


# A distilled detector: any moment


def test_killed_at_random_moments(tiny_coco, tmp_path):
    """`tools/train.py` on photos, killed and resumed until it comes to its end; checkpoints are tested."""
    root = write_sets(tiny_coco, tmp_path / 'set')
    teacher = save_teacher(tmp_path / 'model_best.pth.tar')
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
        arguments = [str(DISTILLED), '--data-root', str(root), '--work-dir', str(folder), *words]
        arguments += as_arguments(options_of(teacher, **options))
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
    while len(workers := children(process.pid)) < 2:
        assert time.monotonic() < end, said(Fate(tmp_path / 'run'))
        time.sleep(0.1)
    process.kill()
    process.join()
    end = time.monotonic() + 8  # on a busy machine
    while left := [pid for pid in workers if Path(f'/proc/{pid}').exists()]:
        assert time.monotonic() < end, f'{left} are left behind'
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):  # has ended meanwhile
            if stat.read_text().rpartition(')')[2].split()[1] == str(pid):
                found.append(int(stat.parent.name))
    return found

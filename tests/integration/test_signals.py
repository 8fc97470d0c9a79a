"""SIGTERM, and numbers that are not finite in one of two processes, in trainings as users start them."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from mmdet.checkpoint.io import load_checkpoint
from tests.helpers.forked import Fate, finish, launch, launched, said, start, train_as_typed
from tests.helpers.same import differences
from tests.helpers.tiny_run import PLAIN, as_arguments, options_of, write_sets

TERMINATED = 128 + signal.SIGTERM
Words = Callable[..., list[str]]


@pytest.fixture
def words(tiny_coco: Callable[..., Path], tmp_path: Path) -> Words:
    """`words(folder, ...)`: what is typed to train six steps in two epochs, `processes` at a time."""
    root = write_sets(tiny_coco, tmp_path / 'set')
    config = tmp_path / 'disturbed.py'
    config.write_text(f"_base_ = {str(PLAIN)!r}\ncustom_imports = dict(imports=['tests.helpers.disturb'])\n")

    def type_(folder: str, *further: str, hook: Any = None, processes: int = 1, **options: Any) -> list[str]:
        given = {
            'train_cfg.max_iters': 6,
            'custom_hooks': [{'type': 'EMAHook'}, *([hook] if hook else [])],
            'train_dataloader.num_workers': 1,
            'train_dataloader.dataset.filter_empty_gt': False,
            'train_dataloader.batch_size': 2 // processes,
            'val_dataloader.batch_size': 1,
            **options,
        }
        typed = [str(config), '--data-root', str(root), '--work-dir', str(tmp_path / folder), *further]
        return [*typed, *as_arguments(options_of(**given))]

    return type_


def run(typed: Sequence[str], folder: Path, processes: int = 1) -> tuple[list[int], str]:
    """Exit status of each of the processes that do what is typed, and what they print."""
    folder.with_suffix('.out').unlink(missing_ok=True)
    if processes > 1:
        typed = [*typed[:1], '--launcher', 'pytorch', *typed[1:]]
    environments = launched(processes) if processes > 1 else [{}]
    fates = [Fate(folder, environment=environment) for environment in environments]
    started = [start(train_as_typed, typed, fate=fate) for fate in fates]
    return [finish(process) for process in started], said(fates[0])


def launch_two(typed: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return launch('dist_train.sh', [typed[0], '2', *typed[1:]], folder)


def assert_same(one: Path, other: Path) -> None:
    mine, others = (load_checkpoint(folder / 'latest.pth') for folder in (one, other))
    for part in ('state_dict', 'ema_state_dict'):
        assert differences(mine[part], others[part]) == []


def test_a_process_and_its_workers_are_told_to_end(words, tmp_path):
    """The whole group is, as by Slurm; none is left, and resumed it ends as a run that nobody disturbed."""
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    status, whole_said = run(words('whole'), whole)
    assert status == [0], whole_said
    hook = {'type': 'SignalHook', 'moment': 'before_train_iter', 'number': 2}
    status, stopped_said = run(words('parts', hook=hook), parts)
    assert status == [TERMINATED], stopped_said
    assert 'to go on, give the same command and --resume' in stopped_said
    assert 'Traceback' not in stopped_said
    (group,) = re.findall(r'<group (\d+)>', stopped_said)
    assert [one for one in psutil.pids() if _group_of(one) == int(group)] == []
    assert load_checkpoint(parts / 'latest.pth')['meta']['iter'] == 2
    status, resumed_said = run(words('parts', '--resume'), parts)
    assert status == [0], resumed_said
    assert_same(whole, parts)
    scores = [text.count('coco/bbox_mAP:') for text in (whole_said, stopped_said, resumed_said)]
    assert scores[0] == scores[1] + scores[2]  # no evaluation is left out or told twice


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:  # has ended meanwhile
        return None


@pytest.mark.parametrize(
    ('moment', 'iteration', 'told'),
    [
        ({'moment': 'before_train_iter', 'number': 2}, 2, 'after 0 epochs and 2 batches, 2 iterations'),
        ({'moment': 'before_val_iter'}, 3, 'after 1 epochs and 0 batches, 3 iterations'),
    ],
    ids=['in a step', 'in an evaluation'],
)
def test_one_of_two_processes_is_told_to_end(words, tmp_path, moment, iteration, told):
    """Both stop after the same batch, and none waits for the other."""
    hook = {'type': 'SignalHook', 'rank': 1, 'to': 'process', **moment}
    typed = words('run', hook=hook, processes=2, **{'train_cfg.val_interval': 1})
    status, text = run(typed, tmp_path / 'run', 2)
    assert status == [TERMINATED] * 2, text
    assert f'stopped by SIGTERM {told}' in text
    assert 'coco/bbox_mAP:' not in text
    checkpoint = load_checkpoint(tmp_path / 'run/latest.pth')
    assert (checkpoint['meta']['iter'], len(checkpoint['rng'])) == (iteration, 2)


@pytest.mark.long
@pytest.mark.parametrize(
    'moment',
    [{'moment': 'before_train_iter', 'number': 2, 'rank': 1}, {'moment': 'before_train'}],
    ids=['in a step', 'before the first step'],
)
def test_torchrun_is_told_to_end(words, tmp_path, moment):
    """Its two processes stop after the same step, and go on from there."""
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    done = launch_two(words('whole', processes=2), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    hook = {'type': 'SignalHook', 'to': 'launcher', **moment}
    stopped = launch_two(words('parts', processes=2, hook=hook), tmp_path)
    assert stopped.returncode == 1
    assert 'to go on, give the same command and --resume' in stopped.stdout
    checkpoint = load_checkpoint(parts / 'latest.pth')
    assert len(checkpoint['rng']) == 2
    assert 0 < checkpoint['meta']['iter'] < 6
    resumed = launch_two(words('parts', '--resume', processes=2), tmp_path)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert_same(whole, parts)


@pytest.mark.parametrize(
    ('hook', 'told'),
    [
        (
            {'type': 'OverflowHook', 'step': 2},
            r'loss_cls is nan in iteration 2 \(epoch 1, batch 2\) of process 1',
        ),
        ({'type': 'RuinHook', 'step': 3}, r'\S+epoch_1\.pth was not written: '),
    ],
    ids=['losses of one', 'weights'],
)
def test_numbers_that_are_not_finite_stop_both_processes(words, tmp_path, hook, told):
    """Process 0 tells it, with the images of process 1 whose loss it is; none waits for the other."""
    options = {'default_hooks.checkpoint.interval': 1}
    typed = words('run', '--no-validate', hook=hook, processes=2, **options)
    status, text = run(typed, tmp_path / 'run', 2)
    assert status == [1, 1], text
    assert re.search(rf'(?<!\] )error: {told}', text), text
    assert re.search(rf'\[process 1\] error: {told}', text), text
    assert 'has lost the others' not in text
    shown = re.findall(
        r'^  id (\d): \S+/set/train/\1\.jpg, \[[\d. ]+\] (?:brick|leaf|pond)', text, re.MULTILINE
    )
    assert len(shown) == (hook['type'] == 'OverflowHook')

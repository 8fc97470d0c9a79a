"""SIGTERM, and a step that is not finite in one of two processes, in trainings as users start them."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdet.checkpoint.io import load_checkpoint
from tests.helpers.forked import Fate, finish, free_port, launched, said, start, start_server, train_as_typed
from tests.helpers.tiny_run import PLAIN, ROOT, as_arguments, options_of, write_sets

Words = Callable[..., list[str]]


@pytest.fixture
def words(tiny_coco: Callable[..., Path], tmp_path: Path) -> Words:
    """`words(folder, ...)`: what is typed to train six steps in two epochs, `processes` at a time."""
    root = write_sets(tiny_coco, tmp_path / 'set')
    config = tmp_path / 'disturbed.py'
    config.write_text(f"_base_ = {str(PLAIN)!r}\ncustom_imports = dict(imports=['tests.helpers.disturb'])\n")

    def type_(
        folder: str, *further: str, hooks: Sequence[dict[str, Any]] = (), processes: int = 1, **options: Any
    ) -> list[str]:
        given = {
            'train_cfg.max_iters': 6,
            'custom_hooks': [{'type': 'EMAHook'}, *hooks],
            'train_dataloader.num_workers': 1,
            'train_dataloader.dataset.filter_empty_gt': False,
            'train_dataloader.batch_size': 2 // processes,
            **options,
        }
        typed = [str(config), '--data-root', str(root), '--work-dir', str(tmp_path / folder), *further]
        return [*typed, *as_arguments(options_of(**given))]

    return type_


def run(typed: Sequence[str], folder: Path) -> tuple[int, str]:
    """Exit status and output of a process that does what is typed."""
    start_server()
    log = folder.with_suffix('.out')
    log.write_text('')
    status = finish(start(train_as_typed, typed, fate=Fate(folder)))
    return status, log.read_text()


def run_two(typed: Sequence[str], folder: Path) -> tuple[list[int], str]:
    """The same of two processes that train together."""
    start_server()
    typed = [*typed[:1], '--launcher', 'pytorch', *typed[1:]]
    fates = [Fate(folder, environment=environment) for environment in launched(2)]
    both = [start(train_as_typed, typed, fate=fate) for fate in fates]
    return [finish(process) for process in both], said(fates[0])


def launch_two(typed: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The same by tools/dist_train.sh, that is by torchrun."""
    return subprocess.run(
        ['bash', str(ROOT / 'tools/dist_train.sh'), typed[0], '2', *typed[1:]],
        cwd=folder.parent,
        env={
            **os.environ,
            'PYTHON': sys.executable,
            'PORT': str(free_port()),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
        },
        capture_output=True,
        text=True,
        timeout=180,
        start_new_session=True,
        check=False,
    )


def assert_same(one: Path, other: Path) -> None:
    mine, others = (load_checkpoint(folder / 'latest.pth') for folder in (one, other))
    for part in ('state_dict', 'ema_state_dict'):
        assert mine[part].keys() == others[part].keys()
        assert [name for name in mine[part] if not torch.equal(mine[part][name], others[part][name])] == []


def test_a_process_and_its_workers_are_told_to_end(words, tmp_path):
    """The whole group is, as by Slurm; resumed it comes to the end of a run that nobody disturbed."""
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    status, whole_said = run(words('whole'), whole)
    assert status == 0, whole_said
    disturb = {'type': 'SignalHook', 'moment': 'before_train_iter', 'number': 2}
    status, stopped_said = run(words('parts', hooks=[disturb]), parts)
    assert status == 128 + signal.SIGTERM, stopped_said
    assert 'to go on, give the same command and --resume' in stopped_said
    assert 'Traceback' not in stopped_said
    assert load_checkpoint(parts / 'latest.pth')['meta']['iter'] == 2
    status, resumed_said = run(words('parts', '--resume'), parts)
    assert status == 0, resumed_said
    assert_same(whole, parts)
    scores = [text.count('coco/bbox_mAP:') for text in (whole_said, stopped_said, resumed_said)]
    assert scores[0] == scores[1] + scores[2]  # no evaluation is left out or told twice


def test_one_of_two_processes_is_told_to_end(words, tmp_path):
    """Both stop after the same step."""
    disturb = {'type': 'SignalHook', 'moment': 'before_train_iter', 'number': 2, 'rank': 1, 'to': 'process'}
    status, told = run_two(words('run', '--no-validate', hooks=[disturb], processes=2), tmp_path / 'run')
    assert status == [128 + signal.SIGTERM] * 2, told
    assert 'stopped by SIGTERM after 0 epochs and 2 batches, 2 iterations' in told
    checkpoint = load_checkpoint(tmp_path / 'run/latest.pth')
    assert (checkpoint['meta']['iter'], len(checkpoint['rng'])) == (2, 2)


def test_one_of_two_processes_is_told_to_end_in_an_evaluation(words, tmp_path):
    """Both leave it after the same batch, and none waits for the other."""
    disturb = {'type': 'SignalHook', 'moment': 'before_val_iter', 'rank': 1, 'to': 'process'}
    options = {'train_cfg.val_interval': 1, 'val_dataloader.batch_size': 1}
    typed = words('run', hooks=[disturb], processes=2, **options)
    status, told = run_two(typed, tmp_path / 'run')
    assert status == [128 + signal.SIGTERM] * 2, told
    assert 'stopped by SIGTERM after 1 epochs and 0 batches, 3 iterations' in told
    assert 'coco/bbox_mAP:' not in told


@pytest.mark.long
@pytest.mark.parametrize(
    'moment',
    [
        {'moment': 'before_train_iter', 'number': 2, 'rank': 1},
        {'moment': 'before_train'},
    ],
    ids=['in a step', 'before the first step'],
)
def test_torchrun_is_told_to_end(words, tmp_path, moment):
    """Its two processes stop after the same step, and go on from there."""
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    done = launch_two(words('whole', processes=2), whole)
    assert done.returncode == 0, done.stderr[-3000:]
    disturb = {'type': 'SignalHook', 'to': 'launcher', **moment}
    stopped = launch_two(words('parts', processes=2, hooks=[disturb]), parts)
    assert stopped.returncode == 1
    assert 'to go on, give the same command and --resume' in stopped.stdout
    checkpoint = load_checkpoint(parts / 'latest.pth')
    assert len(checkpoint['rng']) == 2
    assert 0 < checkpoint['meta']['iter'] < 6
    resumed = launch_two(words('parts', '--resume', processes=2), parts)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert_same(whole, parts)


def test_weights_that_are_not_finite_stop_both_processes(words, tmp_path):
    """Process 0 looks at what it would write; process 1 does not wait for it in vain."""
    hooks = [{'type': 'RuinHook', 'step': 3}]
    every = {'default_hooks.checkpoint.interval': 1}
    typed = words('run', '--no-validate', hooks=hooks, processes=2, **every)
    status, told = run_two(typed, tmp_path / 'run')
    assert status == [1, 1], told
    assert re.search(r'(?<!\] )error: \S+epoch_1\.pth was not written: ', told), told
    assert re.search(r'\[process 1\] error: \S+epoch_1\.pth was not written: ', told), told
    assert 'has lost the others' not in told


def test_a_loss_of_one_process_stops_both(words, tmp_path):
    """Process 0 tells it, with the images of process 1, whose loss it is."""
    typed = words('run', '--no-validate', hooks=[{'type': 'OverflowHook', 'step': 2}], processes=2)
    status, told = run_two(typed, tmp_path / 'run')
    assert status == [1, 1]
    error = told.split('\nerror: ')[1]
    assert error.startswith('loss_cls is nan in iteration 2 (epoch 1, batch 2) of process 1')
    assert '[process 1] error: loss_cls is nan in iteration 2' in told
    assert re.search(r'^  id (\d): \S+/set/train/\1\.jpg, \[[\d. ]+\] (brick|leaf|pond)', error, re.MULTILINE)

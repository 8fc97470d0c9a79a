"""SIGTERM and a step that is not finite, in trainings as users start them: tools/train.py and dist_train.sh.

The long part tries more moments: DISTILL_LONG=1.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdet.utils.checkpoint import load_checkpoint
from tests.tiny_run import PLAIN, ROOT, as_arguments, options_of, write_sets

LONG = pytest.mark.skipif(not os.environ.get('DISTILL_LONG'), reason='long: set DISTILL_LONG=1')

# A training disturbs itself at the moment that $AT names: METHOD NUMBER [RANK].
DISTURB = """
import os
import signal
from mmengine.hooks import Hook
from mmdet.registry import HOOKS

class Disturb(Hook):
    priority = 'VERY_HIGH'

    def __init__(self):
        self.method, number, *rank = os.environ.get('AT', 'never 0').split()
        self.left, self.rank = int(number), int(rank[0]) if rank else None

    def maybe(self, method, runner, batch_idx=0, data_batch=None, **_):
        self.left -= method == self.method
        if method == self.method and self.left == 0 and self.rank in (None, runner.rank):
            self.disturb(runner)

    def disturb(self, runner):
        target = {'group': os.getpgid(0), 'launcher': os.getppid()}[os.environ['TO']]
        (os.killpg if os.environ['TO'] == 'group' else os.kill)(target, signal.SIGTERM)

for method in ('before_train', 'before_train_iter', 'after_train_iter', 'before_val_iter'):
    setattr(Disturb, method, lambda self, *a, method=method, **k: self.maybe(method, *a, **k))

@HOOKS.register_module()
class Signal(Disturb):
    pass

@HOOKS.register_module()
class Overflow(Disturb):
    def maybe(self, method, runner, batch_idx=0, data_batch=None, **_):
        if method == 'before_train_iter' and runner.rank == 1 and runner.iter in (1, 3):
            runner.model.module.bbox_head.register_forward_hook(self.spoil(runner))

    def spoil(self, runner):
        iteration = runner.iter

        def hook(module, given, returned):
            if runner.iter == iteration and module.training:
                return returned._replace(cls_logits=returned.cls_logits * float('nan'))
        return hook
"""


@pytest.fixture
def run(tiny_coco, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Trains six steps in two epochs, `processes` at a time, in a session of its own."""
    root = write_sets(tiny_coco, tmp_path / 'set')
    (tmp_path / 'disturb.py').write_text(DISTURB)
    config = tmp_path / 'disturbed.py'
    config.write_text(f"_base_ = {str(PLAIN)!r}\ncustom_imports = dict(imports=['disturb'])\n")

    def call(
        folder: str,
        *words: str,
        hook: str = 'Signal',
        processes: int = 1,
        environment: Any = None,
        **more: Any,
    ) -> subprocess.CompletedProcess[str]:
        options = options_of(
            train_cfg__max_iters=6,
            custom_hooks=[{'type': 'EMAHook'}, {'type': hook}],
            train_dataloader__num_workers=1,
            train_dataloader__dataset__filter_empty_gt=False,
            train_dataloader__batch_size=2 // processes,
            **more,
        )
        command = [sys.executable, str(ROOT / 'tools/train.py'), str(config)]
        if processes > 1:
            command = ['bash', str(ROOT / 'tools/dist_train.sh'), str(config), str(processes)]
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = str(free.getsockname()[1])
        return subprocess.run(
            [
                *command,
                '--data-root',
                str(root),
                '--work-dir',
                str(tmp_path / folder),
                *words,
                *as_arguments(options),
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                'PYTHON': sys.executable,
                'PYTHONPATH': str(tmp_path),
                'PORT': port,
                'OMP_NUM_THREADS': '1',
                'CUDA_VISIBLE_DEVICES': '',
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            timeout=180,
            start_new_session=True,
            check=False,
        )

    return call


def parts_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    content = load_checkpoint(checkpoint)
    return content['state_dict'] | content['ema_state_dict']


def assert_same(one: Path, other: Path) -> None:
    mine, others = parts_of(one), parts_of(other)
    assert mine.keys() == others.keys()
    assert [name for name in mine if not torch.equal(mine[name], others[name])] == []


MOMENTS = [
    pytest.param('before_train_iter 2', 2, id='in a step'),
]


@pytest.mark.parametrize(('moment', 'iteration'), MOMENTS)
def test_a_process_and_its_workers_are_told_to_end(run, tmp_path, moment, iteration):
    """The whole group is, as by Slurm; resumed it comes to the end of a run that nobody disturbed."""
    whole = run('whole')
    assert whole.returncode == 0, whole.stderr[-3000:]
    stopped = run('parts', environment={'AT': moment, 'TO': 'group'})
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr[-3000:]
    assert 'to go on, give the same command and --resume' in stopped.stdout
    assert 'Traceback' not in stopped.stderr
    assert load_checkpoint(tmp_path / 'parts/latest.pth')['meta']['iter'] == iteration
    resumed = run('parts', '--resume')
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert_same(tmp_path / 'whole/latest.pth', tmp_path / 'parts/latest.pth')
    scores = [done.stdout.count('coco/bbox_mAP:') for done in (whole, stopped, resumed)]
    assert scores[0] == scores[1] + scores[2]  # no evaluation is left out or told twice


LAUNCHED = [
    pytest.param('before_train_iter 2 1', id='in a step'),
    pytest.param('before_train 1 0', id='before the first step', marks=LONG),
]


@LONG
@pytest.mark.parametrize('moment', LAUNCHED)
def test_torchrun_is_told_to_end(run, tmp_path, moment):
    """Its two processes stop after the same step, and go on from there."""
    whole = run('whole', processes=2)
    assert whole.returncode == 0, whole.stderr[-3000:]
    stopped = run('parts', processes=2, environment={'AT': moment, 'TO': 'launcher'})
    assert stopped.returncode == 1
    assert 'to go on, give the same command and --resume' in stopped.stdout
    checkpoint = load_checkpoint(tmp_path / 'parts/latest.pth')
    assert len(checkpoint['rng']) == 2
    assert 0 < checkpoint['meta']['iter'] < 6
    resumed = run('parts', '--resume', processes=2)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert_same(tmp_path / 'whole/latest.pth', tmp_path / 'parts/latest.pth')


def test_two_processes_leave_out_a_step_of_one_of_them(run):
    """Process 1 meets two such steps: the first is left out by both, the second stops both."""
    done = run('run', hook='Overflow', processes=2, train_cfg__max_skipped=1)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert 'step left out, 1 of at most 1: loss_cls is nan in' in said
    assert 'in iteration 2 (epoch 1, batch 2) of process 1' in said
    assert 'error: loss_cls is nan' in said

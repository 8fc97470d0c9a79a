"""Alarms of distilled trainings: on a student of two layers, on the tiny SSD, in two processes."""

import copy
import gc
import json
import os
import re
import socket
import subprocess
import sys
import weakref
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmdet.checkpoint.io import load_checkpoint
from mmdet.engine import DistillationMonitorHook
from mmdet.engine.hooks.distillation_monitor import gradient_norms
from mmdet.registry import HOOKS, MODELS
from tests.helpers.tiny_run import DISTILLED, PLAIN, ROOT, be_quick, save_teacher, small_config, write_sets
from tests.helpers.tiny_run import train as train_tiny
from tests.integration.test_end_to_end import assert_same, tensors_of
from tests.unit.engine.test_loops import train

ALARM = {'type': 'DistillationMonitorHook'}


class Predictions(NamedTuple):
    cls_logits: Tensor
    box_deltas: Tensor


class ToyHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls, self.reg = nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, feats):
        return Predictions(self.cls(feats), self.reg(feats))


@MODELS.register_module(force=True)
class ToyDistiller(nn.Module):
    """`loss_kd_cls` is step by step factor * loss + offset, what the script ends with from there on."""

    def __init__(self, script=((1, 0),)):
        super().__init__()
        self.script = list(script)

    def forward(self, outputs):
        now = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if now == 'fail':
            raise RuntimeError('out of order')
        if now == 'nothing':
            return {}
        of_class, of_box = outputs.cls_logits.abs().mean(), outputs.box_deltas.abs().mean()
        if now == 'root':
            return {'loss_kd_cls': (0 * of_class).sqrt()}
        factor, offset = now
        return {'loss_kd_cls': factor * of_class + offset, 'loss_kd_loc': of_box}


@MODELS.register_module(force=True)
class ToyStudent(BaseModel):
    def __init__(self, distiller=None, head='bbox_head'):
        super().__init__()
        self.backbone = nn.Linear(4, 4)
        self.head = head
        setattr(self, head, ToyHead())
        self.distiller = distiller
        self.made, self.hooked = [], []

    def init_weights(self):
        pass

    def forward(self, inputs, gt, bad_images=None, mode='loss'):
        self.hooked.append(sum(len(module._forward_hooks) for module in self.modules()))
        outputs = getattr(self, self.head)(self.backbone(inputs))
        self.made.append(weakref.ref(outputs.cls_logits))
        losses = {'loss_cls': outputs.cls_logits.square().mean()}
        losses |= {'loss_bbox': outputs.box_deltas.square().mean()}
        return losses if self.distiller is None else losses | self.distiller(outputs)


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.fixture
def run(toy_config, tmp_path, monkeypatch):
    """Trains a ToyStudent; returns the runner and what it warned of."""
    # the log leaves out what it has said already
    monkeypatch.setattr('mmengine.logging.logger.FilterDuplicateWarning.filter', lambda *_: True)

    def train_toy(script, steps, distiller=True, head='bbox_head', **keywords):
        model = {'type': 'ToyStudent', 'head': head}
        if distiller:
            model['distiller'] = {'type': 'ToyDistiller', 'script': script}
        cfg = toy_config(
            model=model,
            train_cfg={'type': 'TrainLoop', 'max_iters': steps},
            param_scheduler=None,
            optim_wrapper={'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 1e-5}},
        )
        cfg.default_hooks.distillation_monitor = {**ALARM, **keywords}
        runner = train(cfg)
        return runner, warnings_of(tmp_path / 'run')

    return train_toy


def warnings_of(work_dir: Path) -> list[str]:
    lines = [line for file in work_dir.rglob('*.log') for line in file.read_text().splitlines()]
    return [line.split('WARNING - ')[1] for line in lines if 'WARNING' in line]


def norms_of(work_dir: Path) -> dict[int, dict[str, float]]:
    """Step -> norms, from the scalars."""
    (file,) = work_dir.rglob('scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {
        line['step']: {name: value for name, value in line.items() if name.startswith('grad_norm/')}
        for line in lines
        if any(name.startswith('grad_norm/') for name in line)
    }


def test_norms_by_hand():
    """Also of a sum whose parts cancel, of a loss without a gradient, and with the graph still there."""
    weight = torch.ones(2, requires_grad=True)
    logits, deltas = 2 * weight, 1 * weight
    losses = {
        'loss_cls': (torch.tensor([3.0, 4.0]) * logits).sum(),
        'loss_bbox': (5 * deltas - logits * torch.tensor([3.0, 0.0])).sum(),
        'loss_kd': (deltas * torch.tensor([0.0, 7.0])).sum(),
        'loss_off': torch.tensor(1.0),
    }
    found = gradient_norms(
        losses, ['loss_cls', 'loss_bbox'], ['loss_kd', 'loss_off'], {'logits': logits, 'deltas': deltas}
    )
    assert found == {
        'loss_cls': {'logits': 5, 'deltas': 0},
        'loss_bbox': {'logits': 3, 'deltas': pytest.approx(50**0.5)},
        'detector': {'logits': 4, 'deltas': pytest.approx(50**0.5)},
        'loss_kd': {'logits': 0, 'deltas': 7},
        'loss_off': {'logits': 0, 'deltas': 0},
    }
    assert weight.grad is None
    sum(losses.values()).backward()
    assert weight.grad.tolist() == [2 * 3 + 5 - 2 * 3, 2 * 4 + 5 + 7]


def test_a_loss_of_0_is_told_once_an_episode(run):
    script = [(1, 0), *[(0, 0)] * 5, (1, 0), (0, 0), (0, 0), (1, 0), *[(0, 0)] * 3]
    _, warnings = run(script, len(script), patience=3)
    assert len(warnings) == 2
    assert all('loss_kd_cls is exactly 0 in each of the 3 steps since' in line for line in warnings)
    assert [re.search(r'since iteration (\d+)', line)[1] for line in warnings] == ['2', '11']
    assert 'model.distiller.kd_cls.loss_weight is 0' in warnings[0]
    assert 'browse_teacher.py' in warnings[0]


def test_a_constant_loss_is_told_with_its_value(run):
    _, warnings = run([(0, 0.25)], 6, patience=6)
    assert len(warnings) == 1
    assert (
        'loss_kd_cls is 0.25, the same bit for bit, in each of the 6 steps since iteration 1' in warnings[0]
    )


def test_losses_that_move_and_short_runs_of_0_are_no_alarm(run):
    assert run([(1, 0), (0, 0), (0, 0), (1, 0), (0, 0), (0, 0), (1, 0)], 8, patience=3)[1] == []


def test_a_dwarfing_term_is_told_once_an_episode_with_both_numbers(run, tmp_path):
    big, small = (1000, 0), (0.2, 0)
    _, warnings = run([big, big, small, big, big], 5, interval=1)
    assert len(warnings) == 2
    norms = norms_of(tmp_path / 'run')
    assert list(norms) == [1, 2, 3, 4, 5]
    for line, step in zip(warnings, (1, 4), strict=True):
        term, own = (norms[step][f'grad_norm/{name}/cls_logits'] for name in ('loss_kd_cls', 'detector'))
        assert term > 10 * own > 0
        assert f'with respect to cls_logits has norm {term:.3g} in iteration {step}' in line
        assert f'that of loss_cls + loss_bbox {own:.3g}. Lower model.distiller.kd_cls.loss_weight' in line
    assert run([big], 2, max_grad_ratio=1e6)[1] == warnings  # of the first run only


@pytest.mark.parametrize(('factor', 'told'), [(0.001, True), (0.0, False), (1, False)])
def test_a_feeble_term_is_told_once_with_its_share(run, factor, told):
    _, warnings = run([(factor, 1)], steps=3, interval=1, patience=9, min_grad_ratio=0.01)
    feeble = [text for text in warnings if 'hardly teaches' in text]
    assert len(feeble) == told
    assert all(
        'loss_kd_cls hardly teaches: its gradient with respect to cls_logits' in text for text in feeble
    )
    assert all('model.distiller.kd_cls.loss_weight' in text for text in feeble)


def test_measured_in_the_first_step_and_every_interval(run, tmp_path):
    runner, _ = run([(1, 0)], 7, interval=3)
    assert list(norms_of(tmp_path / 'run')) == [1, 3, 6]
    assert runner.model.hooked == [3, 0, 3, 0, 0, 3, 0]  # head, distiller, detector; in these steps only


def test_a_gradient_that_is_not_finite_is_told_though_the_loss_is(run, tmp_path):
    with pytest.raises(FloatingPointError, match='was not written'):
        run(['root'], 1)
    (line,) = warnings_of(tmp_path / 'run')
    assert (
        'the gradient of loss_kd_cls with respect to cls_logits has norm nan in iteration 1, though' in line
    )


def test_a_distiller_without_losses_is_told(run):
    (line,) = run(['nothing'], 4, interval=1)[1]
    assert 'model.distiller gave no loss in iteration 1' in line


def test_another_head_leaves_the_gradients_out(run, tmp_path):
    _, warnings = run([(0, 0)], 5, head='other_head', interval=1, patience=4)
    not_measured, standstill = warnings
    assert 'has no bbox_head that returns cls_logits and box_deltas' in not_measured
    assert 'exactly 0' in standstill
    assert norms_of(tmp_path / 'run') == {}


def test_plain_training_registers_nothing(run, tmp_path):
    runner, warnings = run(None, 4, distiller=False, interval=1)
    assert runner.model.hooked == [0] * 4
    assert warnings == []
    assert norms_of(tmp_path / 'run') == {}


@pytest.mark.parametrize('script', [['fail'], [(float('nan'), 0)]])
def test_a_step_that_fails_leaves_no_hook(toy_config, monkeypatch, script):
    models = []
    build = MODELS.build
    monkeypatch.setattr(MODELS, 'build', lambda *a, **k: models.append(build(*a, **k)) or models[-1])
    model = {'type': 'ToyStudent', 'distiller': {'type': 'ToyDistiller', 'script': script}}
    with pytest.raises((RuntimeError, FloatingPointError), match=r'out of order|loss_kd_cls is nan'):
        train(toy_config(model=model, default_hooks={'monitor': ALARM}))
    student = next(model for model in models if isinstance(model, ToyStudent))
    assert student.hooked == [3]
    assert hooks_of(student) == 0


def test_no_tensor_is_held(run):
    gc.collect()
    gc.disable()  # nothing may wait for it
    try:
        runner, _ = run([(1, 0)], 3, interval=1)
        assert len(runner.model.made) == 3
        assert not any(made() is not None for made in runner.model.made)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    'keywords',
    [{'patience': 1}, {'interval': 0}, {'interval': 2.5}, {'max_grad_ratio': 0}, {'min_grad_ratio': 11}],
)
def test_numbers_out_of_range(keywords):
    (name,) = keywords
    with pytest.raises(ValueError, match=rf'DistillationMonitorHook\.{name} is .* got'):
        DistillationMonitorHook(**keywords)


def test_on_in_every_config_that_keeps_the_default():
    for config in (PLAIN, DISTILLED):
        assert Config.fromfile(config).default_hooks.distillation_monitor == ALARM


@HOOKS.register_module(force=True)
class KeepFirstStep(Hook):
    """The model and the batch before the first step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 0:
            runner.kept = copy.deepcopy(runner.model), copy.deepcopy(data_batch)


def reference(model, batch) -> dict[str, float]:
    """Each loss from a forward pass of its own, the predictions as leaves, plain `backward`."""
    data = model.data_preprocessor(batch, True)
    images, gt = data['inputs'], data['gt']
    names = ['loss_cls', 'loss_bbox', 'detector', 'loss_kd_cls', 'loss_kd_loc']
    norms = {}
    for name in names:
        outputs = model.raw_outputs(images)
        leaves = {
            key: getattr(outputs, key).detach().requires_grad_() for key in ('cls_logits', 'box_deltas')
        }
        outputs = outputs._replace(**leaves)
        matched = model.bbox_head.match(outputs, gt)
        losses = model.bbox_head.loss(outputs, matched, gt)
        losses['detector'] = losses['loss_cls'] + losses['loss_bbox']
        losses |= model.distiller(
            images, model.normalization, model.bbox_head.positives(outputs, matched, gt)
        )
        losses[name].backward()
        for key, leaf in leaves.items():
            norms[f'grad_norm/{name}/{key}'] = 0.0 if leaf.grad is None else float(leaf.grad.norm())
    return norms


def test_norms_and_weights_of_the_tiny_ssd(tiny_coco, tmp_path, monkeypatch):
    """The norms are those of a second computation; weights, optimizer and generators keep every bit."""
    be_quick(monkeypatch)
    root = write_sets(tiny_coco, tmp_path / 'set', images=8)
    teacher = save_teacher(tmp_path / 'model_best.pth.tar')
    variants = {
        'plain': {},
        'amp': {'optim_wrapper__type': 'AmpOptimWrapper'},
        'accumulated': {'optim_wrapper__accumulative_counts': 2},
    }
    for name, options in variants.items():
        states = {}
        for alarmed in (False, True):
            work_dir = tmp_path / f'{name}{alarmed}'
            hooks = [{'type': 'KeepFirstStep'}] + [{**ALARM, 'interval': 1}] * alarmed
            cfg = small_config(root, work_dir, teacher, custom_hooks=hooks, **options)
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
            cfg.default_hooks.checkpoint.save_best = None
            cfg.log_level = 'INFO'
            runner = train_tiny(cfg)
            checkpoint = load_checkpoint(work_dir / 'latest.pth')
            states[alarmed] = {key: checkpoint[key] for key in ('state_dict', 'optimizer', 'rng')}
        assert_same(tensors_of(states[False]), tensors_of(states[True]))
        norms = norms_of(work_dir)
        assert list(norms) == [1, 2, 3]
        if name != 'amp':
            expected = reference(*runner.kept)
            assert norms[1] == pytest.approx(expected, rel=1e-5)
            assert all(
                expected[f'grad_norm/loss_kd_{key}'] > 0 for key in ('cls/cls_logits', 'loc/box_deltas')
            )
        (log,) = (file.read_text() for file in work_dir.glob('*/*.log'))
        assert re.search(
            r'gradient norms in iteration 2, by cls_logits: loss_cls \S+, loss_bbox 0, detector \S+, '
            r'loss_kd_cls \S+, loss_kd_loc 0; by box_deltas: loss_cls 0, loss_bbox ',
            log,
        )


TWO_PROCESSES = """
import sys
from pathlib import Path
import pytest
import torch
from mmdet.distributed.launch import leave_process_group
from tests.helpers.tiny_run import be_quick, small_config, train, without_evaluation

be_quick(pytest.MonkeyPatch())
root, teacher, out = map(Path, sys.argv[1:])
for name, hooks in {'without': [], 'with': [{'type': 'DistillationMonitorHook', 'interval': 1}]}.items():
    cfg = small_config(root, out / name, teacher, custom_hooks=hooks, optim_wrapper__accumulative_counts=2)
    cfg.launcher, cfg.train_cfg.max_iters = 'pytorch', 4
    runner = train(without_evaluation(cfg))
    model = runner.model.module
    weights = dict(model.named_parameters())
    torch.save({'state': model.state_dict(), 'weights': weights}, out / f'{name}{runner.rank}.pth')
leave_process_group()
"""


def test_two_processes_stay_in_step(tiny_coco, tmp_path):
    """Only the main one measures; both end with the bits of a training without the hook."""
    root = write_sets(tiny_coco, tmp_path / 'set', images=16)
    teacher = save_teacher(tmp_path / 'model_best.pth.tar')
    script = tmp_path / 'two_processes.py'
    script.write_text(TWO_PROCESSES)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(ROOT)}
    environment |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port, 'WORLD_SIZE': '2'}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(root), str(teacher), str(tmp_path)],
            env={**environment, 'RANK': str(rank), 'LOCAL_RANK': str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr[-4000:]
    without, alarmed = (
        [torch.load(tmp_path / f'{name}{rank}.pth') for rank in range(2)] for name in ('without', 'with')
    )
    for one, other in zip(without, alarmed, strict=True):
        assert_same(one['state'], other['state'])
    assert_same(alarmed[0]['weights'], alarmed[1]['weights'])
    assert list(norms_of(tmp_path / 'with')) == [1, 2, 3, 4]

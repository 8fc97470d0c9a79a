"""The distillation monitor: on a student of two layers, and on the tiny SSD."""

import copy
import gc
import json
import re
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
from tests.helpers.same import differences
from tests.helpers.tiny_run import (
    DISTILLED,
    be_quick,
    save_teacher,
    small_config,
    train,
    without_evaluation,
    write_sets,
)

MONITOR = {'type': 'DistillationMonitorHook'}


class Outputs(NamedTuple):
    cls_logits: Tensor
    box_deltas: Tensor


class ToyHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls, self.reg = nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, feats):
        return Outputs(self.cls(feats), self.reg(feats))


@MODELS.register_module(force=True)
class ToyDistiller(nn.Module):
    """`loss_kd_cls` is step by step factor * loss + offset, what the script ends with from there on."""

    def __init__(self, script):
        super().__init__()
        self.script = list(script)

    def forward(self, outputs):
        now = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if now == 'fail':
            raise RuntimeError('out of order')
        of_class, of_box = outputs.cls_logits.abs().mean(), outputs.box_deltas.abs().mean()
        return {'loss_kd_cls': now[0] * of_class + now[1], 'loss_kd_loc': of_box}


@MODELS.register_module(force=True)
class ToyStudent(BaseModel):
    last: 'ToyStudent'  # to be built

    def __init__(self, distiller=None):
        super().__init__()
        self.backbone, self.head, self.distiller = nn.Linear(4, 4), ToyHead(), distiller
        self.made, self.hooked = [], []  # what it predicted, forward hooks in each step
        ToyStudent.last = self

    def init_weights(self):
        pass

    def forward(self, inputs, gt, bad_images=None, mode='loss'):
        self.hooked.append(hooks_of(self))
        outputs = self.head(self.backbone(inputs))
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

    def train_toy(script, steps, **keywords):
        distiller = script and {'type': 'ToyDistiller', 'script': script}
        cfg = toy_config(
            model={'type': 'ToyStudent', 'distiller': distiller},
            train_cfg={'type': 'TrainLoop', 'max_iters': steps},
            param_scheduler=None,
            optim_wrapper={'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 1e-5}},
        )
        cfg.default_hooks.distillation_monitor = {**MONITOR, **keywords}
        runner = train(cfg)
        lines = [line for file in (tmp_path / 'run').rglob('*.log') for line in file.read_text().splitlines()]
        return runner, [line.split('WARNING - ')[1] for line in lines if 'WARNING' in line]

    return train_toy


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
    together = {'detector': losses['loss_cls'] + losses['loss_bbox'], **losses}
    root_50 = pytest.approx(50**0.5)
    assert gradient_norms(together, {'logits': logits, 'deltas': deltas}) == {
        'logits': {'detector': 4, 'loss_cls': 5, 'loss_bbox': 3, 'loss_kd': 0, 'loss_off': 0},
        'deltas': {'detector': root_50, 'loss_cls': 0, 'loss_bbox': root_50, 'loss_kd': 7, 'loss_off': 0},
    }
    assert weight.grad is None
    sum(losses.values()).backward()
    assert weight.grad.tolist() == [2 * 3 + 5 - 2 * 3, 2 * 4 + 5 + 7]


def test_a_constant_loss_is_told_once_an_episode(run):
    """Not where it is constant for fewer steps, and not again in an episode."""
    moves, still = (1, 0), (0, 0.25)
    script = [moves, *[still] * 5, moves, still, still, moves, *[(0, 0)] * 3]
    _, warnings = run(script, len(script), patience=3)
    assert len(warnings) == 2
    for line, value, step in zip(warnings, ('0.25', '0'), (2, 11), strict=True):
        assert f'loss_kd_cls is {value}, bit for bit, in each of the 3 steps since iteration {step}:' in line
        assert 'model.distiller.kd_cls=None switches it off' in line


def test_a_dominating_loss_is_told_once_an_episode(run, tmp_path):
    big, small = (1000, 0), (0.2, 0)
    _, warnings = run([big, big, small, big, big], 5, interval=1)
    assert len(warnings) == 2
    norms = norms_of(tmp_path / 'run')
    for line, step in zip(warnings, (1, 4), strict=True):
        term, own = (norms[step][f'grad_norm/{name}/cls_logits'] for name in ('loss_kd_cls', 'detector'))
        assert term > 10 * own > 0
        assert f'with respect to cls_logits has norm {term:.3g} in iteration {step}' in line
        assert f'that of loss_cls + loss_bbox {own:.3g}. Lower model.distiller.kd_cls.loss_weight' in line
    assert run([big], 2, max_grad_ratio=1e6)[1] == warnings  # of the first run only


def test_measured_in_the_first_step_and_every_interval(run, tmp_path):
    """In these steps only there are hooks, on head, distiller and detector; no tensor outlives its step."""
    gc.collect()
    gc.disable()  # nothing may wait for it
    try:
        runner, warnings = run([(1, 0)], 7, interval=3)
        assert len(runner.model.made) == 7
        assert not any(made() is not None for made in runner.model.made)
    finally:
        gc.enable()
    assert runner.model.hooked == [3, 0, 3, 0, 0, 3, 0]
    assert list(norms_of(tmp_path / 'run')) == [1, 3, 6]
    assert warnings == []


def test_plain_training_is_left_alone(run, tmp_path):
    runner, warnings = run(None, 4, interval=1)
    assert runner.model.hooked == [0] * 4
    assert warnings == []
    assert norms_of(tmp_path / 'run') == {}


def test_a_step_that_fails_leaves_no_hook(run):
    with pytest.raises(RuntimeError, match='out of order'):
        run(['fail'], 1)
    assert ToyStudent.last.hooked == [3]
    assert hooks_of(ToyStudent.last) == 0


@pytest.mark.parametrize('keywords', [{'patience': 1}, {'interval': 0}, {'max_grad_ratio': 0}])
def test_numbers_out_of_range(keywords):
    with pytest.raises(ValueError, match=r'distillation_monitor needs patience >= 2, interval'):
        DistillationMonitorHook(**keywords)


def test_on_by_default():
    assert Config.fromfile(DISTILLED).default_hooks.distillation_monitor == MONITOR


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
        matched = model.head.match(outputs.anchors, gt)
        losses = model.head.loss(outputs, matched, gt)
        losses['detector'] = losses['loss_cls'] + losses['loss_bbox']
        losses |= model.distiller(images, model.normalization, model.head.positives(outputs, matched, gt))
        losses[name].backward()
        for key, leaf in leaves.items():
            norms[f'grad_norm/{name}/{key}'] = 0.0 if leaf.grad is None else float(leaf.grad.norm())
    return norms


def test_norms_and_weights_of_the_tiny_ssd(tiny_coco, tmp_path, monkeypatch):
    """The norms are those of a second computation; weights, optimizer and generators keep every bit."""
    be_quick(monkeypatch)
    root = write_sets(tiny_coco, tmp_path / 'set')
    teacher = save_teacher(tmp_path / 'model_best.pth.tar')
    states = []
    for name, monitor in (('without', None), ('with', {**MONITOR, 'interval': 1})):
        hooks = {'default_hooks__distillation_monitor': monitor, 'custom_hooks': [{'type': 'KeepFirstStep'}]}
        cfg = small_config(root, tmp_path / name, teacher, optim_wrapper__accumulative_counts=2, **hooks)
        cfg.log_level = 'INFO'
        runner = train(without_evaluation(cfg))
        checkpoint = load_checkpoint(tmp_path / name / 'latest.pth')
        states.append({key: checkpoint[key] for key in ('state_dict', 'optimizer', 'rng')})
    assert differences(*states) == []
    norms, expected = norms_of(tmp_path / 'with'), reference(*runner.kept)
    assert list(norms) == [1, 2, 3]
    assert norms[1] == pytest.approx(expected, rel=1e-5)
    assert all(expected[f'grad_norm/loss_kd_{key}'] > 0 for key in ('cls/cls_logits', 'loc/box_deltas'))
    (log,) = (file.read_text() for file in (tmp_path / 'with').glob('*/*.log'))
    assert re.search(
        r'gradient norms in iteration 2, by cls_logits: loss_cls \S+, loss_bbox 0, detector \S+, '
        r'loss_kd_cls \S+, loss_kd_loc 0; by box_deltas: loss_cls 0, loss_bbox ',
        log,
    )

"""The distillation monitor: beside a student of two layers, and in trainings of the tiny SSD."""

import copy
import gc
import json
import re
import weakref
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from mmdet.checkpoint.io import load_checkpoint
from mmdet.engine.hooks import DistillationMonitorHook
from mmdet.engine.hooks.distillation_monitor import gradient_norms
from mmdet.registry import HOOKS
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


class Student(nn.Module):
    """Two layers; `loss_kd_cls` is step by step factor * loss + offset, as a script says."""

    def __init__(self, script):
        super().__init__()
        self.head, self.distiller = Head(), script and Distiller(script)
        self.made, self.hooked = [], []  # what it predicted, forward hooks in each step

    def forward(self):
        self.hooked.append(hooks_of(self))
        outputs = self.head(torch.arange(8.0).view(2, 4))
        self.made.append(weakref.ref(outputs.cls_logits))
        losses = {'loss_cls': outputs.cls_logits.square().mean()}
        losses |= {'loss_bbox': outputs.box_deltas.square().mean()}
        return losses if self.distiller is None else losses | self.distiller(outputs)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls, self.reg = nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, feats):
        return SimpleNamespace(cls_logits=self.cls(feats), box_deltas=self.reg(feats))


class Distiller(nn.Module):
    def __init__(self, script):
        super().__init__()
        self.script = list(script)

    def forward(self, outputs):
        factor, offset = self.script.pop(0)
        kd_cls = factor * outputs.cls_logits.abs().mean() + offset
        return {
            'loss_kd_cls': kd_cls,
            'loss_kd_loc': outputs.box_deltas.abs().mean() * (1 + len(self.script)),
        }


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def run(script, steps=None, **keywords):
    """Watch a Student for some steps; returns a runner that keeps warnings, and norms by step."""
    norms, warnings = {}, []
    runner = SimpleNamespace(
        model=Student(script),
        iter=0,
        logger=SimpleNamespace(info=lambda _: None, warning=warnings.append),
        visualizer=SimpleNamespace(add_scalars=lambda scalars, step: norms.update({step: scalars})),
        warnings=warnings,
        norms=norms,
    )
    hook = DistillationMonitorHook(**keywords)
    hook.before_train(runner)
    for runner.iter in range(steps or len(script)):
        hook.before_train_iter(runner, 0)
        losses = {name: loss.item() for name, loss in runner.model().items()}
        hook.after_train_iter(runner, 0, outputs=losses)
    return runner


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


def test_a_constant_loss_is_told_once_an_episode():
    """Not where it is constant for fewer steps, and not again in an episode."""
    script = [*[(0, 1)], *[(0, 0.25)] * 5, (0, 1), *[(0, 0.25)] * 2, (0, 1), *[(0, 0)] * 3]
    warnings = run(script, patience=3).warnings
    assert len(warnings) == 2
    for line, value, step in zip(warnings, ('0.25', '0'), (2, 11), strict=True):
        assert f'loss_kd_cls is {value}, bit for bit, in each of the 3 steps since iteration {step}:' in line
        assert 'model.distiller.kd_cls=None switches it off' in line


def test_a_dominating_loss_is_told_once_an_episode():
    big, small = (1000, 0), (0.2, 0)
    runner = run([big, big, small, big, big], interval=1)
    dominating = [line for line in runner.warnings if 'loss_kd_cls dominates' in line]
    assert len(dominating) == 2
    for line, step in zip(dominating, (1, 4), strict=True):
        term, own = (
            runner.norms[step][f'grad_norm/{name}/cls_logits'] for name in ('loss_kd_cls', 'detector')
        )
        assert term > 10 * own > 0
        assert f'with respect to cls_logits has norm {term:.3g} in iteration {step}' in line
        assert f'that of loss_cls + loss_bbox {own:.3g}. Lower model.distiller.kd_cls.loss_weight' in line
    assert run([big], max_grad_ratio=1e6).warnings == []


def test_measured_in_the_first_step_and_every_interval():
    """In these steps only there are hooks, on head, distiller and detector; no tensor outlives its step."""
    gc.collect()
    gc.disable()  # nothing may wait for it
    try:
        runner = run([(1, 0)] * 7, interval=3)
        assert [made() for made in runner.model.made] == [None] * 7
    finally:
        gc.enable()
    assert runner.model.hooked == [3, 0, 3, 0, 0, 3, 0]
    assert list(runner.norms) == [1, 3, 6]


def test_plain_training_is_left_alone():
    runner = run(None, 4, interval=1)
    assert runner.model.hooked == [0] * 4
    assert runner.warnings == [] and runner.norms == {}


def test_a_step_that_fails_leaves_no_hook(monkeypatch):
    students = []
    monkeypatch.setattr(Student, 'forward', lambda self: students.append((self, hooks_of(self))) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run([(1, 0)])
    ((student, hooks),) = students
    assert hooks == 3
    assert hooks_of(student) == 0


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
    (scalars,) = (tmp_path / 'with').rglob('scalars.json')
    lines = map(json.loads, scalars.read_text().splitlines())
    norms = {line.pop('step'): line for line in lines if 'grad_norm/detector/cls_logits' in line}
    expected = reference(*runner.kept)
    assert list(norms) == [1, 2, 3]
    assert norms[1] == pytest.approx(expected, rel=1e-5)
    assert all(expected[f'grad_norm/loss_kd_{key}'] > 0 for key in ('cls/cls_logits', 'loc/box_deltas'))
    (log,) = (file.read_text() for file in (tmp_path / 'with').glob('*/*.log'))
    assert re.search(
        r'gradient norms in iteration 2, by cls_logits: loss_cls \S+, loss_bbox 0, detector \S+, '
        r'loss_kd_cls \S+, loss_kd_loc 0; by box_deltas: loss_cls 0, loss_bbox ',
        log,
    )

"""Numbers that are not finite: steps that are left out, the end of a run, and no ruined checkpoint."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from mmdet.checkpoint.io import load_checkpoint, not_finite
from mmdet.engine import DetRunner
from mmdet.engine.nonfinite import describe_step
from mmdet.registry import MODELS
from mmdet.structures import GroundTruth
from tests.unit.engine.conftest import ToyDataset, ToyModel
from tests.unit.engine.test_loops import train, weights


@MODELS.register_module(force=True)
class FragileModel(ToyModel):
    """In steps of `explode` the losses are not finite, in those of `break_gradient` gradients alone."""

    def __init__(self, explode=(), break_gradient=(), **keywords):
        super().__init__(**keywords)
        self.explode, self.break_gradient = explode, break_gradient

    def forward(self, inputs, gt, bad_images=None, mode='loss'):
        if mode == 'loss' and self.steps + 1 in self.explode:
            inputs = inputs * float('inf')  # reaches BatchNorm's statistics, too
        losses = super().forward(inputs, gt, bad_images, mode)
        if mode == 'loss' and self.steps in self.break_gradient:
            losses['loss_root'] = (self.layer.weight.sum() * 0).sqrt()
        return losses


class Watch(Hook):
    """What each step leaves behind."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.states, self.batches, self.outputs = [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.states.append({name: value.clone() for name, value in runner.model.state_dict().items()})
        self.batches.append(data_batch)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.outputs.append(outputs)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def limited(toy_config, max_skipped, **model):
    train_cfg = {'type': 'TrainLoop', 'max_epochs': 2, 'max_skipped': max_skipped}
    return toy_config(model={'type': 'FragileModel', **model}, train_cfg=train_cfg)


def test_steps_are_left_out_whole(toy_config, tmp_path):
    """Also the first, and one that ends an epoch: nothing changes, and the log holds no NaN."""
    cfg = limited(toy_config, 3, explode=(1, 5, 6))
    cfg.custom_hooks = [{'type': 'EMAHook'}]
    runner = DetRunner.from_cfg(cfg)
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    left_out = [number for number, outputs in enumerate(watch.outputs) if outputs is None]
    assert left_out == [0, 4, 5]
    after = watch.states[1:]
    assert all(same(watch.states[step], after[step]) == (step in left_out) for step in range(9))
    checkpoint = load_checkpoint(tmp_path / 'run/latest.pth')
    assert (checkpoint['meta']['iter'], checkpoint['meta']['skipped_steps']) == (10, 3)
    assert not_finite(checkpoint) == []
    (scalars,) = (tmp_path / 'run').rglob('scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert len(lines) == 10
    assert not any('nan' in str(line).lower() or 'inf' in str(line).lower() for line in lines)
    (log,) = (tmp_path / 'run').glob('*/*.log')
    said = log.read_text()
    assert 'step left out, 3 of at most 3: loss_cls is nan, loss_bbox is nan in iteration 6' in said
    assert '(epoch 2, batch 1) of process 0, at learning rate 0.01, on these images' in said
    assert said.count('.jpg, no boxes') == 6


def test_gradients_are_summed_over_the_steps_that_are_made(toy_config, tmp_path):
    """Three at a time, also around steps that are left out and a resume: as the definition, SGD by hand."""

    def config(**keys):
        cfg = limited(toy_config, 2, explode=(3, 6), dropout=0)
        cfg.optim_wrapper.update(accumulative_counts=3)
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1)
        cfg.param_scheduler = None
        cfg.update(keys)
        return cfg

    runner = DetRunner.from_cfg(config())
    watch = Watch()
    runner.register_hook(watch)
    model = copy.deepcopy(runner.model)
    model.explode = ()
    model.train()
    runner.train()
    made = [batch for batch, outputs in zip(watch.batches, watch.outputs, strict=True) if outputs]
    assert len(made) == 8
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for first in range(0, 8, 3):
        group = made[first : first + 3]
        losses = [sum(model(**batch, mode='loss').values()) for batch in group]
        optimizer.zero_grad()
        (sum(losses) / len(group)).backward()
        optimizer.step()
    expected, found = model.state_dict(), runner.model.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)

    middle = load_checkpoint(tmp_path / 'run/iter_7.pth')
    assert middle['gradients']
    resumed = config(
        resume=True, load_from=str(tmp_path / 'run/iter_7.pth'), work_dir=str(tmp_path / 'other')
    )
    resumed.model.explode = ()
    assert same(train(resumed).model.state_dict(), found)


def test_what_is_said_of_each_image():
    """Its own file, its own boxes, its own classes."""
    boxes = torch.arange(48.0).view(2, 6, 4)
    labels = torch.tensor([[0, 1, 1, 1, 1, 1], [5, 0, 0, 0, 0, 0]])
    valid = torch.tensor([[True] * 6, [True] + [False] * 5])
    shape = torch.ones(2, 2, dtype=torch.int64)
    gt = GroundTruth(torch.tensor([7, 3]), shape, shape, boxes, labels, valid)
    losses = {'loss': math.inf, 'loss_cls': 0.5, 'loss_bbox': -math.inf}
    said = describe_step(losses, 'iteration 9', {'gt': gt}, ToyDataset()).splitlines()
    assert said[0].startswith('loss_bbox is -inf in iteration 9, on these images')
    assert said[1].startswith('  id 7: 7.jpg, [0.0 1.0 2.0 3.0] cat, [4.0 5.0 6.0 7.0] dog, ')
    assert said[1].endswith(' dog and 2 more')
    assert said[2:] == ['  id 3: 3.jpg, [24.0 25.0 26.0 27.0] 5']
    assert describe_step({'loss': math.nan}, 'iteration 1', {'gt': gt}, None).startswith('loss is nan in')


def test_one_more_stops_also_after_a_resume(toy_config, tmp_path):
    with pytest.raises(FloatingPointError, match=r'iteration 9(?s:.*)max_skipped=12'):
        train(limited(toy_config, 2, explode=(2, 4, 9)))
    assert load_checkpoint(tmp_path / 'run/latest.pth')['meta']['skipped_steps'] == 2
    cfg = limited(toy_config, 2, explode=(2,))
    cfg.resume = True
    with pytest.raises(FloatingPointError, match='iteration 7'):
        train(cfg)
    with pytest.raises(ValueError, match='max_skipped is a whole number from 0 on; got -1'):
        train(limited(toy_config, -1))


def test_what_is_kept_of_a_step(toy_config, tmp_path):
    """Weights and random numbers before it, its batch: enough for the same losses."""
    with pytest.raises(FloatingPointError, match=r'reproduce_step\.py CONFIG .*not_finite_iter_4\.pth'):
        train(toy_config(model={'type': 'ToyModel', 'explode_at': 4}))
    dump = load_checkpoint(tmp_path / 'run/not_finite_iter_4.pth')
    train(toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': 3}, work_dir=str(tmp_path / 'three')))
    before = load_checkpoint(tmp_path / 'three/latest.pth')
    assert all(
        torch.equal(dump['state_dict'][name], before['state_dict'][name])
        for name in ('layer.weight', 'layer.bias', 'norm.weight', 'norm.bias')
    )
    assert all(torch.equal(dump['rng'][0][name], before['rng'][0][name]) for name in before['rng'][0])
    assert dump['batch']['inputs'].shape == (2, 4)
    meta = dump['meta']
    assert (meta['iter'], meta['batch_in_epoch'], meta['seed'], meta['amp_dtype']) == (3, 3, 0, None)
    assert meta['losses']['loss_cls'] > 0
    assert 'ToyModel' in meta['cfg']


def test_a_dump_that_cannot_be_written_hides_nothing(toy_config, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmdet.engine.nonfinite.save_checkpoint', full)
    with pytest.raises(FloatingPointError, match=r'loss_bbox is nan(?s:.*)could not be kept in .*No space'):
        train(toy_config(model={'type': 'ToyModel', 'explode_at': 4}))


def test_a_gradient_that_is_not_finite_ruins_no_checkpoint(toy_config, tmp_path):
    """In a step that is followed by a checkpoint, and in one that is not: no number of skips helps then."""
    latest = tmp_path / 'run/latest.pth'
    with pytest.raises(FloatingPointError, match=r'epoch_2\.pth was not written: (?s:.*)epoch_1\.pth'):
        train(limited(toy_config, 9, break_gradient=(10,)))
    assert not_finite(load_checkpoint(latest)) == []
    assert not Path(tmp_path / 'run/epoch_2.pth').exists()
    with pytest.raises(FloatingPointError, match=r'weights are not finite(?s:.*)epoch_1\.pth'):
        train(limited(toy_config, 9, break_gradient=(7,)))
    assert load_checkpoint(latest)['meta']['iter'] == 5
    assert list((tmp_path / 'run').glob('not_finite*')) == []


def test_float16_leaves_gradients_that_overflow_to_its_scale(toy_config):
    cfg = limited(toy_config, 0, break_gradient=(4,))
    cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='float16')
    assert not_finite(train(cfg).model.state_dict()) == []


class OddLog(Hook):
    """Logs a number that is not finite, and an average of weights that holds one from a step on."""

    def __init__(self, spoil=None):
        self.spoil = spoil

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        runner.message_hub.update_scalar('train/odd', float('nan'))

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['average'] = {'weight': torch.tensor([1.0, torch.inf if self.spoil else 0.0])}


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_summed_gradients_may_overflow_where_a_scaler_leaves_them_out(toy_config, tmp_path, dtype):
    """A checkpoint between two steps of the optimizer holds them; without a scaler the next is ruined."""
    cfg = limited(toy_config, 0, break_gradient=(3,))
    cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype=dtype, accumulative_counts=2)
    cfg.default_hooks.checkpoint.update(interval=1, by_epoch=False)
    file = tmp_path / 'run/iter_3.pth'
    if dtype == 'float16':
        assert not_finite(train(cfg).model.state_dict()) == []
        assert not_finite(load_checkpoint(file)) == ['gradients.0.0']
        assert not_finite(load_checkpoint(tmp_path / 'run/latest.pth')) == []
    else:
        with pytest.raises(
            FloatingPointError, match=r'iter_3\.pth was not .* 1 of .*gradients\.0\.0(?s:.*)iter_2\.pth'
        ):
            train(cfg)
        assert not file.exists()


@pytest.mark.parametrize('spoil', [False, True])
def test_logged_values_need_not_be_finite_but_what_hooks_add_must(toy_config, tmp_path, spoil):
    runner = DetRunner.from_cfg(limited(toy_config, 0))
    runner.register_hook(OddLog(spoil))
    if spoil:
        with pytest.raises(FloatingPointError, match=r'epoch_1\.pth was not .*average\.weight'):
            runner.train()
        return
    runner.train()
    assert not_finite(load_checkpoint(tmp_path / 'run/latest.pth')) == ['log.train/odd.0']
    cfg = limited(toy_config, 0)
    cfg.resume, cfg.train_cfg.max_epochs = True, 3
    assert train(cfg).iter == 15  # the resumed log holds it, too


def test_the_loop_makes_the_models_own_step(toy_config, tmp_path, monkeypatch):
    """Bit for bit what `train_step` of MMEngine's BaseModel does."""
    train(toy_config())
    own = weights(tmp_path / 'run/latest.pth')

    def run_iter(self, batch_idx, data_batch):
        self.runner.call_hook('before_train_iter', batch_idx=batch_idx, data_batch=data_batch)
        losses = self.runner.model.train_step(data_batch, self.runner.optim_wrapper)
        outputs = {name: value.item() for name, value in losses.items()}
        self.runner.call_hook('after_train_iter', batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)
        self.iter += 1
        self.batch += 1

    monkeypatch.setattr('mmdet.engine.TrainLoop.run_iter', run_iter)
    train(toy_config(work_dir=str(tmp_path / 'other')))
    assert same(own, weights(tmp_path / 'other/latest.pth'))

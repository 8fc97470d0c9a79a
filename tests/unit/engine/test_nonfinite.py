"""Numbers that are not finite end a run, and never reach a checkpoint."""

import math
import re

import pytest
import torch
from mmengine.hooks import Hook

from mmdet.checkpoint.io import load_checkpoint, not_finite
from mmdet.engine import DetRunner
from mmdet.engine.nonfinite import describe_step
from mmdet.structures import GroundTruth
from tests.helpers.same import assert_same_checkpoints
from tests.helpers.tiny_run import train
from tests.unit.engine.conftest import ToyDataset


def test_a_loss_stops_within_the_step(toy_config, tmp_path):
    with pytest.raises(FloatingPointError) as caught:
        train(toy_config(model={'type': 'ToyModel', 'explode_at': 7}))
    message = str(caught.value)
    assert (
        'loss_bbox is nan in iteration 7 (epoch 2, batch 2) of process 0, at learning rate 0.01,' in message
    )
    assert 'loss_cls' not in message
    assert len(re.findall(r'^  id (\d): \1\.jpg, no boxes$', message, re.MULTILINE)) == 2
    assert 'optim_wrapper.optimizer.lr' in message
    assert '--resume' in message
    assert load_checkpoint(tmp_path / 'run/latest.pth')['meta']['iter'] == 5


def test_what_is_said_of_each_image():
    """Its own file, its own boxes, its own classes."""
    boxes = torch.arange(48.0).view(2, 6, 4)
    labels = torch.tensor([[0, 1, 1, 1, 1, 1], [5, 0, 0, 0, 0, 0]])
    valid = torch.tensor([[True] * 6, [True] + [False] * 5])
    shape = torch.ones(2, 2, dtype=torch.int64)
    gt = GroundTruth(torch.tensor([7, 3]), shape, shape, boxes, labels, valid, torch.zeros_like(labels))
    losses = {'loss': math.inf, 'loss_cls': 0.5, 'loss_bbox': -math.inf}
    said = describe_step(losses, 'iteration 9', {'gt': gt}, ToyDataset()).splitlines()
    assert said[0].startswith('loss_bbox is -inf in iteration 9, on these images')
    assert said[1].startswith('  id 7: 7.jpg, [0.0 1.0 2.0 3.0] cat, [4.0 5.0 6.0 7.0] dog, ')
    assert said[1].endswith(' dog and 2 more')
    assert said[2:] == ['  id 3: 3.jpg, [24.0 25.0 26.0 27.0] 5']
    assert describe_step({'loss': math.nan}, 'iteration 1', {'gt': gt}, None).startswith('loss is nan in')
    assert describe_step({'loss': 1.0}, 'iteration 1', {'gt': gt}, None) == ''


class SpoilAverage(Hook):
    """Adds to a checkpoint an average of weights that is not finite."""

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['average'] = {'weight': torch.tensor([1.0, torch.inf])}


def test_no_checkpoint_holds_them(toy_config, tmp_path):
    """Gradients of a step that a checkpoint follows, or none; what a hook adds; the good one stays."""

    def stop(message, *hooks, **model):
        runner = DetRunner.from_cfg(toy_config(model={'type': 'ToyModel', **model}))
        for hook in hooks:
            runner.register_hook(hook)
        with pytest.raises(FloatingPointError, match=message):
            runner.train()

    stop(r'epoch_2\.pth was not written: (?s:.*)good one is .*epoch_1\.pth', break_gradient=10)
    stop(r'weights are not finite(?s:.*)good one is .*epoch_1\.pth', break_gradient=7)
    stop(r'epoch_1\.pth was not .*average\.weight', SpoilAverage())
    assert [file.name for file in sorted((tmp_path / 'run').glob('*.pth'))] == ['epoch_1.pth', 'latest.pth']
    checkpoint = load_checkpoint(tmp_path / 'run/latest.pth')
    assert (checkpoint['meta']['iter'], not_finite(checkpoint)) == (5, [])


def test_float16_leaves_gradients_that_overflow_to_its_scale(toy_config):
    cfg = toy_config(model={'type': 'ToyModel', 'break_gradient': 4})
    cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='float16')
    assert not_finite(train(cfg).model.state_dict()) == []


class OddLog(Hook):
    """Logs a number that is not finite."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        runner.message_hub.update_scalar('train/odd', float('nan'))


def test_logged_values_need_not_be_finite(toy_config, tmp_path):
    runner = DetRunner.from_cfg(toy_config())
    runner.register_hook(OddLog())
    runner.train()
    assert not_finite(load_checkpoint(tmp_path / 'run/latest.pth')) == ['log.train/odd.0']
    cfg = toy_config(resume=True, train_cfg={'type': 'TrainLoop', 'max_epochs': 3})
    assert train(cfg).iter == 15  # the resumed log holds it, too


def test_the_loop_makes_the_models_own_step(toy_config, tmp_path, monkeypatch):
    """Bit for bit what `train_step` of MMEngine's BaseModel does."""
    train(toy_config())

    def run_iter(self, batch_idx, data_batch):
        self.runner.call_hook('before_train_iter', batch_idx=batch_idx, data_batch=data_batch)
        losses = self.runner.model.train_step(data_batch, self.runner.optim_wrapper)
        outputs = {name: value.item() for name, value in losses.items()}
        self.runner.call_hook('after_train_iter', batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)
        self.iter += 1
        self.batch += 1

    monkeypatch.setattr('mmdet.engine.TrainLoop.run_iter', run_iter)
    train(toy_config(tmp_path / 'other'))
    assert_same_checkpoints(tmp_path / 'run/latest.pth', tmp_path / 'other/latest.pth')

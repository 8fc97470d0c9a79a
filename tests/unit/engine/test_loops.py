"""The training loop: where it stops, where it goes on, what it says."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from mmdet.checkpoint.io import load_checkpoint
from mmdet.engine import DetRunner


def train(cfg):
    runner = DetRunner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.mark.parametrize(
    ('limits', 'epoch', 'iteration', 'batch'),
    [
        ({'max_epochs': 2}, 2, 10, 0),
        ({'max_iters': 7}, 1, 7, 2),
        ({'max_epochs': 2, 'max_iters': 3}, 0, 3, 3),
        ({'max_epochs': 1, 'max_iters': 30}, 1, 5, 0),
        ({'max_epochs': 2, 'max_iters': 5}, 1, 5, 0),
    ],
)
def test_ends_at_whichever_limit_comes_first(toy_config, limits, epoch, iteration, batch):
    runner = train(toy_config(train_cfg={'type': 'TrainLoop', **limits}))
    loop = runner.train_loop
    assert (loop.epoch, loop.iter, loop.batch) == (epoch, iteration, batch)
    name = f'epoch_{epoch}.pth' if batch == 0 else f'iter_{iteration}.pth'
    assert (Path(runner.work_dir) / 'latest.pth').resolve().name == name


def test_no_limit_and_no_data_are_errors(toy_config):
    with pytest.raises(ValueError, match='max_epochs or max_iters'):
        train(toy_config(train_cfg={'type': 'TrainLoop'}))
    with pytest.raises(ValueError, match='whole number'):
        train(toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': 0}))
    cfg = toy_config()
    cfg.train_dataloader.update(drop_last=True, batch_size=11)
    with pytest.raises(ValueError, match='not one batch to train on: 10 images, batch size 11'):
        train(cfg)


def test_schedules_count_iterations_and_epochs(toy_config):
    runner = DetRunner.from_cfg(toy_config())
    rates = []
    runner.register_hook(RateHook(rates))
    runner.train()
    warm_up = [0.01, 0.04, 0.07, 0.1, 0.1]
    assert rates == pytest.approx(warm_up + [0.01] * 5)


class RateHook(Hook):
    def __init__(self, rates):
        self.rates = rates

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates += runner.optim_wrapper.get_lr()['lr']


def weights(path):
    checkpoint = load_checkpoint(path)
    return checkpoint['state_dict'] | {
        f'momentum_{i}': state['momentum_buffer'] for i, state in checkpoint['optimizer']['state'].items()
    }


@pytest.mark.parametrize('stop', [3, 5, 7])
@pytest.mark.parametrize('workers', [0, 1])
def test_resuming_gives_the_same_bits(toy_config, tmp_path, stop, workers):
    """Inside an epoch too, with dropout, momentum, BatchNorm and schedules."""

    def config(folder, **keys):
        cfg = toy_config(work_dir=str(tmp_path / folder), **keys)
        cfg.train_dataloader.update(num_workers=workers, persistent_workers=False)
        return cfg

    train(config('whole'))
    train(config('parts', train_cfg={'type': 'TrainLoop', 'max_epochs': 2, 'max_iters': stop}))
    torch.rand(7)  # another process would have other random numbers by now
    resumed = train(config('parts', resume=True, randomness={'seed': 9}))
    assert resumed.seed == 0
    whole, parts = (weights(tmp_path / folder / 'latest.pth') for folder in ('whole', 'parts'))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_resuming_averaged_weights(toy_config, tmp_path):
    """EMA's hook keeps its average in the checkpoint, and the checkpoint's weights are the average."""
    ema = [{'type': 'EMAHook', 'momentum': 0.3}]

    def config(folder, **keys):
        return toy_config(work_dir=str(tmp_path / folder), custom_hooks=ema, **keys)

    train(config('whole'))
    train(config('parts', train_cfg={'type': 'TrainLoop', 'max_iters': 3}))
    train(config('parts', resume=True))
    whole, parts = (load_checkpoint(tmp_path / folder / 'latest.pth') for folder in ('whole', 'parts'))
    for key in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(whole[key][name], parts[key][name]) for name in whole[key])
    assert not torch.equal(
        whole['state_dict']['layer.weight'], whole['ema_state_dict']['module.layer.weight']
    )


def test_nothing_left_to_train(toy_config, tmp_path):
    train(toy_config())
    written = (tmp_path / 'run/epoch_2.pth').stat().st_mtime_ns
    assert train(toy_config(resume=True)).iter == 10
    assert (tmp_path / 'run/epoch_2.pth').stat().st_mtime_ns == written


@pytest.mark.parametrize(('auto', 'factor'), [(False, 1), (True, 2)])
def test_a_larger_batch_goes_on_at_the_same_image(toy_config, auto, factor):
    """Its rate is the checkpoint's, and scaled when that is asked for; in the second epoch a tenth of it."""
    train(toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': 3}))
    scale = {'enable': auto, 'base_batch_size': 2}
    cfg = toy_config(resume=True, auto_scale_lr=scale)
    cfg.train_dataloader.batch_size = 4
    runner = DetRunner.from_cfg(cfg)
    rates: list[float] = []
    runner.register_hook(RateHook(rates))
    runner.train()
    assert runner.iter == 3 + 1 + 3  # the last four images of the first epoch, then a whole one
    assert rates == pytest.approx([factor * rate for rate in (0.1, 0.01, 0.01, 0.01)])


def test_evaluates_at_its_interval_and_at_the_end(with_evaluation):
    cfg = with_evaluation([0.1, 0.2], train_cfg={'type': 'TrainLoop', 'max_epochs': 3, 'val_interval': 2})
    assert train(cfg).val_loop.evaluator.metrics[0].scores == []
    cfg = with_evaluation([0.1], train_cfg={'type': 'TrainLoop', 'max_iters': 3})
    assert train(cfg).val_loop.evaluator.metrics[0].scores == []


def test_a_loss_that_is_not_finite_stops_within_the_step(toy_config, tmp_path):
    with pytest.raises(FloatingPointError) as caught:
        train(toy_config(model={'type': 'ToyModel', 'explode_at': 7}))
    message = str(caught.value)
    assert 'loss_bbox is nan in iteration 7 (epoch 2, batch 2)' in message
    assert 'loss_cls' not in message
    assert 'learning rate 0.01' in message
    assert len(re.findall(r'^  id (\d): \1\.jpg, no boxes$', message, re.MULTILINE)) == 2
    assert load_checkpoint(tmp_path / 'run/latest.pth')['meta']['iter'] == 5


def test_gradients_accumulate_and_are_clipped(toy_config):
    cfg = toy_config()
    cfg.optim_wrapper.update(accumulative_counts=2, clip_grad={'max_norm': 1.0})
    runner = train(cfg)
    assert len(runner.message_hub.log_scalars['train/grad_norm'].data[0]) == 5


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_mixed_precision_on_the_cpu(toy_config, tmp_path, dtype):
    def config(folder, **keys):
        cfg = toy_config(work_dir=str(tmp_path / folder), **keys)
        cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype=dtype)
        return cfg

    runner = train(config('whole'))
    assert runner.optim_wrapper.scaler.is_enabled() == (dtype == 'float16')
    train(config('parts', train_cfg={'type': 'TrainLoop', 'max_epochs': 2, 'max_iters': 3}))
    assert train(config('parts', resume=True)).iter == 10
    whole, parts = (weights(tmp_path / folder / 'latest.pth') for folder in ('whole', 'parts'))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

"""The training loop: where it stops, where it goes on, when it evaluates."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from mmdet.engine import DetRunner
from tests.helpers.same import assert_same_checkpoints
from tests.helpers.tiny_run import train
from tests.unit.engine.conftest import make_toy_config


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


@pytest.mark.parametrize(
    ('limits', 'batch_size', 'message'),
    [
        ({}, 2, 'max_epochs or max_iters'),
        ({'max_iters': 0}, 2, 'max_iters is a whole number from 1 on; got 0'),
        ({'max_epochs': 1}, 11, 'not one batch to train on: 10 images, batch size 11'),
    ],
)
def test_no_limit_and_no_data_are_errors(toy_config, limits, batch_size, message):
    cfg = toy_config(train_cfg={'type': 'TrainLoop', **limits})
    cfg.train_dataloader.update(drop_last=True, batch_size=batch_size)
    with pytest.raises(ValueError, match=message):
        train(cfg)


class Watch(Hook):
    """The learning rate and the batch of each step, and the scale of the losses with it."""

    def __init__(self):
        self.rates, self.batches = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates += runner.optim_wrapper.get_lr()['lr']
        self.batches.append(data_batch)


def watched(cfg):
    runner = DetRunner.from_cfg(cfg)
    watch = Watch()
    runner.register_hook(watch)
    return runner, watch


def test_schedules_count_iterations_and_epochs(toy_config):
    runner, watch = watched(toy_config())
    runner.train()
    warm_up = [0.01, 0.04, 0.07, 0.1, 0.1]
    assert watch.rates == pytest.approx(warm_up + [0.01] * 5)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of a run that is not stopped, with a checkpoint of every step."""
    folder = tmp_path_factory.mktemp('whole')
    cfg = make_toy_config(folder)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1)
    train(cfg)
    return folder


@pytest.mark.parametrize(('stop', 'workers'), [(3, 1), (5, 0), (7, 0)])
def test_resuming_gives_the_same_bits(toy_config, tmp_path, whole, stop, workers):
    """Inside an epoch too, with dropout, momentum, BatchNorm and schedules."""
    train(toy_config(train_cfg={'type': 'TrainLoop', 'max_epochs': 2, 'max_iters': stop}))
    torch.rand(7)  # another process would have other random numbers by now
    cfg = toy_config(resume=True, randomness={'seed': 9})
    cfg.train_dataloader.update(num_workers=workers, persistent_workers=False)
    assert train(cfg).seed == 0
    assert_same_checkpoints(whole / 'latest.pth', tmp_path / 'run/latest.pth')


def test_nothing_left_to_train(toy_config, whole):
    written = (whole / 'epoch_2.pth').stat().st_mtime_ns
    assert train(toy_config(whole, resume=True)).iter == 10
    assert (whole / 'epoch_2.pth').stat().st_mtime_ns == written


@pytest.mark.parametrize(('auto', 'factor'), [(False, 1), (True, 2)])
def test_a_larger_batch_goes_on_at_the_same_image(toy_config, whole, auto, factor):
    """Its rate is the checkpoint's, and scaled when that is asked for; in the second epoch a tenth of it."""
    scale = {'enable': auto, 'base_batch_size': 2}
    cfg = toy_config(resume=True, load_from=str(whole / 'iter_3.pth'), auto_scale_lr=scale)
    cfg.train_dataloader.batch_size = 4
    runner, watch = watched(cfg)
    runner.train()
    assert runner.iter == 3 + 1 + 3  # the last four images of the first epoch, then a whole one
    assert watch.rates == pytest.approx([factor * rate for rate in (0.1, 0.01, 0.01, 0.01)])


def test_evaluates_at_its_interval_and_at_the_end(with_evaluation):
    for scores, limits in (([0.1, 0.2], {'max_epochs': 3, 'val_interval': 2}), ([0.1], {'max_iters': 3})):
        cfg = with_evaluation(scores, train_cfg={'type': 'TrainLoop', **limits})
        assert train(cfg).val_loop.evaluator.metrics[0].scores == []


def test_gradients_are_summed_and_clipped_to_the_end_of_an_epoch(toy_config, tmp_path):
    """Three batches at a time, then two: as by hand. Checkpoints wait for a step of the optimizer."""
    cfg = toy_config(model={'type': 'ToyModel', 'dropout': 0}, param_scheduler=None)
    cfg.optim_wrapper.update(accumulative_counts=3, clip_grad={'max_norm': 1.0})
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1)
    runner, watch = watched(cfg)
    model = copy.deepcopy(runner.model).train()
    runner.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for first, last in ((0, 3), (3, 5), (5, 8), (8, 10)):
        losses = [sum(model(**batch, mode='loss').values()) for batch in watch.batches[first:last]]
        optimizer.zero_grad()
        (sum(losses) / len(losses)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(runner.model.state_dict()[name], value, msg=name)
    names = {file.name for file in (tmp_path / 'run').glob('*_*.pth')}
    assert names == {'iter_3.pth', 'iter_5.pth', 'iter_8.pth', 'iter_10.pth', 'epoch_2.pth'}


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_mixed_precision_on_the_cpu(toy_config, dtype):
    cfg = toy_config()
    cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype=dtype)
    assert train(cfg).optim_wrapper.loss_scaler.is_enabled() == (dtype == 'float16')

"""What DetRunner builds, and how it differs from MMEngine's Runner."""

import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from mmengine.model import MMDistributedDataParallel

from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from mmdet.config.options import parse_value
from mmdet.config.resolve import merge_config
from mmdet.engine import DetRunner
from mmdet.models.backbones import ClassifierBackbone
from tests.helpers.forked import free_port
from tests.helpers.tiny_run import PLAIN, train
from tests.unit.engine.conftest import make_toy_config

SGD = {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 5e-4}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The last checkpoint of a run of one epoch."""
    folder = tmp_path_factory.mktemp('trained')
    train(make_toy_config(folder, train_cfg={'type': 'TrainLoop', 'max_epochs': 1}))
    return folder / 'epoch_1.pth'


def test_a_loader_has_the_seed_and_its_own_generator(toy_config):
    cfg = toy_config(randomness={'seed': 5})
    cfg.train_dataloader.collate_fn = {'type': 'collate_toys', 'scale': 0}
    runner = DetRunner.from_cfg(cfg)
    loader = runner.build_dataloader(runner.cfg.train_dataloader, seed=runner.seed)
    assert (loader.dataset.seed, loader.sampler.seed) == (5, 5)
    assert loader.persistent_workers is False
    before = torch.get_rng_state()
    assert not next(iter(loader))['inputs'].any()
    assert torch.equal(before, torch.get_rng_state())
    assert loader.sampler.batch_size == 2
    dropping = runner.build_dataloader({**runner.cfg.train_dataloader, 'drop_last': True})
    assert dropping.sampler.batch_size == 1  # a last batch of one image is dropped, not filled up


def test_weights_of_another_model_are_refused(toy_config, trained):
    for resume, message in (
        (True, 'does not fit the ToyModel(?s:.*)mismatch.*layer'),
        (False, 'holds nothing'),
    ):
        cfg = toy_config(model={'type': 'ToyModel', 'width': 5}, load_from=str(trained), resume=resume)
        with pytest.raises(ValueError, match=rf'epoch_1\.pth {message}'):
            train(cfg)


def test_a_new_training_takes_what_fits(toy_config, trained, monkeypatch):
    """The rest starts as ever, a backbone from its own weights; averages begin with the same."""
    cfg = toy_config(load_from=str(trained))
    cfg.train_dataloader.dataset.classes = ['cat', 'cow']
    cfg.optim_wrapper.optimizer.lr = 0.0
    cfg.default_hooks.ema = {'type': 'EMAHook'}
    runner = DetRunner.from_cfg(cfg)
    backbone = runner.model.backbone = torch.nn.Linear(2, 2)
    monkeypatch.setattr(runner.model, 'init_weights', lambda: torch.nn.init.ones_(backbone.weight))
    runner.train()
    assert torch.equal(runner.model.layer.weight, load_checkpoint(trained)['state_dict']['layer.weight'])
    assert backbone.weight.eq(1).all()
    averaged = next(hook.ema_model.module for hook in runner.hooks if hasattr(hook, 'ema_model'))
    assert torch.equal(averaged.layer.weight, runner.model.layer.weight)
    assert averaged.backbone.weight.eq(1).all()


def test_weights_of_other_classes_are_not_resumed(toy_config, trained):
    cfg = toy_config(load_from=str(trained), resume=True)
    cfg.train_dataloader.dataset.classes = ['cat', 'cow']
    with pytest.raises(ValueError, match=r'cat, cow\n(?s:.*)cat, dog'):
        train(cfg)


def test_weights_without_training_state_start_a_new_training(toy_config, tmp_path, trained):
    state = load_checkpoint(trained)['state_dict']
    save_checkpoint({f'module.{name}': tensor for name, tensor in state.items()}, tmp_path / 'bare.pth')
    cfg = toy_config(load_from=str(tmp_path / 'bare.pth'), model={'type': 'ToyModel', 'weights': 'missing'})
    cfg.optim_wrapper.optimizer.lr = 0.0
    runner = train(cfg)
    assert runner.iter == 10
    assert torch.equal(runner.model.layer.weight, state['layer.weight'])


def test_weights_to_start_from_are_asked_for_only_by_a_new_training(toy_config, trained):
    model = {'type': 'ToyModel', 'weights': 'missing'}
    with pytest.raises(FileNotFoundError, match='vgg16'):
        train(toy_config(model=model, resume=True))  # nothing to resume: starts from the beginning
    assert train(toy_config(model=model, resume=True, load_from=str(trained))).iter == 10


def test_the_newest_is_resumed_or_else_training_starts_from_a_file(toy_config, trained, tmp_path):
    """As a batch script says it that always has --resume."""
    cfg = toy_config(load_from=str(trained), resume='latest')
    cfg.optim_wrapper.optimizer.lr = 0.0
    runner = train(cfg)
    assert runner.iter == 10
    assert torch.equal(runner.model.layer.weight, load_checkpoint(trained)['state_dict']['layer.weight'])
    (log,) = (tmp_path / 'run').glob('*/*.log')
    told = f'nothing to resume in {tmp_path / "run"}: training starts from {trained}'
    assert log.read_text().count(told) == 1
    runner = DetRunner.from_cfg(toy_config(load_from=str(trained), resume='latest'))
    assert (runner.cfg.resume, runner.cfg.load_from) == (True, str(tmp_path / 'run/latest.pth'))


@pytest.mark.parametrize(
    ('module', 'backend', 'started', 'logged'),
    [
        ('wandb', "dict(type='WandbVisBackend',init_kwargs=dict(project='mine'))", 'init', 'log'),
        ('mlflow', "dict(type='MLflowVisBackend',exp_name='mine')", 'set_experiment', 'log_metrics'),
    ],
)
def test_logs_of_other_programs(toy_config, tmp_path, monkeypatch, module, backend, started, logged):
    """The words of docs/training.md."""
    stand_in = MagicMock()
    monkeypatch.setitem(sys.modules, module, stand_in)
    options = {'visualizer.vis_backends': parse_value(f'[LocalVisBackend,{backend}]')}
    train(toy_config(visualizer=merge_config(PLAIN, options).visualizer))
    assert 'mine' in str(getattr(stand_in, started).call_args)
    assert 'loss_cls' in str(getattr(stand_in, logged).call_args)
    assert list(tmp_path.glob('run/*/vis_data/scalars.json'))


def test_deterministic_warns_where_it_must(toy_config, tmp_path):
    """And the log is free of noise about registries."""
    try:
        train(toy_config(randomness={'seed': 0, 'deterministic': True}))
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'Failed to search registry' not in log.read_text()


def test_busy_cores_are_told_once(toy_config, tmp_path, monkeypatch):
    monkeypatch.setattr('mmdet.engine.runner.get_device', lambda: 'cpu')
    monkeypatch.setattr('mmdet.engine.runner.note_busy_cores', lambda: 'cores are busy')
    train(toy_config())
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert log.read_text().count('cores are busy') == 1


def test_a_process_group_without_gpus(toy_config, monkeypatch):
    """One process started as torch.distributed.run does; two of them: tests/integration."""
    for name, value in {'RANK': 0, 'LOCAL_RANK': 0, 'WORLD_SIZE': 1, 'MASTER_PORT': free_port()}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    try:
        runner = train(toy_config(launcher='pytorch', find_unused_parameters=True))
        assert isinstance(runner.model, MMDistributedDataParallel)
        assert torch.distributed.get_backend() == 'gloo'
        assert not runner.model.broadcast_buffers
        assert runner.model.find_unused_parameters
    finally:
        torch.distributed.destroy_process_group()


def test_sync_bn_that_would_drop_activations_is_refused():
    """timm's batch norms hold them."""
    runner = SimpleNamespace(distributed=True, cfg={'sync_bn': 'torch'})
    backbone = ClassifierBackbone('timm/tf_efficientnet_lite0', ('blocks.0',), weights=None)
    with pytest.raises(ValueError, match=r'replace 0\.bn1, a BatchNormAct2d, .* sync_bn=None'):
        DetRunner.wrap_model(runner, None, torch.nn.Sequential(backbone))


def test_a_fused_optimizer_makes_the_same_step(toy_config):
    """An option of the config, as torch has it."""
    plain, fused = (
        train(toy_config(optim_wrapper={'type': 'OptimWrapper', 'optimizer': {**SGD, **how}}))
        for how in ({}, {'fused': True})
    )
    assert fused.optim_wrapper.optimizer.param_groups[0]['fused'] is True
    for one, other in zip(fused.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)

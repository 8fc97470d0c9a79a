"""What DetRunner corrects in MMEngine."""

import os
import random

import numpy as np
import pytest
import torch
from mmengine.model import MMDistributedDataParallel

from mmdet.checkpoint.io import save_checkpoint
from mmdet.config.check import ConfigError
from mmdet.engine import DetRunner
from tests.unit.engine.test_loops import train

SGD = {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 5e-4}


def test_seed_goes_to_data_set_and_sampler(toy_config):
    runner = DetRunner.from_cfg(toy_config(randomness={'seed': 5}))
    loader = runner.build_dataloader(runner.cfg.train_dataloader, seed=runner.seed)
    assert (loader.dataset.seed, loader.sampler.seed) == (5, 5)
    assert loader.persistent_workers is False


def test_the_loader_leaves_the_global_generator_alone(toy_config):
    loader = DetRunner.build_dataloader(toy_config().train_dataloader, seed=0)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(before, torch.get_rng_state())


def test_collate_is_found_by_name(toy_config):
    loader = toy_config().train_dataloader
    loader.collate_fn = {'type': 'collate_toys', 'scale': 0}
    assert not next(iter(DetRunner.build_dataloader(loader)))['inputs'].any()
    loader.collate_fn = {'type': 'collate_toys', 'scales': 0}
    with pytest.raises(ConfigError, match=r'config of collate_toys.*scales'):
        DetRunner.build_dataloader(loader)
    loader.collate_fn = {'type': 'collate_tows'}
    with pytest.raises(ConfigError, match=r'collate_tows is not one of .*collate_toys'):
        DetRunner.build_dataloader(loader)


def test_unknown_keys_name_their_class(toy_config):
    cfg = toy_config()
    cfg.train_dataloader.dataset.lenght = 3
    with pytest.raises(TypeError, match=r'ToyDataset.*lenght'):
        train(cfg)
    with pytest.raises(ConfigError, match=r'ToyModel.*depth'):
        train(toy_config(model={'type': 'ToyModel', 'depth': 3}))


def test_weights_of_another_model_are_refused(toy_config, tmp_path):
    train(toy_config())
    latest = str(tmp_path / 'run/latest.pth')
    with pytest.raises(ValueError, match=r'latest\.pth does not fit the ToyModel(?s:.*)size mismatch.*layer'):
        train(toy_config(model={'type': 'ToyModel', 'width': 5}, load_from=latest))


def test_weights_of_other_classes_are_refused(toy_config, tmp_path):
    train(toy_config())
    cfg = toy_config(load_from=str(tmp_path / 'run/latest.pth'))
    cfg.train_dataloader.dataset.classes = ['cat', 'cow']
    with pytest.raises(ValueError, match=r'cat, cow\n(?s:.*)cat, dog'):
        train(cfg)


def test_weights_without_training_state_start_a_new_training(toy_config, tmp_path):
    state = train(toy_config()).model.state_dict()
    save_checkpoint({f'module.{name}': tensor for name, tensor in state.items()}, tmp_path / 'bare.pth')
    cfg = toy_config(load_from=str(tmp_path / 'bare.pth'), model={'type': 'ToyModel', 'weights': 'missing'})
    cfg.optim_wrapper.optimizer.lr = 0.0
    runner = train(cfg)
    assert runner.iter == 10
    assert torch.equal(runner.model.layer.weight, state['layer.weight'])


def test_nothing_to_resume_starts_from_the_beginning(toy_config):
    assert train(toy_config(resume=True)).iter == 10


def test_a_model_that_cannot_be_trained_stops_before_the_first_step(toy_config, tmp_path):
    model = {'type': 'ToyModel', 'weights': 'missing'}
    with pytest.raises(FileNotFoundError, match='vgg16'):
        train(toy_config(model=model))
    train(toy_config(train_cfg={'type': 'TrainLoop', 'max_epochs': 1}))
    assert train(toy_config(model=model, resume=True)).iter == 10  # resuming does not ask


def test_a_checkpoint_does_not_run_code(toy_config, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path / "ran"}',)

    train(toy_config())
    latest = tmp_path / 'run/latest.pth'
    content = torch.load(latest, weights_only=True)
    config = f'import os\nos.system("touch {tmp_path / "ran"}")\n'
    torch.save({**content, 'meta': {**content['meta'], 'config': config}}, latest)
    assert train(toy_config(resume=True)).iter == 10
    torch.save({**content, 'extra': Hostile()}, latest)
    with pytest.raises(ValueError, match='holds Python objects'):
        train(toy_config(resume=True, load_from=str(latest)))
    assert not (tmp_path / 'ran').exists()


def test_random_numbers_of_a_resumed_run_go_on(toy_config, tmp_path):
    train(toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': 4}))
    expected = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    cfg = toy_config(resume=True, train_cfg={'type': 'TrainLoop', 'max_iters': 4})
    train(cfg)
    assert (torch.rand(1), random.random(), np.random.rand()) == expected  # noqa: NPY002


def test_deterministic_warns_where_it_must(toy_config):
    try:
        train(toy_config(randomness={'seed': 0, 'deterministic': True}))
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_no_noise_about_registries(toy_config, tmp_path):
    train(toy_config(log_level='WARNING'))
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'Failed to search registry' not in log.read_text()


def test_a_process_group_without_gpus(toy_config, monkeypatch):
    """One process started as torch.distributed.run does; two of them: tests/unit/commands/test_train.py."""
    for name, value in {'RANK': 0, 'LOCAL_RANK': 0, 'WORLD_SIZE': 1, 'MASTER_PORT': 29544}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    try:
        runner = train(toy_config(launcher='pytorch'))
        assert isinstance(runner.model, MMDistributedDataParallel)
        assert torch.distributed.get_backend() == 'gloo'
        assert not runner.model.broadcast_buffers
    finally:
        torch.distributed.destroy_process_group()


def test_a_fused_optimizer_makes_the_same_step(toy_config):
    """An option of the config, as torch has it."""
    plain, fused = (
        train(toy_config(optim_wrapper={'type': 'OptimWrapper', 'optimizer': {**SGD, **how}}))
        for how in ({}, {'fused': True})
    )
    assert fused.optim_wrapper.optimizer.param_groups[0]['fused'] is True
    for one, other in zip(fused.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)

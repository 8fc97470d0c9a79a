"""The compiled network computes what the plain one does; a machine that cannot compile goes on without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from mmdet.checkpoint.io import load_checkpoint
from mmdet.engine import DetRunner
from mmdet.engine.compile import compile_network
from mmdet.registry import MODELS
from tests.helpers.tiny_run import be_quick, save_teacher, small_config, train, without_evaluation, write_sets


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    be_quick(monkeypatch)
    yield
    torch._dynamo.reset()
    torch._dynamo.config.suppress_errors = False


@pytest.fixture
def root(tiny_coco: Any, tmp_path: Path) -> Path:
    return write_sets(tiny_coco, tmp_path / 'set')


def step(model: Any, batch: Any) -> tuple[dict[str, float], torch.Tensor]:
    """Losses, and all gradients."""
    model.zero_grad()
    data = model.data_preprocessor(batch, True)
    losses = model(**data, mode='loss')
    sum(losses.values()).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return {name: loss.item() for name, loss in losses.items()}, gradient


@pytest.mark.parametrize('backend', ['eager', pytest.param('inductor', marks=pytest.mark.long)])
def test_the_same_losses_and_gradients_without_a_graph_break(root, tmp_path, backend):
    cfg = without_evaluation(small_config(root, tmp_path / 'run', save_teacher(tmp_path / 'teacher.pth')))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    batch = next(iter(DetRunner.build_dataloader(cfg.train_dataloader, seed=0)))
    names = list(model.state_dict())
    expected, gradient = step(model, batch)
    counters.clear()
    assert compile_network(model, backend=backend) is None
    for _ in range(2):
        found, compiled_gradient = step(model, batch)
        assert found == pytest.approx(expected, rel=1e-5)
        assert (compiled_gradient - gradient).norm() <= 1e-4 * gradient.norm()
    assert list(model.state_dict()) == names
    assert counters['stats']['unique_graphs'] >= 3
    assert not counters['graph_break']


def test_a_compiled_training_is_saved_and_resumed_as_any_other(root, tmp_path):
    def config(folder: str, **keys: Any) -> Any:
        return without_evaluation(small_config(root, tmp_path / folder, **keys))

    cfg = config('compiled', train_cfg__max_iters=2)
    cfg.compile = {'backend': 'eager'}
    train(cfg)
    plain = train(config('plain', train_cfg__max_iters=2)).model.state_dict()
    saved = load_checkpoint(tmp_path / 'compiled/latest.pth')['state_dict']
    assert saved.keys() == plain.keys()
    for name, value in saved.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-3, atol=1e-4)
    cfg = config('compiled')
    cfg.resume = True
    assert train(cfg).iter == 3


def test_a_machine_that_cannot_compile_trains_all_the_same(root, tmp_path, monkeypatch):
    cfg = without_evaluation(small_config(root, tmp_path / 'run'))
    cfg.compile = {'backend': 'nowhere'}
    warnings: list[str] = []
    runner = DetRunner.from_cfg(cfg)
    monkeypatch.setattr(runner.logger, 'warning', lambda text, *_, **__: warnings.append(str(text)))
    runner.train()
    assert runner.iter == 3
    (told,) = [text for text in warnings if 'not compiled' in text]
    assert 'nowhere' in told
    assert runner.model.backbone._compiled_call_impl is None

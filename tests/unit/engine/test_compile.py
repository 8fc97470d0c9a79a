"""The compiled network computes what the plain one does; a machine that cannot compile goes on without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from mmdet.checkpoint.io import load_checkpoint
from mmdet.engine import DetRunner
from tests.helpers.tiny_run import save_teacher, small_config, train, without_evaluation, write_sets


@pytest.fixture(autouse=True)
def reset() -> Any:
    yield
    torch._dynamo.reset()
    torch._dynamo.config.suppress_errors = False


@pytest.fixture
def config(tiny_coco: Any, tmp_path: Path) -> Any:
    root, teacher = write_sets(tiny_coco, tmp_path / 'set'), save_teacher(tmp_path / 'teacher.pth')

    def make(folder: str, compiler: Any, **keys: Any) -> Any:
        cfg = without_evaluation(small_config(root, tmp_path / folder, teacher, **keys))
        cfg.compile = compiler
        cfg.optim_wrapper.optimizer = {
            'type': 'SGD',
            'lr': 0.01,
        }  # Adam makes steps of a gradient's last bits
        return cfg

    return make


@pytest.mark.long
@pytest.mark.parametrize('backend', ['eager', 'inductor'])
def test_a_compiled_training_makes_the_same_steps(config, tmp_path, backend):
    """Without a graph break, and with the names of any other in its checkpoint."""
    plain = DetRunner.from_cfg(config('plain', None, train_cfg__max_iters=2))
    start = {name: weight.clone() for name, weight in plain.model.named_parameters()}
    plain.train()
    counters.clear()
    model = train(config('compiled', {'backend': backend}, train_cfg__max_iters=2)).model
    teacher = model.distiller.teacher
    for part in (model.backbone, model.neck, model.head, teacher.classifier, teacher.feature_extractor):
        assert part._compiled_call_impl
    assert not counters['graph_break']
    saved = load_checkpoint(tmp_path / 'compiled/latest.pth')['state_dict']
    assert saved.keys() == plain.model.state_dict().keys()
    parameters = dict(plain.model.named_parameters())
    differences = [(saved[name] - weight).norm() for name, weight in parameters.items()]
    changes = [(weight - start[name]).norm() for name, weight in parameters.items()]
    assert torch.stack(differences).norm() <= 1e-3 * torch.stack(changes).norm() > 0


def test_a_machine_that_cannot_compile_trains_all_the_same(config, monkeypatch):
    warnings: list[str] = []
    runner = DetRunner.from_cfg(config('run', {'backend': 'nowhere'}))
    monkeypatch.setattr(runner.logger, 'warning', lambda text, *_, **__: warnings.append(str(text)))
    runner.train()
    assert runner.iter == 3
    (told,) = [text for text in warnings if 'not compiled' in text]
    assert 'nowhere' in told
    assert runner.model.backbone._compiled_call_impl is None

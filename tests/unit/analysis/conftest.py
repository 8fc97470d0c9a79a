"""A small set, a teacher of random weights, and what a user types for them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_run import DISTILLED, as_arguments, be_quick, options_of, save_teacher, write_sets


@pytest.fixture
def root(tiny_coco: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    be_quick(monkeypatch)
    return write_sets(tiny_coco, tmp_path / 'set')


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return save_teacher(tmp_path / 'teacher.pth.tar')


@pytest.fixture
def typed(root: Path, teacher: Path) -> list[str]:
    """Arguments of a tool for a distilled config."""
    options = as_arguments(options_of(experiment_name='analysis'))
    return [str(DISTILLED), '--teacher', str(teacher), '--data-root', str(root), *options]


@pytest.fixture(scope='session')
def honest() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (M, K), and labels (M,) drawn from their softmax."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]

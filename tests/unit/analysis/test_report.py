"""The report on a teacher: of random weights through the tool, and the sentences on drawn answers."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch

from mmdet.analysis.calibration import measure
from mmdet.analysis.report import advise, group_table
from mmdet.commands.report import main
from tests.helpers.tiny_run import (
    CLASSES,
    DISTILLED,
    as_arguments,
    be_quick,
    options_of,
    save_teacher,
    write_sets,
)


@pytest.mark.parametrize('split', ['val', 'train'])
def test_the_report(
    tiny_coco: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    be_quick(monkeypatch)
    root, teacher, out = (
        write_sets(tiny_coco, tmp_path / 'set'),
        tmp_path / 'teacher.pth',
        tmp_path / 'report',
    )
    save_teacher(teacher)
    typed = [str(DISTILLED), '--teacher', str(teacher), '--data-root', str(root), *as_arguments(options_of())]
    main([*typed, '--out-dir', str(out), '--split', split])
    text = (out / 'report.md').read_text()
    crops = {'val': 2 * 3, 'train': 6 * 3}[split]
    assert f'| crops | {crops} |' in text
    assert 'Suggested temperature: 2 (the config says 2)' in text
    assert all(f'| {name} | ' in text for name in CLASSES)
    assert ('| medium | ' in text) == (split == 'val')
    assert json.loads((out / 'report.json').read_text())['crops'] == crops
    assert cv2.imread(str(out / 'reliability.png')) is not None


def test_groups_of_crops() -> None:
    logits = torch.tensor([[3.0, 2, 1], [3, 2, 1], [0, 1, 2], [2, 1, 0], [0, 1, 2]])
    labels = torch.tensor([0, 1, 1, 1, 1])
    groups = {name: labels == label for label, name in enumerate(('a', 'b', 'c'))}
    lines = group_table(groups, logits, labels, ('a', 'b', 'c')).splitlines()[2:]
    assert lines == [
        '| a | 1 | 100.0 % | 100.0 % | 66.5 % | - |',
        '| b | 4 | 0.0 % | 100.0 % | 66.5 % | a |',
        '| c | 0 | - | - | - | - |',
    ]


@pytest.fixture(scope='module')
def honest() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (M, K), and labels (M,) drawn from their softmax."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize(
    ('factor', 'says', 'suggested'), [(1, 'deserved', 2), (3, 'over', 6), (0.3, 'under', 1)]
)
def test_the_suggestion_follows_the_calibrating_temperature(
    factor: float, says: str, suggested: int, honest: tuple[torch.Tensor, torch.Tensor]
) -> None:
    sentences = advise(measure(factor * honest[0], honest[1]), commonest=0.2, used=2.0)
    assert says in sentences[1]
    assert f'Suggested temperature: {suggested} (the config says 2)' in sentences[-1]


@pytest.mark.parametrize(
    ('count', 'factor', 'commonest', 'training', 'reason'),
    [
        (50, 1, 0.2, False, 'too few'),
        (20_000, 3, 0.7, False, 'knows too little'),
        (20_000, 3, 0.2, True, 'training crops'),
        (20_000, 20, 0.2, False, None),
    ],
)
def test_without_a_basis_the_published_temperature_is_suggested_with_the_reason(
    count: int, factor: float, commonest: float, training: bool, reason: str | None,
    honest: tuple[torch.Tensor, torch.Tensor],
) -> None:  # fmt: skip
    numbers = measure(factor * honest[0][:count], honest[1][:count])
    sentences = advise(numbers, commonest, None, training)
    if reason is None:
        assert any('near one-hot' in sentence for sentence in sentences)
    else:
        assert 'Suggested temperature: 2: the published one' in sentences[-1] and reason in sentences[-1]

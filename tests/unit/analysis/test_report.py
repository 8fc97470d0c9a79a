"""The report on a teacher: of random weights through the tool, and the sentences on drawn answers."""

import json
from pathlib import Path

import pytest
import torch

from mmdet.analysis.calibration import measure
from mmdet.analysis.report import advise, group_table
from mmdet.commands.report import main
from tests.helpers.tiny_run import CLASSES


@pytest.mark.parametrize('split', ['val', 'train'])
def test_the_report(typed: list[str], tmp_path: Path, split: str) -> None:
    out = tmp_path / 'report'
    main([*typed, '--out-dir', str(out), '--split', split])
    text = (out / 'report.md').read_text()
    crops = {'val': 2 * 3, 'train': 6 * 3}[split]
    assert f'| crops | {crops} |' in text
    assert 'Suggested temperature: 2 (the config says 2)' in text
    assert all(f'| {name} | ' in text for name in CLASSES)
    assert ('| medium | ' in text) == (split == 'val')
    numbers = json.loads((out / 'report.json').read_text())
    assert (numbers['crops'], numbers['suggested_temperature']) == (crops, 2)
    assert (out / 'report.html').read_text().count('<svg') == 1


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


@pytest.mark.parametrize(
    ('factor', 'says', 'suggested'),
    [(1, 'deserved', 2), (3, 'over', 6), (0.3, 'under', 1), (12, 'one-hot', 10)],
)
def test_the_suggestion_follows_the_calibrating_temperature(
    factor: float, says: str, suggested: int, honest: tuple[torch.Tensor, torch.Tensor]
) -> None:
    *sentences, last = advise(measure(factor * honest[0], honest[1]), commonest=0.2, used=2.0)
    assert says in ' '.join(sentences)
    assert f'Suggested temperature: {suggested} (the config says 2)' in last


@pytest.mark.parametrize(
    ('count', 'commonest', 'training', 'reason'),
    [
        (50, 0.2, False, 'too few'),
        (20_000, 0.9, False, 'knows too little'),
        (20_000, 0.2, True, 'training crops'),
    ],
)
def test_without_a_basis_the_published_temperature_is_suggested_with_the_reason(
    count: int, commonest: float, training: bool, reason: str, honest: tuple[torch.Tensor, torch.Tensor]
) -> None:
    last = advise(measure(honest[0][:count], honest[1][:count]), commonest, None, training)[-1]
    assert 'Suggested temperature: 2: the published one' in last and reason in last

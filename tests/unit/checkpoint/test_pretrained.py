"""Weights to start from: what fits is loaded, and what starts at random is named."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mmdet.checkpoint import pretrained
from mmdet.models.backbones import SSDVGG
from tests.helpers.students import build, model_config


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is logged, with its level."""
    lines: list[tuple[str, int]] = []
    monkeypatch.setattr(pretrained, 'print_log', lambda text, _, level: lines.append((text, level)))
    return lines


def test_any_detector_to_start_from(said: list[tuple[str, int]]) -> None:
    """Of other classes; under the names of MMDetection 2.x, which the model converts."""
    model = model_config('ssd', Path('teacher.pth'))
    del model['distiller']
    source, student = (
        build(model, seed=1),
        build({**model, 'bbox_head': {**model['bbox_head'], 'num_classes': 5}}),
    )
    state = source.state_dict()
    old = {name.replace('_convs.0.0.', '_convs.0.'): tensor for name, tensor in state.items()}
    before = student.bbox_head.cls_convs[0][0].weight.clone()
    missing = pretrained.load_fitting(student, old, 'old.pth', '')
    assert {name.split('.')[1] for name in missing} == {'cls_convs'}
    assert torch.equal(student.bbox_head.cls_convs[0][0].weight, before)
    assert torch.equal(student.bbox_head.reg_convs[0][0].weight, source.bbox_head.reg_convs[0][0].weight)
    pretrained.report_fit(student, missing, 'old.pth')
    total = sum(not name.endswith('num_batches_tracked') for name in state)
    assert said == [
        (f'loaded {total - 8} of {total} tensors from old.pth; at random: bbox_head.cls_convs', 20)
    ]


def test_the_backbone_of_a_detectors_checkpoint(tmp_path: Path, said: list[tuple[str, int]]) -> None:
    file = tmp_path / 'detector.pth'
    backbone = SSDVGG(width=1 / 16, batch_norm=True, weights=str(file))
    source = SSDVGG(width=1 / 16, batch_norm=True, weights=None)
    torch.save(
        {f'backbone.{name}': x for name, x in source.state_dict().items()} | {'neck.w': torch.ones(1)}, file
    )
    backbone.init_weights()
    for one, other in zip(backbone.parameters(), source.parameters(), strict=True):
        assert torch.equal(one, other)
    assert said[-1][0].endswith('; at random: nothing')


def test_little_that_fits_is_a_warning_and_nothing_an_error(said: list[tuple[str, int]]) -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {
        '0.weight': torch.ones(3, 2),
        '0.bias': torch.ones(4),
        '1.weight': torch.ones(3, dtype=torch.int64),
    }
    missing = pretrained.load_fitting(network, state, 'F.pth', '')
    pretrained.report_fit(network, missing, 'F.pth', filled=('1.',))
    assert said == [('loaded 1 of 6 tensors from F.pth; at random: 0.bias', 30)]
    del state['0.weight']
    with pytest.raises(
        ValueError, match=r'F.pth holds nothing that fits .* 0.bias, .* not 0.weight; leave it out'
    ):
        pretrained.load_fitting(
            network, {**state, '1.num_batches_tracked': torch.tensor(7)}, 'F.pth', 'leave it out'
        )

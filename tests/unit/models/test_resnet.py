"""ResNet of any width: its names, its shapes, what stays frozen, where training starts."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from mmdet.models.backbones import ResNet


@pytest.mark.parametrize('depth', [18, 50])
def test_it_computes_what_torchvisions_does_under_the_same_names(depth: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.get_model(f'resnet{depth}', num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / 'resnet.pth')
    backbone = ResNet(depth, weights=str(tmp_path / 'resnet.pth'))
    backbone.init_weights()
    images = torch.randn(1, 3, 64, 96)
    feats = backbone.eval()(images)
    expected = nn.Sequential(*list(network.children())[:-2])(images)
    torch.testing.assert_close(feats[-1], expected)
    assert [x.shape[1] for x in feats] == backbone.out_channels
    assert [x.shape[2] for x in feats] == [16, 8, 4, 2]
    assert backbone.state_dict().keys() == {x for x in network.state_dict() if not x.startswith('fc.')}


def test_a_quarter_of_the_channels() -> None:
    backbone = ResNet(50, base_channels=16, weights=None, frozen_stages=-1, norm_eval=False).train()
    assert backbone.conv1.out_channels == 16
    assert [x.shape[1] for x in backbone(torch.zeros(2, 3, 64, 64))] == [64, 128, 256, 512]
    assert all(x.training for x in backbone.modules())


@pytest.mark.parametrize(
    ('stages', 'frozen'), [(-1, set()), (0, {'conv1', 'bn1'}), (1, {'conv1', 'bn1', 'layer1'})]
)
def test_frozen_stages_keep_weights_and_statistics(stages: int, frozen: set[str]) -> None:
    backbone = ResNet(18, frozen_stages=stages, norm_eval=False).train()
    fixed = {name.split('.')[0] for name, value in backbone.named_parameters() if not value.requires_grad}
    assert fixed == frozen
    assert {name for name, layer in backbone.named_children() if not layer.training} == frozen


@pytest.mark.parametrize('options', [{'frozen_stages': 0, 'norm_eval': False}, {'frozen_stages': -1}])
def test_random_numbers_are_not_frozen(options: dict) -> None:
    with pytest.raises(ValueError, match='frozen_stages=-1 and norm_eval=False'):
        ResNet(18, weights=None, **options)

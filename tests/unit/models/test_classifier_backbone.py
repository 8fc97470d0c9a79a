"""Any classifier as a backbone: what it returns, its names, its weights, what stays frozen."""

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from mmengine.model import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet.classifiers import build_classifier
from mmdet.models import NMSPostProcess
from mmdet.models.backbones import ClassifierBackbone
from mmdet.models.heads import SSDHead
from mmdet.models.losses import MultiBoxLoss, SmoothL1Loss
from mmdet.models.necks import SSDLiteNeck
from mmdet.models.task_modules import DeltaXYWHBBoxCoder, MaxIoUAssigner, SSDAnchorGenerator


@pytest.mark.parametrize(
    ('arch', 'levels', 'channels'),
    [
        ('mobilenet_v3_large', ('features.13.block.0', 32), [672, 960]),  # the taps of torchvision's SSDLite
        ('resnet18', (8, 16, 32), [128, 256, 512]),
        ('mobilenet_v2', ('features.3', 'features.6', 'features.13', 'features.17'), [24, 32, 96, 320]),
        ('timm/tf_efficientnet_lite0', (16, 32), [672, 1280]),
        ('timm/tf_efficientnet_lite0', ('blocks.2', 'blocks.4', 'blocks.6'), [40, 112, 320]),
    ],
)
def test_levels_and_names(arch: str, levels: tuple, channels: list[int]) -> None:
    backbone = ClassifierBackbone(arch, levels, weights=None)
    feats = backbone(torch.zeros(2, 3, 64, 96))
    assert backbone.out_channels == [x.shape[1] for x in feats] == channels
    assert all(96 * x.shape[2] == 64 * x.shape[3] for x in feats)
    assert set(backbone.state_dict()) <= set(build_classifier(arch, 1).state_dict())
    torch.stack([x.sum() for x in feats]).sum().backward()  # DDP refuses a layer that takes no part
    assert [name for name, value in backbone.named_parameters() if value.grad is None] == []


def test_it_computes_what_the_classifier_does_and_copies_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / 'resnet18.pth')
    backbone = ClassifierBackbone('resnet18', ('layer4',), str(tmp_path / 'resnet18.pth')).eval()
    backbone.init_weights()
    images = torch.randn(1, 3, 64, 64)
    expected = nn.Sequential(*list(network.children())[:-2])(images)
    torch.testing.assert_close(backbone(images)[0], expected)
    double = copy.deepcopy(backbone).double()
    torch.testing.assert_close(double(images.double())[0].float(), expected, rtol=1e-3, atol=1e-3)
    assert backbone.conv1.weight.dtype == torch.float32


def test_batch_norms_are_synchronized_in_what_runs() -> None:
    """Also one at the top, as a ResNet's first."""
    backbone = convert_sync_batchnorm(ClassifierBackbone('resnet18', (8,), weights=None))
    (network,) = backbone._network
    kinds = {type(layer) for layer in network.modules() if isinstance(layer, _BatchNorm)}
    assert kinds == {nn.SyncBatchNorm}
    assert network.bn1 is backbone.bn1


def test_frozen_levels_and_statistics(tmp_path: Path) -> None:
    file = str(tmp_path / 'any.pth')
    backbone = ClassifierBackbone('resnet18', (32,), file, frozen_levels=2).train()
    frozen = {name.split('.')[0] for name, value in backbone.named_parameters() if not value.requires_grad}
    assert frozen == {'conv1', 'bn1', 'layer1'}
    assert not backbone.bn1.training
    layers = dict(backbone.named_modules())
    assert layers['layer2.0.bn1'].training
    lite = ClassifierBackbone('timm/tf_efficientnet_lite0', ('blocks.2',), file, frozen_levels=1).train()
    frozen = {name.rpartition('.')[0] for name, value in lite.named_parameters() if not value.requires_grad}
    assert {'conv_stem', 'bn1', 'blocks.0.0.bn2', 'blocks.1.0.bn1'} <= frozen
    assert 'blocks.1.0.bn2' not in frozen
    assert not lite.bn1.training
    fixed = ClassifierBackbone('resnet18', (32,), file, norm_eval=True).train()
    assert not any(x.training for x in fixed.modules() if isinstance(x, nn.BatchNorm2d))
    for option in ({'frozen_levels': 1}, {'norm_eval': True}):
        with pytest.raises(ValueError, match='weights=None'):
            ClassifierBackbone('resnet18', weights=None, **option)
    with pytest.raises(ValueError, match=r'layer9.*layer1.*32'):
        ClassifierBackbone('resnet18', ('layer9',), weights=None)
    with pytest.raises(ValueError, match='SwinTransformer cannot be cut'):
        ClassifierBackbone('timm/swin_tiny_patch4_window7_224', weights=None)


@pytest.mark.parametrize(
    ('arch', 'frozen_levels', 'last'),
    [
        ('timm/tf_efficientnet_lite0', 2, 'blocks.2.0.bn1'),
        ('mobilenet_v2', 1, 'features.2.conv.0.1'),
        ('mobilenet_v3_large', 3, 'features.7.block.0.1'),  # squeeze-and-excitation
        ('timm/efficientnet_b0', 2, 'blocks.2.0.bn1'),
        ('convnext_tiny', 2, 'features.2.0'),  # LayerNorm, layer_scale
    ],
)
def test_everything_up_to_the_last_frozen_layer_is_frozen(arch: str, frozen_levels: int, last: str) -> None:
    backbone = ClassifierBackbone(arch, (32,), 'any.pth', frozen_levels=frozen_levels)
    names = [name for name, value in backbone.named_parameters() if not value.requires_grad]
    everything = [name for name, _ in build_classifier(arch, 1).named_parameters()]  # in their order
    assert sorted(names) == sorted(everything[: len(names)])
    assert everything[len(names) - 1].startswith(f'{last}.')


def test_the_levels_and_heads_of_ssdlite() -> None:
    neck = SSDLiteNeck(in_channels=(16,), extra_channels=(8,))
    head = SSDHead(
        3,
        in_channels=(16, 8),
        anchor_generator=SSDAnchorGenerator([16, 32], [[2], [2]], min_sizes=[16, 32], max_sizes=[32, 64]),
        bbox_coder=DeltaXYWHBBoxCoder(),
        assigner=MaxIoUAssigner(0.5, 0.5),
        cls_loss=MultiBoxLoss(),
        bbox_loss=SmoothL1Loss(),
        postprocess=NMSPostProcess(),
        depthwise=True,
    )
    outputs = head(neck([torch.randn(2, 16, 4, 4)]))
    assert outputs.cls_logits.shape == (2, 4 * (16 + 4), 4)
    assert {x.groups for x in head.modules() if isinstance(x, nn.Conv2d)} == {16, 8, 1}

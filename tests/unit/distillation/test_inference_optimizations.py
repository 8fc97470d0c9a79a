"""Folded networks against the networks themselves."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from mmdet.distillation.fast.inference_optimizations import (
    ConvReLU,
    SpaceToDepthConv,
    fold_batch_norms,
    fuse_relus,
    optimize_first_conv,
    with_fused_relus,
)


def trained(network: nn.Module) -> nn.Module:
    """With statistics as training leaves them: none at its start value."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize('arch', ['resnet18', 'resnet50', 'mobilenet_v2', 'densenet121', 'vgg11_bn'])
def test_a_folded_network_computes_the_same(arch: str) -> None:
    torch.manual_seed(0)
    network = trained(torchvision.models.get_model(arch, weights=None, num_classes=5))
    folded = copy.deepcopy(network)
    fold_batch_norms(folded)
    images = torch.randn(2, 3, 64, 64)
    expected = folded(images)
    torch.testing.assert_close(expected, network(images), rtol=1e-4, atol=1e-5)
    assert torch.equal(with_fused_relus(folded)(images), expected)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    convs = sum(isinstance(module, nn.Conv2d) for module in folded.modules())
    # DenseNet normalizes what it concatenates; everywhere else a batch norm follows a convolution
    assert (0 < left < convs) if arch == 'densenet121' else left == 0


class Shared(nn.Module):
    """Batch norms that must stay: the convolution is called twice, or something else reads it, too."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.twice_bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.read, self.read_bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice_bn(self.twice(self.twice(x)))
        y = self.read(x)
        return self.read_bn(y) + y


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) if x.sum() > 0 else x


@pytest.mark.parametrize('kind', [Shared, Untraceable])
def test_what_cannot_be_folded_stays(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = trained(kind())
    folded = copy.deepcopy(network)
    fold_batch_norms(folded)
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(folded(images), network(images))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) >= 1


@pytest.mark.parametrize(('kernel', 'padding'), [(7, 3), (3, 1), (3, 0), (4, 1), (5, 2), (2, 0)])
@pytest.mark.parametrize('size', [(32, 32), (33, 31), (11, 20)])
def test_space_to_depth(kernel: int, padding: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, kernel, stride=2, padding=padding)
    images = torch.randn(2, 3, *size, requires_grad=True)
    other = SpaceToDepthConv(conv)
    assert SpaceToDepthConv.fits(conv)
    out, expected = other(images), conv(images)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(out)
    gradients = [torch.autograd.grad(value, images, weight)[0] for value in (out, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'conv',
    [
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Conv2d(3, 8, (3, 5), stride=2),
        nn.Conv2d(3, 3, 3, stride=2, groups=3),
        nn.Conv2d(3, 8, 3, stride=2, dilation=2),
        nn.Conv2d(3, 8, 3, stride=2, padding=(0, 1)),
        nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode='reflect'),
    ],
)
def test_other_convolutions_stay(conv: nn.Conv2d) -> None:
    assert not SpaceToDepthConv.fits(conv)


def test_the_first_layer_of_a_trunk() -> None:
    torch.manual_seed(0)
    network = trained(torchvision.models.resnet18())
    fold_batch_norms(network)
    levels = {'maxpool': 'stem', 'layer1': 'layer1'}
    trunk, quick = (create_feature_extractor(network, levels) for _ in range(2))
    optimize_first_conv(quick)
    assert isinstance(quick.conv1, SpaceToDepthConv)
    fuse_relus(quick)
    assert sum(isinstance(layer, ConvReLU) for layer in quick.modules()) == 5
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    for level, value in trunk(images).items():
        found, weight = quick(images)[level], torch.randn_like(value)
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)
        gradients = [torch.autograd.grad(x, images, weight, retain_graph=True)[0] for x in (found, value)]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)

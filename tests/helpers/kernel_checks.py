"""The kernels for GPUs against what they replace; tests/unit/test_kernels.py runs these tests."""

import pytest
import torch
from torch import nn

from mmdet.models.conv_relu import Window, fused_bias_relu
from mmdet.structures import crop_boxes, crops

POOLS = [None, nn.MaxPool2d(2, 2, ceil_mode=True), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 1, 1)]


@pytest.mark.parametrize('pool', POOLS)
def test_bias_pooling_relu(pool: nn.MaxPool2d | None) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 5, 5, 4).contiguous(memory_format=torch.channels_last)
    x[0, 0, 2, 2] = torch.nan
    bias, pooled = torch.randn(5), x if pool is None else pool(x)
    leaves = [x, bias, torch.randn_like(pooled)]
    for count in (2, 3):
        x, bias, *rest = (each.requires_grad_() for each in leaves[:count])
        pooled = x if pool is None else pool(x)
        expected = torch.relu(sum(rest, pooled + bias[:, None, None]))
        window = Window.of(pool)
        assert window is not None
        found = fused_bias_relu(x, bias, window, *rest)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, equal_nan=True)
        weight = torch.randn_like(expected)
        gradients = [torch.autograd.grad(out, (x, bias, *rest), weight) for out in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_crops() -> None:
    """Also boxes that are mirrored, empty or partly outside, and a gradient that is not contiguous."""
    images = torch.randn(3, 3, 60, 100, generator=torch.Generator().manual_seed(0))
    bboxes = [[1.2, 1.3, 80.1, 57.7], [-3, -2, 5, 4], [80, 30, 120, 90], [4, 4, 4, 4], [8, 8, 2, 1]]
    leaf = (torch.tensor(bboxes) + 0.0123).requires_grad_()  # away from the kinks at pixel centers
    index = torch.tensor([0, 1, 1, 0, 2])
    expected = crop_boxes(images, leaf, index, 25)
    weight = torch.randn_like(expected).transpose(2, 3)
    found = crops._Crops.apply(images, leaf, index, 25)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(out, leaf, weight)[0] for out in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)

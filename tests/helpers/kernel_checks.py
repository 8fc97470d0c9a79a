"""The kernels for GPUs against what they replace; tests/unit/test_kernels.py runs these tests."""

import pytest
import torch
from torch import nn

from mmdet.models.conv_relu import fused_bias_relu

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
        found = fused_bias_relu(x, bias, pool, *rest)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, equal_nan=True)
        weight = torch.randn_like(expected)
        gradients = [torch.autograd.grad(out, (x, bias, *rest), weight) for out in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)

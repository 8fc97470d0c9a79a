"""A convolution and what follows it, on a CPU; the kernels: tests/unit/test_kernels.py."""

import pytest
import torch
from torch import nn

from mmdet.models.conv_relu import _window, conv_relu


@pytest.mark.parametrize('pool', [None, nn.MaxPool2d(2)])
def test_without_a_gpu(pool: nn.Module | None) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    after = conv(x) if pool is None else pool(conv(x))
    residual = torch.randn_like(after)
    assert torch.equal(conv_relu(conv, x, pool), after.relu())
    assert torch.equal(conv_relu(conv, x, pool, residual), (after + residual).relu())


def test_what_the_kernels_do_not_pool() -> None:
    assert _window(nn.MaxPool2d(3, 2, 1)) == {'KERNEL': 3, 'STRIDE': 2, 'PADDING': 1}
    assert _window(nn.MaxPool2d((2, 3))) == _window(nn.MaxPool2d(3, dilation=2)) == {}

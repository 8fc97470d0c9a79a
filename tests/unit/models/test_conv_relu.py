"""A convolution and what follows it, on a CPU; the kernels: tests/unit/test_kernels.py."""

import pytest
import torch
from torch import nn

from mmdet.models.conv_relu import Window, conv_relu


@pytest.mark.parametrize('pool', [None, nn.MaxPool2d(2)])
def test_without_a_gpu(pool: nn.Module | None) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    after = conv(x) if pool is None else pool(conv(x))
    residual = torch.randn_like(after)
    assert torch.equal(conv_relu(conv, x, pool), after.relu())
    assert torch.equal(conv_relu(conv, x, pool, residual), (after + residual).relu())


@pytest.mark.parametrize('side', [5, 6, 7, 8])
@pytest.mark.parametrize(
    'pool',
    [nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1, ceil_mode=True)],
)
def test_sides_behind_the_pooling(pool: nn.MaxPool2d, side: int) -> None:
    assert Window.of(pool).pooled(side) == pool(torch.zeros(1, 1, side, side)).shape[2]


def test_what_the_kernels_do_not_pool() -> None:
    assert Window.of(nn.MaxPool2d((2, 3))) is None
    assert Window.of(nn.MaxPool2d(3, dilation=2)) is None

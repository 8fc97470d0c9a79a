"""One kernel for bias, pooling and ReLU; run by Triton's interpreter, which needs no GPU."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from mmdet.models.conv_relu import Window, conv_relu

CHECK = """
import torch
from torch import nn
from mmdet.models.conv_relu import Window, fused_bias_relu
torch.manual_seed(0)
pools = [None, nn.MaxPool2d(2, 2, ceil_mode=True), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 1, 1)]
for pool in pools:
    x = torch.randn(1, 5, 5, 4).contiguous(memory_format=torch.channels_last)
    x[0, 0, 2, 2] = torch.nan
    bias, pooled = torch.randn(5), pool(x) if pool else x
    leaves = [x, bias, torch.randn_like(pooled)]
    for residual in (True, False):
        x, bias, *rest = (each.requires_grad_() for each in leaves[: 2 + residual])
        pooled = pool(x) if pool else x
        expected = torch.relu(sum(rest, pooled + bias[:, None, None]))
        found = fused_bias_relu(x, bias, Window.of(pool), *rest)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, equal_nan=True)
        weight = torch.randn_like(expected)
        gradients = [torch.autograd.grad(out, (x, bias, *rest), weight) for out in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
"""


def test_the_kernels() -> None:
    """In a process of its own: the kernels are interpreted where they were defined so."""
    pytest.importorskip('triton')
    environment = {'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1'}
    subprocess.run([sys.executable, '-c', CHECK], check=True, timeout=200, env=environment)


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

"""What the counter of a GPU's work counts."""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.ops import CARDS, counting
from mmdet.models.conv_relu import conv_relu


def test_operations_bytes_and_waits() -> None:
    x, weight = torch.ones(4, 8), torch.ones(8, 16)
    with counting() as count:
        y = (x @ weight).relu()  # (4, 16)
        y.view(2, 32).t()  # free
        y.sum(1, keepdim=True).expand(4, 16) + y
    assert count.names == ['mm', 'relu', 'sum', 'add']
    read, written = (32 + 128) + 64 + 64 + (4 + 64), 64 + 64 + 4 + 64
    assert count.bytes == 4 * (read + written)
    assert count.waits == 0
    assert count.seconds[CARDS[0]] > count.seconds[CARDS[1]] > 0


def test_waits() -> None:
    x = torch.arange(4.0)
    with counting() as count:
        x[x > 1]
        x.nonzero()
        x.sum().item()
        x + torch.tensor(1.0, device='cpu')
        x.to('cpu')
        x.to('cpu', non_blocking=True)  # from pinned memory it runs beside the step
        x.to(torch.float64)
        x[torch.tensor([1, 2])]
    assert count.waits == 5


def test_what_a_gpu_would_launch() -> None:
    """A convolution and what follows it are two."""
    conv, images = nn.Conv2d(3, 4, 3), torch.ones(2, 3, 9, 9)
    with counting() as count, torch.no_grad():
        conv_relu(conv, images, nn.MaxPool2d(2))
    assert count.names == ['convolution', 'pool_bias_relu_kernel']


def test_an_optimizer_is_one_operation() -> None:
    layer = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    with counting() as count:
        F.mse_loss(layer(torch.ones(2, 4)), torch.zeros(2, 4)).backward()
        before = count.operations
        optimizer.step()
    assert count.names[before:] == ['optimizer']
    assert count.operations == len(count.names)

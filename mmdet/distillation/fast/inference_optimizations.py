"""A frozen network made faster; what it computes stays the same up to rounding.

M crops · C channels
"""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmdet.models.conv_relu import conv_relu
from mmdet.structures import on_gpu

FEW_CHANNELS = 4  # up to which the space-to-depth form pays
SUMS = (operator.add, operator.iadd, torch.add)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm into the convolution whose output it alone reads; in place, in eval mode.

    An `Identity` takes the batch norm's place, so that every layer keeps its name. A network that cannot be
    traced stays as it is.
    """
    try:
        graph = fx.Tracer().trace(network)
    except (TraceError, TypeError, RuntimeError):
        return
    called = [node for node in graph.nodes if node.op == 'call_module']
    calls = Counter(node.target for node in called)
    for node in called:
        conv_node = node.args[0]
        batch_norm = network.get_submodule(str(node.target))
        if type(batch_norm) is not nn.BatchNorm2d or conv_node not in called:
            continue
        conv = network.get_submodule(str(conv_node.target))
        once = calls[node.target] == calls[conv_node.target] == len(conv_node.users) == 1
        if once and type(conv) is nn.Conv2d:
            network.set_submodule(str(conv_node.target), fuse_conv_bn_eval(conv, batch_norm))
            network.set_submodule(str(node.target), nn.Identity())


def optimize_first_conv(network: fx.GraphModule) -> None:
    """Put `SpaceToDepthConv` in the place of the convolution that reads the images, if it fits; in place."""
    for node in network.graph.nodes:
        if node.op == 'call_module' and node.args[0].op == 'placeholder':
            layer = network.get_submodule(str(node.target))
            if type(layer) is nn.Conv2d and SpaceToDepthConv.fits(layer):  # others may pad as they like
                network.set_submodule(str(node.target), SpaceToDepthConv(layer))


def with_fused_relus(network: nn.Module) -> nn.Module:
    """Trace a frozen network and fuse its ReLUs; it shares its layers. As it is where it cannot be traced."""
    try:
        traced = fx.symbolic_trace(network)
    except (TraceError, TypeError, RuntimeError):
        return network
    fuse_relus(traced)
    return traced


def fuse_relus(network: fx.GraphModule) -> None:
    """Put a `ConvReLU` in the place of each convolution, sum, ReLU and max-pooling that follow each other."""
    layers = dict(network.named_modules())
    calls = Counter(node.target for node in network.graph.nodes)

    def layer(node: fx.Node) -> Any:
        return layers.get(str(node.target)) if node.op == 'call_module' else None

    def is_conv(node: Any) -> bool:
        alone = isinstance(node, fx.Node) and len(node.users) == calls[node.target] == 1
        return alone and isinstance(layer(node), nn.Conv2d)

    for node in network.graph.nodes:
        if isinstance(layer(node), nn.Identity):  # where a batch norm was
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)
    for relu in network.graph.nodes:
        if not (isinstance(layer(relu), nn.ReLU) or relu.target is F.relu):
            continue
        conv, *residual = [relu.args[0]]
        if conv.target in SUMS and len(conv.users) == 1:
            conv, *residual = sorted(conv.args, key=is_conv, reverse=True)
        if not is_conv(conv):
            continue
        last, pool, (user, *others) = relu, None, relu.users
        if not (others or residual) and isinstance(layer(user), nn.MaxPool2d):
            last, pool = user, layer(user)
        network.set_submodule(str(conv.target), ConvReLU(layer(conv), pool))
        with network.graph.inserting_before(last):
            fused = network.graph.call_module(str(conv.target), (conv.args[0], *residual))
        last.replace_all_uses_with(fused)
    network.graph.eliminate_dead_code()
    network.recompile()


class ConvReLU(nn.Module):
    """A convolution and what follows it, see `conv_relu`."""

    def __init__(self, conv: nn.Conv2d, pool: nn.MaxPool2d | None) -> None:
        super().__init__()
        self.conv = conv
        self.pool = pool

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(N, C_in, H_in, W_in), residual (N, C, h, w) -> (N, C, h, w)."""
        return conv_relu(self.conv, x, self.pool, residual)


class SpaceToDepthConv(nn.Conv2d):
    """A frozen convolution of stride 2 over few channels, computed with 2 x 2 pixels as channels.

    That makes it one of stride 1 over four times the channels, whose gradient with respect to the input is
    the quicker one.

    Args:
        conv: One that `fits`; its parameters stay its own.
    """

    blocks: Tensor  # (C_out, 4 C, side, side), the weight

    def __init__(self, conv: nn.Conv2d) -> None:
        size, padding = conv.kernel_size[0], int(conv.padding[0])
        super().__init__(conv.in_channels, conv.out_channels, size, 2, padding, device='meta')
        self.weight, self.bias = conv.weight, conv.bias
        lead = padding % 2  # a row of zeros before the kernel makes it begin at an even pixel
        self.before = (padding + lead) // 2  # blocks
        self.side = (size + lead + 1) // 2
        weight = conv.weight.new_zeros(*conv.weight.shape[:2], 2 * self.side, 2 * self.side)
        weight[:, :, lead : lead + size, lead : lead + size] = conv.weight.detach()
        weight = F.pixel_unshuffle(weight, 2).contiguous(memory_format=torch.channels_last)
        self.register_buffer('blocks', weight, persistent=False)

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether it is square, of stride 2, without groups or dilation, and reads few channels."""
        if isinstance(conv.padding, str):
            return False
        square = len({*conv.kernel_size}) == len({*conv.padding}) == 1
        simple = conv.stride == (2, 2) and conv.dilation == (1, 1) and conv.groups == 1
        return square and simple and conv.padding_mode == 'zeros' and conv.in_channels <= FEW_CHANNELS

    def _conv_forward(self, crops: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve crops (M, C, H, W) -> (M, C_out, H_out, W_out); `blocks` stands for `weight`."""
        height, width = crops.shape[2:]
        crops = F.pad(crops, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else crops
        dtype = _autocast_dtype(crops)
        edges: list[int] = []
        for length in (width, height):
            outputs = (length + 2 * int(self.padding[0]) - self.kernel_size[0]) // 2 + 1
            edges += [self.before, outputs - 1 + self.side - self.before - (length + 1) // 2]
        parts = crops.unflatten(3, (crops.shape[3] // 2, 2)).unflatten(2, (crops.shape[2] // 2, 2))
        parts = parts.permute(0, 2, 4, 1, 3, 5).to(dtype, memory_format=torch.contiguous_format)
        missing = -self.blocks.shape[1] % 16 if on_gpu(crops) else 0  # tensor cores take 8 channels at a time
        blocks = F.pad(parts.flatten(3), (0, missing, *edges)).permute(0, 3, 1, 2)  # channels last
        weight = F.pad(self.blocks, (0, 0, 0, 0, 0, missing)) if missing else self.blocks
        return F.conv2d(blocks, weight, bias)


def _autocast_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype

"""A frozen network made faster; what it computes stays the same up to rounding.

M crops · C channels
"""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn.utils.fusion import fuse_conv_bn_eval

FEW_CHANNELS = 4  # up to which the space-to-depth form pays


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


class SpaceToDepthConv(nn.Module):
    """A frozen convolution of stride 2 over few channels, on a CPU computed with 2 x 2 pixels as channels.

    That makes it one of stride 1 over four times the channels, whose gradient with respect to the input is
    the quicker one. Elsewhere the convolution itself is called.

    Args:
        conv: One that `fits`.
    """

    weight: Tensor  # (C_out, 4 C, blocks, blocks)

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.size, self.padding = conv.kernel_size[0], int(conv.padding[0])
        lead = self.padding % 2  # a row of zeros before the kernel makes it begin at an even pixel
        self.before = self.padding + lead  # pixels
        self.blocks = (self.size + lead + 1) // 2
        side = 2 * self.blocks
        weight = conv.weight.new_zeros(*conv.weight.shape[:2], side, side)
        weight[:, :, lead : lead + self.size, lead : lead + self.size] = conv.weight.detach()
        self.register_buffer(
            'weight',
            F.pixel_unshuffle(weight, 2).contiguous(memory_format=torch.channels_last),
            persistent=False,
        )

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether it is square, of stride 2, without groups or dilation, and reads few channels."""
        if isinstance(conv.padding, str):
            return False
        square = len({*conv.kernel_size}) == len({*conv.padding}) == 1
        simple = conv.stride == (2, 2) and conv.dilation == (1, 1) and conv.groups == 1
        return square and simple and conv.padding_mode == 'zeros' and conv.in_channels <= FEW_CHANNELS

    def forward(self, crops: Tensor) -> Tensor:
        """Crops (M, C, H, W) -> (M, C_out, H_out, W_out), as the convolution."""
        if crops.device.type != 'cpu' or len(crops) == 0:  # pixel_unshuffle leaves an empty batch as it is
            return self.conv(crops)
        edges = []
        for length in (crops.shape[3], crops.shape[2]):
            outputs = (length + 2 * self.padding - self.size) // 2 + 1
            edges += [self.before, 2 * (outputs - 1 + self.blocks) - length - self.before]
        blocks = F.pixel_unshuffle(F.pad(crops, edges), 2)
        return F.conv2d(blocks.contiguous(memory_format=torch.channels_last), self.weight, self.conv.bias)

"""Layers that torch and torchvision do not have, and how layers start."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

PRIOR_LOGIT = math.log(0.01 / (1 - 0.01))  # of every class at the start with focal loss: most is background


class L2Norm(nn.Module):
    """Scale each pixel's feature vector to a length learnt per channel (ParseNet, arXiv 1506.04579)."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W); the norm is taken in float32 (half precision overflows)."""
        full = x.float()
        norm = full.square().sum(1, keepdim=True).sqrt() + 1e-10
        return (self.weight[:, None, None] * full / norm).to(x.dtype)


class ConvModule(nn.Sequential):
    """Convolution, optional norm, ReLU; parameters are named as in MMDetection (`conv`, `bn` or `gn`).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, groups: of the convolution.
        batch_norm: Batch norm in place of a bias.
        relu6: ReLU6 in place of ReLU.
        group_norm: Groups of a group norm in place of a bias; 0: none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        batch_norm: bool = False,
        relu6: bool = False,
        group_norm: int = 0,
    ) -> None:
        super().__init__()
        bias = not (batch_norm or group_norm)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias
        )
        if batch_norm:
            self.bn = nn.BatchNorm2d(out_channels)
        if group_norm:
            self.gn = nn.GroupNorm(group_norm, out_channels)
        self.activate = nn.ReLU6(inplace=True) if relu6 else nn.ReLU(inplace=True)


class DepthwiseConvModule(nn.Sequential):
    """A 3x3 convolution per channel, then a 1x1 convolution, each with batch norm and ReLU6 (MobileNet)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise_conv = ConvModule(
            in_channels, in_channels, 3, stride, 1, groups=in_channels, batch_norm=True, relu6=True
        )
        self.pointwise_conv = ConvModule(in_channels, out_channels, 1, batch_norm=True, relu6=True)


def conv_tower(in_channels: int, out_channels: int, depth: int, group_norm: int = 0) -> nn.Sequential:
    """Stack 3x3 convolutions with ReLU, and group norm of so many groups, as dense heads do."""
    channels = [in_channels, *[out_channels] * (depth - 1)]
    return nn.Sequential(
        *(ConvModule(x, out_channels, 3, padding=1, group_norm=group_norm) for x in channels)
    )


def xavier_init(module: nn.Module) -> None:
    """Xavier-uniform weights, bias 0, in every convolution and linear layer of `module`."""
    _init(module, nn.init.xavier_uniform_)


def normal_init(module: nn.Module, std: float = 0.01, bias: float = 0.0) -> None:
    """Normal weights and a constant bias in every convolution and linear layer of `module`."""
    _init(module, partial(nn.init.normal_, std=std), bias)


def kaiming_init(module: nn.Module) -> None:
    """Kaiming-normal weights (fan out, ReLU), bias 0, in every convolution and linear layer of `module`."""
    _init(module, partial(nn.init.kaiming_normal_, mode='fan_out', nonlinearity='relu'))


def _init(module: nn.Module, init_weight: Callable[[Tensor], Any], bias: float = 0.0) -> None:
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            init_weight(layer.weight)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, bias)

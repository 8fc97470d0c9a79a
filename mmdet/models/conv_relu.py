"""A convolution and what follows it: bias, max-pooling, ReLU; on a GPU in one kernel.

N images · C channels · H x W pixels before the pooling, h x w behind it
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

BLOCK = {'PIXELS': 16, 'CHANNELS': 64}  # of an output; 8 values a thread


def conv_relu(
    conv: nn.Conv2d, x: Tensor, pool: nn.MaxPool2d | None = None, residual: Tensor | None = None
) -> Tensor:
    """Compute `relu(pool(conv(x)) + residual)`.

    On a GPU cuDNN leaves the bias to a kernel of its own; pooling and ReLU are two more, and each reads and
    writes the largest tensors of a step. There, with the channels last, one kernel does it all: the bias is
    the same for all pixels of a channel, so that it may follow the pooling.

    x (N, C_in, H_in, W_in) · residual (N, C, h, w) -> (N, C, h, w)
    """
    bias = conv.bias
    if bias is not None and _window(pool) and launches(x):
        y = conv._conv_forward(x, conv.weight, None)
        if len(y) and y.is_contiguous(memory_format=torch.channels_last):
            return fused_bias_relu(y, bias, pool, residual)
        y.add_(bias.to(y.dtype)[:, None, None])
    else:
        y = conv(x)
    y = y if pool is None else pool(y)
    return (y if residual is None else y.add_(residual)).relu_()


def fused_bias_relu(
    x: Tensor, bias: Tensor, pool: nn.MaxPool2d | None = None, residual: Tensor | None = None
) -> Tensor:
    """Compute `relu(pool(x) + bias + residual)` in one kernel.

    x (N, C, H, W), channels last · bias (C,) · residual (N, C, h, w) -> (N, C, h, w)
    """
    if residual is not None:
        residual = residual.to(x.dtype).contiguous(memory_format=torch.channels_last)
    out: Tensor = _FusedBiasReLU.apply(x, bias, residual, pool)
    return out


class _FusedBiasReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor, residual: Tensor | None, pool: nn.MaxPool2d | None
    ) -> Tensor:
        height, width = (x if pool is None else pool(torch.empty_like(x, device='meta'))).shape[2:]
        out = _channels_last(x, height, width)
        # Which pixel of its window each value comes from, for the gradient
        place = _channels_last(x, height, width, torch.uint8) if pool is not None else None
        sizes = (*x.shape[1:], height, width)
        launch('pool_bias_relu_kernel', out, pool, x, bias, residual, out, place, *sizes)
        ctx.save_for_backward(out, place)
        ctx.pool, ctx.size, ctx.bias_type = pool, x.shape[2:], bias.dtype
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        out, place = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad_outputs[0], out, 0)  # (N, C, h, w)
        of_x, of_bias, of_residual, _ = ctx.needs_input_grad
        bias_grad = grad.sum((0, 2, 3), dtype=ctx.bias_type) if of_bias else None
        residual_grad = grad if of_residual else None
        if of_x and place is not None:
            pooled = grad.contiguous(memory_format=torch.channels_last)
            grad = _channels_last(pooled, *ctx.size)
            sizes = (*grad.shape[1:], *pooled.shape[2:])
            launch('pool_backward_kernel', grad, ctx.pool, pooled, place, grad, *sizes)
        return grad if of_x else None, bias_grad, residual_grad, None


def _channels_last(like: Tensor, height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    shape = (*like.shape[:2], height, width)
    return torch.empty(
        shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last
    )


def launches(x: Tensor) -> bool:
    """Whether our kernels are wanted for `x`; a compiler fuses by itself.

    The variable MMDET_KERNELS=1 asks for them: no card has shown yet that they are right and faster. They
    need Triton, which comes with torch for CUDA on Linux, and a C compiler.
    """
    return x.is_cuda and os.environ.get('MMDET_KERNELS') == '1' and not torch.compiler.is_compiling()


def launch(kernel: str, out: Tensor, pool: nn.MaxPool2d | None, *arguments: Any) -> None:
    """Launch one program of a Triton kernel for each block of `out`, which is among its arguments."""
    pixels, channels = len(out) * out.shape[2] * out.shape[3], out.shape[1]
    grid = (-(-pixels // BLOCK['PIXELS']), -(-channels // BLOCK['CHANNELS']))
    kernels = import_module('mmdet.models.conv_relu_kernels')  # Triton takes half a second
    getattr(kernels, kernel)[grid](*arguments, pixels, **_window(pool), **BLOCK)


def _window(pool: nn.MaxPool2d | None) -> dict[str, int]:
    """Describe to a kernel what is pooled: squares of one size, without dilation; {} where it is not that."""
    if pool is None:
        return {'KERNEL': 1, 'STRIDE': 1, 'PADDING': 0}
    sides: dict[str, Any] = {'KERNEL': pool.kernel_size, 'STRIDE': pool.stride, 'PADDING': pool.padding}
    return sides if pool.dilation == 1 and all(isinstance(side, int) for side in sides.values()) else {}

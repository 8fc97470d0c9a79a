"""A convolution and what follows it: bias, max-pooling, ReLU; on a GPU in one kernel.

N images · C channels · H x W pixels before the pooling, h x w behind it
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

BLOCK = {'PIXELS': 16, 'CHANNELS': 64}  # of an output; 8 values a thread


class Window(NamedTuple):
    """What is pooled: squares of one size, without dilation."""

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    ceil_mode: bool = False

    @classmethod
    def of(cls, pool: nn.MaxPool2d | None) -> Window | None:
        """Describe a layer; None where it pools something else."""
        if pool is None:
            return cls()
        sides = (pool.kernel_size, pool.stride, pool.padding)
        fits = pool.dilation == 1 and all(isinstance(side, int) for side in sides)
        return cls(*cast(tuple[int, int, int], sides), pool.ceil_mode) if fits else None

    def pooled(self, side: int) -> int:
        """Compute a side behind the pooling; the last window begins inside the image or its left padding."""
        rest = side + 2 * self.padding - self.kernel
        count = (-(-rest // self.stride) if self.ceil_mode else rest // self.stride) + 1
        return count - (self.ceil_mode and (count - 1) * self.stride >= side + self.padding)


def conv_relu(
    conv: nn.Conv2d, x: Tensor, pool: nn.MaxPool2d | None = None, residual: Tensor | None = None
) -> Tensor:
    """Compute `relu(pool(conv(x)) + residual)`.

    On a GPU cuDNN leaves the bias to a kernel of its own; pooling and ReLU are two more, and each reads and
    writes the largest tensors of a step. There, with the channels last, one kernel does it all: the bias is
    the same for all pixels of a channel, so that it may follow the pooling.

    x (N, C_in, H_in, W_in) · residual (N, C, h, w) -> (N, C, h, w)
    """
    bias, window = conv.bias, Window.of(pool)
    if bias is not None and window is not None and launches(x):
        y = conv._conv_forward(x, conv.weight, None)
        if len(y) and y.is_contiguous(memory_format=torch.channels_last):
            return fused_bias_relu(y, bias, window, residual)
        y.add_(bias.to(y.dtype)[:, None, None])
    else:
        y = conv(x)
    y = y if pool is None else pool(y)
    return (y if residual is None else y.add_(residual)).relu_()


def fused_bias_relu(x: Tensor, bias: Tensor, window: Window, residual: Tensor | None = None) -> Tensor:
    """Compute `relu(pool(x) + bias + residual)` in one kernel.

    x (N, C, H, W), channels last · bias (C,) · residual (N, C, h, w) -> (N, C, h, w)
    """
    if residual is not None:
        residual = residual.to(x.dtype).contiguous(memory_format=torch.channels_last)
    out: Tensor = _FusedBiasReLU.apply(x, bias, residual, window)
    return out


class _FusedBiasReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, residual: Tensor | None, window: Window) -> Tensor:
        height, width = (window.pooled(side) for side in x.shape[2:])
        out = _channels_last(x, height, width)
        # Which pixel of its window each value comes from, for the gradient
        place = _channels_last(x, height, width, torch.uint8) if window.kernel > 1 else None
        sizes = (*x.shape[1:], height, width)
        launch('pool_bias_relu_kernel', out, window, x, bias, residual, out, place, *sizes)
        ctx.save_for_backward(out, place)
        ctx.window, ctx.size, ctx.bias_type = window, x.shape[2:], bias.dtype
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
            launch('pool_backward_kernel', grad, ctx.window, pooled, place, grad, *sizes)
        return grad if of_x else None, bias_grad, residual_grad, None


def _channels_last(like: Tensor, height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    shape = (*like.shape[:2], height, width)
    return torch.empty(
        shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last
    )


def launches(x: Tensor) -> bool:
    """Whether our kernels are wanted and can be launched for `x`; a compiler fuses by itself.

    The variable MMDET_KERNELS=1 asks for them: no card has shown yet that they are right and faster.
    """
    wanted = x.is_cuda and os.environ.get('MMDET_KERNELS') == '1'
    return wanted and not torch.compiler.is_compiling() and _triton_works()


@cache
def _triton_works() -> bool:
    """Try a kernel: Triton comes with torch for CUDA on Linux, and needs a C compiler."""
    x = torch.zeros(1, 1, 1, 4, device='cuda')
    try:
        launch('pool_bias_relu_kernel', x, Window(), x, x[0, 0, 0], None, x, None, 1, 1, 4, 1, 4)
    except Exception as error:  # whatever Triton, the compiler or the driver raise
        warnings.warn(f'the kernels for GPUs cannot run, so that steps take longer: {error!r}', stacklevel=2)
        return False
    return True


def launch(kernel: str, out: Tensor, window: Window, *arguments: Any) -> None:
    """Launch one program of a Triton kernel for each block of `out`, which is among its arguments."""
    pixels, channels = len(out) * out.shape[2] * out.shape[3], out.shape[1]
    grid = (-(-pixels // BLOCK['PIXELS']), -(-channels // BLOCK['CHANNELS']))
    constants = {'KERNEL': window.kernel, 'STRIDE': window.stride, 'PADDING': window.padding, **BLOCK}
    kernels = import_module('mmdet.models.conv_relu_kernels')  # Triton takes half a second
    getattr(kernels, kernel)[grid](*arguments, pixels, **constants)

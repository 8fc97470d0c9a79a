"""The GPU kernels of `conv_relu`, in Triton.

Feature maps lie in memory as (N, H, W, C). Each program computes a block of pixels x channels.
"""
# ruff: noqa: N803, N806
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

SIZES = ['H', 'W', 'h', 'w', 'pixels']  # no kernel is compiled anew for each of them


@triton.jit(do_not_specialize=SIZES)
def pool_bias_relu_kernel(
    x, bias, residual, out, place, C, H, W, h, w, pixels,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute `out = relu(maxpool(x) + bias + residual)`, and where in its window each maximum was."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    inside = (pixel < pixels) & (channel < C)
    image, top, left = pixel // (h * w), pixel // w % h * STRIDE - PADDING, pixel % w * STRIDE - PADDING
    best = tl.full((PIXELS, CHANNELS), float('-inf'), tl.float32)
    best_place = tl.zeros((PIXELS, CHANNELS), tl.int32)
    for i in tl.static_range(KERNEL * KERNEL):
        row, column = top + i // KERNEL, left + i % KERNEL
        there = inside & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        at = ((image * H + row) * W + column).to(tl.int64) * C + channel
        value = tl.load(x + at, mask=there, other=float('-inf')).to(tl.float32)
        better = (value > best) | (value != value)  # noqa: PLR0124 (NaN stays, as with torch)
        best, best_place = tl.where(better, value, best), tl.where(better, i, best_place)
    at = pixel.to(tl.int64) * C + channel
    best += tl.load(bias + channel, mask=channel < C).to(tl.float32)
    if residual is not None:
        best += tl.load(residual + at, mask=inside).to(tl.float32)
    tl.store(out + at, tl.where(best < 0, 0.0, best), mask=inside)
    if place is not None:
        tl.store(place + at, best_place, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def pool_backward_kernel(
    pooled_grad, place, grad, C, H, W, h, w, pixels,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum, for each pixel before the pooling, the gradients of the windows whose maximum it was."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    inside = (pixel < pixels) & (channel < C)
    image, row, column = pixel // (H * W), pixel // W % H + PADDING, pixel % W + PADDING
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    WINDOWS: tl.constexpr = (KERNEL + STRIDE - 1) // STRIDE  # that one pixel lies in, per axis
    for i in tl.static_range(WINDOWS * WINDOWS):
        y, x = row // STRIDE - i // WINDOWS, column // STRIDE - i % WINDOWS  # of the window
        mine = (row - y * STRIDE) * KERNEL + column - x * STRIDE
        covers = (row - y * STRIDE < KERNEL) & (column - x * STRIDE < KERNEL)
        there = inside & covers & (y >= 0) & (y < h) & (x >= 0) & (x < w)
        at = ((image * h + y) * w + x).to(tl.int64) * C + channel
        chosen = tl.load(place + at, mask=there, other=255).to(tl.int32) == mine
        total += tl.where(chosen, tl.load(pooled_grad + at, mask=there, other=0.0).to(tl.float32), 0.0)
    tl.store(grad + pixel.to(tl.int64) * C + channel, total, mask=inside)

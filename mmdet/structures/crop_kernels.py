"""The GPU kernels of `crop_boxes`, in Triton.

Each program handles a block of the S x S pixels of one crop.
"""
# ruff: noqa: N803
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

SIZES = ['H', 'W', 'S']  # no kernel is compiled anew for each of them


@triton.jit
def sample(image, x, y, H, W, row_stride, column_stride, inside):
    """Load the four neighbors of each point; 0 outside the image."""
    left, top = tl.floor(x).to(tl.int32), tl.floor(y).to(tl.int32)
    in_left, in_right = inside & (left >= 0) & (left < W), inside & (left >= -1) & (left < W - 1)
    in_top, in_bottom = (top >= 0) & (top < H), (top >= -1) & (top < H - 1)
    at = image + top * row_stride + left * column_stride
    top_left = tl.load(at, mask=in_left & in_top, other=0.0)
    top_right = tl.load(at + column_stride, mask=in_right & in_top, other=0.0)
    bottom_left = tl.load(at + row_stride, mask=in_left & in_bottom, other=0.0)
    bottom_right = tl.load(at + row_stride + column_stride, mask=in_right & in_bottom, other=0.0)
    return top_left, top_right, bottom_left, bottom_right


@triton.jit
def place(bboxes, box, pixel, S):
    """Compute where pixels of a crop lie in the image, and in the crop, -1..1."""
    u, v = (2.0 * (pixel % S) + 1.0) / S - 1.0, (2.0 * (pixel // S) + 1.0) / S - 1.0
    x1, y1 = tl.load(bboxes + 4 * box), tl.load(bboxes + 4 * box + 1)
    x2, y2 = tl.load(bboxes + 4 * box + 2), tl.load(bboxes + 4 * box + 3)
    x, y = ((x2 - x1) * u + (x1 + x2) - 1.0) * 0.5, ((y2 - y1) * v + (y1 + y2) - 1.0) * 0.5
    return x, y, u, v


@triton.jit(do_not_specialize=SIZES)
def crop_kernel(
    images, bboxes, image_index, crops, H, W, S, image_stride, channel_stride, row_stride, column_stride,
    C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sample `crops` (M, C, S, S), contiguous."""
    box = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < S * S
    x, y, _, _ = place(bboxes, box, pixel, S)
    right, bottom = x - tl.floor(x), y - tl.floor(y)
    image = images + tl.load(image_index + box) * image_stride
    for channel in tl.static_range(C):
        a, b, c, d = sample(image + channel * channel_stride, x, y, H, W, row_stride, column_stride, inside)
        value = (a * (1 - right) + b * right) * (1 - bottom) + (c * (1 - right) + d * right) * bottom
        tl.store(crops + (box * C + channel) * S * S + pixel, value, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def crop_backward_kernel(
    images, bboxes, image_index, grad, parts, H, W, S,
    image_stride, channel_stride, row_stride, column_stride,
    grad_box_stride, grad_channel_stride, grad_row_stride, grad_column_stride,
    C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum the gradient of the boxes over each program's pixels: `parts` (M, programs, 4), contiguous."""
    box = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < S * S
    x, y, u, v = place(bboxes, box, pixel, S)
    right, bottom = x - tl.floor(x), y - tl.floor(y)
    image = images + tl.load(image_index + box) * image_stride
    grad += box * grad_box_stride + pixel // S * grad_row_stride + pixel % S * grad_column_stride
    of_x, of_y = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for channel in tl.static_range(C):
        a, b, c, d = sample(image + channel * channel_stride, x, y, H, W, row_stride, column_stride, inside)
        of_value = tl.load(grad + channel * grad_channel_stride, mask=inside, other=0.0)
        of_x += of_value * ((b - a) * (1 - bottom) + (d - c) * bottom)
        of_y += of_value * ((c - a) * (1 - right) + (d - b) * right)
    parts += (box * tl.num_programs(1) + tl.program_id(1)) * 4
    tl.store(parts, tl.sum(of_x * (1 - u)) * 0.5)
    tl.store(parts + 1, tl.sum(of_y * (1 - v)) * 0.5)
    tl.store(parts + 2, tl.sum(of_x * (1 + u)) * 0.5)
    tl.store(parts + 3, tl.sum(of_y * (1 + v)) * 0.5)

"""Encoded images of a batch, to be decoded and drawn on the device."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class EncodedImages(NamedTuple):
    """N photos, most of them as JPEG files, and how each is to be drawn; all tensors are on the CPU.

    N images · T bytes · H, W size of the padded batch in pixels · boxes xyxy in whole pixels
    A named tuple, so that pinning memory treats it as a tuple. The files are concatenated into ONE tensor,
    because each tensor that a data worker sends takes a file descriptor.
    """

    data: Tensor  # (T,) uint8, the N photos one after another
    lengths: Tensor  # (N,) int64, bytes of each
    is_jpeg: Tensor  # (N,) bool, a file; else pixels (3, h, w), RGB, of the part that is seen
    src_boxes: Tensor  # (N, 4) int64, the visible part of the photo, in its pixels; 0 for nothing
    dst_boxes: Tensor  # (N, 4) int64, the pixels of the batch whose centers lie on it
    # (N, 4) scale_x, scale_y, x, y: pixel (i, j) of the batch shows the point (scale_x i + x, scale_y j + y)
    # of the visible part, whose first pixel has its center at (0, 0)
    affine: Tensor
    colors: Tensor  # (N, 4) brightness, contrast, saturation, hue, as `ColorJitter` has them
    channels: Tensor  # (N, 3) int64, which channel (of B, G, R) lands in each place
    fills: Tensor  # (N, 3) color of the pixels that do not lie on the photo, BGR, whole numbers
    shape: tuple[int, int]  # (H, W)

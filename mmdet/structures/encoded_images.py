"""Images of a batch that the device is to decode and draw."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class EncodedImages(NamedTuple):
    """N photos, most of them as JPEG files, and how each is to be drawn. All of it is on the CPU.

    N images · T bytes · H, W size of the padded batch in pixels · boxes xyxy
    A named tuple, so that pinning memory treats it as a tuple; the files stand in ONE tensor, because each
    tensor that a data worker hands over takes a file descriptor.
    """

    data: Tensor  # (T,) uint8, the N photos one behind the other
    lengths: Tensor  # (N,) int64, bytes of each
    is_jpeg: Tensor  # (N,) bool, a file; else pixels (3, h, w), RGB, of the part that is seen
    seen: Tensor  # (N, 4) int64, the part of the photo that is seen, in its pixels; 0 for nothing
    place: Tensor  # (N, 4) int64, the pixels of the batch whose centers lie on it; the fill is around them
    to_part: (
        Tensor  # (N, 4) across, down, x, y: the center of pixel (i, j) is (across i + x, down j + y) in it
    )
    colors: Tensor  # (N, 4) brightness, contrast, saturation, hue, as `Color` has them
    channels: Tensor  # (N, 3) int64, which channel (of B, G, R) lands in each place
    fills: Tensor  # (N, 3) color of the pixels that do not lie on the photo, BGR, whole numbers
    shape: tuple[int, int]  # (H, W)

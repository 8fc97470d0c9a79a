"""Anchors, and the marks of a match.

N images · A anchors per image, all levels · boxes xyxy in pixels of the network input
matched (N, A) int64: row of the image's ground truth | BACKGROUND | IGNORED
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

BACKGROUND = -1
IGNORED = -2


class Anchors(NamedTuple):
    """Boxes that a head's predictions are relative to, levels already flattened."""

    boxes: Tensor  # (A, 4), shared by the images of a batch, or (N, A, 4): RoIs, each of its own image
    num_per_level: list[int]  # sums to A

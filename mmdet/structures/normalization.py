"""How an image is normalised."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Normalization(NamedTuple):
    """`normalised = (pixel - mean) / std`, pixels RGB in 0..255."""

    mean: Tensor  # (3,)
    std: Tensor  # (3,)

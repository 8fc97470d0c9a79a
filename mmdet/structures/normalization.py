"""How an image is normalized."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Normalization(NamedTuple):
    """`normalized = (pixel - mean) / std`, pixels RGB in 0..255."""

    mean: Tensor  # (3,)
    std: Tensor  # (3,)

    def convert(self, images: Tensor, source: Normalization) -> Tensor:
        """Images (N, 3, H, W), normalized as `source` says -> normalized as this says."""
        scale, shift = source.std / self.std, (source.mean - self.mean) / self.std
        return images * scale[:, None, None] + shift[:, None, None]

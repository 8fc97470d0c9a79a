"""Boxes relative to anchors; boxes are xyxy in pixels."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet.registry import MODELS
from mmdet.structures import cached_tensor

MAX_DISTANCE = 1e5  # pixels; what decodes to more stays finite


class BBoxCoder(ABC):
    """Encode boxes as deltas, which a head predicts, and decode them."""

    @abstractmethod
    def encode(self, anchors: Tensor, bboxes: Tensor) -> Tensor:
        """anchors, bboxes (..., 4), broadcast against each other -> deltas (..., 4)."""

    @abstractmethod
    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """anchors, deltas (..., 4), broadcast against each other -> boxes (..., 4), not clipped."""


@MODELS.register_module()
class DeltaXYWHBBoxCoder(BBoxCoder):
    """Encode boxes as (dx, dy, dw, dh), normalized, and decode them (arXiv 1311.2524).

    They are the shift of the center in anchor sides and the log of the ratio of sides.

    Args:
        target_means: Mean of the deltas; they are normalized as `(delta - mean) / std`.
        target_stds: Their standard deviation.
        wh_ratio_clip: A decoded side is at most `1 / wh_ratio_clip` times the anchor's: exp stays finite.
    """

    def __init__(
        self,
        target_means: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        target_stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        wh_ratio_clip: float = 16 / 1000,
    ) -> None:
        self.means = tuple(target_means)
        self.stds = tuple(target_stds)
        self.max_log_ratio = abs(math.log(wh_ratio_clip))

    def encode(self, anchors: Tensor, bboxes: Tensor) -> Tensor:
        """anchors, bboxes (..., 4), broadcast against each other -> deltas (..., 4)."""
        anchor_xy, anchor_wh = _center_and_size(anchors)
        xy, wh = _center_and_size(bboxes)
        deltas = torch.cat([(xy - anchor_xy) / anchor_wh, (wh / anchor_wh).log()], -1)
        return (deltas - cached_tensor(self.means, deltas)) / cached_tensor(self.stds, deltas)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """anchors, deltas (..., 4), broadcast against each other -> boxes (..., 4), not clipped."""
        deltas = deltas * cached_tensor(self.stds, deltas) + cached_tensor(self.means, deltas)
        anchor_xy, anchor_wh = _center_and_size(anchors)
        log_ratio = deltas[..., 2:].clamp(min=-self.max_log_ratio).clamp(max=self.max_log_ratio)
        xy = anchor_xy + anchor_wh * deltas[..., :2]
        half = anchor_wh * log_ratio.exp() * 0.5
        return torch.cat([xy - half, xy + half], -1)


@MODELS.register_module()
class DistanceBBoxCoder(BBoxCoder):
    """Encode boxes as distances from the anchor's center to the sides (l, t, r, b) (FCOS, arXiv 1904.01355).

    Deltas are logs of the distances in pixels; the size of the anchor has no influence. The exponential is
    taken here and not in the head, so that deltas stay finite where nothing bounds them.
    """

    def encode(self, anchors: Tensor, bboxes: Tensor) -> Tensor:
        """anchors, bboxes (..., 4) -> deltas (..., 4), finite where the center lies inside the box."""
        center, _ = _center_and_size(anchors)
        return torch.cat([center - bboxes[..., :2], bboxes[..., 2:] - center], -1).log()

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """anchors, deltas (..., 4) -> boxes (..., 4), not clipped."""
        center, _ = _center_and_size(anchors)
        distances = deltas.clamp(max=math.log(MAX_DISTANCE)).exp()
        return torch.cat([center - distances[..., :2], center + distances[..., 2:]], -1)


def _center_and_size(bboxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4) -> center (..., 2) and (width, height) (..., 2)."""
    low, high = bboxes[..., :2], bboxes[..., 2:]
    return (low + high) * 0.5, high - low

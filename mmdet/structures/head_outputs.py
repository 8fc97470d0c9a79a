"""What a detection head predicts.

N images · A anchors per image, all levels · K classes
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mmdet.structures.anchors import Anchors


class HeadOutputs(NamedTuple):
    """Predictions for every anchor, levels already flattened; float32."""

    cls_logits: Tensor  # (N, A, K) sigmoid head | (N, A, K + 1) softmax head, background last
    box_deltas: Tensor  # (N, A, 4), relative to the anchors, or class-specific (N, A, K, 4)
    anchors: Anchors
    centerness: Tensor | None = None  # (N, A) logits, FCOS only

"""What is known about the images of a batch besides their pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NO_IMAGE = -1  # img_id of the blank image that stands for a batch of bad ones


class GroundTruth(NamedTuple):
    """Ground truth of N images as tensors, padded to the same number of boxes.

    N images · Gmax box rows, a multiple of 16 · boxes xyxy in pixels of the network input.
    A named tuple, so that pinning memory, moving to a device and DDP treat it as they treat a tuple.
    """

    img_id: Tensor  # (N,) int64, the id in the annotation file
    ori_shape: Tensor  # (N, 2) int64, (h, w) of the original image
    img_shape: Tensor  # (N, 2) int64, (h, w) of the image inside the padded network input
    bboxes: Tensor  # (N, Gmax, 4) float32; rows without an object are 0
    labels: Tensor  # (N, Gmax) int64 in [0, K); rows without an object are 0
    valid: Tensor  # (N, Gmax) bool, False where a row holds no object
    ann_ids: Tensor  # (N, Gmax) int64, the ids in the annotation file; rows without an object are 0

    @property
    def gt_image(self) -> Tensor:
        """(G,) int64, index in the batch of each object's image; objects in row order."""
        return self.valid.nonzero()[:, 0]

    @property
    def gt_bboxes(self) -> Tensor:
        """(G, 4) boxes of the objects alone, in row order."""
        return self.bboxes[self.valid]

    def class_agnostic(self) -> GroundTruth:
        """Return the same objects as one class, 0, as RPN sees them."""
        return self._replace(labels=torch.zeros_like(self.labels))

    @property
    def gt_labels(self) -> Tensor:
        """(G,) labels of the objects alone, in row order."""
        return self.labels[self.valid]

    @property
    def gt_ann_ids(self) -> Tensor:
        """(G,) annotation ids of the objects alone, in row order."""
        return self.ann_ids[self.valid]

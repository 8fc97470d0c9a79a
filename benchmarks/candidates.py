"""Ideas for the two losses that the grid of benchmarks/evidence.py tries: what pays moves into the toolbox.

P positives · K classes
"""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import MessageHub
from torch import Tensor

from mmdet.distillation.distiller import ClassifierDistiller, positives_per_image
from mmdet.distillation.losses import CropL1Loss
from mmdet.registry import MODELS
from mmdet.structures import Normalization, PositiveSamples, crop_boxes
from mmdet.structures.boxes import box_areas


def gate(samples: PositiveSamples, iou: Tensor) -> Tensor:
    """Compare the boxes that overlap their object by half."""
    return (iou >= 0.5).float()


def fade(samples: PositiveSamples, iou: Tensor) -> Tensor:
    """Weigh a box by how wrong it is, as the gradient of its own box loss does."""
    return (2 * (1 - iou)).clamp(max=1)


def decay(samples: PositiveSamples, iou: Tensor) -> Tensor:
    """Start at the full weight and end at 0."""
    hub = MessageHub.get_current_instance()
    done = min(hub.get_info('iter', 0) / hub.get_info('max_iters', 1), 1)
    return torch.full_like(iou, 1 - done)


def size(samples: PositiveSamples, iou: Tensor) -> Tensor:
    """Weigh a box by its side: a pixel of difference moves the crop of a small one more."""
    side = box_areas(samples.gt_bboxes).sqrt()[samples.gt_index]
    return side / side.mean().clamp(min=1)


WEIGHTS: dict[str, Callable[[PositiveSamples, Tensor], Tensor]] = {
    each.__name__: each for each in (gate, fade, decay, size)
}


@MODELS.register_module()
class WeighedCropL1Loss(CropL1Loss):
    """Multiply the share of each positive by `factors` (P,)."""

    factors: Tensor

    def choose(self, gt_index: Tensor) -> tuple[Tensor, Tensor]:
        """Draw as `CropL1Loss` does."""
        rows, shares = super().choose(gt_index)
        return rows, shares * self.factors[rows]


@MODELS.register_module()
class WeighedDistiller(ClassifierDistiller):
    """Weigh the localization loss of each positive.

    Args:
        weigh: Key of `WEIGHTS`.
        settings: Of `ClassifierDistiller`.
    """

    kd_loc: Any

    def __init__(self, weigh: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.weigh = WEIGHTS[weigh]

    def forward(
        self, images: Tensor, normalization: Normalization, samples: PositiveSamples
    ) -> dict[str, Tensor]:
        """Compute the losses as `ClassifierDistiller` does."""
        self.kd_loc.factors = self.weigh(samples, samples.iou())
        return super().forward(images, normalization, samples)


@MODELS.register_module()
class ProposalDistiller(ClassifierDistiller):
    """Ask the teacher about the predicted boxes, not about the objects: a box that is off learns its doubt.

    As many boxes of an object as `kd_loc.max_per_object` says.

    Needs both losses, and a teacher that is not stored.
    """

    kd_cls: Any
    kd_loc: Any
    teacher: Any

    def forward(
        self, images: Tensor, normalization: Normalization, samples: PositiveSamples
    ) -> dict[str, Tensor]:
        """Compute the losses; `loss_kd_cls` is the mean over the chosen boxes, not over all positives."""
        kd_cls, self.kd_cls = self.kd_cls, None
        losses = super().forward(images, normalization, samples)
        self.kd_cls = kd_cls
        rows, _ = self.kd_loc.choose(samples.gt_index)
        objects = samples.gt_index[rows]
        with torch.no_grad():
            crops = crop_boxes(images, samples.bboxes[rows], samples.gt_image[objects], self.crop_size)
            answers = self.teacher.logits(crops, normalization)
        avg_factor = positives_per_image(samples.gt_image[objects], len(images)).clamp(min=1).sum()
        labels = samples.gt_labels[objects]
        losses['loss_kd_cls'] = kd_cls(samples.cls_logits[rows], answers, avg_factor, labels)
        return losses

"""The method: distill an image classifier into a detector (arXiv 2106.05209).

N images · P positives · G ground-truth boxes · K classes · S crop side · C, s channels and side of a level
Boxes are xyxy in pixels of the network input.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmdet.distillation.fast.chunked import sum_in_chunks
from mmdet.distillation.losses import PIXELS, CropL1Loss, KDLoss, SigmoidKDLoss
from mmdet.distillation.stored_teacher import StoredTeacher
from mmdet.distillation.teacher import FrozenTeacher
from mmdet.registry import MODELS
from mmdet.structures import Normalization, PositiveSamples, crop_boxes


@MODELS.register_module()
class ClassifierDistiller(nn.Module):
    """Distill an image classifier into a detector.

    Each positive learns the teacher's class distribution for the crop of its object (`loss_kd_cls`), and a
    box whose crop looks like the object's, in pixels and in the teacher's first layers (`loss_kd_loc`).
    Holds no parameters: the teacher is not a submodule, so that it is absent from the student's state dict,
    optimizer, EMA and DDP; it follows `.to()` all the same.

    Args:
        crop_size: S.
        teacher: None if nothing needs one; no teacher file is read then.
        kd_cls: Recognition loss, or None.
        kd_loc: Localization loss, or None.
        bbox_weight: Factor on the detector's own box losses beside `kd_cls`, whose gradient joins that of the
            classes in the layers that both share; 1 as published.

    Raises:
        ValueError: No loss, no teacher for a loss that needs one, or a teacher of another crop size.
    """

    def __init__(
        self,
        crop_size: int = 112,
        teacher: FrozenTeacher | StoredTeacher | None = None,
        kd_cls: KDLoss | None = None,
        kd_loc: CropL1Loss | None = None,
        bbox_weight: float = 1.0,
    ) -> None:
        super().__init__()
        levels = kd_loc.feature_levels if kd_loc is not None else ()
        if kd_cls is None and kd_loc is None:
            raise ValueError('a distiller needs kd_cls, kd_loc or both; distiller=None is plain training')
        if teacher is None and (kd_cls is not None or levels):
            needs = 'kd_cls' if kd_cls is not None else f'the levels {levels} of kd_loc'
            raise ValueError(f'{needs} needs a teacher, but teacher=None')
        if teacher is not None and teacher.crop_size not in (None, crop_size):
            raise ValueError(
                f'the teacher was trained on crops of side {teacher.crop_size} and hardly recognizes others; '
                f'crop_size is {crop_size}: set model.distiller.crop_size={teacher.crop_size}'
            )
        softmax_alone = teacher is not None and teacher.focal_weight == 0
        if softmax_alone and isinstance(kd_cls, SigmoidKDLoss):
            warnings.warn(
                'the teacher was trained with softmax alone, so the sigmoids that SigmoidKDLoss reads mean '
                'little: train it with --cfg-options model.focal_weight=1',
                stacklevel=2,
            )
        if teacher is not None and levels:
            teacher.build_feature_extractor(levels)
        self.crop_size = crop_size
        self.kd_cls = kd_cls
        self.kd_loc = kd_loc
        self.bbox_weight = 1.0 if kd_cls is None else bbox_weight
        self._teacher = _Unregistered((teacher,))

    def forward(
        self, images: Tensor, normalization: Normalization, samples: PositiveSamples
    ) -> dict[str, Tensor]:
        """Compute `loss_kd_cls` (Eq 1-7) and `loss_kd_loc` (Eq 8-11), scalars; None switches one off.

        images (N, 3, H, W), normalized as `normalization` says
        """
        losses = {}
        image_index = samples.gt_image[samples.gt_index]  # (P,)
        # (G, 3, S, S) of a side S, once each
        cut_objects = cache(partial(crop_boxes, images, samples.gt_bboxes, samples.gt_image))
        if self.kd_cls is not None:
            if isinstance(self.teacher, StoredTeacher):  # it needs no crops
                answers = self.teacher.logits(samples.gt_ann_ids)  # (G, K)
            else:
                answers = self.teacher.logits(cut_objects(self.crop_size), normalization)
            targets = answers[samples.gt_index]
            labels = samples.gt_labels[samples.gt_index]
            avg_factor = positives_per_image(image_index, len(images)).clamp(min=1).sum()
            iou = samples.iou() if self.kd_cls.iou_aware else None
            losses['loss_kd_cls'] = self.kd_cls(samples.cls_logits, targets, avg_factor, labels, iou)
        if (kd_loc := self.kd_loc) is not None:
            size = kd_loc.crop_size or self.crop_size
            true = self._pooled_levels(cut_objects(size), normalization)  # (G, C, s, s) per level
            num_positives = max(len(samples.bboxes), 1)
            rows, shares = kd_loc.choose(samples.gt_index)  # (Q,)

            def difference(bboxes: Tensor, image_index: Tensor, gt_index: Tensor, shares: Tensor) -> Tensor:
                crops = crop_boxes(images, bboxes, image_index, size)
                predicted = self._pooled_levels(crops, normalization)
                target = [level[gt_index] for level in true]
                return kd_loc(predicted, target, shares, normalization.std) / num_positives

            chosen = (samples.bboxes[rows], image_index[rows], samples.gt_index[rows], shares)
            losses['loss_kd_loc'] = sum_in_chunks(difference, *chosen)
        return losses

    def balance(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Multiply those of the detector's own losses that are of boxes by `bbox_weight`."""
        return {name: self.bbox_weight * loss if 'bbox' in name else loss for name, loss in losses.items()}

    def _pooled_levels(self, crops: Tensor, normalization: Normalization) -> list[Tensor]:
        """Pool the crops (M, 3, S, S) and the teacher's features of them: (M, C, s, s) per level."""
        kd_loc = cast(CropL1Loss, self.kd_loc)
        features = self.teacher.features(crops, normalization) if kd_loc.feature_levels else {}
        return kd_loc.pool({PIXELS: crops, **features})

    @property
    def teacher(self) -> FrozenTeacher | StoredTeacher:
        """The frozen classifier; None where no loss needs one."""
        return cast(FrozenTeacher | StoredTeacher, self._teacher[0])

    def compile(self, **settings: Any) -> None:
        """Compile the teacher alone: crops and losses follow the number of positives."""
        if self.teacher is not None:
            self.teacher.compile(**settings)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> ClassifierDistiller:
        if self.teacher is not None:
            self.teacher._apply(fn, *args, **kwargs)
        super()._apply(fn, *args, **kwargs)
        return self


class _Unregistered(tuple[Any, ...]):
    """Modules that are not registered as submodules; a copy of the owner (EMA) shares them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Unregistered:
        return self


def positives_per_image(image_index: Tensor, num_images: int) -> Tensor:
    """Count the positives of each image: image_index (P,) -> (N,). `bincount` would wait for the device."""
    images = torch.arange(num_images, device=image_index.device)
    return (image_index == images[:, None]).sum(1)

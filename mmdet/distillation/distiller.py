"""From what a head predicted to the distillation losses.

N images · P positives · G ground-truth boxes · K classes · S crop side
Boxes are xyxy in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmdet.distillation.losses import PIXELS, CropL1Loss
from mmdet.distillation.teacher import FrozenTeacher
from mmdet.registry import MODELS
from mmdet.structures import Normalization, PositiveSamples, crop_boxes


class _Shared(tuple[Any, ...]):
    """What a copy of the distiller (EMA) shares with the original."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


@MODELS.register_module()
class ClassifierDistiller(nn.Module):
    """Distil an image classifier into a detector (arXiv 2106.05209).

    Every ground-truth object is cut out and shown to the teacher once. Each positive then learns the
    teacher's answer for its object (`loss_kd_cls`) and a box whose crop looks like the object's
    (`loss_kd_loc`). Holds no parameters: the teacher is no submodule, so that it is absent from the
    student's state dict, optimizer, EMA and DDP; it follows `.to()` all the same.

    Args:
        crop_size: S.
        teacher: None if nothing needs one; no teacher file is read then.
        kd_cls: Recognition loss, or None.
        kd_loc: Localization loss, or None.
    """

    def __init__(
        self,
        crop_size: int = 112,
        teacher: FrozenTeacher | None = None,
        kd_cls: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        kd_loc: CropL1Loss | None = None,
    ) -> None:
        super().__init__()
        levels = kd_loc.feature_levels if kd_loc is not None else ()
        if kd_cls is None and kd_loc is None:
            raise ValueError('a distiller needs kd_cls, kd_loc or both; distiller=None is plain training')
        if teacher is None and (kd_cls is not None or levels):
            needs = 'kd_cls' if kd_cls is not None else f'the levels {levels} of kd_loc'
            raise ValueError(f'{needs} needs a teacher, but teacher=None')
        self.crop_size = crop_size
        self.kd_cls = kd_cls
        self.kd_loc = kd_loc
        # In a tuple and not as submodules: see above.
        self._teacher = _Shared((teacher,))
        self._trunk = _Shared((teacher.trunk(levels) if teacher is not None and levels else None,))

    @property
    def teacher(self) -> FrozenTeacher | None:
        """The frozen classifier."""
        return cast(FrozenTeacher | None, self._teacher[0])

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> ClassifierDistiller:
        if self.teacher is not None:
            self.teacher._apply(fn, *args, **kwargs)  # the trunk shares the teacher's layers
        super()._apply(fn, *args, **kwargs)
        return self

    def forward(
        self, images: Tensor, normalization: Normalization, samples: PositiveSamples
    ) -> dict[str, Tensor]:
        """`loss_kd_cls` and `loss_kd_loc`, scalars; one that is switched off is absent.

        images (N, 3, H, W), normalised as `normalization` says

        Runs with autocast off, or boxes and crops would be a bfloat16 step (half a pixel) off; only the
        teacher runs in the autocast dtype.
        """
        device = images.device.type
        teacher_autocast = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False):
            with torch.no_grad():
                crops = crop_boxes(images, samples.gt_bboxes, samples.gt_image, self.crop_size)
            losses = {}
            if self.kd_cls is not None and self.teacher is not None:
                with torch.autocast(device, enabled=teacher_autocast):
                    teacher_logits = self.teacher.logits(crops, normalization)  # (G, K)
                losses['loss_kd_cls'] = self.kd_cls(
                    samples.cls_logits,
                    teacher_logits[samples.gt_index],
                    _per_image_normaliser(samples, images),
                )
            if self.kd_loc is not None:
                losses['loss_kd_loc'] = self._localization(
                    images, normalization, samples, crops, teacher_autocast
                )
        return losses

    def _localization(
        self,
        images: Tensor,
        normalization: Normalization,
        samples: PositiveSamples,
        gt_crops: Tensor,
        teacher_autocast: bool,
    ) -> Tensor:
        assert self.kd_loc is not None

        def pooled(crops: Tensor) -> list[Tensor]:
            assert self.kd_loc is not None
            features = {PIXELS: crops}
            if self._trunk[0] is not None and self.teacher is not None:
                with torch.autocast(images.device.type, enabled=teacher_autocast):
                    found = self._trunk[0](self.teacher.prepared(crops, normalization))
                features |= {level: feature.float() for level, feature in found.items()}
            return self.kd_loc.pool(features)

        with torch.no_grad():
            target = pooled(gt_crops)  # (G, C, s, s) per level
        image_index = samples.gt_image[samples.gt_index]
        predicted = pooled(crop_boxes(images, samples.bboxes, image_index, self.crop_size))
        total = self.kd_loc(predicted, [level[samples.gt_index] for level in target])
        return total / max(len(samples.bboxes), 1)


def _per_image_normaliser(samples: PositiveSamples, images: Tensor) -> Tensor:
    """Sum over the images of max(positives, 1), as published."""
    per_image = torch.bincount(samples.gt_image[samples.gt_index], minlength=len(images))
    return per_image.clamp(min=1).sum()

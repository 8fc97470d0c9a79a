"""From what a head predicted to the distillation losses.

N images · P positives · G ground-truth boxes · K classes · S crop side
Boxes are xyxy in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.distillation.losses import PIXELS, CropL1Loss
from mmdet.distillation.teacher import FrozenTeacher
from mmdet.registry import MODELS
from mmdet.structures import Normalization, PositiveSamples, crop_boxes

CHUNK_SIZE = 16  # crops whose feature maps are held together
CHUNK_SIZE_CUDA = 1024
MULTIPLES = {'cuda': 64}  # by the type of device: the teacher gets such a multiple of crops
GRADIENT_SCALE = 2.0**14  # keeps the gradient inside a float16 trunk from vanishing; a power of 2 is exact


class _Unregistered(tuple[Any, ...]):
    """What a copy of the distiller (EMA) shares with the original."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Unregistered:
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
        kd_cls: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
        kd_loc: CropL1Loss | None = None,
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
        self.crop_size = crop_size
        self.kd_cls = kd_cls
        self.kd_loc = kd_loc
        # In a tuple and not as submodules: see above.
        self._teacher = _Unregistered((teacher,))
        self._trunk = _Unregistered((teacher.trunk(levels) if teacher is not None and levels else None,))

    @property
    def teacher(self) -> FrozenTeacher | None:
        """The frozen classifier."""
        return cast(FrozenTeacher | None, self._teacher[0])

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> ClassifierDistiller:
        for part in (self.teacher, self._trunk[0]):  # the trunk shares most of its layers with the teacher
            if part is not None:
                part._apply(fn, *args, **kwargs)
        super()._apply(fn, *args, **kwargs)
        return self

    def forward(
        self, images: Tensor, normalization: Normalization, samples: PositiveSamples
    ) -> dict[str, Tensor]:
        """`loss_kd_cls` and `loss_kd_loc`, scalars; one that is switched off is absent.

        images (N, 3, H, W), normalized as `normalization` says

        Runs with autocast off, or boxes and crops would be a bfloat16 step (half a pixel) off; only the
        teacher runs in the autocast dtype.
        """
        device = images.device.type
        teacher_autocast = torch.is_autocast_enabled(device)

        def logits(crops: Tensor) -> Tensor:
            assert self.teacher is not None
            with torch.autocast(device, enabled=teacher_autocast):
                return self.teacher.logits(pad_batch(crops), normalization)[: len(crops)]

        def features(crops: Tensor) -> dict[str, Tensor]:
            levels = {PIXELS: crops}
            if self.teacher is not None and self._trunk[0] is not None:
                with torch.autocast(device, enabled=teacher_autocast):
                    found = self._trunk[0](self.teacher.prepared(pad_batch(crops), normalization))
                levels |= {level: feature[: len(crops)].float() for level, feature in found.items()}
            return levels

        losses = {}
        with torch.autocast(device, enabled=False):
            with torch.no_grad():
                crops = crop_boxes(images, samples.gt_bboxes, samples.gt_image, self.crop_size)
            if self.kd_cls is not None:
                losses['loss_kd_cls'] = self.kd_cls(
                    samples.cls_logits,
                    logits(crops)[samples.gt_index],
                    _per_image_avg_factor(samples, len(images)),
                    samples.gt_labels[samples.gt_index],
                )
            if self.kd_loc is not None:
                with torch.no_grad():
                    target = self.kd_loc.pool(features(crops))  # (G, C, s, s) per level
                losses['loss_kd_loc'] = self._localization(self.kd_loc, images, samples, target, features)
        return losses

    def _localization(
        self,
        kd_loc: CropL1Loss,
        images: Tensor,
        samples: PositiveSamples,
        target: list[Tensor],
        features: Callable[[Tensor], dict[str, Tensor]],
    ) -> Tensor:
        """`loss_kd_loc`, a few crops at a time.

        Nothing but the boxes takes a gradient, so each part's is taken at once and its feature maps are
        dropped: what is held does not grow with the number of positives, and on a CPU it fits the cache.
        """
        count = max(len(samples.bboxes), 1)
        image_index = samples.gt_image[samples.gt_index]
        values, gradients = [], []
        at_once = CHUNK_SIZE_CUDA if images.is_cuda else CHUNK_SIZE
        parts = zip(
            *(x.split(at_once) for x in (samples.bboxes.detach(), image_index, samples.gt_index)), strict=True
        )
        for bboxes, image, row in parts:
            with torch.enable_grad():
                bboxes.requires_grad_()
                predicted = kd_loc.pool(features(crop_boxes(images, bboxes, image, self.crop_size)))
                value = kd_loc(predicted, [level[row] for level in target]) / count
                (gradient,) = torch.autograd.grad(value * GRADIENT_SCALE, bboxes)
            values.append(value.detach())
            gradients.append(gradient / GRADIENT_SCALE)
        return PrecomputedGradient.apply(samples.bboxes, torch.stack(values).sum(), torch.cat(gradients))


class PrecomputedGradient(torch.autograd.Function):
    """A value whose gradient has been taken already."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """`value`, a function of `inputs` with `gradient`, which has the shape of `inputs`."""
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        """The chain rule."""
        (gradient,) = ctx.saved_tensors
        return grad_outputs[0] * gradient, None, None


def pad_batch(crops: Tensor) -> Tensor:
    """Crops (M, 3, S, S), on a GPU followed by blank ones up to the next of `MULTIPLES`.

    Every batch has another number of objects and of positives, and for each number cuDNN looks anew for the
    fastest algorithm of each convolution (`env_cfg.cudnn_benchmark`): so there are few numbers.
    """
    further = -len(crops) % MULTIPLES.get(crops.device.type, 1)
    return F.pad(crops, [0] * 7 + [further]) if further else crops


def _per_image_avg_factor(samples: PositiveSamples, num_images: int) -> Tensor:
    """Sum over the images of max(positives, 1), as published."""
    images = torch.arange(num_images, device=samples.gt_image.device)
    of_image = samples.gt_image[samples.gt_index] == images[:, None]  # (N, P); bincount waits for the device
    return of_image.sum(1).clamp(min=1).sum()

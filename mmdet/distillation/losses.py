"""Distillation losses: recognition (Eq 1-7) and localization (Eq 8-11) of arXiv 2106.05209.

P positives · G ground-truth boxes · K classes · C channels · T temperature
Logits and features are float32.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.registry import MODELS

PIXELS = 'pixels'  # the crop itself; every other level is a layer of the teacher


class _KDLoss(nn.Module):
    """Student logits against the teacher's; the subclass says which distributions are compared.

    Args:
        temperature: T; logits are divided by it, the loss is multiplied by its square.
        loss_weight: Factor on the loss.
    """

    def __init__(self, temperature: float = 2.0, loss_weight: float = 0.4) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f'temperature must be above 0, not {temperature}')
        self.temperature = temperature
        self.loss_weight = loss_weight

    def _scaled(self, divergence: Tensor, normaliser: Tensor) -> Tensor:
        return self.loss_weight * self.temperature**2 * divergence / normaliser


@MODELS.register_module()
class SoftmaxKDLoss(_KDLoss):
    """Eq 1 for softmax students: KL between distributions over the classes.

    The student's has K + 1 entries, background last; the teacher's is 0 there. In log-softmax: the
    published log(p + 1e-10) saturates, and is NaN in half precision.
    """

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, normaliser: Tensor) -> Tensor:
        """student_logits (P, K + 1) · teacher_logits (P, K) · normaliser 0-dim -> scalar."""
        student = F.log_softmax(student_logits / self.temperature, 1)[:, :-1]
        teacher = F.log_softmax(teacher_logits / self.temperature, 1)
        return self._scaled((teacher.exp() * (teacher - student)).sum(), normaliser)


@MODELS.register_module()
class SigmoidKDLoss(_KDLoss):
    """Eq 5-7 for sigmoid students: per class KL between the distributions (p, 1 - p), mean over classes."""

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, normaliser: Tensor) -> Tensor:
        """student_logits, teacher_logits (P, K) · normaliser 0-dim -> scalar."""
        student, teacher = student_logits / self.temperature, teacher_logits / self.temperature
        divergence = sum(
            teacher_log.exp() * (teacher_log - F.logsigmoid(sign * student))
            for sign in (1, -1)
            for teacher_log in (F.logsigmoid(sign * teacher),)
        )
        return self._scaled(torch.as_tensor(divergence).sum(), normaliser * student_logits.shape[1])


@MODELS.register_module()
class CropL1Loss(nn.Module):
    """Eq 9-11: mean absolute difference of predicted and true crop, after adaptive average pooling.

    `w_pixels D_pixels + (1/L) sum over the L feature levels of w_l D_l`, as published: the pixels add to
    the mean over the feature levels.

    Args:
        levels: 'pixels' and layers of the teacher ('stem', 'layer1', ...), any subset.
        pool_sizes: Side that each level is pooled to.
        loss_weight: One factor for all levels, or one per level.
    """

    def __init__(
        self,
        levels: Sequence[str] = (PIXELS, 'stem'),
        pool_sizes: Sequence[int] = (4, 8),
        loss_weight: float | Sequence[float] = 0.15,
    ) -> None:
        super().__init__()
        weights = [loss_weight] * len(levels) if isinstance(loss_weight, (int, float)) else list(loss_weight)
        if not levels or len(set(levels)) != len(levels):
            raise ValueError(f'levels must be given, each once; got {tuple(levels)}')
        if not len(levels) == len(pool_sizes) == len(weights):
            raise ValueError(
                f'{len(levels)} levels, {len(pool_sizes)} pool_sizes and {len(weights)} loss_weights; '
                'one of each per level is needed'
            )
        self.levels = tuple(levels)
        self.feature_levels = tuple(level for level in levels if level != PIXELS)
        self.pool_sizes = tuple(pool_sizes)
        share = {level: 1 if level == PIXELS else 1 / len(self.feature_levels) for level in levels}
        self.weights = tuple(w * share[level] for level, w in zip(levels, weights, strict=True))

    def pool(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Features per level (M, C, h, w) -> (M, C, s, s) per level, s its pool size."""
        sizes = zip(self.levels, self.pool_sizes, strict=True)
        return [F.adaptive_avg_pool2d(features[level], size) for level, size in sizes]

    def forward(self, predicted: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """Pooled features per level, (P, C, s, s) each -> scalar, summed over the P crops."""
        terms = [
            weight * (ours - theirs).abs().flatten(1).mean(1).sum()
            for weight, ours, theirs in zip(self.weights, predicted, target, strict=True)
        ]
        return torch.stack(terms).sum()

"""Distillation losses: recognition (Eq 1-7) and localization (Eq 8-11) of arXiv 2106.05209.

Three more for recognition serve teachers that are far stronger than the student: `DKDLoss`, `DISTLoss` and
`StandardizedKDLoss`.

P positives · G ground-truth boxes · K classes · C channels · T temperature
Logits and features are float32.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.registry import MODELS

PIXELS = 'pixels'  # the crop itself; every other level is a layer of the teacher
MASKED_LOGIT = -1e30  # of a class that is left out: probability 0; with -inf, 0 times the logit would be NaN
IOU_MARGIN = 1e-4  # of an IoU to 0 and 1, where a probability would be 0 and its logarithm infinite
REMEDIES = {  # by the number of logits of a student beyond the teacher's
    0: 'set model.distiller.kd_cls.type=SigmoidKDLoss, for a sigmoid student',
    1: 'set model.distiller.kd_cls.type=SoftmaxKDLoss, for a softmax student, which adds the background',
}
OTHER_CLASSES = 'num_classes of the student and of model.distiller.teacher must be the same'


class KDLoss(nn.Module, ABC):
    """Student logits against the teacher's; the subclass says how they are compared.

    Args:
        temperature: T; logits are divided by it, the loss is multiplied by its square.
        loss_weight: Factor on the loss.
    """

    extra_logits: tuple[int, ...] = (1,)  # of the students that it fits, beyond the teacher's K
    iou_aware = False  # whether `forward` needs `iou`

    def __init__(self, temperature: float = 2.0, loss_weight: float = 0.4) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f'temperature must be above 0, not {temperature}')
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        avg_factor: Tensor,
        labels: Tensor,
        iou: Tensor | None = None,
    ) -> Tensor:
        """Loss of the positives; only the student gets a gradient.

        student_logits (P, K) sigmoid student | (P, K + 1) softmax student, background last
        teacher_logits (P, K) · avg_factor 0-dim, above 0 · labels (P,) in [0, K)
        iou (P,) of predicted box and object, where `iou_aware` -> scalar, at least 0

        Raises:
            ValueError: A student of the other kind, or of other classes than the teacher's.
        """
        extra = student_logits.shape[1] - teacher_logits.shape[1]
        if extra not in self.extra_logits:  # one or two classes would be broadcast
            raise ValueError(
                f'{type(self).__name__} does not fit a student of {student_logits.shape[1]} logits and a '
                f'teacher of {teacher_logits.shape[1]} classes: {REMEDIES.get(extra, OTHER_CLASSES)}'
            )
        student, teacher = self.soften(student_logits), self.soften(teacher_logits.detach())
        divergence = self.divergence(student, teacher, labels, iou)
        return self.loss_weight * self.temperature**2 * divergence / avg_factor

    def soften(self, logits: Tensor) -> Tensor:
        """Divide logits of student or teacher by T."""
        return logits / self.temperature

    @abstractmethod
    def divergence(self, student: Tensor, teacher: Tensor, labels: Tensor, iou: Tensor | None) -> Tensor:
        """Logits as in `forward`, divided by T -> scalar, summed over the positives."""


@MODELS.register_module()
class SoftmaxKDLoss(KDLoss):
    """Eq 1 for softmax students: KL between distributions over the classes.

    The student's has K + 1 entries, background last; the teacher's is 0 there. In log-softmax: the
    published log(p + 1e-10) saturates, and is NaN in half precision.

    Args:
        temperature, loss_weight: T and the factor on the loss.
        iou_aware: Multiply the teacher's probabilities by the IoU of predicted box and object, the rest is
            background's: a box that is off is meant to learn doubt, and the best of several to score highest.
            As published, False, all positives of an object learn the same.
    """

    def __init__(self, temperature: float = 2.0, loss_weight: float = 0.4, iou_aware: bool = False) -> None:
        super().__init__(temperature, loss_weight)
        self.iou_aware = iou_aware

    def divergence(self, student: Tensor, teacher: Tensor, labels: Tensor, iou: Tensor | None) -> Tensor:
        """student (P, K + 1), teacher (P, K), both divided by T · iou (P,) -> scalar."""
        ours, theirs = F.log_softmax(student, 1), F.log_softmax(teacher, 1)
        if iou is None:
            return _kl(ours[:, :-1], theirs)
        inside = iou.clamp(IOU_MARGIN, 1 - IOU_MARGIN)[:, None]
        return _kl(ours, torch.cat([theirs + inside.log(), (1 - inside).log()], 1))


@MODELS.register_module()
class SigmoidKDLoss(KDLoss):
    """Eq 5-7 for sigmoid students: per class KL between the distributions (p, 1 - p), mean over classes."""

    extra_logits = (0,)

    def divergence(self, student: Tensor, teacher: Tensor, labels: Tensor, iou: Tensor | None) -> Tensor:
        """student, teacher (P, K), both divided by T -> scalar."""
        return _two_way_kl(student, teacher) / student.shape[1]


@MODELS.register_module()
class DKDLoss(KDLoss):
    """Decoupled knowledge distillation (arXiv 2203.08679): `alpha TCKD + beta NCKD`.

    TCKD is the KL between (p, 1 - p), p the probability of the object's own class; NCKD is the KL between
    the distributions over the other K - 1 classes. Plain KD weighs NCKD by the teacher's 1 - p, so a
    confident teacher passes on next to nothing about the other classes; here beta alone decides. Both over
    the K foreground classes, background is left to the detector's own loss. A single class gives 0.

    Args:
        alpha: Weight of TCKD, at least 0.
        beta: Weight of NCKD, at least 0.
        temperature, loss_weight: see SoftmaxKDLoss.
    """

    extra_logits = (0, 1)

    def __init__(
        self, alpha: float = 1.0, beta: float = 0.25, temperature: float = 1.0, loss_weight: float = 0.4
    ) -> None:
        super().__init__(temperature, loss_weight)
        self.alpha = alpha
        self.beta = beta

    def divergence(self, student: Tensor, teacher: Tensor, labels: Tensor, iou: Tensor | None) -> Tensor:
        """student (P, K) or (P, K + 1), teacher (P, K), both divided by T · labels (P,) -> scalar."""
        classes = teacher.shape[1]
        own = torch.arange(classes, device=labels.device) == labels[:, None]  # (P, K)
        logits = (student[:, :classes], teacher)
        others = [x.masked_fill(own, MASKED_LOGIT) for x in logits]
        odds = [
            x.gather(1, labels[:, None])[:, 0] - rest.logsumexp(1)  # (P,) log p / (1 - p)
            for x, rest in zip(logits, others, strict=True)
        ]
        among_others = [F.log_softmax(rest, 1) for rest in others]  # (P, K), probability 0 at the own class
        return self.alpha * _two_way_kl(*odds) + self.beta * _kl(*among_others)


@MODELS.register_module()
class DISTLoss(KDLoss):
    """DIST, arXiv 2205.10536: `beta L_inter + gamma L_intra`, correlations instead of equal probabilities.

    The distance of two vectors is 1 - their Pearson correlation, in [0, 2]. L_inter compares the K class
    probabilities of each positive, L_intra the P probabilities of each class; the mean over the classes
    stands for every positive, so that both terms have one avg_factor. Over the K foreground classes,
    background is left to the detector's own loss. What does not vary has correlation 0: a constant without
    gradient, so that a single positive has an L_intra of 1.

    Args:
        beta: Weight of L_inter, at least 0.
        gamma: Weight of L_intra, at least 0.
        temperature, loss_weight: see SoftmaxKDLoss.
    """

    extra_logits = (0, 1)

    def __init__(
        self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0, loss_weight: float = 0.4
    ) -> None:
        super().__init__(temperature, loss_weight)
        self.beta = beta
        self.gamma = gamma

    def divergence(self, student: Tensor, teacher: Tensor, labels: Tensor, iou: Tensor | None) -> Tensor:
        """student (P, K) or (P, K + 1), teacher (P, K), both divided by T -> scalar."""
        # In float64: in float32 the rounding of the mean of equal numbers would pass for variation.
        ours, theirs = (x.double().softmax(1) for x in (student[:, : teacher.shape[1]], teacher))
        inter = _pearson_distance(ours, theirs).sum()
        intra = _pearson_distance(ours.T, theirs.T).mean() * len(ours)
        return (self.beta * inter + self.gamma * intra).to(student.dtype)


@MODELS.register_module()
class StandardizedKDLoss(SoftmaxKDLoss):
    """Logit standardization (arXiv 2403.01427) before the KL of `SoftmaxKDLoss`.

    The logits of each positive are brought to mean 0 and deviation 1, the teacher's K and the student's
    K + 1 apart; only then T divides them. The student learns the order and the ratios of the teacher's
    logits, not their size.
    """

    def soften(self, logits: Tensor) -> Tensor:
        """Standardize the logits (P, K) or (P, K + 1) of each positive, then divide them by T."""
        return super().soften(F.layer_norm(logits, logits.shape[1:]))  # adds 1e-5 to the variance: no 0


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Log-probabilities of one shape -> sum of p_teacher (log p_teacher - log p_student)."""
    return (teacher.exp() * (teacher - student)).sum()


def _two_way_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Logits of p, of one shape -> KL between the distributions (p, 1 - p), summed."""
    positive = _kl(F.logsigmoid(student), F.logsigmoid(teacher))
    negative = _kl(F.logsigmoid(-student), F.logsigmoid(-teacher))
    return positive + negative


def _pearson_distance(x: Tensor, y: Tensor) -> Tensor:
    """(M, D), (M, D) float64 -> (M,) 1 - correlation of their rows."""
    x, y = (z - z.mean(1, keepdim=True) for z in (x, y))
    norms = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    return 1 - (x * y).sum(1) / (norms + 1e-8)


@MODELS.register_module()
class CropL1Loss(nn.Module):
    """Eq 9-11: mean absolute difference of predicted and true crop, after adaptive average pooling.

    `w_pixels D_pixels + (1/L) sum over the L feature levels of w_l D_l`, as published: the pixels add to
    the mean over the feature levels.

    The pixels are compared in gray levels, 0..255, whatever the student's normalization: crops times the mean
    of its three standard deviations. The published student has 1, so its weight means the same for all.

    Args:
        levels: 'pixels' and layers of the teacher ('stem', 'layer1', ...), any subset.
        pool_sizes: Side that each level is pooled to.
        loss_weight: One factor for all levels, or one per level.
        crop_size: Side of the crops that are compared; None: the distiller's, as published. What is pooled to
            4 x 4 and 8 x 8 needs no large crops: in the paper's ablation sides 28 and 112 differ by 0.3 mAP.
        max_per_object: How many positives of an object are compared, drawn anew in each step; None: all, as
            published. Each then stands for several, so that the expected loss and gradient stay the same.
    """

    def __init__(
        self,
        levels: Sequence[str] = (PIXELS, 'stem'),
        pool_sizes: Sequence[int] = (4, 8),
        loss_weight: float | Sequence[float] = 0.15,
        crop_size: int | None = None,
        max_per_object: int | None = None,
    ) -> None:
        super().__init__()
        if max_per_object is not None and max_per_object < 1:
            raise ValueError(f'max_per_object must be at least 1, or None for all; got {max_per_object}')
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
        self.crop_size = crop_size
        self.max_per_object = max_per_object
        share = {level: 1 if level == PIXELS else 1 / len(self.feature_levels) for level in levels}
        self.weights = tuple(w * share[level] for level, w in zip(levels, weights, strict=True))

    def pool(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Features per level (M, C, h, w) -> (M, C, s, s) per level, s its pool size."""
        sizes = zip(self.levels, self.pool_sizes, strict=True)
        return [_average_pool(features[level], size) for level, size in sizes]

    def choose(self, gt_index: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the positives that are compared.

        gt_index (P,) object of each positive
        returns rows (Q,) in [0, P), and for how many positives of its object each stands (Q,), float
        """
        if self.max_per_object is None:
            rows = torch.arange(len(gt_index), device=gt_index.device)
            return rows, torch.ones_like(rows, dtype=torch.float32)
        shuffled = torch.rand(len(gt_index), device=gt_index.device).argsort()
        rows = shuffled[gt_index[shuffled].argsort(stable=True)]  # grouped by object
        objects = gt_index[rows]
        first, end = (torch.searchsorted(objects, objects, right=right) for right in (False, True))
        place = torch.arange(len(rows), device=rows.device) - first  # within its group
        count = end - first
        kept = (place < self.max_per_object).nonzero()[:, 0]  # once: a GPU is waited for
        return rows[kept], (count / count.clamp(max=self.max_per_object))[kept]

    def forward(
        self, predicted: Sequence[Tensor], target: Sequence[Tensor], shares: Tensor, std: Tensor
    ) -> Tensor:
        """Pooled features per level, (P, C, s, s) each, weighed by shares (P,) -> scalar, summed.

        std (3,) of the student's normalization, in gray levels
        """
        terms = []
        for level, weight, ours, theirs in zip(self.levels, self.weights, predicted, target, strict=True):
            distance = (shares * (ours - theirs).abs().flatten(1).mean(1)).sum()
            terms.append(weight * (distance * std.mean() if level == PIXELS else distance))
        return torch.stack(terms).sum()


def _average_pool(x: Tensor, size: int) -> Tensor:
    """Pool squares (M, C, side, side) -> (M, C, size, size), as `F.adaptive_avg_pool2d`, but faster."""
    side = x.shape[-1]
    if side == size:
        return x
    return F.adaptive_avg_pool2d(x, size) if side % size else F.avg_pool2d(x, side // size)

"""Detection losses on dense targets: shapes are static, nothing waits for the device.

N images · A anchors · K classes
matched (N, A) int64: row of the image's ground truth | BACKGROUND | IGNORED
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from mmdet.registry import MODELS
from mmdet.structures import BACKGROUND, IGNORED, box_areas
from mmdet.structures.boxes import EPS


class ClassificationLoss(nn.Module, ABC):
    """A classification loss; it knows how many logits it needs and what probabilities they stand for.

    Args:
        loss_weight: The head multiplies the loss by it.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    @abstractmethod
    def channels(self, num_classes: int) -> int:
        """Logits per anchor: K + 1 with softmax, background last; K with sigmoid."""

    @abstractmethod
    def probabilities(self, cls_logits: Tensor) -> Tensor:
        """Convert logits (N, A, channels) to class probabilities without background, (N, A, K)."""

    @abstractmethod
    def forward(self, cls_logits: Tensor, labels: Tensor, matched: Tensor) -> Tensor:
        """Sum the loss over the anchors that take part.

        cls_logits (N, A, channels) · labels (N, A) in [0, K], K for background · matched (N, A) -> scalar
        """


class BoxLoss(nn.Module, ABC):
    """A loss of deltas, or of decoded boxes.

    Args:
        loss_weight: The head multiplies the loss by it.
    """

    on_deltas = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    @abstractmethod
    def forward(self, predictions: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Sum the loss over the anchors. predictions, targets (N, A, 4) · weights (N, A) -> scalar."""


@MODELS.register_module()
class FocalLoss(ClassificationLoss):
    """Sigmoid focal loss (RetinaNet, arXiv 1708.02002) over all anchors that are not ignored.

    Args:
        gamma: How quickly an anchor that is classified well loses its weight.
        alpha: Weight of positives, 1 - alpha that of negatives; -1: both weigh 1. With gamma=0, alpha=-1 it
            is binary cross-entropy, RPN's loss.
        loss_weight: see ClassificationLoss.
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.gamma = gamma
        self.alpha = alpha

    def channels(self, num_classes: int) -> int:
        """K."""
        return num_classes

    def probabilities(self, cls_logits: Tensor) -> Tensor:
        """Sigmoid, (N, A, K)."""
        return cls_logits.sigmoid()

    def forward(self, cls_logits: Tensor, labels: Tensor, matched: Tensor) -> Tensor:
        """cls_logits (N, A, K) · labels (N, A) in [0, K] · matched (N, A) -> scalar, summed."""
        classes = torch.arange(cls_logits.shape[2], device=labels.device)
        targets = (labels[..., None] == classes).to(cls_logits.dtype)  # (N, A, K)
        loss = sigmoid_focal_loss(cls_logits, targets, self.alpha, self.gamma)
        return (loss.sum(2) * (matched != IGNORED)).sum()


@MODELS.register_module()
class CrossEntropyLoss(ClassificationLoss):
    """Softmax cross-entropy over all anchors that are not ignored."""

    def channels(self, num_classes: int) -> int:
        """K + 1, background last."""
        return num_classes + 1

    def probabilities(self, cls_logits: Tensor) -> Tensor:
        """Softmax, background dropped: (N, A, K + 1) -> (N, A, K)."""
        return cls_logits.softmax(2)[..., :-1]

    def forward(self, cls_logits: Tensor, labels: Tensor, matched: Tensor) -> Tensor:
        """cls_logits (N, A, K + 1) · labels (N, A) in [0, K] · matched (N, A) -> scalar, summed."""
        loss = F.cross_entropy(cls_logits.flatten(0, 1), labels.flatten(), reduction='none')
        return (loss.view(labels.shape) * (matched != IGNORED)).sum()


@MODELS.register_module()
class MultiBoxLoss(CrossEntropyLoss):
    """Softmax cross-entropy over positives and mined hard negatives (SSD, arXiv 1512.02325).

    Each image contributes its positives and the `neg_pos_ratio` times as many negatives of largest loss; an
    image without positives contributes nothing.

    Args:
        neg_pos_ratio: Negatives per positive.
        loss_weight: see ClassificationLoss.
    """

    def __init__(self, neg_pos_ratio: float = 3, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.neg_pos_ratio = neg_pos_ratio

    def forward(self, cls_logits: Tensor, labels: Tensor, matched: Tensor) -> Tensor:
        """cls_logits (N, A, K + 1) · labels (N, A) in [0, K] · matched (N, A) -> scalar, summed."""
        loss = F.cross_entropy(cls_logits.flatten(0, 1), labels.flatten(), reduction='none')
        loss = loss.view(labels.shape)  # (N, A)
        positive = matched >= 0
        count = (positive.sum(1, keepdim=True) * self.neg_pos_ratio).long()  # (N, 1) negatives to keep
        # Losses are at least 0, so a 0 in place of an anchor that is not a negative never displaces one.
        hardest = torch.where(matched == BACKGROUND, loss, 0).sort(1, descending=True).values
        kept = torch.arange(loss.shape[1], device=loss.device) < count  # (N, A)
        return (loss * positive).sum() + (hardest * kept).sum()


@MODELS.register_module()
class SmoothL1Loss(BoxLoss):
    """Smooth L1 loss of box deltas.

    Args:
        beta: Where the loss turns from square to linear, in normalized deltas; 0 is the L1 loss.
        loss_weight: see BoxLoss.
    """

    def __init__(self, beta: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.beta = beta

    def forward(self, predictions: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """predictions, targets: deltas (N, A, 4) · weights (N, A) -> scalar, summed."""
        loss = F.smooth_l1_loss(predictions, targets, beta=self.beta, reduction='none')
        return (loss * weights[..., None]).sum()


@MODELS.register_module()
class GIoULoss(BoxLoss):
    """1 - generalized IoU of decoded boxes (arXiv 1902.09630); torchvision's waits for the device."""

    on_deltas = False

    def forward(self, predictions: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """predictions, targets: boxes (N, A, 4), xyxy in pixels · weights (N, A) -> scalar, summed."""
        low, high = torch.stack([predictions, targets]).split(2, -1)  # (2, N, A, 2)
        width, height = (high.amin(0) - low.amax(0)).clamp(min=0).unbind(-1)
        overlap = width * height
        union = box_areas(predictions) + box_areas(targets) - overlap
        hull = box_areas(torch.cat([low.amin(0), high.amax(0)], -1)).clamp(min=EPS)
        giou = overlap / union.clamp(min=EPS) - (hull - union) / hull
        return ((1 - giou) * weights).sum()

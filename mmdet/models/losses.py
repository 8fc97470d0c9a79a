"""Detection losses on dense targets: shapes are static, nothing waits for the device.

N images · A anchors · K classes, K the background · avg_factor: a 0-dim tensor
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def multibox_cls_loss(
    cls_logits: Tensor, targets: Tensor, positive: Tensor, negative: Tensor, neg_pos_ratio: float
) -> Tensor:
    """SSD's cross-entropy over positives and mined negatives (arXiv 1512.02325), summed.

    cls_logits (N, A, K + 1) · targets (N, A) in [0, K] · positive, negative (N, A) bool

    Each image contributes its positives and the `neg_pos_ratio` times as many negatives of largest loss;
    an image without positives contributes nothing.
    """
    loss = F.cross_entropy(cls_logits.flatten(0, 1), targets.flatten(), reduction='none')
    loss = loss.view(targets.shape)  # (N, A)
    count = (positive.sum(1, keepdim=True) * neg_pos_ratio).long()  # (N, 1) negatives to keep
    # Losses are at least 0, so a 0 in place of an anchor that is no negative never displaces one.
    hardest = torch.where(negative, loss, 0).sort(1, descending=True).values
    kept = torch.arange(loss.shape[1], device=loss.device) < count  # (N, A)
    return (loss * positive).sum() + (hardest * kept).sum()


def smooth_l1_loss(box_deltas: Tensor, targets: Tensor, positive: Tensor, beta: float) -> Tensor:
    """Smooth L1 over the positives, summed.

    box_deltas, targets (N, A, 4) · positive (N, A) bool
    """
    loss = F.smooth_l1_loss(box_deltas, targets, beta=beta, reduction='none')
    return (loss * positive[..., None]).sum()

"""Detection losses against slow references."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet.models.losses import multibox_cls_loss, smooth_l1_loss


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 50, 6, generator=generator, requires_grad=True)
    targets = torch.randint(0, 5, (4, 50), generator=generator)
    positive = torch.zeros(4, 50, dtype=torch.bool)
    positive[0, :4] = positive[1, 10:12] = True
    positive[3, :30] = True  # three negatives for each are more than there are
    negative = ~positive
    negative[0, 40:] = False  # ignored
    return logits, torch.where(positive, targets, 5), positive, negative


def test_hard_negatives_are_the_three_worst_per_positive() -> None:
    logits, targets, positive, negative = batch(0)
    expected = torch.zeros(())
    for i in range(4):
        losses = [F.cross_entropy(logits[i, a][None], targets[i, a][None]) for a in range(50)]
        expected = expected + sum(losses[a] for a in range(50) if positive[i, a])
        ranked = sorted((losses[a] for a in range(50) if negative[i, a]), key=float, reverse=True)
        expected = expected + sum(ranked[: 3 * int(positive[i].sum())])
    loss = multibox_cls_loss(logits, targets, positive, negative, 3)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs)
    assert ours[2].abs().max() == 0  # an image without positives teaches nothing


def test_smooth_l1_over_positives_alone() -> None:
    deltas, targets = torch.randn(2, 2, 9, 4, generator=torch.Generator().manual_seed(1)).unbind(0)
    positive = torch.zeros(2, 9, dtype=torch.bool)
    positive[1, 3] = True
    expected = F.smooth_l1_loss(deltas[1, 3], targets[1, 3], reduction='sum')
    torch.testing.assert_close(smooth_l1_loss(deltas, targets, positive, beta=1.0), expected)
    assert smooth_l1_loss(deltas, targets, torch.zeros_like(positive), beta=1.0) == 0

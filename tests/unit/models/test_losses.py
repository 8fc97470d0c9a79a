"""Detection losses against slow references."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
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


def mined(logits: Tensor, targets: Tensor, positive: Tensor, negative: Tensor, ratio: int) -> Tensor:
    """The rule in words, one anchor at a time."""
    total = logits.sum() * 0
    for i in range(len(logits)):
        losses = [
            F.cross_entropy(x[None], target[None]) for x, target in zip(logits[i], targets[i], strict=True)
        ]
        total = total + sum(loss for loss, wanted in zip(losses, positive[i], strict=True) if wanted)
        others = [loss for loss, wanted in zip(losses, negative[i], strict=True) if wanted]
        ranked = sorted(others, key=lambda loss: loss.item(), reverse=True)
        total = total + sum(ranked[: ratio * int(positive[i].sum())])
    return total


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 12), st.integers(0, 4), st.booleans())
def test_any_batch_is_mined_as_its_anchors_one_by_one(
    seed: int, images: int, anchors: int, ratio: int, ties: bool
) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, anchors, 4, generator=rng)
    logits = (logits.round() if ties else logits).requires_grad_()
    kind = torch.randint(0, 3, (images, anchors), generator=rng)  # positive, negative, ignored
    targets = torch.where(kind == 0, torch.randint(0, 3, (images, anchors), generator=rng), 3)
    arguments = (targets, kind == 0, kind == 1, ratio)
    loss = multibox_cls_loss(logits, *arguments)
    torch.testing.assert_close(loss, mined(logits, *arguments))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert gradient[kind == 2].abs().sum() == 0


def test_hard_negatives_are_the_three_worst_per_positive() -> None:
    logits, targets, positive, negative = batch(0)
    expected = mined(logits, targets, positive, negative, 3)
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

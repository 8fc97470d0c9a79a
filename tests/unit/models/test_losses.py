"""Detection losses against slow references."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from mmdet.models.losses import FocalLoss, GIoULoss, MultiBoxLoss, SmoothL1Loss
from mmdet.structures import BACKGROUND, IGNORED
from tests.unit.structures.test_boxes import random_boxes


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 50, 6, generator=generator, requires_grad=True)
    targets = torch.randint(0, 5, (4, 50), generator=generator)
    matched = torch.full((4, 50), BACKGROUND)
    matched[0, :4] = matched[1, 10:12] = 0
    matched[3, :30] = 1  # three negatives for each are more than there are
    matched[0, 40:] = IGNORED
    return logits, torch.where(matched >= 0, targets, 5), matched


def mined(logits: Tensor, targets: Tensor, matched: Tensor, ratio: int) -> Tensor:
    """The rule in words, one anchor at a time."""
    positive, negative = matched >= 0, matched == BACKGROUND
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
    matched = torch.tensor([0, BACKGROUND, IGNORED])[kind]
    loss = MultiBoxLoss(ratio)(logits, targets, matched)
    torch.testing.assert_close(loss, mined(logits, targets, matched, ratio))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert gradient[kind == 2].abs().sum() == 0


def test_hard_negatives_are_the_three_worst_per_positive() -> None:
    logits, targets, matched = batch(0)
    expected = mined(logits, targets, matched, 3)
    loss = MultiBoxLoss(3)(logits, targets, matched)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs)
    assert ours[2].abs().max() == 0  # an image without positives teaches nothing


def test_smooth_l1_over_positives_alone() -> None:
    deltas, targets = torch.randn(2, 2, 9, 4, generator=torch.Generator().manual_seed(1)).unbind(0)
    matched = torch.full((2, 9), BACKGROUND)
    assert SmoothL1Loss()(deltas, targets, matched >= 0) == 0
    matched[1, 3] = 0
    expected = F.smooth_l1_loss(deltas[1, 3], targets[1, 3], reduction='sum')
    torch.testing.assert_close(SmoothL1Loss()(deltas, targets, matched >= 0), expected)


def test_focal_loss_is_the_papers_formula_over_what_is_not_ignored() -> None:
    logits, targets, matched = batch(2)
    logits = logits[..., :5].detach().requires_grad_()
    total = torch.zeros(())
    for place in (matched != IGNORED).nonzero().tolist():
        i, anchor = place
        for label, p in enumerate(logits[i, anchor].sigmoid()):
            if label == targets[i, anchor]:
                total = total - 0.3 * (1 - p) ** 1.5 * p.log()
            else:
                total = total - 0.7 * p**1.5 * (1 - p).log()
    loss = FocalLoss(gamma=1.5, alpha=0.3)(logits, targets, matched)
    torch.testing.assert_close(loss, total)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[matched == IGNORED].any()
    assert (FocalLoss().channels(5), FocalLoss().probabilities(logits).shape) == (5, logits.shape)


def test_focal_loss_without_its_weights_is_binary_cross_entropy() -> None:
    logits, targets, matched = batch(3)
    logits, matched = logits[..., :5], matched.clamp(min=BACKGROUND)
    expected = F.binary_cross_entropy_with_logits(
        logits, F.one_hot(targets, 6)[..., :5].float(), reduction='sum'
    )
    torch.testing.assert_close(FocalLoss(gamma=0, alpha=-1)(logits, targets, matched), expected)


def test_smooth_l1_turns_into_l1() -> None:
    deltas, targets = torch.randn(2, 2, 9, 4, generator=torch.Generator().manual_seed(1)).unbind(0)
    matched = torch.zeros(2, 9).long()
    torch.testing.assert_close(
        SmoothL1Loss(beta=0)(deltas, targets, matched >= 0), F.l1_loss(deltas, targets, reduction='sum')
    )


def test_giou_is_torchvisions_weighed() -> None:
    boxes, targets = (random_boxes(seed, 40).view(2, 20, 4) for seed in (0, 1))
    targets[0, :5] = boxes[0, :5]  # perfect
    targets[0, 5:9] = boxes[0, 5:9] + 200  # apart
    boxes.requires_grad_()
    weights = torch.rand(2, 20, generator=torch.Generator().manual_seed(2))
    weights[1, :9] = 0
    loss = GIoULoss()(boxes, targets, weights)
    torch.testing.assert_close(loss, (generalized_box_iou_loss(boxes, targets) * weights).sum())
    assert GIoULoss()(boxes[:1, :5], targets[:1, :5], weights[:1, :5]).abs() < 1e-5
    nothing = torch.zeros(1, 1, 4, requires_grad=True)
    GIoULoss()(nothing, torch.zeros(1, 1, 4), torch.zeros(1, 1)).backward()
    assert nothing.grad.isfinite().all()

"""From scores to detections."""

import pytest
import torch
from torchvision.ops import nms

from mmdet.models import NMSPostProcess
from tests.unit.structures.test_boxes import random_boxes


def test_equals_a_loop_over_classes() -> None:
    bboxes = random_boxes(0, 80).view(2, 40, 4)
    scores = torch.rand(2, 40, 3, generator=torch.Generator().manual_seed(1))
    found = NMSPostProcess(nms_pre=15, score_thr=0.3, iou_threshold=0.4, max_per_img=12)(
        bboxes, scores, [30, 10]
    )
    assert len(found) == 2
    for image, detections in enumerate(found):
        best = scores[image].amax(1)
        kept = torch.cat([best[:30].topk(15).indices, torch.arange(30, 40)])
        rows = []
        for label in range(3):
            of_class = kept[scores[image, kept, label] > 0.3]
            class_scores = scores[image, of_class, label]
            for i in nms(bboxes[image, of_class], class_scores, 0.4).tolist():
                rows.append((float(class_scores[i]), label, bboxes[image, of_class[i]].tolist()))
        rows = sorted(rows, reverse=True)[:12]
        assert detections.labels.tolist() == [label for _, label, _ in rows]
        torch.testing.assert_close(detections.scores, torch.tensor([score for score, _, _ in rows]))
        torch.testing.assert_close(detections.bboxes, torch.tensor([box for _, _, box in rows]))


def test_boxes_per_class_are_those_of_the_class() -> None:
    bboxes, scores = random_boxes(0, 60).view(1, 20, 3, 4), torch.rand(1, 20, 3)
    (found,) = NMSPostProcess(score_thr=0.3, iou_threshold=1.0)(bboxes, scores, [20])
    assert len(found.scores) == (scores > 0.3).sum()
    for box, score, label in zip(*found, strict=True):
        (row,) = (scores[0, :, label] == score).nonzero()[0]
        torch.testing.assert_close(box, bboxes[0, row, label])


def test_boxes_of_different_levels_leave_each_other_alone() -> None:
    bboxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0]] * 5])  # one box five times, on three levels
    scores = torch.tensor([[0.5, 0.6, 0.7, 0.8, 0.9]])[..., None]
    (found,) = NMSPostProcess(score_thr=0.0, group='level')(bboxes, scores, [2, 1, 2])
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7, 0.6]))
    assert not found.labels.any()
    (found,) = NMSPostProcess(score_thr=0.0, group='class')(bboxes, scores, [2, 1, 2])
    assert len(found.scores) == 1


def test_nothing_above_the_threshold() -> None:
    (found,) = NMSPostProcess()(random_boxes(0, 5)[None], torch.zeros(1, 5, 3), [5])
    assert found.bboxes.shape == (0, 4)
    assert len(found.scores) == len(found.labels) == 0


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('crowded', [False, True])
def test_few_candidates_give_what_all_of_them_give(seed: int, crowded: bool) -> None:
    """Also where scores tie, and where nearly all overlap, so that all must be tried."""
    rng = torch.Generator().manual_seed(seed)
    corners = torch.rand(600, 2, generator=rng) * (4 if crowded else 300)
    bboxes = torch.cat([corners, corners + 20 + 10 * torch.rand(600, 2, generator=rng)], 1)
    scores = torch.rand(600, 4, generator=rng)
    scores = scores.mul(20).round().div(20) if seed % 2 else scores
    (few,) = NMSPostProcess(nms_pre=600, max_per_img=10)(bboxes[None], scores[None], [600])
    (more,) = NMSPostProcess(nms_pre=600, max_per_img=2400)(bboxes[None], scores[None], [600])  # all at once
    assert len(few.scores) == min(10, len(more.scores))
    for one, other in zip(few, more, strict=True):
        assert torch.equal(one, other[: len(one)])

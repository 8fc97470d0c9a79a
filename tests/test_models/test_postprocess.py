"""From scores to detections."""

import torch
from torchvision.ops import nms

from mmdet.models import NMSPostProcess
from tests.test_structures.test_boxes import random_boxes


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


def test_nothing_above_the_threshold() -> None:
    (found,) = NMSPostProcess()(random_boxes(0, 5)[None], torch.zeros(1, 5, 3), [5])
    assert found.bboxes.shape == (0, 4)
    assert len(found.scores) == len(found.labels) == 0

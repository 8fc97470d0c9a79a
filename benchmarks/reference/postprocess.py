"""From maps to detections, one image, one level and one class after the other (MMDetection 2.10).

A anchors · K classes, K the background · D detections · boxes xyxy in pixels of the network input
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms

from benchmarks.reference.ssd_loss import decode

NMS_PRE, SCORE_THR, NMS_IOU, MAX_PER_IMAGE = 1000, 0.02, 0.45, 200


def detections(
    cls_maps: Sequence[Tensor], box_maps: Sequence[Tensor], anchors: Tensor, num_classes: int, side: int = 300
) -> list[Tensor]:
    """Compute detections per image (D, 6): x1, y1, x2, y2, score, label; best first.

    cls_maps, box_maps: per level, see `BaselineSSD300` · anchors (A, 4) · side: of the image, in pixels
    """
    return [
        _of_image([x[i] for x in cls_maps], [x[i] for x in box_maps], anchors, num_classes, side)
        for i in range(len(cls_maps[0]))
    ]


def _of_image(
    cls_maps: list[Tensor], box_maps: list[Tensor], anchors: Tensor, num_classes: int, side: int
) -> Tensor:
    boxes, scores, start = [], [], 0
    for cls_map, box_map in zip(cls_maps, box_maps, strict=True):
        of_level = cls_map.permute(1, 2, 0).reshape(-1, num_classes + 1).float().softmax(1)
        deltas = box_map.permute(1, 2, 0).reshape(-1, 4).float()
        level_anchors = anchors[start : start + len(deltas)]
        start += len(deltas)
        if len(deltas) > NMS_PRE:
            _, best = of_level[:, :num_classes].max(1).values.topk(NMS_PRE)
            of_level, deltas, level_anchors = of_level[best], deltas[best], level_anchors[best]
        boxes.append(decode(level_anchors, deltas).clamp(0, side))
        scores.append(of_level)
    return multiclass_nms(torch.cat(boxes), torch.cat(scores)[:, :num_classes])


def multiclass_nms(boxes: Tensor, scores: Tensor) -> Tensor:
    """Run NMS class by class on boxes (B, 4), repeated for each of K classes, scores (B, K) -> (D, 6)."""
    num_classes = scores.shape[1]
    repeated = boxes[:, None].expand(len(boxes), num_classes, 4)  # (B, K, 4)
    labels = torch.arange(num_classes, device=boxes.device).expand_as(scores)
    valid = scores > SCORE_THR
    repeated, flat_scores, labels = repeated[valid], scores[valid], labels[valid]
    kept = []
    for label in range(num_classes):
        rows = torch.nonzero(labels == label).flatten()
        kept.append(rows[nms(repeated[rows], flat_scores[rows], NMS_IOU)])
    rows = torch.cat(kept)
    rows = rows[flat_scores[rows].argsort(descending=True)][:MAX_PER_IMAGE]
    return torch.cat([repeated[rows], flat_scores[rows, None], labels[rows, None].float()], 1)

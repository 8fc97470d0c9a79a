"""SSD's training targets and losses, one image after the other (MMDetection 2.10's `SSDHead`).

Per image: match anchors with objects, build dense target tensors, mine negatives, sum two losses. The
per-image results are lists that are brought together at the end.

G objects of an image · A anchors · K classes, K the background · boxes xyxy in pixels of the network input
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from benchmarks.reference.network import flat

POSITIVE_IOU = 0.5
NEGATIVES_PER_POSITIVE = 3
STDS = (0.1, 0.1, 0.2, 0.2)
MAX_LOG_RATIO = abs(math.log(16 / 1000))


class Targets(NamedTuple):
    """What one image's anchors learn."""

    labels: Tensor  # (A,) in [0, K]
    boxes: Tensor  # (A, 4) deltas, 0 where an anchor has no object
    box_weights: Tensor  # (A, 4) 1 where an anchor has an object
    positive: Tensor  # (P,) anchors
    matched: Tensor  # (P,) row of the object of each


def assign(anchors: Tensor, objects: Tensor) -> Tensor:
    """Match anchors -> (A,) row of the object that an anchor learns, -1 for background."""
    matched = torch.full((len(anchors),), -1, device=anchors.device)
    if not len(objects):
        return matched
    iou = box_iou(objects, anchors)  # (G, A)
    best_iou, best_object = iou.max(0)
    learns = best_iou >= POSITIVE_IOU
    matched[learns] = best_object[learns]
    best_anchor = iou.argmax(1)
    for row in range(len(objects)):  # every object takes its best anchor; the last one wins a shared one
        matched[best_anchor[row]] = row
    return matched


def targets_of_image(anchors: Tensor, objects: Tensor, labels: Tensor, num_classes: int) -> Targets:
    """Build dense targets over all anchors."""
    matched = assign(anchors, objects)
    positive = torch.nonzero(matched >= 0).flatten()
    dense_labels = torch.full((len(anchors),), num_classes, device=anchors.device)
    dense_boxes, weights = torch.zeros_like(anchors), torch.zeros_like(anchors)
    if len(positive):
        dense_labels[positive] = labels[matched[positive]]
        dense_boxes[positive] = encode(anchors[positive], objects[matched[positive]])
        weights[positive] = 1.0
    return Targets(dense_labels, dense_boxes, weights, positive, matched[positive])


def encode(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Encode boxes as normalized deltas (P, 4) to anchors (arXiv 1311.2524)."""
    anchor_xy, anchor_wh = (anchors[:, :2] + anchors[:, 2:]) * 0.5, anchors[:, 2:] - anchors[:, :2]
    xy, wh = (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]
    deltas = torch.cat([(xy - anchor_xy) / anchor_wh, torch.log(wh / anchor_wh)], 1)
    return deltas / deltas.new_tensor(STDS)


def decode(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Decode deltas to boxes, with the log of a side's ratio limited."""
    deltas = deltas * deltas.new_tensor(STDS)
    anchor_xy, anchor_wh = (anchors[:, :2] + anchors[:, 2:]) * 0.5, anchors[:, 2:] - anchors[:, :2]
    xy = anchor_xy + anchor_wh * deltas[:, :2]
    wh = anchor_wh * deltas[:, 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return torch.cat([xy - wh * 0.5, xy + wh * 0.5], 1)


def losses(
    cls_maps: Sequence[Tensor],
    box_maps: Sequence[Tensor],
    anchors: Tensor,
    objects: Sequence[Tensor],
    labels: Sequence[Tensor],
    num_classes: int,
) -> tuple[dict[str, Tensor], list[Targets]]:
    """Compute `loss_cls` and `loss_bbox`, and the targets of each image.

    cls_maps, box_maps: per level, see `BaselineSSD300` · objects, labels: per image (G, 4) and (G,)
    """
    images = range(len(objects))
    targets = [targets_of_image(anchors, objects[i], labels[i], num_classes) for i in images]
    avg_factor = sum(max(len(t.positive), 1) for t in targets)
    cls_logits = [flat(cls_maps, i, num_classes + 1).float() for i in images]
    box_deltas = [flat(box_maps, i, 4).float() for i in images]
    if not all(torch.isfinite(torch.stack(x)).all() for x in (cls_logits, box_deltas)):
        raise ValueError('predictions are infinite or NaN')
    of_class, of_box = [], []
    for i in images:
        loss = F.cross_entropy(cls_logits[i], targets[i].labels, reduction='none')  # (A,)
        positive = targets[i].positive
        negative = torch.nonzero(targets[i].labels == num_classes).flatten()
        count = min(NEGATIVES_PER_POSITIVE * len(positive), len(negative))
        hardest, _ = loss[negative].topk(count)
        of_class.append((loss[positive].sum() + hardest.sum()) / avg_factor)
        distance = F.smooth_l1_loss(box_deltas[i], targets[i].boxes, reduction='none')
        of_box.append((distance * targets[i].box_weights).sum() / avg_factor)
    return {'loss_cls': torch.stack(of_class).sum(), 'loss_bbox': torch.stack(of_box).sum()}, targets

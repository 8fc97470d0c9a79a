"""Which anchor learns which object.

N images · A anchors · Gmax rows of padded ground truth · boxes xyxy in pixels of the network input
matched (N, A) int64: row of the image's ground truth | BACKGROUND | IGNORED, see structures/anchors.py
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch
from torch import Tensor

from mmdet.registry import MODELS
from mmdet.structures import (
    BACKGROUND,
    IGNORED,
    Anchors,
    GroundTruth,
    bbox_overlaps,
    box_areas,
    cached_tensor,
    clip_boxes,
)

MAX_ELEMENTS = 1 << 26  # of one value for each anchor and object, 256 MB; a larger batch is matched in parts

Assigner = Callable[[Anchors, GroundTruth], Tensor]  # -> matched (N, A)


@MODELS.register_module()
class MaxIoUAssigner:
    """Match anchors with the object they overlap most, and every object with its best anchor.

    Args:
        pos_iou_thr: An anchor with at least this IoU learns the object.
        neg_iou_thr: An anchor below this IoU with every object is background; in between it is ignored.
        min_pos_iou: An object claims its best anchor from this IoU on, whatever the thresholds; 0 lets
            an object that overlaps no anchor claim one too.
        gt_max_assign_all: An object claims every anchor that ties with its best one, not only the first.
        match_low_quality: Objects claim anchors at all; False for RoIs.
    """

    def __init__(
        self,
        pos_iou_thr: float,
        neg_iou_thr: float,
        min_pos_iou: float = 0.0,
        gt_max_assign_all: bool = True,
        match_low_quality: bool = True,
    ) -> None:
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_thr = neg_iou_thr
        self.min_pos_iou = min_pos_iou
        self.gt_max_assign_all = gt_max_assign_all
        self.match_low_quality = match_low_quality

    @torch.no_grad()
    def __call__(self, anchors: Anchors, gt: GroundTruth) -> Tensor:
        """Match the anchors of a batch with its ground truth; returns matched (N, A).

        Of several objects an anchor takes the first with the largest IoU; of several objects that claim
        one anchor the last row wins.
        """
        return _match_in_parts(self._match, anchors, gt)

    def _match(self, anchors: Tensor, bboxes: Tensor, valid: Tensor) -> Tensor:
        # Rows without an object get IoU -1: with 0 they would claim anchor 0 as their best one.
        iou = bbox_overlaps(bboxes, anchors).masked_fill_(~valid[:, :, None], -1)  # (N, Gmax, A)
        best_iou, best_row = iou.max(1)  # (N, A)
        matched = torch.where(best_iou < self.neg_iou_thr, BACKGROUND, IGNORED)
        matched = torch.where(best_iou >= self.pos_iou_thr, best_row, matched)
        if not self.match_low_quality:
            return matched
        claimed = self._claimed_by(iou, valid)
        return torch.where(claimed >= 0, claimed, matched)

    def _claimed_by(self, iou: Tensor, valid: Tensor) -> Tensor:
        """(N, A) last row that has the anchor as its best one, -1 where none has."""
        best_iou, best_anchor = iou.max(2)  # (N, Gmax)
        rows = torch.arange(iou.shape[1], device=iou.device)
        rows = torch.where(valid & (best_iou >= self.min_pos_iou), rows, -1)  # (N, Gmax)
        if self.gt_max_assign_all:
            return torch.where(iou == best_iou[:, :, None], rows[:, :, None], -1).amax(1)
        nobody = rows.new_full((len(iou), iou.shape[2]), -1)
        return nobody.scatter_reduce(1, best_anchor, rows, 'amax')


@MODELS.register_module()
class CenterAssigner:
    """Match an anchor with the smallest object that its center lies in and that has the size of its level.

    FCOS (arXiv 1904.01355), without center sampling.

    Args:
        regress_ranges: Pixels from the center to the farthest side of an object that a level learns: smallest
            and largest, per level.
    """

    def __init__(self, regress_ranges: Sequence[tuple[float, float]]) -> None:
        self.regress_ranges = tuple(tuple(limits) for limits in regress_ranges)

    @torch.no_grad()
    def __call__(self, anchors: Anchors, gt: GroundTruth) -> Tensor:
        """Match the anchors of a batch with its ground truth; returns matched (N, A).

        Of several objects of one area the first row wins.
        """
        levels = zip(self.regress_ranges, anchors.num_per_level, strict=True)
        ranges = [cached_tensor(limits, gt.bboxes).expand(count, 2) for limits, count in levels]
        return _match_in_parts(partial(self._match, torch.cat(ranges)), anchors, gt)

    def _match(self, ranges: Tensor, anchors: Tensor, bboxes: Tensor, valid: Tensor) -> Tensor:
        # ranges (A, 2)
        x, y = ((anchors[..., :2] + anchors[..., 2:]) * 0.5)[:, None].unbind(-1)  # (N, 1, A)
        left, top, right, bottom = bboxes[:, :, None].unbind(-1)  # (N, Gmax, 1)
        distances = (x - left, y - top, right - x, bottom - y)  # (N, Gmax, A) each
        nearest, farthest = reduce(torch.minimum, distances), reduce(torch.maximum, distances)
        fits = (farthest >= ranges[:, 0]) & (farthest <= ranges[:, 1])
        candidate = fits & (nearest > 0) & valid[:, :, None]
        area, row = torch.where(candidate, box_areas(bboxes)[:, :, None], torch.inf).min(1)  # (N, A)
        return torch.where(area.isfinite(), row, BACKGROUND)


@MODELS.register_module()
class SampledAssigner:
    """Keep a sample of the positives and of the background of each image; the surplus is ignored.

    Args:
        assigner: Whose match is reduced.
        num: Anchors that are kept per image.
        pos_fraction: The largest share of positives in it; background fills the rest.
        random: Drawn anew each time; False keeps the first ones.
    """

    def __init__(self, assigner: Assigner, num: int, pos_fraction: float, random: bool = True) -> None:
        self.assigner = assigner
        self.num = num
        self.pos_fraction = pos_fraction
        self.random = random

    @torch.no_grad()
    def __call__(self, anchors: Anchors, gt: GroundTruth) -> Tensor:
        """Match and sample; returns matched (N, A)."""
        matched = self.assigner(anchors, gt)
        order = torch.rand(matched.shape, device=matched.device).argsort(1)
        if not self.random:
            order = order.sort(1).values
        shuffled = matched.gather(1, order)
        positive, negative = shuffled >= 0, shuffled == BACKGROUND
        positive &= positive.cumsum(1) <= int(self.num * self.pos_fraction)
        negative &= negative.cumsum(1) <= self.num - positive.sum(1, keepdim=True)
        sampled = torch.where(positive | negative, shuffled, IGNORED)
        return sampled.scatter(1, order, sampled)


def _match_in_parts(
    match: Callable[[Tensor, Tensor, Tensor], Tensor], anchors: Anchors, gt: GroundTruth
) -> Tensor:
    """Match as many images at once as `MAX_ELEMENTS` allows; returns matched (N, A).

    An anchor with nothing of it inside the true image, because it lies in the padding of the batch or is a
    padding row itself, is ignored.
    """
    boxes = anchors.boxes.expand(len(gt.bboxes), -1, -1)  # (N, A, 4)
    images_at_once = max(1, MAX_ELEMENTS // max(gt.bboxes.shape[1] * boxes.shape[1], 1))
    parts = zip(*(x.split(images_at_once) for x in (boxes, gt.bboxes, gt.valid)), strict=True)
    matched = torch.cat([match(*part) for part in parts])
    height, width = gt.img_shape[:, :, None].unbind(1)  # (N, 1)
    return torch.where(box_areas(clip_boxes(boxes, height, width)) > 0, matched, IGNORED)

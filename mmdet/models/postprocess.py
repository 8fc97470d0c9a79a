"""From scores and boxes of all anchors to the detections of an image.

N images · A anchors · K classes · D detections · boxes xyxy in pixels of the network input
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from mmdet.registry import MODELS

NMS_CANDIDATES = 5  # candidates of the first NMS, in multiples of `max_per_img`


class Detections(NamedTuple):
    """Detections of one image, best first."""

    bboxes: Tensor  # (D, 4)
    scores: Tensor  # (D,)
    labels: Tensor  # (D,) in [0, K)


@MODELS.register_module()
class NMSPostProcess:
    """Keep the best boxes per level, then NMS among those of one class, or of one level.

    Args:
        nms_pre: Boxes per level that go on, by their best class score.
        score_thr: A box is a detection of every class that scores above this.
        iou_threshold: Of two boxes of one group that overlap more than this the better one stays.
        max_per_img: Detections per image.
        group: Boxes of different classes, or of different levels (RPN), leave each other alone.
    """

    def __init__(
        self,
        nms_pre: int = 1000,
        score_thr: float = 0.02,
        iou_threshold: float = 0.45,
        max_per_img: int = 200,
        group: Literal['class', 'level'] = 'class',
    ) -> None:
        self.nms_pre = nms_pre
        self.score_thr = score_thr
        self.iou_threshold = iou_threshold
        self.max_per_img = max_per_img
        self.group = group

    def __call__(self, bboxes: Tensor, scores: Tensor, num_per_level: Sequence[int]) -> list[Detections]:
        """Select the detections of every image of a batch.

        bboxes (N, A, 4), or class-specific (N, A, K, 4) · scores (N, A, K) without background ·
        num_per_level: anchors per level, sums to A
        """
        bboxes, scores, levels = self.candidates(bboxes, scores, num_per_level)
        return [self._of_image(*image, levels) for image in zip(bboxes, scores, strict=True)]

    def candidates(
        self, bboxes: Tensor, scores: Tensor, num_per_level: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keep the best `nms_pre` anchors of every level, by their best class score.

        bboxes, scores, num_per_level as `__call__` takes them · returns bboxes (N, B, 4), class-specific
        (N, B, K * 4), scores (N, B, K), levels (B,)
        """
        kept, levels, start = [], [], 0
        for number, level in enumerate(scores.amax(2).split(list(num_per_level), 1)):
            count = num_per_level[number]
            kept.append(level.topk(min(self.nms_pre, count), 1).indices + start)
            levels.append(kept[-1].new_full(kept[-1].shape[1:], number))
            start += count
        index = torch.cat(kept, 1)[..., None]  # (N, B, 1)
        bboxes, scores = (x.gather(1, index.expand(-1, -1, x.shape[2])) for x in (bboxes.flatten(2), scores))
        return bboxes, scores, torch.cat(levels)

    def _of_image(self, bboxes: Tensor, scores: Tensor, levels: Tensor) -> Detections:
        """Run NMS on the boxes of an image, in one call for all groups, shifted apart.

        bboxes (B, 4), or class-specific (B, K * 4) · scores (B, K) · levels (B,)
        """
        row, labels = (scores > self.score_thr).nonzero(as_tuple=True)
        bboxes = bboxes.unflatten(1, (-1, 4))  # (B, 1 or K, 4)
        bboxes, scores = bboxes[row, labels % bboxes.shape[1]], scores[row, labels]
        group = labels if self.group == 'class' else levels[row]
        shift = F.pad(bboxes, (0, 0, 0, 1)).max() + 1  # there may be no box
        kept = self._nms(bboxes + group[:, None] * shift, scores)[: self.max_per_img]
        return Detections(bboxes[kept], scores[kept], labels[kept])

    def _nms(self, bboxes: Tensor, scores: Tensor) -> Tensor:
        """Select at least `max_per_img` boxes, if so many stay, best first. bboxes (M, 4), scores (M,).

        Whether a box stays depends on better ones alone, so the best few times `max_per_img` are tried first,
        and more only when too few of them stay; the time of NMS grows with the square of their number.
        """
        if torch.jit.is_tracing():  # what is exported cannot try again
            return nms(bboxes, scores, self.iou_threshold)
        order = scores.argsort(descending=True, stable=True)
        count = NMS_CANDIDATES * self.max_per_img
        while True:
            kept = nms(bboxes[order[:count]], scores[order[:count]], self.iou_threshold)
            if len(kept) >= self.max_per_img or count >= len(order):
                return order[kept]
            count *= 4

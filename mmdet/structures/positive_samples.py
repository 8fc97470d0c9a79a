"""The one value that a detection head hands to a distiller."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmdet.structures.boxes import bbox_overlaps


@dataclass(frozen=True)
class PositiveSamples:
    """What a head predicted where ground truth placed an object; flat over the batch.

    N images · P positives (anchors of a dense head, sampled RoIs of a RoI head) · G ground-truth boxes
    K classes · boxes xyxy in pixels of the network input
    """

    cls_logits: Tensor  # (P, K) sigmoid head | (P, K + 1) softmax head, background last; has grad
    bboxes: Tensor  # (P, 4) decoded prediction, clipped to the true image; has grad
    gt_index: Tensor  # (P,) row of the four tensors below
    gt_bboxes: Tensor  # (G, 4)
    gt_labels: Tensor  # (G,) in [0, K)
    gt_ann_ids: Tensor  # (G,) ids in the annotation file
    gt_image: Tensor  # (G,) index of the image in the batch, in [0, N)

    def iou(self) -> Tensor:
        """Compute the IoU (P,) of each predicted box with its object, without gradient."""
        true = self.gt_bboxes[self.gt_index]
        return bbox_overlaps(self.bboxes.detach()[:, None], true[:, None])[:, 0, 0]

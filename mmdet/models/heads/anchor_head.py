"""What anchor-based dense heads share: everything but the layers and the losses.

N images · A anchors per image, all levels · K classes · P positives in the batch
cls_logits before activation · box_deltas relative to anchors · boxes xyxy in pixels of the network input
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmdet.models.postprocess import Detections, NMSPostProcess
from mmdet.models.task_modules import DeltaXYWHBBoxCoder, MaxIoUAssigner, SSDAnchorGenerator
from mmdet.structures import GroundTruth, PositiveSamples, clip_boxes


class HeadOutputs(NamedTuple):
    """What a dense head predicts, levels already flattened."""

    cls_logits: Tensor  # (N, A, K) sigmoid head | (N, A, K + 1) softmax head, background last; float32
    box_deltas: Tensor  # (N, A, 4) float32
    anchors: Tensor  # (A, 4)
    num_anchors: list[int]  # anchors per level, sums to A


class AnchorHead(nn.Module, ABC):
    """Prediction, matching, loss and hand-over to a distiller are four calls; the detector makes them.

    Args:
        num_classes: K.
        anchor_generator: Anchors of all levels from the feature maps' sizes.
        bbox_coder: Boxes <-> deltas.
        assigner: Which anchor learns which object.
        postprocess: Scores and boxes -> detections.
    """

    def __init__(
        self,
        num_classes: int,
        anchor_generator: SSDAnchorGenerator,
        bbox_coder: DeltaXYWHBBoxCoder,
        assigner: MaxIoUAssigner,
        postprocess: NMSPostProcess,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.anchor_generator = anchor_generator
        self.bbox_coder = bbox_coder
        self.assigner = assigner
        self.postprocess = postprocess

    @abstractmethod
    def forward(self, feats: list[Tensor]) -> HeadOutputs:
        """Feature maps L x (N, C_l, H_l, W_l) -> logits and deltas of every anchor."""

    @abstractmethod
    def loss(self, outputs: HeadOutputs, matched: Tensor, gt: GroundTruth) -> dict[str, Tensor]:
        """`loss_cls` and `loss_bbox`, scalars. matched (N, A)."""

    @abstractmethod
    def scores(self, cls_logits: Tensor) -> Tensor:
        """Class probabilities without background: logits -> (N, A, K)."""

    def match(self, outputs: HeadOutputs, gt: GroundTruth) -> Tensor:
        """(N, A) row of the image's ground truth for every anchor, or BACKGROUND or IGNORED."""
        return self.assigner(outputs.anchors, gt.bboxes, gt.valid)

    def positives(self, outputs: HeadOutputs, matched: Tensor, gt: GroundTruth) -> PositiveSamples:
        """The anchors that learn an object, for a distiller. The only step with dynamic shapes."""
        image, anchor = (matched >= 0).nonzero(as_tuple=True)  # (P,) each, images in order
        bboxes = self.bbox_coder.decode(outputs.anchors[anchor], outputs.box_deltas[image, anchor])
        height, width = gt.img_shape[image].unbind(1)
        flat_row = gt.valid.flatten().cumsum(0).view_as(gt.valid) - 1  # (N, Gmax) row among all objects
        return PositiveSamples(
            cls_logits=outputs.cls_logits[image, anchor],
            bboxes=clip_boxes(bboxes, height, width),
            gt_index=flat_row[image, matched[image, anchor]],
            gt_bboxes=gt.gt_bboxes,
            gt_labels=gt.gt_labels,
            gt_image=gt.gt_image,
        )

    def predict(self, outputs: HeadOutputs, img_shape: Tensor) -> list[Detections]:
        """Detections per image, clipped to the true image of size `img_shape` (N, 2) (h, w)."""
        bboxes = self.bbox_coder.decode(outputs.anchors, outputs.box_deltas)
        height, width = img_shape[:, None].unbind(2)  # (N, 1)
        bboxes = clip_boxes(bboxes, height.expand(bboxes.shape[:2]), width.expand(bboxes.shape[:2]))
        return self.postprocess(bboxes, self.scores(outputs.cls_logits), outputs.num_anchors)


def flatten_level(prediction: Tensor, values: int) -> Tensor:
    """(N, B * values, H, W) of one level -> (N, H * W * B, values), float32 from here on."""
    return prediction.permute(0, 2, 3, 1).reshape(len(prediction), -1, values).float()


def matched_targets(matched: Tensor, rows: Tensor, otherwise: Tensor | int) -> Tensor:
    """Per anchor the value of its ground-truth row.

    matched (N, A) · rows (N, Gmax) or (N, Gmax, 4) · otherwise: value of anchors without a row, broadcast
    returns (N, A) or (N, A, 4)
    """
    index = matched.clamp(min=0)
    positive = matched >= 0
    if rows.dim() == 3:
        index, positive = index[..., None].expand(-1, -1, rows.shape[2]), positive[..., None]
    return torch.where(positive, rows.gather(1, index), otherwise)

"""What all detection heads share: match, loss, hand-over to a distiller, detections.

N images · A anchors per image, all levels · K classes · P positives in the batch
cls_logits before activation · box_deltas relative to anchors · boxes xyxy in pixels of the network input
matched (N, A) int64: row of the image's ground truth | BACKGROUND | IGNORED
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from mmdet.models.losses import BoxLoss, ClassificationLoss
from mmdet.models.postprocess import Detections, NMSPostProcess
from mmdet.models.task_modules import Assigner, BBoxCoder, GridAnchors
from mmdet.structures import BACKGROUND, Anchors, GroundTruth, HeadOutputs, PositiveSamples, clip_boxes


class Head(nn.Module, ABC):
    """A detection head; a subclass adds its layers and `forward`.

    Args:
        num_classes: K.
        anchor_generator: Anchors of all levels from the feature maps' sizes; None where RoIs are the anchors.
        bbox_coder: Boxes <-> deltas.
        assigner: Which anchor learns which object.
        cls_loss: Softmax or sigmoid: the number of logits, their probabilities, and their loss.
        bbox_loss: Loss of the deltas or the boxes of the positives.
        postprocess: Scores and boxes -> detections.
        avg_factor: What the losses are divided by: the sum over images of max(positives, 1); 'samples', where
            the assigner samples, adds the anchors that are background.
    """

    def __init__(
        self,
        num_classes: int,
        anchor_generator: GridAnchors | None,
        bbox_coder: BBoxCoder,
        assigner: Assigner,
        cls_loss: ClassificationLoss,
        bbox_loss: BoxLoss,
        postprocess: NMSPostProcess,
        avg_factor: Literal['positives', 'samples'] = 'positives',
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.anchor_generator = cast(GridAnchors, anchor_generator)
        self.bbox_coder = bbox_coder
        self.assigner = assigner
        self.cls_loss = cls_loss
        self.bbox_loss = bbox_loss
        self.postprocess = postprocess
        self.avg_factor = avg_factor

    @abstractmethod
    def forward(self, feats: list[Tensor]) -> HeadOutputs:
        """Feature maps L x (N, C_l, H_l, W_l) -> logits and deltas of every anchor."""

    def match(self, anchors: Anchors, gt: GroundTruth) -> Tensor:
        """Match anchors with objects; returns matched (N, A)."""
        return self.assigner(anchors, gt)

    def loss(self, outputs: HeadOutputs, matched: Tensor, gt: GroundTruth) -> dict[str, Tensor]:
        """`loss_cls` and `loss_bbox`, scalars, both divided by the same average factor. matched (N, A)."""
        labels, bboxes = self.targets(matched, gt)
        loss_cls = self.sum_cls_loss(outputs, labels, matched)
        loss_bbox = self.sum_bbox_loss(outputs, labels, bboxes, matched >= 0)
        avg_factor = self.count(matched)
        return {'loss_cls': loss_cls / avg_factor, 'loss_bbox': loss_bbox / avg_factor}

    def targets(self, matched: Tensor, gt: GroundTruth) -> tuple[Tensor, Tensor]:
        """Look up each anchor's object: labels (N, A), K where there is none, boxes (N, A, 4), any there."""
        row = matched.clamp(min=0)  # (N, A)
        labels = torch.where(matched >= 0, gt.labels.gather(1, row), self.num_classes)
        return labels, gt.bboxes.gather(1, row[..., None].expand(-1, -1, 4))

    def sum_cls_loss(self, outputs: HeadOutputs, labels: Tensor, matched: Tensor) -> Tensor:
        """Sum the weighted loss of the classes. labels: as `targets` · matched (N, A)."""
        return self.cls_loss.loss_weight * self.cls_loss(outputs.cls_logits, labels, matched)

    def sum_bbox_loss(self, outputs: HeadOutputs, labels: Tensor, bboxes: Tensor, weights: Tensor) -> Tensor:
        """Sum the weighted loss of the boxes. labels, bboxes: as `targets` · weights (N, A), 0: no object."""
        anchors, deltas = outputs.anchors.boxes, self.deltas_for(outputs, labels)
        learns = (weights > 0)[..., None]
        if self.bbox_loss.on_deltas:
            # An anchor without an object gets a finite target, and its loss is masked out.
            targets = torch.where(learns, self.bbox_coder.encode(anchors, bboxes), 0)
            return self.bbox_loss.loss_weight * self.bbox_loss(deltas, targets, weights)
        # Masked before decoding: 0 times the gradient of an overflow is NaN.
        predicted = self.bbox_coder.decode(anchors, torch.where(learns, deltas, 0))
        return self.bbox_loss.loss_weight * self.bbox_loss(predicted, bboxes, weights)

    def count(self, matched: Tensor) -> Tensor:
        """Count what the losses are divided by; matched (N, A) -> scalar."""
        avg_factor = (matched >= 0).sum(1).clamp(min=1).sum()
        if self.avg_factor == 'samples':
            avg_factor = avg_factor + (matched == BACKGROUND).sum()
        return avg_factor

    def deltas_for(self, outputs: HeadOutputs, labels: Tensor) -> Tensor:
        """Select the deltas (N, A, 4) of these classes, where there are some per class. labels (N, A)."""
        if outputs.box_deltas.dim() == 3:
            return outputs.box_deltas
        index = labels.clamp(max=self.num_classes - 1)[..., None, None].expand(-1, -1, 1, 4)
        return outputs.box_deltas.gather(2, index)[:, :, 0]

    def scores(self, outputs: HeadOutputs) -> Tensor:
        """Class probabilities without background, (N, A, K)."""
        return self.cls_loss.probabilities(outputs.cls_logits)

    def positives(self, outputs: HeadOutputs, matched: Tensor, gt: GroundTruth) -> PositiveSamples:
        """Select the anchors that learn an object, for a distiller; the only step with dynamic shapes."""
        image, anchor = (matched >= 0).nonzero(as_tuple=True)  # (P,) each, images in order
        row = matched[image, anchor]
        labels = gt.labels.gather(1, matched.clamp(min=0))  # (N, A)
        deltas = self.deltas_for(outputs, labels)[image, anchor]  # (P, 4)
        anchors = outputs.anchors.boxes.expand(len(matched), -1, -1)[image, anchor]
        bboxes = self.bbox_coder.decode(anchors, deltas)
        height, width = gt.img_shape[image].unbind(1)
        flat_row = gt.valid.flatten().cumsum(0).view_as(gt.valid) - 1  # (N, Gmax) row among all objects
        objects = gt.valid.nonzero(as_tuple=True)  # once: a GPU is waited for each time
        return PositiveSamples(
            cls_logits=outputs.cls_logits[image, anchor],
            bboxes=clip_boxes(bboxes, height, width),
            gt_index=flat_row[image, row],
            gt_bboxes=gt.bboxes[objects],
            gt_labels=gt.labels[objects],
            gt_ann_ids=gt.ann_ids[objects],
            gt_image=objects[0],
        )

    def predict(self, outputs: HeadOutputs, img_shape: Tensor) -> list[Detections]:
        """Detect objects; boxes are clipped to the true images of size `img_shape` (N, 2) (h, w)."""
        bboxes = self.decode(outputs, img_shape)
        return self.postprocess(bboxes, self.scores(outputs), outputs.anchors.num_per_level)

    def decode(self, outputs: HeadOutputs, img_shape: Tensor) -> Tensor:
        """Decode the predicted boxes, clipped as in `predict`: (N, A, 4), class-specific (N, A, K, 4)."""
        anchors, deltas = outputs.anchors.boxes, outputs.box_deltas
        bboxes = self.bbox_coder.decode(anchors if deltas.dim() == 3 else anchors[..., None, :], deltas)
        height, width = img_shape.view(-1, 2, *[1] * (deltas.dim() - 2)).unbind(1)  # (N, 1) or (N, 1, 1)
        return clip_boxes(bboxes, height, width)

    def flatten_levels(self, cls_maps: Sequence[Tensor], box_maps: Sequence[Tensor]) -> HeadOutputs:
        """Collect what a dense head predicts per level: (N, B * C, H_l, W_l) and (N, B * 4, H_l, W_l)."""
        values = self.cls_loss.channels(self.num_classes)
        sizes = [(x.shape[2], x.shape[3]) for x in cls_maps]
        return HeadOutputs(
            cls_logits=torch.cat([flatten_level(x, values) for x in cls_maps], 1),
            box_deltas=torch.cat([flatten_level(x, 4) for x in box_maps], 1),
            anchors=self.anchor_generator(sizes, cls_maps[0].device),
        )


def flatten_level(prediction: Tensor, values: int) -> Tensor:
    """(N, B * values, H, W) of one level -> (N, H * W * B, values), float32 from here on."""
    return prediction.permute(0, 2, 3, 1).reshape(prediction.shape[0], -1, values).float()

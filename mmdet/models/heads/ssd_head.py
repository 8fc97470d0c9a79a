"""SSD's head (arXiv 1512.02325).

N images · A anchors · K classes, K the background · B anchors per cell
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmdet.models.heads.anchor_head import AnchorHead, HeadOutputs, flatten_level, matched_targets
from mmdet.models.layers import xavier_init
from mmdet.models.losses import multibox_cls_loss, smooth_l1_loss
from mmdet.models.postprocess import NMSPostProcess
from mmdet.models.task_modules import BACKGROUND, DeltaXYWHBBoxCoder, MaxIoUAssigner, SSDAnchorGenerator
from mmdet.registry import MODELS
from mmdet.structures import GroundTruth


@MODELS.register_module()
class SSDHead(AnchorHead):
    """One 3x3 convolution per level for classes and one for boxes; softmax over K + 1 classes.

    Args:
        num_classes: K.
        in_channels: Channels per level.
        anchor_generator, bbox_coder, assigner, postprocess: see AnchorHead.
        neg_pos_ratio: Mined negatives per positive.
        smoothl1_beta: Where smooth L1 turns from square to linear, in normalized deltas.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        anchor_generator: SSDAnchorGenerator,
        bbox_coder: DeltaXYWHBBoxCoder,
        assigner: MaxIoUAssigner,
        postprocess: NMSPostProcess,
        neg_pos_ratio: float = 3,
        smoothl1_beta: float = 1.0,
    ) -> None:
        super().__init__(num_classes, anchor_generator, bbox_coder, assigner, postprocess)
        self.neg_pos_ratio = neg_pos_ratio
        self.smoothl1_beta = smoothl1_beta
        per_cell = anchor_generator.num_base_anchors
        if len(in_channels) != len(per_cell):
            raise ValueError(f'{len(in_channels)} levels of features, but {len(per_cell)} of anchors')

        def branch(values: int) -> nn.ModuleList:
            # A Sequential of one, so that parameters are named as in MMDetection: cls_convs.0.0.weight
            return nn.ModuleList(
                nn.Sequential(nn.Conv2d(channels, anchors * values, 3, padding=1))
                for channels, anchors in zip(in_channels, per_cell, strict=True)
            )

        self.cls_convs = branch(num_classes + 1)
        self.reg_convs = branch(4)
        xavier_init(self)

    def forward(self, feats: list[Tensor]) -> HeadOutputs:
        """Feature maps L x (N, C_l, H_l, W_l) -> cls_logits (N, A, K + 1) and box_deltas (N, A, 4)."""
        values = self.num_classes + 1
        cls_logits = [flatten_level(conv(x), values) for conv, x in zip(self.cls_convs, feats, strict=True)]
        box_deltas = [flatten_level(conv(x), 4) for conv, x in zip(self.reg_convs, feats, strict=True)]
        return HeadOutputs(
            cls_logits=torch.cat(cls_logits, 1),
            box_deltas=torch.cat(box_deltas, 1),
            anchors=self.anchor_generator([(x.shape[2], x.shape[3]) for x in feats], feats[0].device),
            num_anchors=[level.shape[1] for level in box_deltas],
        )

    def loss(self, outputs: HeadOutputs, matched: Tensor, gt: GroundTruth) -> dict[str, Tensor]:
        """`loss_cls` and `loss_bbox`, both divided by the sum over images of max(positives, 1).

        matched (N, A)
        """
        positive = matched >= 0
        avg_factor = positive.sum(1).clamp(min=1).sum()
        labels = matched_targets(matched, gt.labels, otherwise=self.num_classes)  # (N, A)
        # An anchor without an object learns "stay": its target is finite, its loss is masked out.
        bboxes = matched_targets(matched, gt.bboxes, otherwise=outputs.anchors)  # (N, A, 4)
        deltas = self.bbox_coder.encode(outputs.anchors, bboxes)
        loss_cls = multibox_cls_loss(
            outputs.cls_logits, labels, positive, matched == BACKGROUND, self.neg_pos_ratio
        )
        loss_bbox = smooth_l1_loss(outputs.box_deltas, deltas, positive, self.smoothl1_beta)
        return {'loss_cls': loss_cls / avg_factor, 'loss_bbox': loss_bbox / avg_factor}

    def scores(self, cls_logits: Tensor) -> Tensor:
        """(N, A, K + 1) -> (N, A, K): softmax, background dropped."""
        return cls_logits.softmax(2)[..., : self.num_classes]

"""FCOS's head (arXiv 1904.01355).

N images · A anchors, one per cell: the cell itself, whose center predicts · K classes · L levels
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.models.heads.head import Head, flatten_level
from mmdet.models.layers import PRIOR_LOGIT, conv_tower, normal_init
from mmdet.models.losses import BoxLoss, ClassificationLoss
from mmdet.models.postprocess import NMSPostProcess
from mmdet.models.task_modules import Assigner, DistanceBBoxCoder, GridAnchors
from mmdet.registry import MODELS
from mmdet.structures import GroundTruth, HeadOutputs
from mmdet.structures.boxes import EPS


@MODELS.register_module()
class FCOSHead(Head):
    """Two towers with group norm, shared by all levels; the one for classes also predicts the centerness.

    The distances of a level are scaled by a number that is learnt.

    Args:
        num_classes, anchor_generator, bbox_coder, assigner, cls_loss, bbox_loss, postprocess: see Head.
        in_channels: Channels of every level.
        feat_channels: Channels of the towers.
        stacked_convs: Their depth.
        group_norm: Groups of their norms.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        anchor_generator: GridAnchors,
        bbox_coder: DistanceBBoxCoder,
        assigner: Assigner,
        cls_loss: ClassificationLoss,
        bbox_loss: BoxLoss,
        postprocess: NMSPostProcess,
        feat_channels: int = 256,
        stacked_convs: int = 4,
        group_norm: int = 32,
    ) -> None:
        super().__init__(
            num_classes, anchor_generator, bbox_coder, assigner, cls_loss, bbox_loss, postprocess
        )
        self.cls_convs = conv_tower(in_channels, feat_channels, stacked_convs, group_norm)
        self.reg_convs = conv_tower(in_channels, feat_channels, stacked_convs, group_norm)
        self.conv_cls = nn.Conv2d(feat_channels, cls_loss.channels(num_classes), 3, padding=1)
        self.conv_reg = nn.Conv2d(feat_channels, 4, 3, padding=1)
        self.conv_centerness = nn.Conv2d(feat_channels, 1, 3, padding=1)
        self.scales = nn.ModuleList(  # named as in MMDetection
            nn.ParameterDict({'scale': torch.tensor(1.0)}) for _ in anchor_generator.strides
        )
        normal_init(self)
        normal_init(self.conv_cls, bias=PRIOR_LOGIT)

    def forward(self, feats: list[Tensor]) -> HeadOutputs:
        """Predict logits, deltas and centerness from feature maps, L x (N, C, H_l, W_l)."""
        cls_feats = [self.cls_convs(x) for x in feats]
        box_maps = [
            self.conv_reg(self.reg_convs(x)) * cast(nn.ParameterDict, level)['scale']
            for level, x in zip(self.scales, feats, strict=True)
        ]
        centerness = torch.cat([flatten_level(self.conv_centerness(x), 1) for x in cls_feats], 1)
        cls_maps = [self.conv_cls(x) for x in cls_feats]
        return self.flatten_levels(cls_maps, box_maps)._replace(centerness=centerness[..., 0])

    def loss(self, outputs: HeadOutputs, matched: Tensor, gt: GroundTruth) -> dict[str, Tensor]:
        """`loss_cls`, `loss_bbox`, which the centerness targets weigh, `loss_centerness`. matched (N, A)."""
        positive, avg_factor = matched >= 0, self.count(matched)
        labels, bboxes = self.targets(matched, gt)
        deltas = self.bbox_coder.encode(outputs.anchors.boxes, bboxes)
        centerness = torch.where(positive, centerness_of(deltas), 0)  # (N, A)
        loss_cls = self.sum_cls_loss(outputs, labels, matched)
        loss_bbox = self.sum_bbox_loss(outputs, labels, bboxes, centerness)
        loss_centerness = F.binary_cross_entropy_with_logits(
            cast(Tensor, outputs.centerness), centerness, positive, reduction='sum'
        )
        return {
            'loss_cls': loss_cls / avg_factor,
            'loss_bbox': loss_bbox / centerness.sum().clamp(min=EPS),
            'loss_centerness': loss_centerness / avg_factor,
        }

    def scores(self, outputs: HeadOutputs) -> Tensor:
        """Geometric mean of class probabilities and centerness, (N, A, K)."""
        return (super().scores(outputs) * cast(Tensor, outputs.centerness).sigmoid()[..., None]).sqrt()


def centerness_of(deltas: Tensor) -> Tensor:
    """Compute sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) from the logs of l, t, r, b.

    deltas (..., 4) -> (...), in (0, 1], 1 in the center of the box
    """
    left, top, right, bottom = deltas.unbind(-1)
    return (-((left - right).abs() + (top - bottom).abs()) / 2).exp()

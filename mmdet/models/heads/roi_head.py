"""The second stage of Faster R-CNN (arXiv 1506.01497).

N images · R regions of interest (RoIs) per image · K classes, K the background · C channels, the same on all
levels · S side of the pooled features · boxes xyxy in pixels of the network input
"""

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from mmdet.models.heads.head import Head
from mmdet.models.layers import normal_init, xavier_init
from mmdet.models.losses import BoxLoss, ClassificationLoss
from mmdet.models.postprocess import NMSPostProcess
from mmdet.models.task_modules import BBoxCoder, SampledAssigner
from mmdet.registry import MODELS
from mmdet.structures import Anchors, HeadOutputs, box_areas

FINEST_SIDE = 56  # pixels; RoIs of up to twice this side belong to the first level, then a level doubles it


@MODELS.register_module()
class RoIHead(Head):
    """Pool the features of each RoI; two linear layers classify it and refine its box, one box per class.

    Args:
        num_classes, bbox_coder, assigner, cls_loss, bbox_loss, postprocess: see Head.
        in_channels: C.
        strides: Of the levels that RoIs are pooled from, the first ones of the neck.
        roi_size: S.
        fc_channels: Width of the two layers.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        bbox_coder: BBoxCoder,
        assigner: SampledAssigner,
        cls_loss: ClassificationLoss,
        bbox_loss: BoxLoss,
        postprocess: NMSPostProcess,
        strides: Sequence[int] = (4, 8, 16, 32),
        roi_size: int = 7,
        fc_channels: int = 1024,
    ) -> None:
        super().__init__(
            num_classes, None, bbox_coder, assigner, cls_loss, bbox_loss, postprocess, avg_factor='samples'
        )
        self.num_samples = assigner.num
        self.strides = tuple(strides)
        self.roi_size = roi_size
        widths = (in_channels * roi_size**2, fc_channels, fc_channels)
        layers = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
        fc_cls = nn.Linear(fc_channels, cls_loss.channels(num_classes))
        fc_reg = nn.Linear(fc_channels, 4 * num_classes)
        self.bbox_head = nn.ModuleDict(  # named as in MMDetection
            {'shared_fcs': nn.ModuleList(layers), 'fc_cls': fc_cls, 'fc_reg': fc_reg}
        )
        xavier_init(self.bbox_head['shared_fcs'])
        normal_init(fc_cls)
        normal_init(fc_reg, std=0.001)

    def forward(self, feats: list[Tensor], anchors: Anchors) -> HeadOutputs:  # type: ignore[override]
        """Predict logits (N, R, K + 1) and deltas (N, R, K, 4) of RoIs. feats L x (N, C, H_l, W_l)."""
        x = self.pool(feats, anchors.boxes).flatten(1)
        for layer in cast(nn.ModuleList, self.bbox_head['shared_fcs']):
            x = layer(x).relu()
        shape = anchors.boxes.shape[:2]
        return HeadOutputs(
            cls_logits=self.bbox_head['fc_cls'](x).unflatten(0, shape).float(),
            box_deltas=self.bbox_head['fc_reg'](x).view(*shape, self.num_classes, 4).float(),
            anchors=anchors,
        )

    def pool(self, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
        """RoIAlign, each RoI on the level of its size. rois (N, R, 4) -> (N * R, C, S, S)."""
        image = torch.arange(len(rois), device=rois.device)[:, None].expand(rois.shape[:2]).flatten()
        boxes = torch.cat([image[:, None], rois.flatten(0, 1)], 1)  # (N * R, 5)
        level = (box_areas(boxes[:, 1:]).sqrt() / FINEST_SIDE + 1e-6).log2().floor()
        level = level.clamp(0, len(self.strides) - 1)  # (N * R,)
        pooled = feats[0].new_zeros(boxes.shape[0], feats[0].shape[1], self.roi_size, self.roi_size)
        for i, stride in enumerate(self.strides):
            chosen = (level == i).nonzero()[:, 0]
            of_level = roi_align(
                feats[i], boxes[chosen], self.roi_size, 1 / stride, sampling_ratio=0, aligned=True
            )
            pooled.index_put_((chosen,), of_level)  # a traced `pooled[chosen] = ` would fix one RoI as one
        return pooled

    def scores(self, outputs: HeadOutputs) -> Tensor:
        """Class probabilities without background, (N, R, K); 0 where a RoI has no area: a padding row."""
        return super().scores(outputs) * (box_areas(outputs.anchors.boxes) > 0)[..., None]

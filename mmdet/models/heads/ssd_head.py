"""SSD's head (arXiv 1512.02325).

N images · A anchors · K classes, K the background · B anchors per cell
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mmdet.models.heads.head import Head
from mmdet.models.layers import ConvModule, xavier_init
from mmdet.models.losses import BoxLoss, ClassificationLoss
from mmdet.models.postprocess import NMSPostProcess
from mmdet.models.task_modules import Assigner, BBoxCoder, GridAnchors
from mmdet.registry import MODELS
from mmdet.structures import HeadOutputs


@MODELS.register_module()
class SSDHead(Head):
    """One 3x3 convolution per level for classes and one for boxes; SSDLite's are depthwise.

    Args:
        num_classes: K.
        in_channels: Channels per level.
        anchor_generator, bbox_coder, assigner, cls_loss, bbox_loss, postprocess: see Head.
        depthwise: A depthwise 3x3 convolution with batch norm, then a 1x1 convolution (arXiv 1801.04381).
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        anchor_generator: GridAnchors,
        bbox_coder: BBoxCoder,
        assigner: Assigner,
        cls_loss: ClassificationLoss,
        bbox_loss: BoxLoss,
        postprocess: NMSPostProcess,
        depthwise: bool = False,
    ) -> None:
        super().__init__(
            num_classes, anchor_generator, bbox_coder, assigner, cls_loss, bbox_loss, postprocess
        )
        per_cell = anchor_generator.num_base_anchors
        if len(in_channels) != len(per_cell):
            raise ValueError(f'{len(in_channels)} levels of features, but {len(per_cell)} of anchors')

        def branch(values: int) -> nn.ModuleList:
            # Also of one layer a Sequential: parameters are named as in MMDetection, cls_convs.0.0.weight
            return nn.ModuleList(
                nn.Sequential(*layers(channels, anchors * values))
                for channels, anchors in zip(in_channels, per_cell, strict=True)
            )

        def layers(channels: int, out: int) -> list[nn.Module]:
            if not depthwise:
                return [nn.Conv2d(channels, out, 3, padding=1)]
            spatial = ConvModule(
                channels, channels, 3, padding=1, groups=channels, batch_norm=True, relu6=True
            )
            return [spatial, nn.Conv2d(channels, out, 1)]

        self.cls_convs = branch(cls_loss.channels(num_classes))
        self.reg_convs = branch(4)
        xavier_init(self)
        if depthwise:  # behind a batch norm: small weights start with all classes alike, as torchvision's do
            for predictor in (*self.cls_convs, *self.reg_convs):
                nn.init.normal_(predictor[-1].weight, std=0.01)

    def forward(self, feats: list[Tensor]) -> HeadOutputs:
        """Predict logits and deltas from feature maps, L x (N, C_l, H_l, W_l)."""
        cls_maps = [conv(x) for conv, x in zip(self.cls_convs, feats, strict=True)]
        box_maps = [conv(x) for conv, x in zip(self.reg_convs, feats, strict=True)]
        return self.flatten_levels(cls_maps, box_maps)

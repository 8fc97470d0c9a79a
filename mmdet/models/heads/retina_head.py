"""RetinaNet's head (arXiv 1708.02002).

N images · A anchors · K classes
"""

from torch import Tensor, nn

from mmdet.models.heads.head import Head
from mmdet.models.layers import PRIOR_LOGIT, conv_tower, normal_init
from mmdet.models.losses import BoxLoss, ClassificationLoss
from mmdet.models.postprocess import NMSPostProcess
from mmdet.models.task_modules import Assigner, BBoxCoder, GridAnchors
from mmdet.registry import MODELS
from mmdet.structures import HeadOutputs


@MODELS.register_module()
class RetinaHead(Head):
    """Two towers of convolutions, shared by all levels: one for classes, one for boxes.

    Args:
        num_classes, anchor_generator, bbox_coder, assigner, cls_loss, bbox_loss, postprocess: see Head.
        in_channels: Channels of every level.
        feat_channels: Channels of the towers.
        stacked_convs: Their depth.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        anchor_generator: GridAnchors,
        bbox_coder: BBoxCoder,
        assigner: Assigner,
        cls_loss: ClassificationLoss,
        bbox_loss: BoxLoss,
        postprocess: NMSPostProcess,
        feat_channels: int = 256,
        stacked_convs: int = 4,
    ) -> None:
        super().__init__(
            num_classes, anchor_generator, bbox_coder, assigner, cls_loss, bbox_loss, postprocess
        )
        (per_cell,) = set(anchor_generator.num_base_anchors)  # the layers are shared, so it is one number
        self.cls_convs = conv_tower(in_channels, feat_channels, stacked_convs)
        self.reg_convs = conv_tower(in_channels, feat_channels, stacked_convs)
        self.retina_cls = nn.Conv2d(feat_channels, per_cell * cls_loss.channels(num_classes), 3, padding=1)
        self.retina_reg = nn.Conv2d(feat_channels, per_cell * 4, 3, padding=1)
        normal_init(self)
        normal_init(self.retina_cls, bias=PRIOR_LOGIT)

    def forward(self, feats: list[Tensor]) -> HeadOutputs:
        """Predict logits and deltas from feature maps, L x (N, C, H_l, W_l)."""
        cls_maps = [self.retina_cls(self.cls_convs(x)) for x in feats]
        box_maps = [self.retina_reg(self.reg_convs(x)) for x in feats]
        return self.flatten_levels(cls_maps, box_maps)

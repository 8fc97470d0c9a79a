"""The region proposal network (arXiv 1506.01497).

N images · A anchors · R proposals per image, padded · boxes xyxy in pixels of the network input
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmdet.models.heads.head import Head
from mmdet.models.layers import normal_init
from mmdet.models.losses import BoxLoss, ClassificationLoss
from mmdet.models.postprocess import NMSPostProcess
from mmdet.models.task_modules import Assigner, BBoxCoder, GridAnchors
from mmdet.registry import MODELS
from mmdet.structures import HeadOutputs


@MODELS.register_module()
class RPNHead(Head):
    """Tell objects of any class from background, and propose their boxes.

    Args:
        in_channels: Channels of every level.
        anchor_generator, bbox_coder, assigner, cls_loss, bbox_loss, postprocess: see Head.
        train_postprocess: Which proposals the second stage is trained on.
        feat_channels: Channels of the convolution before the predictions.
    """

    def __init__(
        self,
        in_channels: int,
        anchor_generator: GridAnchors,
        bbox_coder: BBoxCoder,
        assigner: Assigner,
        cls_loss: ClassificationLoss,
        bbox_loss: BoxLoss,
        postprocess: NMSPostProcess,
        train_postprocess: NMSPostProcess,
        feat_channels: int = 256,
    ) -> None:
        super().__init__(
            1, anchor_generator, bbox_coder, assigner, cls_loss, bbox_loss, postprocess, avg_factor='samples'
        )
        self.train_postprocess = train_postprocess
        (per_cell,) = set(anchor_generator.num_base_anchors)  # the layers are shared, so it is one number
        self.rpn_conv = nn.Conv2d(in_channels, feat_channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(feat_channels, per_cell * cls_loss.channels(1), 1)
        self.rpn_reg = nn.Conv2d(feat_channels, per_cell * 4, 1)
        normal_init(self)

    def forward(self, feats: list[Tensor]) -> HeadOutputs:
        """Predict logits and deltas from feature maps, L x (N, C, H_l, W_l)."""
        hidden = [self.rpn_conv(x).relu() for x in feats]
        return self.flatten_levels([self.rpn_cls(x) for x in hidden], [self.rpn_reg(x) for x in hidden])

    @torch.no_grad()
    def propose(self, outputs: HeadOutputs, img_shape: Tensor) -> Tensor:
        """Select boxes (N, R, 4), best first, clipped to images of size `img_shape` (N, 2), 0 in padding."""
        select = self.train_postprocess if self.training else self.postprocess
        bboxes = self.decode(outputs, img_shape)
        found = select(bboxes, self.scores(outputs), outputs.anchors.num_per_level)
        return pad_sequence([image.bboxes for image in found], batch_first=True)

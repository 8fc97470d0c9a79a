"""Detectors that classify proposals.

N images · R regions of interest (RoIs) per image
"""

import torch
from torch import Tensor, nn

from mmdet.models.data_preprocessor import DetDataPreprocessor
from mmdet.models.detectors.base import BaseDetector, HeadStep
from mmdet.models.heads import Head, RoIHead, RPNHead
from mmdet.registry import MODELS
from mmdet.structures import IGNORED, Anchors, GroundTruth, HeadOutputs


@MODELS.register_module()
class TwoStageDetector(BaseDetector):
    """Faster R-CNN (arXiv 1506.01497): proposals of a region proposal network, classified and refined.

    Args:
        data_preprocessor, backbone, neck, distiller: see BaseDetector.
        rpn_head: Feature maps -> proposals.
        roi_head: Feature maps and proposals -> predictions, losses, detections.
    """

    def __init__(
        self,
        data_preprocessor: DetDataPreprocessor,
        backbone: nn.Module,
        *,
        neck: nn.Module | None = None,
        rpn_head: RPNHead,
        roi_head: RoIHead,
        distiller: nn.Module | None = None,
    ) -> None:
        super().__init__(data_preprocessor, backbone, neck, distiller)
        self.rpn_head = rpn_head
        self.roi_head = roi_head

    @property
    def head(self) -> Head:
        """The second stage."""
        return self.roi_head

    def head_step(self, feats: list[Tensor], gt: GroundTruth) -> HeadStep:
        """Compute the losses of both stages, the second on a sample of proposals and objects."""
        proposed, objects = self.rpn_head(feats), gt.class_agnostic()
        matched = self.rpn_head.match(proposed.anchors, objects)  # (N, A)
        rpn_losses = self.rpn_head.loss(proposed, matched, objects)
        # Objects stand among the proposals: at the start there is nothing else to learn boxes from.
        rois = torch.cat([gt.bboxes, self.rpn_head.propose(proposed, gt.img_shape)], 1)
        matched = self.roi_head.match(as_anchors(rois), gt)  # (N, R), the surplus ignored
        kept = (matched == IGNORED).int().argsort(dim=1, stable=True)[:, : self.roi_head.num_samples]
        rois, matched = rois.gather(1, kept[..., None].expand(-1, -1, 4)), matched.gather(1, kept)
        outputs = self.roi_head(feats, as_anchors(rois))
        losses = {name.replace('loss', 'loss_rpn'): loss for name, loss in rpn_losses.items()}
        return HeadStep(losses | self.roi_head.loss(outputs, matched, gt), outputs, matched)

    def head_outputs(self, feats: list[Tensor], img_shape: Tensor) -> HeadOutputs:
        """Predict logits and deltas of proposals inside images of size `img_shape` (N, 2) (h, w)."""
        return self.roi_head(feats, as_anchors(self.rpn_head.propose(self.rpn_head(feats), img_shape)))


def as_anchors(rois: Tensor) -> Anchors:
    """(N, R, 4) -> one level of anchors, of each image its own."""
    return Anchors(rois, [rois.shape[1]])

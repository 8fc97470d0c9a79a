"""Detectors with one dense head."""

import re
from typing import Any

from torch import Tensor, nn

from mmdet.models.data_preprocessor import DetDataPreprocessor
from mmdet.models.detectors.base import BaseDetector
from mmdet.models.heads import AnchorHead, HeadOutputs
from mmdet.models.postprocess import Detections
from mmdet.registry import MODELS
from mmdet.structures import GroundTruth


@MODELS.register_module()
class SingleStageDetector(BaseDetector):
    """Backbone, neck and one dense head.

    Args:
        data_preprocessor, backbone, neck, distiller: see BaseDetector.
        bbox_head: Feature maps -> predictions, losses, detections.
    """

    def __init__(
        self,
        data_preprocessor: DetDataPreprocessor,
        backbone: nn.Module,
        bbox_head: AnchorHead,
        neck: nn.Module | None = None,
        distiller: nn.Module | None = None,
    ) -> None:
        super().__init__(data_preprocessor, backbone, neck, distiller)
        self.bbox_head = bbox_head
        self.register_load_state_dict_pre_hook(_accept_mmdetection2_keys)

    def raw_outputs(self, images: Tensor) -> HeadOutputs:
        """Images (N, 3, H, W) -> logits and deltas of every anchor."""
        return self.bbox_head(self.extract_feat(images))

    def loss(self, images: Tensor, gt: GroundTruth) -> dict[str, Tensor]:
        """The head's losses, and the distiller's where there is one."""
        outputs = self.raw_outputs(images)
        matched = self.bbox_head.match(outputs, gt)  # (N, A)
        losses = self.bbox_head.loss(outputs, matched, gt)
        if self.distiller is not None:
            positives = self.bbox_head.positives(outputs, matched, gt)
            losses |= self.distiller(images, self.normalization, positives)
        return losses

    def detect(self, images: Tensor, gt: GroundTruth) -> list[Detections]:
        """Detections per image, clipped to the true image."""
        return self.bbox_head.predict(self.raw_outputs(images), gt.img_shape)


@MODELS.register_module()
class SSD(SingleStageDetector):
    """SSD under its own name."""


def _accept_mmdetection2_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the parameters of an SSD checkpoint of MMDetection 2.x in place; newer names stay.

    Before 2.14 the added layers and the L2Norm sat in the backbone, and the head's convolutions
    were not wrapped.
    """
    for key in list(state_dict):
        name = key.removeprefix(prefix)
        if match := re.fullmatch(r'backbone\.extra\.(\d+)\.(weight|bias)', name):
            layer = int(match[1])
            name = f'neck.extra_layers.{layer // 2}.{layer % 2}.conv.{match[2]}'
        elif name == 'backbone.l2_norm.weight':
            name = 'neck.l2_norm.weight'
        elif match := re.fullmatch(r'bbox_head\.(cls|reg)_convs\.(\d+)\.(weight|bias)', name):
            name = f'bbox_head.{match[1]}_convs.{match[2]}.0.{match[3]}'
        if prefix + name != key:
            state_dict[prefix + name] = state_dict.pop(key)

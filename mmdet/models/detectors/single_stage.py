"""Detectors with one dense head.

N images · A anchors
"""

import re
from typing import Any

from torch import Tensor, nn

from mmdet.models.data_preprocessor import DetDataPreprocessor
from mmdet.models.detectors.base import BaseDetector, HeadStep
from mmdet.models.heads import Head
from mmdet.registry import MODELS
from mmdet.structures import GroundTruth, HeadOutputs


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
        *,
        neck: nn.Module | None = None,
        bbox_head: Head,
        distiller: nn.Module | None = None,
    ) -> None:
        super().__init__(data_preprocessor, backbone, neck, distiller)
        self.bbox_head = bbox_head

    @property
    def head(self) -> Head:
        """The dense head."""
        return self.bbox_head

    def head_outputs(self, feats: list[Tensor], img_shape: Tensor) -> HeadOutputs:
        """Predict logits and deltas of every anchor."""
        return self.head(feats)

    def head_step(self, feats: list[Tensor], gt: GroundTruth) -> HeadStep:
        """Predict, match and compute the head's losses. feats L x (N, C_l, H_l, W_l)."""
        outputs = self.head(feats)
        matched = self.head.match(outputs.anchors, gt)  # (N, A)
        return HeadStep(self.head.loss(outputs, matched, gt), outputs, matched)


@MODELS.register_module()
class SSD(SingleStageDetector):
    """SSD (arXiv 1512.02325); loads checkpoints of MMDetection 2.x, too.

    Args are those of SingleStageDetector.
    """

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Rename the parameters of MMDetection 2.x in place; newer names stay.

        Before 2.14 the added layers and the L2Norm sat in the backbone, and the head's convolutions were
        not wrapped.
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
        super()._load_from_state_dict(state_dict, prefix, *args)

"""Detection heads: feature maps -> class logits and box deltas of every anchor."""

from mmdet.models.heads.fcos_head import FCOSHead
from mmdet.models.heads.head import Head
from mmdet.models.heads.retina_head import RetinaHead
from mmdet.models.heads.roi_head import RoIHead
from mmdet.models.heads.rpn_head import RPNHead
from mmdet.models.heads.ssd_head import SSDHead

__all__ = ['FCOSHead', 'Head', 'RPNHead', 'RetinaHead', 'RoIHead', 'SSDHead']

"""Dense heads: feature maps -> class logits and box deltas of every anchor."""

from mmdet.models.heads.anchor_head import AnchorHead, HeadOutputs
from mmdet.models.heads.ssd_head import SSDHead

__all__ = ['AnchorHead', 'HeadOutputs', 'SSDHead']

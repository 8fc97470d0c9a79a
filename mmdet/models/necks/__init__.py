"""Necks: feature maps of a backbone -> feature maps of a head."""

from mmdet.models.necks.fpn import FPN
from mmdet.models.necks.ssd_neck import SSDNeck
from mmdet.models.necks.ssdlite_neck import SSDLiteNeck

__all__ = ['FPN', 'SSDLiteNeck', 'SSDNeck']

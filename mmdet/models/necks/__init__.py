"""Necks: feature maps of a backbone -> feature maps of a head."""

from mmdet.models.necks.ssd_neck import SSDNeck

__all__ = ['SSDNeck']

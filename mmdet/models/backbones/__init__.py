"""Backbones: image -> feature maps."""

from mmdet.models.backbones.ssd_vgg import SSDVGG

__all__ = ['SSDVGG']

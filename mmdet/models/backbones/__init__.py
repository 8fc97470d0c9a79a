"""Backbones: images -> feature maps."""

from mmdet.models.backbones.classifier import ClassifierBackbone
from mmdet.models.backbones.resnet import ResNet
from mmdet.models.backbones.ssd_vgg import SSDVGG

__all__ = ['SSDVGG', 'ClassifierBackbone', 'ResNet']

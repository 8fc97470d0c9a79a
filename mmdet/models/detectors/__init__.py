"""Detectors: images -> losses or detections."""

from mmdet.models.detectors.base import BaseDetector
from mmdet.models.detectors.single_stage import SSD, SingleStageDetector
from mmdet.models.detectors.two_stage import TwoStageDetector

__all__ = ['SSD', 'BaseDetector', 'SingleStageDetector', 'TwoStageDetector']

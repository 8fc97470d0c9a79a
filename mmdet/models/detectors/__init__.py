"""Detectors: images -> losses or detections."""

from mmdet.models.detectors.base import BaseDetector
from mmdet.models.detectors.single_stage import SSD, SingleStageDetector

__all__ = ['SSD', 'BaseDetector', 'SingleStageDetector']

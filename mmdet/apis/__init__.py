"""Detect from Python in two calls."""

from mmdet.apis.inference import inference_detector, init_detector
from mmdet.apis.results import DetectionResult

__all__ = ['DetectionResult', 'inference_detector', 'init_detector']

"""Detect from Python in two calls."""

from mmdet.apis.inference import inference_detector, init_detector

__all__ = ['inference_detector', 'init_detector']

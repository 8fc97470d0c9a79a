"""Metrics."""

from mmdet.evaluation.accuracy import CropAccuracy
from mmdet.evaluation.coco_metric import CocoMetric

__all__ = ['CocoMetric', 'CropAccuracy']

"""Metrics."""

from mmdet.evaluation.coco_metric import CocoMetric

__all__ = ['CocoMetric']

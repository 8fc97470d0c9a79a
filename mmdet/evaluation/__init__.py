"""Metrics."""

from mmdet.evaluation.accuracy import CropAccuracy
from mmdet.evaluation.coco_metric import CocoMetric
from mmdet.evaluation.error_split import ErrorSplit, ScoreCalibration, error_split, score_calibration

__all__ = [
    'CocoMetric',
    'CropAccuracy',
    'ErrorSplit',
    'ScoreCalibration',
    'error_split',
    'score_calibration',
]

"""Anchors, box coding and matching."""

from mmdet.models.task_modules.anchor_generator import GridAnchors, SSDAnchorGenerator
from mmdet.models.task_modules.assigner import MaxIoUAssigner
from mmdet.models.task_modules.bbox_coder import DeltaXYWHBBoxCoder

__all__ = ['DeltaXYWHBBoxCoder', 'GridAnchors', 'MaxIoUAssigner', 'SSDAnchorGenerator']

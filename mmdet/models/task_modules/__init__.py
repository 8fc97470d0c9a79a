"""Anchors, box coding and matching."""

from mmdet.models.task_modules.anchor_generator import SSDAnchorGenerator
from mmdet.models.task_modules.assigner import BACKGROUND, IGNORED, MaxIoUAssigner
from mmdet.models.task_modules.bbox_coder import DeltaXYWHBBoxCoder

__all__ = ['BACKGROUND', 'IGNORED', 'DeltaXYWHBBoxCoder', 'MaxIoUAssigner', 'SSDAnchorGenerator']

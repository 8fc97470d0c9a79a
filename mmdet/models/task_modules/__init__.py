"""Anchors, box coding and matching."""

from mmdet.models.task_modules.anchor_generator import AnchorGenerator, GridAnchors, SSDAnchorGenerator
from mmdet.models.task_modules.assigner import Assigner, MaxIoUAssigner, SampledAssigner
from mmdet.models.task_modules.bbox_coder import DeltaXYWHBBoxCoder

__all__ = [
    'AnchorGenerator',
    'Assigner',
    'DeltaXYWHBBoxCoder',
    'GridAnchors',
    'MaxIoUAssigner',
    'SSDAnchorGenerator',
    'SampledAssigner',
]

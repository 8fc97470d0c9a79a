"""Anchors, box coding and matching."""

from mmdet.models.task_modules.anchor_generator import AnchorGenerator, GridAnchors, SSDAnchorGenerator
from mmdet.models.task_modules.assigner import Assigner, CenterAssigner, MaxIoUAssigner, SampledAssigner
from mmdet.models.task_modules.bbox_coder import BBoxCoder, DeltaXYWHBBoxCoder, DistanceBBoxCoder

__all__ = [
    'AnchorGenerator',
    'Assigner',
    'BBoxCoder',
    'CenterAssigner',
    'DeltaXYWHBBoxCoder',
    'DistanceBBoxCoder',
    'GridAnchors',
    'MaxIoUAssigner',
    'SSDAnchorGenerator',
    'SampledAssigner',
]

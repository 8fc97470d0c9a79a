"""Detectors and their parts. Knows nothing of distillation but the optional `distiller` of a detector."""

from mmdet.models import backbones, detectors, heads, necks, task_modules
from mmdet.models.data_preprocessor import DetDataPreprocessor
from mmdet.models.postprocess import NMSPostProcess

__all__ = [
    'DetDataPreprocessor',
    'NMSPostProcess',
    'backbones',
    'detectors',
    'heads',
    'necks',
    'task_modules',
]

"""Teachers, distillers and their losses."""

from mmdet.distillation.crop_classifier import CropClassifier
from mmdet.distillation.distiller import ClassifierDistiller
from mmdet.distillation.losses import (
    CropL1Loss,
    DISTLoss,
    DKDLoss,
    KDLoss,
    SigmoidKDLoss,
    SoftmaxKDLoss,
    StandardizedKDLoss,
)
from mmdet.distillation.stored_teacher import StoredTeacher
from mmdet.distillation.teacher import FrozenTeacher

__all__ = [
    'ClassifierDistiller',
    'CropClassifier',
    'CropL1Loss',
    'DISTLoss',
    'DKDLoss',
    'FrozenTeacher',
    'KDLoss',
    'SigmoidKDLoss',
    'SoftmaxKDLoss',
    'StandardizedKDLoss',
    'StoredTeacher',
]

"""What this package adds to or corrects in MMEngine."""

from mmdet.engine.amp import AmpOptimWrapper
from mmdet.engine.hooks import (
    BadDataHook,
    CheckpointHook,
    CurvesHook,
    DistillationMonitorHook,
    LoggerHook,
    SaveTeacherHook,
)
from mmdet.engine.loops import TrainLoop, ValLoop
from mmdet.engine.runner import DetRunner

__all__ = [
    'AmpOptimWrapper',
    'BadDataHook',
    'CheckpointHook',
    'CurvesHook',
    'DetRunner',
    'DistillationMonitorHook',
    'LoggerHook',
    'SaveTeacherHook',
    'TrainLoop',
    'ValLoop',
]

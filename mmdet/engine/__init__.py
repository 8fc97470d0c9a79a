"""What this package adds to or corrects in MMEngine."""

from mmdet.engine.alarms import DistillationAlarmHook
from mmdet.engine.hooks import BadDataHook, CheckpointHook, CurvesHook, LoggerHook
from mmdet.engine.loops import TrainLoop, ValLoop
from mmdet.engine.optim import AmpOptimWrapper
from mmdet.engine.runner import DetRunner

__all__ = [
    'AmpOptimWrapper',
    'BadDataHook',
    'CheckpointHook',
    'CurvesHook',
    'DetRunner',
    'DistillationAlarmHook',
    'LoggerHook',
    'TrainLoop',
    'ValLoop',
]

"""Hooks of a training run; those that take the place of one of MMEngine's have its name."""

from mmdet.engine.hooks.bad_data import BadDataHook, write_bad_data
from mmdet.engine.hooks.checkpoint import CheckpointHook
from mmdet.engine.hooks.curves import CurvesHook
from mmdet.engine.hooks.distillation_monitor import DistillationMonitorHook
from mmdet.engine.hooks.early_stopping import EarlyStoppingHook
from mmdet.engine.hooks.logger import LoggerHook
from mmdet.engine.hooks.progress import ProgressHook
from mmdet.engine.hooks.save_teacher import SaveTeacherHook

__all__ = [
    'BadDataHook',
    'CheckpointHook',
    'CurvesHook',
    'DistillationMonitorHook',
    'EarlyStoppingHook',
    'LoggerHook',
    'ProgressHook',
    'SaveTeacherHook',
    'write_bad_data',
]

"""What this package adds to or corrects in MMEngine."""

from mmdet.engine import amp, hooks
from mmdet.engine.loops import TrainLoop, ValLoop
from mmdet.engine.runner import DetRunner

__all__ = ['DetRunner', 'TrainLoop', 'ValLoop', 'amp', 'hooks']

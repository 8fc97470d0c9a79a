"""Data sets, samplers and the collate function."""

from mmdet.datasets.coco import CocoDataset
from mmdet.datasets.collate import BadImage, build_collate, collate_detection
from mmdet.datasets.samplers import DetSampler
from mmdet.datasets.training_boxes import Fault
from mmdet.datasets.transforms import BadImageError
from mmdet.datasets.worker import init_worker

__all__ = [
    'BadImage',
    'BadImageError',
    'CocoDataset',
    'DetSampler',
    'Fault',
    'build_collate',
    'collate_detection',
    'init_worker',
]

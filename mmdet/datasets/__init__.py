"""Data sets, samplers and the collate function."""

from mmdet.datasets.coco import CocoDataset
from mmdet.datasets.coco_format import Fault
from mmdet.datasets.collate import BadImage, collate_detection, init_worker
from mmdet.datasets.samplers import DetSampler
from mmdet.datasets.transforms import BadImageError

__all__ = [
    'BadImage',
    'BadImageError',
    'CocoDataset',
    'DetSampler',
    'Fault',
    'collate_detection',
    'init_worker',
]

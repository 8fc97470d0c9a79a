"""Transforms of an image and its boxes, under MMDetection's names."""

from mmdet.datasets.transforms.color import PhotoMetricDistortion
from mmdet.datasets.transforms.formatting import PackDetInputs
from mmdet.datasets.transforms.geometry import Expand, MinIoURandomCrop, RandomFlip, Resize
from mmdet.datasets.transforms.loading import (
    BadImageError,
    LoadAnnotations,
    LoadImageFromFile,
    exif_reading,
    read_image,
    read_photo,
)
from mmdet.datasets.transforms.window import ColorJitter, Results, Window

__all__ = [
    'BadImageError',
    'ColorJitter',
    'Expand',
    'LoadAnnotations',
    'LoadImageFromFile',
    'MinIoURandomCrop',
    'PackDetInputs',
    'PhotoMetricDistortion',
    'RandomFlip',
    'Resize',
    'Results',
    'Window',
    'exif_reading',
    'read_image',
    'read_photo',
]

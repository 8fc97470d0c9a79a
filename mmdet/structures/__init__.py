"""The values that travel between the parts; imports nothing else of this package."""

from mmdet.structures.boxes import bbox_overlaps, clip_boxes
from mmdet.structures.constants import cached_tensor
from mmdet.structures.crops import crop_boxes
from mmdet.structures.det_data_sample import DetDataSample
from mmdet.structures.encoded_images import EncodedImages
from mmdet.structures.ground_truth import NO_IMAGE, GroundTruth
from mmdet.structures.normalization import Normalization
from mmdet.structures.positive_samples import PositiveSamples

__all__ = [
    'NO_IMAGE',
    'DetDataSample',
    'EncodedImages',
    'GroundTruth',
    'Normalization',
    'PositiveSamples',
    'bbox_overlaps',
    'cached_tensor',
    'clip_boxes',
    'crop_boxes',
]

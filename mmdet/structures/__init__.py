"""The values that travel between the parts; imports nothing else of this package."""

from mmdet.structures.anchors import BACKGROUND, IGNORED, Anchors
from mmdet.structures.boxes import bbox_overlaps, box_areas, clip_boxes
from mmdet.structures.constants import cached_tensor
from mmdet.structures.crops import crop_boxes
from mmdet.structures.det_data_sample import DetDataSample
from mmdet.structures.device import branches_of_a_gpu, on_gpu
from mmdet.structures.encoded_images import EncodedImages
from mmdet.structures.ground_truth import NO_IMAGE, GroundTruth
from mmdet.structures.head_outputs import HeadOutputs
from mmdet.structures.normalization import Normalization
from mmdet.structures.positive_samples import PositiveSamples

__all__ = [
    'BACKGROUND',
    'IGNORED',
    'NO_IMAGE',
    'Anchors',
    'DetDataSample',
    'EncodedImages',
    'GroundTruth',
    'HeadOutputs',
    'Normalization',
    'PositiveSamples',
    'bbox_overlaps',
    'box_areas',
    'branches_of_a_gpu',
    'cached_tensor',
    'clip_boxes',
    'crop_boxes',
    'on_gpu',
]

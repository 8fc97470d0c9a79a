"""Normalization on the device."""

import pytest
import torch

from mmdet.config.resolve import merge_config
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import GroundTruth
from tests.helpers.tiny_run import DISTILLED, NARROW, PLAIN


def ground_truth(shapes: list[list[int]]) -> GroundTruth:
    n = len(shapes)
    shape = torch.tensor(shapes)
    empty = torch.zeros(n, 16, dtype=torch.bool)
    ids = torch.zeros(n, 16).long()
    return GroundTruth(torch.arange(n), shape, shape, torch.zeros(n, 16, 4), ids, empty, ids)


def test_normalises_swaps_channels_and_zeroes_the_padding() -> None:
    inputs = torch.zeros(2, 3, 4, 6, dtype=torch.uint8)
    inputs[:, 0], inputs[:, 2] = 10, 30  # B, R
    data = {'inputs': inputs, 'gt': ground_truth([[4, 6], [2, 3]]), 'bad_images': []}
    out = DetDataPreprocessor(mean=[20, 0, 0], std=[5, 1, 1])(data)
    assert set(out) == {'inputs', 'gt'}
    assert out['inputs'].dtype == torch.float32
    assert out['inputs'][0, :, 0, 0].tolist() == [2, 0, 10]  # (30 - 20) / 5, 0, 10
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[:2, :3] = True
    assert (out['inputs'][1, :, ~inside] == 0).all()
    assert (out['inputs'][1, 0, inside] == 2).all()


def test_buffers_are_no_part_of_a_checkpoint() -> None:
    preprocessor = DetDataPreprocessor(mean=[1, 2, 3], std=[4, 5, 6])
    assert not preprocessor.state_dict()
    assert preprocessor.normalization.std.tolist() == [4, 5, 6]


def test_a_student_of_bgr_images_cannot_be_distilled() -> None:
    options = {**NARROW, 'model.data_preprocessor.bgr_to_rgb': False}
    MODELS.build(merge_config(PLAIN, options).model)
    options |= {'model.distiller.teacher': None, 'model.distiller.kd_cls': None}
    pixels = {'levels': ('pixels',), 'pool_sizes': (4,), 'loss_weight': 1.0}
    options |= {f'model.distiller.kd_loc.{key}': value for key, value in pixels.items()}
    with pytest.raises(ValueError, match=r'set model\.data_preprocessor\.bgr_to_rgb=True'):
        MODELS.build(merge_config(DISTILLED, options).model)
    options['model.data_preprocessor.bgr_to_rgb'] = True
    MODELS.build(merge_config(DISTILLED, options).model)


def test_a_std_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match='std above 0'):
        DetDataPreprocessor(mean=[1, 2, 3], std=[4, 0, 6])

"""Anchors."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet.models.task_modules import AnchorGenerator, SSDAnchorGenerator
from mmdet.models.task_modules.anchor_generator import published_sizes
from mmdet.registry import MODELS
from tests.helpers.golden_model import ROOT, read_expected

CPU = torch.device('cpu')


@pytest.mark.parametrize(('name', 'file'), [('ssd300', 'ssd300_distill'), ('ssd512', 'ssd512_plain')])
def test_those_of_the_golden_files_are_exact(name: str, file: str) -> None:
    expected = read_expected(file)
    head = Config.fromfile(ROOT / f'configs/_base_/models/{name}.py').model.bbox_head
    sizes = [(int(height), int(width)) for *_, height, width in expected['feat_shape']]
    anchors = MODELS.build(head.anchor_generator)(sizes, CPU)
    np.testing.assert_array_equal(anchors.boxes, expected['anchors'])


def test_published_sizes_of_ssd300_and_ssd512() -> None:
    sizes = published_sizes(300, (0.15, 0.9), 6)
    assert sizes == ([21, 45, 99, 153, 207, 261], [45, 99, 153, 207, 261, 315])
    assert published_sizes(512, (0.1, 0.9), 7)[0][:3] == [20, 51, 133]
    with pytest.raises(ValueError, match='min_sizes'):
        published_sizes(300, (0.12, 0.9), 6)


def test_order_and_shape_within_a_cell() -> None:
    anchors = SSDAnchorGenerator([8], [[2]], min_sizes=[16], max_sizes=[64])([(1, 2)], CPU)
    assert anchors.num_per_level == [8]
    anchors = anchors.boxes
    assert anchors.shape == (8, 4)
    center = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert center.tolist() == [[4, 4]] * 4 + [[12, 4]] * 4
    width, height = (anchors[:4, 2:] - anchors[:4, :2]).unbind(1)
    torch.testing.assert_close(width * height, torch.tensor([256.0, 1024.0, 256.0, 256.0]))
    torch.testing.assert_close(height / width, torch.tensor([1.0, 1.0, 0.5, 2.0]))


def test_sizes_are_given_in_one_way() -> None:
    with pytest.raises(ValueError, match='min_sizes and max_sizes'):
        SSDAnchorGenerator([8], [[2]], input_size=300)
    with pytest.raises(ValueError, match='levels differ'):
        SSDAnchorGenerator([8, 16], [[2]], min_sizes=[16], max_sizes=[64])


def test_scales_within_ratios_around_the_corner_of_a_cell() -> None:
    anchors = AnchorGenerator([8, 16], ratios=[0.25, 1, 4], scales=[4, 8])([(1, 2), (1, 1)], CPU)
    assert anchors.num_per_level == [12, 6]
    corner = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2
    assert corner.tolist() == [[0, 0]] * 6 + [[8, 0]] * 6 + [[0, 0]] * 6
    sides = (anchors.boxes[:, 2:] - anchors.boxes[:, :2]).tolist()
    assert sides[:6] == [[64, 16], [128, 32], [32, 32], [64, 64], [16, 64], [32, 128]]
    assert sides[12:] == [[2 * w, 2 * h] for w, h in sides[:6]]

"""Boxes as the network sees them, and the anchors that reach them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmdet.analysis.boxes import AnchorFit, Boxes, input_boxes, size_line
from mmdet.config.resolve import merge_config
from mmdet.datasets.transforms.geometry import Resize
from mmdet.models.task_modules import SSDAnchorGenerator
from mmdet.structures import bbox_overlaps
from tests.helpers.students import BACKBONE
from tests.helpers.tiny_run import NARROW, PLAIN, ROOT


def squares(side: float, count: int = 40) -> Boxes:
    corner = torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) * (96 - side)
    return Boxes(torch.cat([corner, corner + side], 1), torch.full((count, 2), 96))


@pytest.mark.parametrize(('resize', 'box', 'shape'), [
    ([Resize((96, 48))], [12, 12, 24, 24], [48, 96]),
    ([Resize((96, 48), keep_ratio=True)], [6, 12, 12, 24], [48, 48]),
    ([], [10, 20, 20, 40], [80, 80]),
])  # fmt: skip
def test_boxes_are_scaled_with_their_image(resize, box, shape):
    dataset: Any = SimpleNamespace(
        sizes=np.array([[100, 50], [80, 80]]),
        pipeline=resize, bboxes=np.array([[10, 20, 20, 40]], np.float32),
        objects=lambda: (np.array([0]), np.array([1])),
    )  # fmt: skip
    found = input_boxes(dataset)
    assert found.xyxy.tolist() == [box]
    assert found.img_shape.tolist() == [shape]
    assert '14 (50 %)' in size_line(input_boxes(dataset)) or resize


def test_the_share_is_that_of_boxes_with_an_anchor_above_the_threshold():
    cfg, boxes = merge_config(PLAIN, NARROW), squares(20)
    fit = AnchorFit(cfg, boxes)
    iou = bbox_overlaps(fit.boxes.xyxy, fit.anchors).amax(1)
    assert 0 < fit.share == pytest.approx(float((iou >= 0.4).float().mean()))


def test_better_sizes_can_be_pasted_and_do_what_they_say():
    boxes = squares(6)
    fit = AnchorFit(merge_config(PLAIN, NARROW), boxes)
    share, keys = fit.better_sizes()
    assert fit.share < 0.2 and share > fit.share + 0.3
    again = AnchorFit(merge_config(PLAIN, {**NARROW, **keys}), boxes)
    assert again.share == pytest.approx(share)
    assert SSDAnchorGenerator(**{k: v for k, v in again.cfg.items() if k != 'type'})


@pytest.mark.parametrize(
    ('name', 'key'), [('faster_rcnn/faster_rcnn_qr50_fpn', 'rpn_head'), ('fcos/fcos_r50_fpn', None)]
)
def test_families_without_sizes_in_pixels(name, key):
    """Scales of an RPN are tried, too; FCOS's cells have no size."""
    options = {**BACKBONE, 'model.rpn_head.in_channels': 16, 'model.roi_head.in_channels': 16}
    if key is None:
        options = {**BACKBONE, 'model.bbox_head.in_channels': 16, 'model.backbone.weights': None}
        options |= {'model.backbone.frozen_stages': -1, 'model.backbone.norm_eval': False}
    fit = AnchorFit(merge_config(ROOT / f'configs/{name}.py', options), squares(9))
    better = fit.better_sizes()
    assert (better is None) == (key is None)
    assert key is None or [*better[1]] == [f'model.{key}.anchor_generator.scales']

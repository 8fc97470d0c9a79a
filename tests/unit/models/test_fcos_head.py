"""FCOS against the paper's rules, one point at a time."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet.config.resolve import merge_config
from mmdet.models.heads import FCOSHead
from mmdet.models.heads.fcos_head import centerness_of
from mmdet.registry import MODELS
from mmdet.structures import BACKGROUND, IGNORED, GroundTruth, HeadOutputs
from tests.helpers.tiny_run import ROOT

STRIDES, SIDE = (8, 16, 32, 64, 128), 256
RANGES = ((0, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))
OBJECTS = [
    [(8.0, 8.0, 120.0, 72.0), (20.0, 16.0, 60.0, 56.0), (0.0, 0.0, 200.0, 150.0), (4.0, 8.0, 4.0, 90.0)],
    [],
    [(100.0, 30.0, 228.0, 158.0), (100.0, 30.0, 228.0, 158.0)],  # two in one place; a side on a limit: 64
]
Distances = tuple[float, float, float, float]


@pytest.fixture(scope='module')
def head() -> FCOSHead:
    torch.manual_seed(0)
    config = copy.deepcopy(merge_config(ROOT / 'configs/fcos/fcos_r50_fpn.py').model.bbox_head)
    return MODELS.build(
        {
            **config,
            'in_channels': 8,
            'feat_channels': 8,
            'stacked_convs': 2,
            'group_norm': 2,
            'num_classes': 3,
        }
    )


@pytest.fixture(scope='module')
def outputs(head: FCOSHead) -> HeadOutputs:
    rng = torch.Generator().manual_seed(1)
    return head([torch.randn(3, 8, SIDE // s, SIDE // s, generator=rng) for s in STRIDES])


def ground_truth(objects: list[list[Distances]] = OBJECTS) -> GroundTruth:
    shape = torch.tensor([[SIDE, SIDE], [SIDE, SIDE], [170, SIDE]])
    bboxes, labels = torch.zeros(3, 16, 4), torch.zeros(3, 16).long()
    valid = torch.zeros(3, 16, dtype=torch.bool)
    for i, boxes in enumerate(objects):
        bboxes[i, : len(boxes)], valid[i, : len(boxes)] = torch.tensor(boxes).view(-1, 4), True
        labels[i, : len(boxes)] = torch.arange(len(boxes)) % 3
    return GroundTruth(torch.arange(3), shape, shape, bboxes, labels, valid, labels * 0)


def rule(objects: list[Distances], height: int) -> list[tuple[int, Distances | None]]:
    """Row and distances (l, t, r, b) of each point of an image so high, in the paper's words."""
    learnt: list[tuple[int, Distances | None]] = []
    for stride, (low, high) in zip(STRIDES, RANGES, strict=True):
        for place in range((SIDE // stride) ** 2):
            row, column = divmod(place, SIDE // stride)
            x, y = column * stride + stride // 2, row * stride + stride // 2
            best: tuple[int, Distances | None] = (BACKGROUND, None)
            smallest = math.inf
            for number, (left, top, right, bottom) in enumerate(objects):
                distances = (x - left, y - top, right - x, bottom - y)
                area = (right - left) * (bottom - top)
                if min(distances) > 0 and low <= max(distances) <= high and area < smallest:
                    best, smallest = (number, distances), area
            learnt.append(best if row * stride < height else (IGNORED, None))
    return learnt


def expected() -> list[tuple[int, int, int, Distances | None]]:
    """(image, point, row, distances) of all points."""
    heights = ground_truth().img_shape[:, 0].tolist()
    return [
        (i, point, *learnt)
        for i, (objects, height) in enumerate(zip(OBJECTS, heights, strict=True))
        for point, learnt in enumerate(rule(objects, height))
    ]


def centerness_in_words(distances: Distances) -> float:
    left, top, right, bottom = distances
    return math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))


def test_points_learn_what_the_paper_says(head: FCOSHead, outputs: HeadOutputs) -> None:
    matched = head.match(outputs.anchors, ground_truth())
    rows = [row for _, _, row, _ in expected()]
    assert matched.flatten().tolist() == rows
    assert {0, 1, 2, BACKGROUND, IGNORED} == set(rows)


def test_losses_equal_one_point_at_a_time(head: FCOSHead, outputs: HeadOutputs) -> None:
    gt = ground_truth()
    losses = head.loss(outputs, head.match(outputs.anchors, gt), gt)
    bbox = centerness = weight = torch.zeros(())
    positives = [0, 0, 0]
    for i, point, _, distances in expected():
        if distances is None:
            continue
        positives[i] += 1
        target = centerness_in_words(distances)
        logs = torch.tensor(distances).log()
        torch.testing.assert_close(centerness_of(logs), torch.tensor(target))
        log_p, log_q = (F.logsigmoid(sign * outputs.centerness[i, point]) for sign in (1, -1))
        centerness = centerness - target * log_p - (1 - target) * log_q
        mine, true = outputs.box_deltas[i, point].exp(), torch.tensor(distances)
        width, height = torch.minimum(mine, true).view(2, 2).sum(0)
        areas = [(x[0] + x[2]) * (x[1] + x[3]) for x in (mine, true, torch.maximum(mine, true))]
        union = areas[0] + areas[1] - width * height
        bbox = bbox + target * (2 - width * height / union - union / areas[2])
        weight = weight + target
    torch.testing.assert_close(losses['loss_bbox'], bbox / weight, rtol=1e-4, atol=0)
    average = sum(max(count, 1) for count in positives)
    torch.testing.assert_close(losses['loss_centerness'], centerness / average, rtol=1e-4, atol=0)
    assert losses.keys() == {'loss_cls', 'loss_bbox', 'loss_centerness'}


def gradients(head: FCOSHead, outputs: HeadOutputs, objects: list[list[Distances]]) -> list[Tensor]:
    gt = ground_truth(objects)
    losses = head.loss(outputs, head.match(outputs.anchors, gt), gt)
    return list(torch.autograd.grad(sum(losses.values()), (outputs.box_deltas, outputs.centerness)))


def test_nothing_to_learn_gives_box_and_centerness_losses_of_0(head: FCOSHead, outputs: HeadOutputs) -> None:
    gt = ground_truth([[], [], []])
    losses = head.loss(outputs, head.match(outputs.anchors, gt), gt)
    assert losses['loss_bbox'] == losses['loss_centerness'] == 0
    assert not any(gradient.any() for gradient in gradients(head, outputs, [[], [], []]))


@pytest.mark.parametrize('size', [200.0, -200.0])  # exp(200) overflows
def test_distances_without_bound_leave_gradients_finite(
    head: FCOSHead, outputs: HeadOutputs, size: float
) -> None:
    huge = torch.full_like(outputs.box_deltas, size).requires_grad_()
    outputs = outputs._replace(box_deltas=huge)
    assert all(gradient.isfinite().all() for gradient in gradients(head, outputs, OBJECTS))
    gt = ground_truth()
    samples = head.positives(outputs, head.match(outputs.anchors, gt), gt)
    (gradient,) = torch.autograd.grad(samples.bboxes.sum(), huge)
    assert samples.bboxes.isfinite().all() and gradient.isfinite().all()


def test_scores_are_the_root_of_probability_times_centerness(head: FCOSHead, outputs: HeadOutputs) -> None:
    scores = head.scores(outputs)
    assert scores.shape == outputs.cls_logits.shape
    product = outputs.cls_logits[1, 7, 2].sigmoid() * outputs.centerness[1, 7].sigmoid()
    torch.testing.assert_close(scores[1, 7, 2], product.sqrt())


def test_parameters_have_mmdetections_names() -> None:
    config: Any = merge_config(ROOT / 'configs/fcos/fcos_r50_fpn.py').model
    shapes = {key: tuple(value.shape) for key, value in MODELS.build(config.bbox_head).state_dict().items()}
    expected = {
        'conv_cls.weight': (80, 256, 3, 3),
        'conv_cls.bias': (80,),
        'conv_reg.weight': (4, 256, 3, 3),
        'conv_reg.bias': (4,),
        'conv_centerness.weight': (1, 256, 3, 3),
        'conv_centerness.bias': (1,),
        **{f'scales.{level}.scale': () for level in range(5)},
    }
    for tower in ('cls_convs', 'reg_convs'):
        for layer in range(4):
            expected[f'{tower}.{layer}.conv.weight'] = (256, 256, 3, 3)
            expected |= {f'{tower}.{layer}.gn.{name}': (256,) for name in ('weight', 'bias')}
    assert shapes == expected

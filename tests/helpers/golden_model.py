"""Students with the seeded weights and inputs of the golden files."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine import Config
from torch import Tensor, nn

from mmdet.models.postprocess import Detections
from mmdet.models.task_modules import SampledAssigner
from mmdet.registry import MODELS
from mmdet.structures import GroundTruth
from tests.golden import seeded

ROOT = Path(__file__).parents[2]


class Golden(NamedTuple):
    model: nn.Module
    images: Tensor
    gt: GroundTruth
    expected: dict[str, np.ndarray]


def mmdetection2_name(name: str) -> str:
    """The name that MMDetection 2.10 gives a parameter; only SSD's differ from ours."""

    def extra(match: re.Match) -> str:
        return f'backbone.extra.{2 * int(match[1]) + int(match[2])}.'

    name = re.sub(r'^neck\.extra_layers\.(\d+)\.(\d+)\.conv\.', extra, name)
    name = name.replace('neck.l2_norm', 'backbone.l2_norm')
    return re.sub(r'(bbox_head\.(?:cls|reg)_convs\.\d+)\.0\.', r'\1.', name)


def seeded_checkpoint(model: nn.Module) -> dict[str, Tensor]:
    """Seeded weights, under MMDetection 2.10 names."""
    shapes = {mmdetection2_name(name): value.shape for name, value in model.state_dict().items()}
    return {name: torch.from_numpy(value) for name, value in seeded.seeded_state(shapes).items()}


def padded_ground_truth(
    bboxes: list[np.ndarray], labels: list[np.ndarray], size: tuple[int, int]
) -> GroundTruth:
    """Lists per image -> GroundTruth of images of one size (h, w)."""
    count, rows = len(bboxes), 16
    shape = torch.tensor([size] * count)
    gt = GroundTruth(
        img_id=torch.arange(count),
        ori_shape=shape,
        img_shape=shape,
        bboxes=torch.zeros(count, rows, 4),
        labels=torch.zeros(count, rows, dtype=torch.int64),
        valid=torch.zeros(count, rows, dtype=torch.bool),
        ann_ids=torch.zeros(count, rows, dtype=torch.int64),
    )
    for i, (boxes_of_image, labels_of_image) in enumerate(zip(bboxes, labels, strict=True)):
        length = len(boxes_of_image)
        gt.bboxes[i, :length] = torch.from_numpy(boxes_of_image)
        gt.labels[i, :length] = torch.from_numpy(labels_of_image)
        gt.valid[i, :length] = True
    return gt


def read_expected(file: str) -> dict[str, np.ndarray]:
    """What the published implementation computes."""
    with np.load(ROOT / 'tests' / 'golden' / f'{file}.npz') as archive:
        return dict(archive)


def seeded_model(config: str) -> nn.Module:
    """A student of `configs/_base_/models` with seeded weights, in eval mode."""
    model = MODELS.build(Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / config).model)
    model.load_state_dict(seeded_checkpoint(model))
    return model.eval()


@cache
def golden(file: str, config: str, size: int) -> Golden:
    """An SSD, its input and what the published implementation computes."""
    expected = read_expected(file)
    counts = expected['counts'].tolist()
    bboxes, labels = seeded.make_boxes(counts, size, size)
    bboxes[-1][0] = [0, 0, size, size]
    images = torch.from_numpy(seeded.make_images(len(counts), size, size))
    gt = padded_ground_truth(bboxes, labels, (size, size))
    return Golden(seeded_model(config), images, gt, expected)


@cache
def golden_fpn(name: str) -> Golden:
    """'retinanet_r50_fpn', or 'faster_rcnn_r50_fpn', which keeps the first samples instead of random ones."""
    expected = read_expected(name)
    bboxes, labels = seeded.make_boxes(expected['counts'].tolist(), 256, 320, seed=13)
    images = torch.from_numpy(seeded.make_images(2, 256, 320, seed=5) / seeded.PIXEL_STD)
    gt = padded_ground_truth(bboxes, labels, (256, 320))
    model = seeded_model(f'{name}.py')
    for head in (getattr(model, 'rpn_head', None), model.head):
        if isinstance(getattr(head, 'assigner', None), SampledAssigner):
            head.assigner.random = False
    return Golden(model, images, gt, expected)


def golden_ssd300() -> Golden:
    return golden('ssd300_distill', 'ssd300.py', 300)


def golden_ssd512() -> Golden:
    return golden('ssd512_plain', 'ssd512.py', 512)


def gradient_norms(model: nn.Module, loss: Tensor, names: np.ndarray) -> np.ndarray:
    """L2 norm of the loss's gradient for each parameter, in the order of MMDetection 2.10 `names`."""
    parameters = {mmdetection2_name(name): value for name, value in model.named_parameters()}
    ordered = [parameters[name] for name in names]
    gradients = torch.autograd.grad(loss, ordered, retain_graph=True, allow_unused=True)
    return np.array([0.0 if gradient is None else gradient.norm().item() for gradient in gradients])


def assert_same_detections(detections: list[Detections], expected: dict[str, np.ndarray]) -> None:
    """Scores that agree to 1e-5 may swap places: each expected detection must be there, near its rank."""
    for i, found in enumerate(detections):
        rows = expected[f'det_bboxes_{i}']
        np.testing.assert_allclose(found.scores, rows[:, 4], rtol=1e-4)
        for rank, (row, label) in enumerate(zip(rows, expected[f'det_labels_{i}'], strict=True)):
            near = slice(max(rank - 2, 0), rank + 3)
            distance = (found.bboxes[near] - torch.from_numpy(row[:4])).abs().amax(1)
            assert distance[found.labels[near] == int(label)].min() < 2e-3

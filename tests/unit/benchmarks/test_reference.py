"""The baseline computes what the published implementations compute (tests/golden).

In a short run its losses and detections are compared with ours alone: tests/unit/commands/test_benchmark.py.
"""

import numpy as np
import pytest
import torch
import torchvision

from benchmarks.reference.network import BaselineSSD300
from benchmarks.reference.postprocess import detections
from benchmarks.reference.ssd_loss import assign
from benchmarks.reference.training import training_losses
from tests.golden import seeded
from tests.helpers.golden_model import Golden, golden_ssd300


@pytest.fixture(scope='module')
def case() -> Golden:
    return golden_ssd300()


@pytest.fixture(scope='module')
def student(case: Golden) -> BaselineSSD300:
    """It remembers its maps of the golden images."""
    student = BaselineSSD300(80).take_weights(case.model)
    with torch.no_grad():
        maps = student(case.images)
    student.forward = lambda images: maps
    return student


def objects_of(case: Golden) -> tuple[list, list]:
    gt = case.gt
    rows = [(gt.bboxes[i, valid], gt.labels[i, valid]) for i, valid in enumerate(gt.valid)]
    return [boxes for boxes, _ in rows], [labels for _, labels in rows]


def test_matches(case: Golden) -> None:
    anchors = torch.from_numpy(case.expected['anchors'])
    for i, boxes in enumerate(objects_of(case)[0]):
        np.testing.assert_array_equal(assign(anchors, boxes), case.expected[f'matched_{i}'])


@pytest.mark.long
def test_losses(case: Golden, student: BaselineSSD300) -> None:
    teacher = torchvision.models.resnet50(num_classes=80)
    shapes = {name: value.shape for name, value in teacher.state_dict().items()}
    teacher.load_state_dict({k: torch.from_numpy(v) for k, v in seeded.seeded_state(shapes).items()})
    teacher.eval().requires_grad_(requires_grad=False)
    anchors = torch.from_numpy(case.expected['anchors'])
    with torch.no_grad():
        found = training_losses(student, case.images, anchors, *objects_of(case), teacher)
    published = ('loss_cls', 'loss_bbox', 'loss_kt_cls', 'loss_kt_loc')
    assert list(found) == ['loss_cls', 'loss_bbox', 'loss_kd_cls', 'loss_kd_loc']
    for name, loss in zip(published, found.values(), strict=True):
        np.testing.assert_allclose(loss.item(), case.expected[name], rtol=1e-4)


@pytest.mark.long
def test_detections(case: Golden, student: BaselineSSD300) -> None:
    cls_maps, box_maps = student(case.images)
    anchors = torch.from_numpy(case.expected['anchors'])
    for i, found in enumerate(detections(cls_maps, box_maps, anchors, 80)):
        np.testing.assert_allclose(found[:, 4], case.expected[f'det_bboxes_{i}'][:, 4], rtol=1e-4)

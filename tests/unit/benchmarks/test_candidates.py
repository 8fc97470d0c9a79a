"""Tests of benchmarks/candidates.py: weights by hand, and losses beside those of the toolbox."""

import dataclasses

import pytest
import torch
from mmengine.logging import MessageHub

from benchmarks.candidates import ProposalDistiller, WeighedCropL1Loss, WeighedDistiller
from mmdet.distillation import ClassifierDistiller, CropL1Loss, SoftmaxKDLoss
from tests.unit.distillation.test_distiller import (
    SOURCE,
    built,  # noqa: F401
    images,  # noqa: F401
    make_samples,
    teacher,  # noqa: F401
)

HALF = [[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 20.0, 10.0], [5.0, 5.0, 5.0, 5.0]]  # IoU 1, 0.5 and 0 with objects


@pytest.mark.parametrize(
    ('weigh', 'expected'),
    [('gate', [1, 1, 0]), ('fade', [0, 1, 1]), ('decay', [1, 1, 1]), ('size', [1.2, 1.2, 0.6])],
)
def test_factors(weigh, expected, images, request):  # noqa: F811
    MessageHub.get_instance(request.node.name)  # of a run at its start
    samples = dataclasses.replace(
        make_samples((2,), (3,)),
        bboxes=torch.tensor(HALF, requires_grad=True),
        gt_bboxes=torch.tensor([[0.0, 0, 20, 20], [30, 30, 40, 40]]),
        gt_index=torch.tensor([0, 0, 1]),
    )
    kd_loc = WeighedCropL1Loss(('pixels',), (4,), 0.1)
    distiller = WeighedDistiller(weigh, crop_size=16, kd_loc=kd_loc)
    found = distiller(images, SOURCE, samples)['loss_kd_loc']
    torch.testing.assert_close(kd_loc.factors, torch.tensor(expected, dtype=torch.float32))
    if weigh == 'decay':  # at the start it is the whole loss
        whole = ClassifierDistiller(crop_size=16, kd_loc=CropL1Loss(('pixels',), (4,), 0.1))
        torch.testing.assert_close(found, whole(images, SOURCE, samples)['loss_kd_loc'])


def test_proposals_that_are_the_objects_teach_what_the_objects_do(teacher, images):  # noqa: F811
    samples = make_samples((2, 1, 1), (4, 0, 3))
    parts = {
        'crop_size': 32,
        'teacher': teacher,
        'kd_cls': SoftmaxKDLoss(),
        'kd_loc': CropL1Loss(('pixels',), (4,), 0.1),
    }
    right = dataclasses.replace(samples, bboxes=samples.gt_bboxes[samples.gt_index].requires_grad_())
    ours = {True: ProposalDistiller(**parts), False: ClassifierDistiller(**parts)}
    for each, same in ((right, True), (samples, False)):
        found, asked = (ours[name](images, SOURCE, each)['loss_kd_cls'] for name in (True, False))
        assert torch.allclose(found, asked, rtol=1e-4) == same
        assert found.requires_grad and not torch.autograd.grad(found, each.bboxes, allow_unused=True)[0]

"""Distillation losses on cases with a known answer (the golden files hold the published numbers)."""

import math

import pytest
import torch

from mmdet.distillation import CropL1Loss, SigmoidKDLoss, SoftmaxKDLoss

ONE = torch.tensor(1)


def test_softmax_kd_by_hand() -> None:
    # teacher 3/4, 1/4 at T = 1; student 1/2, 1/4, background 1/4
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[2.0, 1.0, 1.0]]).log()
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.25)
    loss = SoftmaxKDLoss(temperature=1, loss_weight=1)(student, teacher, ONE)
    assert math.isclose(float(loss), expected, rel_tol=1e-5)


def test_sigmoid_kd_by_hand() -> None:
    # teacher 3/4, student 1/2 in the one class
    loss = SigmoidKDLoss(temperature=1, loss_weight=1)(torch.zeros(1, 1), torch.tensor([[math.log(3)]]), ONE)
    assert math.isclose(float(loss), 0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel_tol=1e-5)


@pytest.mark.parametrize('loss_class', [SoftmaxKDLoss, SigmoidKDLoss])
def test_extreme_logits_stay_finite(loss_class: type) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0]])[:, : 2 if loss_class is SoftmaxKDLoss else 3]
    loss = loss_class()(student, teacher, ONE)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_localization_adds_pixels_to_the_mean_over_feature_levels() -> None:
    loss = CropL1Loss(('pixels', 'stem', 'layer1'), (1, 1, 1), (1.0, 10.0, 100.0))
    ours = loss.pool(
        {
            name: torch.full((2, 3, 4, 4), value)
            for name, value in (('pixels', 1.0), ('stem', 2.0), ('layer1', 3.0))
        }
    )
    theirs = [torch.zeros_like(level) for level in ours]
    assert float(loss(ours, theirs)) == 2 * (1 * 1 + (10 * 2 + 100 * 3) / 2)  # two crops


@pytest.mark.parametrize(
    ('levels', 'sizes', 'weight'),
    [
        ((), (), 1.0),
        (('pixels', 'pixels'), (4, 4), 1.0),
        (('pixels',), (4, 8), 1.0),
        (('pixels',), (4,), (1.0, 2.0)),
    ],
)
def test_levels_that_do_not_fit_are_refused(levels: tuple, sizes: tuple, weight: float | tuple) -> None:
    with pytest.raises(ValueError, match='level'):
        CropL1Loss(levels, sizes, weight)


def test_a_temperature_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match='temperature'):
        SoftmaxKDLoss(temperature=0)

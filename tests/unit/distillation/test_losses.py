"""Distillation losses on cases with a known answer (the golden files hold the published numbers)."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmdet.distillation import (
    CropL1Loss,
    DISTLoss,
    DKDLoss,
    SigmoidKDLoss,
    SoftmaxKDLoss,
    StandardizedKDLoss,
)

ONE = torch.tensor(1)
FIRST = torch.tensor([0])
KD_LOSSES = [SoftmaxKDLoss, SigmoidKDLoss, DKDLoss, DISTLoss, StandardizedKDLoss]


def logits_of(loss_class: type, positives: int, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Student logits with gradient, teacher logits, labels."""
    generator = torch.Generator().manual_seed(positives)
    outputs = classes if loss_class is SigmoidKDLoss else classes + 1
    student = 3 * torch.randn(positives, outputs, generator=generator)
    teacher = 3 * torch.randn(positives, classes, generator=generator)
    return student.requires_grad_(), teacher, torch.randint(0, classes, (positives,), generator=generator)


def test_softmax_kd_by_hand() -> None:
    # teacher 3/4, 1/4 at T = 1; student 1/2, 1/4, background 1/4
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[2.0, 1.0, 1.0]]).log()
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.25)
    loss = SoftmaxKDLoss(temperature=1, loss_weight=1)(student, teacher, ONE, FIRST)
    assert math.isclose(float(loss), expected, rel_tol=1e-5)


def test_a_box_that_is_off_learns_the_background_by_hand() -> None:
    # teacher 3/4, 1/4, of which a box of IoU 0.8 gets 0.6, 0.2, background 0.2; student as above
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[2.0, 1.0, 1.0]]).log()
    expected = 0.6 * math.log(0.6 / 0.5) + 0.2 * math.log(0.2 / 0.25) * 2
    kd_loss = SoftmaxKDLoss(temperature=1, loss_weight=1, iou_aware=True)
    assert math.isclose(
        float(kd_loss(student, teacher, ONE, FIRST, torch.tensor([0.8]))), expected, rel_tol=1e-5
    )


@pytest.mark.parametrize('iou', [0.0, 1.0])
def test_no_overlap_is_all_background_and_a_whole_one_none(iou: float) -> None:
    student, teacher, labels = logits_of(SoftmaxKDLoss, 4)
    SoftmaxKDLoss(iou_aware=True)(student, teacher, ONE, labels, torch.full((4,), iou)).backward()
    gradient = student.grad
    assert gradient is not None and gradient.isfinite().all()
    assert ((gradient[:, -1] > 0) == (iou == 1)).all()  # a step down it raises the background, or lowers it


def test_sigmoid_kd_by_hand() -> None:
    # teacher 3/4, student 1/2 in the one class
    student, teacher = torch.zeros(1, 1), torch.tensor([[math.log(3)]])
    loss = SigmoidKDLoss(temperature=1, loss_weight=1)(student, teacher, ONE, FIRST)
    assert math.isclose(float(loss), 0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel_tol=1e-5)


def slow_loss(
    loss_class: type, student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, temperature: float
) -> float:
    """The papers' sums, one positive or class at a time, from probabilities in float64."""

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x / temperature) / np.exp(x / temperature).sum()

    def kl(p: np.ndarray, q: np.ndarray) -> float:
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    def standardized(x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / x.std()

    classes = teacher.shape[1]
    foreground = np.stack([softmax(row[:classes]) for row in student])
    target = np.stack([softmax(row) for row in teacher])
    total = 0.0
    if loss_class is DISTLoss:
        rows = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(foreground, target, strict=True)]
        columns = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(foreground.T, target.T, strict=True)]
        total = sum(rows) + 0.5 * len(student) * sum(columns) / classes
    if loss_class is DKDLoss:
        for p, q, label in zip(target, foreground, labels, strict=True):
            total += kl([p[label], 1 - p[label]], [q[label], 1 - q[label]])
            rest = [np.delete(x, label) / (1 - x[label]) for x in (p, q)]
            total += 0.5 * kl(*rest)
    if loss_class is StandardizedKDLoss:
        for ours, theirs in zip(student, teacher, strict=True):
            total += kl(softmax(standardized(theirs)), softmax(standardized(ours))[:classes])
    return temperature**2 * total


@pytest.mark.parametrize('temperature', [1.0, 3.0])
@pytest.mark.parametrize('loss_class', [DKDLoss, DISTLoss, StandardizedKDLoss])
def test_equals_one_positive_at_a_time(loss_class: type, temperature: float) -> None:
    student, teacher, labels = logits_of(loss_class, 7)
    weights = {DKDLoss: {'beta': 0.5}, DISTLoss: {'gamma': 0.5}}.get(loss_class, {})
    loss = loss_class(temperature=temperature, loss_weight=0.3, **weights)
    expected = slow_loss(
        loss_class, *(x.detach().double().numpy() for x in (student, teacher)), labels.numpy(), temperature
    )
    value = loss(student, teacher, torch.tensor(9), labels).item()
    np.testing.assert_allclose(value, 0.3 * expected / 9, rtol=1e-4)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_dkd_with_the_teachers_own_weights_is_plain_kd(temperature: float) -> None:
    # KD = TCKD + (1 - p) NCKD, Eq 6 of the paper; the background is out of reach of the student
    student, teacher, label = logits_of(DKDLoss, 1)
    student = torch.cat([student[:, :-1], torch.full((1, 1), -1e4)], 1)
    beta = float(1 - (teacher / temperature).softmax(1)[0, label])
    losses = [DKDLoss(beta=beta, temperature=temperature), SoftmaxKDLoss(temperature)]
    torch.testing.assert_close(*(loss(student, teacher, ONE, label) for loss in losses))


@pytest.mark.parametrize('loss_class', [DKDLoss, DISTLoss])
def test_the_background_is_left_to_the_detector(loss_class: type) -> None:
    student, teacher, labels = logits_of(loss_class, 6)
    loss_class()(student, teacher, ONE, labels).backward()
    assert (student.grad[:, -1] == 0).all()
    assert (student.grad[:, :-1] != 0).any()
    same = torch.cat([teacher, torch.randn(6, 1)], 1)
    assert abs(float(loss_class()(same, teacher, ONE, labels))) < 1e-5


@pytest.mark.parametrize('loss_class', KD_LOSSES)
def test_only_the_student_gets_a_gradient(loss_class: type) -> None:
    student, teacher, labels = logits_of(loss_class, 6)
    teacher.requires_grad_()
    loss = loss_class()(student, teacher, ONE, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.ndim == 0
    assert float(loss) > 0
    assert teacher.grad is None
    assert float(student.grad.abs().sum()) > 0


@pytest.mark.parametrize('classes', [1, 2, 5])
@pytest.mark.parametrize(
    ('loss_class', 'extra', 'remedy'),
    [
        (SoftmaxKDLoss, 0, r'model\.distiller\.kd_cls\.type=SigmoidKDLoss'),
        (StandardizedKDLoss, 0, r'model\.distiller\.kd_cls\.type=SigmoidKDLoss'),
        (SigmoidKDLoss, 1, r'model\.distiller\.kd_cls\.type=SoftmaxKDLoss'),
        (DKDLoss, 2, 'num_classes'),
        (DISTLoss, 2, 'num_classes'),
    ],
)
def test_a_student_of_the_other_kind_is_refused(
    loss_class: type, extra: int, remedy: str, classes: int
) -> None:
    """With one class or two the logits would be broadcast."""
    for positives in (0, 3):
        student, teacher = torch.zeros(positives, classes + extra), torch.zeros(positives, classes)
        labels = torch.zeros(positives, dtype=torch.int64)
        with pytest.raises(ValueError, match=rf'{loss_class.__name__} .*{remedy}'):
            loss_class()(student, teacher, ONE, labels)


@pytest.mark.parametrize('classes', [1, 5])
@pytest.mark.parametrize('loss_class', KD_LOSSES)
def test_no_positive_is_zero_finite_and_connected(loss_class: type, classes: int) -> None:
    student, teacher, labels = logits_of(loss_class, 0, classes)
    loss = loss_class()(student, teacher, ONE, labels)
    loss.backward()
    assert float(loss) == 0
    assert student.grad.shape == student.shape


@pytest.mark.parametrize('size', [0.0, 1e4])
@pytest.mark.parametrize('positives', [1, 3])
@pytest.mark.parametrize('classes', [1, 2, 5])
@pytest.mark.parametrize('loss_class', KD_LOSSES)
def test_extreme_logits_stay_finite(loss_class: type, classes: int, positives: int, size: float) -> None:
    student, teacher, labels = logits_of(loss_class, positives, classes)
    student = (size * student.detach().sign()).requires_grad_()
    loss = loss_class()(student, -size * teacher.sign(), ONE, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_localization_adds_pixels_in_gray_levels_to_the_mean_over_feature_levels() -> None:
    loss = CropL1Loss(('pixels', 'stem', 'layer1'), (1, 1, 1), (1.0, 10.0, 100.0))
    ours = loss.pool(
        {
            name: torch.full((2, 3, 4, 4), value)
            for name, value in (('pixels', 1.0), ('stem', 2.0), ('layer1', 3.0))
        }
    )
    theirs = [torch.zeros_like(level) for level in ours]
    std = torch.tensor([3.0, 5.0, 7.0])
    assert float(loss(ours, theirs, torch.ones(2), std)) == 2 * (5 * 1 + (10 * 2 + 100 * 3) / 2)  # two crops


def test_positives_that_are_drawn_stand_for_all_of_their_object() -> None:
    torch.manual_seed(0)
    gt_index = torch.tensor([0, 2, 2, 1, 2, 1, 2, 1, 2])  # 1, 3 and 5 positives
    loss = CropL1Loss(max_per_object=2)
    drawn = torch.zeros(9)
    for _ in range(300):
        rows, shares = loss.choose(gt_index)
        assert gt_index[rows].bincount().tolist() == [1, 2, 2]
        assert torch.zeros(3).index_add_(0, gt_index[rows], shares).tolist() == [1, 3, 5]
        drawn[rows] += shares / 300
    assert (drawn - 1).abs().max() < 0.2  # each as often as the others of its object
    every, ones = CropL1Loss().choose(gt_index)
    assert (every.tolist(), ones.tolist()) == ([*range(9)], [1] * 9)
    assert [len(part) for part in loss.choose(gt_index[:0])] == [0, 0]
    with pytest.raises(ValueError, match='max_per_object'):
        CropL1Loss(max_per_object=0)


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

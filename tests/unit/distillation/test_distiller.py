"""What the distiller promises, on a small teacher."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torchvision
from torch import Tensor, nn

from mmdet.distillation import (
    ClassifierDistiller,
    CropL1Loss,
    DISTLoss,
    DKDLoss,
    FrozenTeacher,
    SigmoidKDLoss,
    SoftmaxKDLoss,
    StandardizedKDLoss,
)
from mmdet.structures import (
    Normalization,
    PositiveSamples,
    bbox_overlaps,
    branches_of_a_gpu,
    crop_boxes,
)
from tests.helpers.slow_distiller import slow_losses
from tests.unit.structures.test_boxes import random_boxes

K, SIZE = 5, 32
SOURCE = Normalization(torch.tensor([100.0, 110.0, 120.0]), torch.tensor([50.0, 60.0, 70.0]))


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> FrozenTeacher:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=K)
    for name, buffer in network.named_buffers():
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 1.5)
    file = tmp_path_factory.mktemp('teacher') / 'teacher.pth.tar'
    torch.save(
        {'state_dict': network.state_dict(), 'mean': [90.0, 100.0, 110.0], 'std': [58.0, 57.0, 56.0]}, file
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        return FrozenTeacher('resnet18', str(file), num_classes=K)


@pytest.fixture
def teacher(built: FrozenTeacher) -> Iterator[FrozenTeacher]:
    """As it was built, whatever another test has changed."""
    kept = {name: getattr(built, name) for name in ('mean', 'std', 'crop_size', 'focal_weight')}
    yield built
    vars(built).update(kept)
    built.float()


def make_samples(counts: tuple[int, ...], positives: tuple[int, ...], logits: int = K + 1) -> PositiveSamples:
    """Samples of images with `counts` objects, of which image i has `positives[i]` positives."""
    generator = torch.Generator().manual_seed(1)
    gt_image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    first = torch.tensor([0, *counts]).cumsum(0)
    chosen = [
        first[i] + torch.randint(0, counts[i], (wanted,), generator=generator)
        for i, wanted in enumerate(positives)
        if wanted
    ]
    gt_index = torch.cat([torch.zeros(0, dtype=torch.int64), *chosen])
    gt_bboxes = random_boxes(2, sum(counts), 60)
    noise = torch.randn(len(gt_index), 4, generator=generator)
    return PositiveSamples(
        cls_logits=torch.randn(len(gt_index), logits, generator=generator).requires_grad_(),
        bboxes=(gt_bboxes[gt_index] + noise).clamp(0, 64).requires_grad_(),
        gt_index=gt_index,
        gt_bboxes=gt_bboxes,
        gt_labels=torch.randint(0, K, (sum(counts),), generator=generator),
        gt_ann_ids=torch.arange(sum(counts)),
        gt_image=gt_image,
    )


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def full(teacher: FrozenTeacher, **changes: object) -> ClassifierDistiller:
    parts = {
        'kd_cls': SoftmaxKDLoss(temperature=2, loss_weight=0.4),
        'kd_loc': CropL1Loss(('pixels', 'stem', 'layer1'), (4, 4, 2), (0.1, 0.2, 0.4)),
    }
    return ClassifierDistiller(**{'crop_size': SIZE, 'teacher': teacher, **parts, **changes})


def test_localization_on_smaller_crops_of_fewer_positives(teacher: FrozenTeacher, images: Tensor) -> None:
    """Smaller crops leave recognition as it is; all positives of an object drawn leave the loss as it is."""
    samples = make_samples((3, 0, 2), (4, 0, 3))
    levels = (('pixels',), (4,))
    published = full(teacher, kd_loc=CropL1Loss(*levels))(images, SOURCE, samples)
    small = full(teacher, kd_loc=CropL1Loss(*levels, crop_size=8))(images, SOURCE, samples)
    alone = ClassifierDistiller(8, kd_loc=CropL1Loss(*levels))(images, SOURCE, samples)
    assert small['loss_kd_cls'] == published['loss_kd_cls']
    assert small['loss_kd_loc'] == alone['loss_kd_loc'] != published['loss_kd_loc']
    drawn = full(teacher, kd_loc=CropL1Loss(*levels, max_per_object=7))(images, SOURCE, samples)
    torch.testing.assert_close(drawn['loss_kd_loc'], published['loss_kd_loc'])
    drawn['loss_kd_loc'].backward()
    assert samples.bboxes.grad.abs().sum(1).gt(0).all()


def test_the_pixel_level_is_measured_in_gray_levels(teacher: FrozenTeacher, images: Tensor) -> None:
    """A weight divided by the mean std gives the loss and gradient of the undivided one at a std of 1."""
    teacher.mean = teacher.std = None  # features of the images as they are
    samples = make_samples((3, 0, 2), (4, 0, 3))
    found = []
    for std, weight in (((1.0, 1.0, 1.0), 0.15), ((58.395, 57.12, 57.375), 0.15 / 57.63)):
        distiller = full(teacher, kd_loc=CropL1Loss(loss_weight=(weight, 0.15)))
        loss = distiller(images, Normalization(SOURCE.mean, torch.tensor(std)), samples)['loss_kd_loc']
        found.append((loss, *torch.autograd.grad(loss, samples.bboxes)))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('branches', [nullcontext, branches_of_a_gpu])
def test_equals_one_object_at_a_time(
    teacher: FrozenTeacher, images: Tensor, branches: Callable[[], AbstractContextManager[None]]
) -> None:
    samples = make_samples((3, 0, 2), (4, 0, 3))
    with branches():
        losses = full(teacher)(images, SOURCE, samples)
    expected = slow_losses(full(teacher), images, SOURCE, samples)
    assert set(losses) == set(expected)
    for name, inputs in (('loss_kd_cls', samples.cls_logits), ('loss_kd_loc', samples.bboxes)):
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-4, atol=1e-6)
        ours, theirs = (
            torch.autograd.grad(x[name], inputs, retain_graph=True)[0] for x in (losses, expected)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(('branches', 'seen'), [(nullcontext, 5), (branches_of_a_gpu, 64)])
def test_the_teacher_sees_each_object_once(
    teacher: FrozenTeacher, images: Tensor, branches: Callable[[], AbstractContextManager[None]], seen: int
) -> None:
    crops_seen = []
    distiller = full(teacher)
    handle = teacher.network.fc.register_forward_hook(lambda _, __, output: crops_seen.append(len(output)))
    with branches():
        distiller(images, SOURCE, make_samples((3, 0, 2), (40, 0, 30)))
    handle.remove()
    assert crops_seen == [seen]


def test_features_end_at_the_deepest_level(teacher: FrozenTeacher) -> None:
    teacher.build_feature_extractor(('stem',))
    assert set(teacher.features(torch.zeros(1, 3, SIZE, SIZE), SOURCE)) == {'stem'}
    assert not any(name.startswith('layer') for name, _ in teacher.feature_extractor.named_modules())
    with pytest.raises(ValueError, match='layer4'):
        teacher.build_feature_extractor(('layer9',))


@pytest.mark.parametrize(
    ('counts', 'positives'),
    [((0, 0, 0), (0, 0, 0)), ((0, 2, 0), (0, 3, 0)), ((2, 1, 0), (0, 0, 0))],
    ids=['no object', 'one image with objects', 'no positive'],
)
def test_nothing_there_is_finite_and_connected(
    teacher: FrozenTeacher, images: Tensor, counts: tuple[int, ...], positives: tuple[int, ...]
) -> None:
    samples = make_samples(counts, positives)
    losses = full(teacher)(images, SOURCE, samples)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert samples.cls_logits.grad is not None
    assert samples.bboxes.grad is not None
    if not sum(positives):
        assert all(loss == 0 for loss in losses.values())


def test_what_is_switched_off_is_absent(teacher: FrozenTeacher, images: Tensor) -> None:
    samples = make_samples((3, 0, 2), (4, 0, 3))
    assert set(full(teacher, kd_loc=None)(images, SOURCE, samples)) == {'loss_kd_cls'}
    pixels = CropL1Loss(('pixels',), (4,))
    without_teacher = ClassifierDistiller(crop_size=SIZE, kd_loc=pixels)
    assert set(without_teacher(images, SOURCE, samples)) == {'loss_kd_loc'}


def test_parts_that_need_a_teacher_say_so() -> None:
    with pytest.raises(ValueError, match='kd_cls needs a teacher'):
        ClassifierDistiller(kd_cls=SoftmaxKDLoss())
    with pytest.raises(ValueError, match='stem'):
        ClassifierDistiller(kd_loc=CropL1Loss())
    with pytest.raises(ValueError, match='distiller=None'):
        ClassifierDistiller()


def test_autocast_reaches_the_teacher_alone(teacher: FrozenTeacher, images: Tensor) -> None:
    samples = make_samples((3, 0, 2), (4, 0, 3))
    plain = full(teacher)(images, SOURCE, samples)
    dtypes = []
    handle = teacher.network.conv1.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = full(teacher)(images, SOURCE, samples)
    handle.remove()
    assert set(dtypes) == {torch.bfloat16}
    for name, loss in cast.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, plain[name], rtol=0.01, atol=0)


def test_the_teacher_belongs_to_the_loss(teacher: FrozenTeacher, images: Tensor) -> None:
    student = nn.Module()
    student.distiller = full(teacher)
    before = copy.deepcopy(teacher.network.state_dict())
    student.train()
    assert not student.state_dict()
    assert not list(student.parameters())
    assert not any(isinstance(module, FrozenTeacher) for module in student.modules())
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert copy.deepcopy(student).distiller.teacher is teacher
    sum(student.distiller(images, SOURCE, make_samples((3, 0, 2), (4, 0, 3))).values()).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.network.state_dict().items())
    student.double()
    assert teacher.network.conv1.weight.dtype == torch.float64
    assert next(teacher.feature_extractor.parameters()).dtype == torch.float64


def test_weights_0_give_losses_0(teacher: FrozenTeacher, images: Tensor) -> None:
    distiller = full(teacher, kd_cls=SoftmaxKDLoss(loss_weight=0), kd_loc=CropL1Loss(loss_weight=0))
    losses = distiller(images, SOURCE, make_samples((3, 0, 2), (4, 0, 3)))
    assert [float(loss) for loss in losses.values()] == [0, 0]


def test_sigmoid_form_takes_k_logits(teacher: FrozenTeacher, images: Tensor) -> None:
    samples = make_samples((3, 0, 2), (4, 0, 3), logits=K)
    loss = full(teacher, kd_cls=SigmoidKDLoss(), kd_loc=None)(images, SOURCE, samples)['loss_kd_cls']
    assert float(loss) > 0


def test_crops_of_another_size_than_the_teacher_knows_are_refused(teacher: FrozenTeacher) -> None:
    teacher.crop_size = 112
    with pytest.raises(ValueError, match='crop_size=112'):
        full(teacher)


def test_an_iou_aware_loss_gets_the_iou_of_prediction_and_object(
    teacher: FrozenTeacher, images: Tensor
) -> None:
    samples = make_samples((3, 0, 2), (4, 0, 3))
    kd_cls = SoftmaxKDLoss(iou_aware=True)
    crops = crop_boxes(images, samples.gt_bboxes, samples.gt_image, SIZE)
    iou = bbox_overlaps(samples.gt_bboxes, samples.bboxes)[samples.gt_index, torch.arange(7)]
    assert 0 < iou.min() < iou.max() < 1
    expected = kd_cls(
        samples.cls_logits,
        teacher.logits(crops, SOURCE)[samples.gt_index],
        torch.tensor(4 + 1 + 3),
        samples.gt_labels[samples.gt_index],
        iou.detach(),
    )
    losses = full(teacher, kd_cls=kd_cls, kd_loc=None)(images, SOURCE, samples)
    torch.testing.assert_close(losses, {'loss_kd_cls': expected})
    (gradient,) = torch.autograd.grad(losses['loss_kd_cls'], samples.bboxes, allow_unused=True)
    assert gradient is None  # the boxes are left to their own losses


@pytest.mark.parametrize('loss_class', [DKDLoss, DISTLoss, StandardizedKDLoss])
def test_losses_for_strong_teachers_get_each_positives_object(
    teacher: FrozenTeacher, images: Tensor, loss_class: type
) -> None:
    samples = make_samples((3, 0, 2), (4, 0, 3))
    crops = crop_boxes(images, samples.gt_bboxes, samples.gt_image, SIZE)
    expected = loss_class()(
        samples.cls_logits,
        teacher.logits(crops, SOURCE)[samples.gt_index],
        torch.tensor(4 + 1 + 3),
        samples.gt_labels[samples.gt_index],
    )
    losses = full(teacher, kd_cls=loss_class(), kd_loc=None)(images, SOURCE, samples)
    torch.testing.assert_close(losses, {'loss_kd_cls': expected})


@pytest.mark.parametrize('focal_weight', [None, 0.0, 1.0])
def test_a_sigmoid_student_is_warned_of_a_teacher_of_softmax_alone(
    teacher: FrozenTeacher, focal_weight: float | None
) -> None:
    """None: the file does not say."""
    teacher.focal_weight = focal_weight
    for kd_cls in (SigmoidKDLoss(), SoftmaxKDLoss()):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            ClassifierDistiller(SIZE, teacher, kd_cls)
        expected = focal_weight == 0 and isinstance(kd_cls, SigmoidKDLoss)
        assert ['model.focal_weight=1' in str(one.message) for one in caught] == [True] * expected

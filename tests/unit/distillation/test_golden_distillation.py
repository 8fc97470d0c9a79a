"""Parity of the distillation losses with the published implementation (tests/golden)."""

import re

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from mmdet.distillation import ClassifierDistiller, CropL1Loss, FrozenTeacher, SigmoidKDLoss, SoftmaxKDLoss
from mmdet.structures import Normalization, PositiveSamples, clip_boxes, crop_boxes
from tests.golden import seeded
from tests.helpers.golden_model import ROOT, golden_ssd300, gradient_norms

ONE = torch.tensor(1.0)
SSD_INPUT = Normalization(torch.tensor([123.675, 116.28, 103.53]), torch.ones(3))


@pytest.fixture(scope='module')
def losses_file() -> dict[str, np.ndarray]:
    with np.load(ROOT / 'tests' / 'golden' / 'distill_losses.npz') as archive:
        return dict(archive)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory: pytest.TempPathFactory) -> FrozenTeacher:
    """The seeded ResNet50 of the golden files, read from a file in the published layout."""
    shapes = {
        name: value.shape for name, value in torchvision.models.resnet50(num_classes=80).state_dict().items()
    }
    state = {f'module.{name}': torch.from_numpy(value) for name, value in seeded.seeded_state(shapes).items()}
    file = tmp_path_factory.mktemp('teacher') / 'model_best.pth.tar'
    torch.save(
        {'epoch': 90, 'arch': 'resnet50', 'best_acc1': 80.3, 'optimizer': {}, 'state_dict': state}, file
    )
    with pytest.warns(UserWarning, match='names no classes'):
        return FrozenTeacher('resnet50', str(file), num_classes=80)


@pytest.mark.parametrize('temperature', [1, 2, 3])
@pytest.mark.parametrize('form', ['softmax_kl', 'sigmoid_kl-bce'])
def test_kd_loss(losses_file: dict[str, np.ndarray], form: str, temperature: int) -> None:
    student = torch.from_numpy(losses_file['student_logits'])
    loss_class = SoftmaxKDLoss
    if form != 'softmax_kl':
        student, loss_class = student[:, :20], SigmoidKDLoss
    student = student.clone().requires_grad_()
    teacher_logits = torch.from_numpy(losses_file['teacher_logits'])
    labels = torch.zeros(len(student), dtype=torch.int64)
    loss = loss_class(temperature=temperature, loss_weight=1)(
        student, teacher_logits, torch.tensor(12), labels
    )
    np.testing.assert_allclose(loss.item(), losses_file[f'{form}_T{temperature}'], rtol=1e-4)
    (gradient,) = torch.autograd.grad(loss, student)
    np.testing.assert_allclose(gradient, losses_file[f'{form}_grad_T{temperature}'], rtol=1e-3, atol=1e-6)


LOCALIZATION = ['pixels_4', 'pixels_8', 'stem_4', 'pixels4_stem8', 'pixels4_stem8_layer1_16']


def localization_case(
    losses_file: dict[str, np.ndarray],
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    images = torch.from_numpy(seeded.make_images(2, 300, 300, seed=21))
    predicted = [torch.from_numpy(losses_file[f'loc_pred_{i}']).requires_grad_() for i in range(2)]
    target = [torch.from_numpy(losses_file[f'loc_gt_{i}']) for i in range(2)]
    image_index = torch.cat([torch.full((len(boxes),), i) for i, boxes in enumerate(predicted)])
    return images, predicted, target, image_index


@pytest.mark.parametrize('name', LOCALIZATION)
def test_localization(losses_file: dict[str, np.ndarray], teacher: FrozenTeacher, name: str) -> None:
    levels = re.findall(r'(pixels|stem|layer1)_?(\d+)', name)
    loss = CropL1Loss([level for level, _ in levels], [int(size) for _, size in levels], loss_weight=1)
    images, predicted, target, image_index = localization_case(losses_file)
    samples = PositiveSamples(
        cls_logits=torch.zeros(7, 81),
        bboxes=clip_boxes(torch.cat(predicted), 300, 300),
        gt_index=torch.arange(7),
        gt_bboxes=torch.cat(target),
        gt_labels=torch.zeros(7, dtype=torch.int64),
        gt_ann_ids=torch.arange(7),
        gt_image=image_index,
    )
    losses = ClassifierDistiller(teacher=teacher, kd_loc=loss)(images, SSD_INPUT, samples)
    assert set(losses) == {'loss_kd_loc'}
    np.testing.assert_allclose(losses['loss_kd_loc'].item(), losses_file[f'loc_{name}'], rtol=1e-4)
    for i, gradient in enumerate(torch.autograd.grad(losses['loss_kd_loc'], predicted)):
        expected = losses_file[f'loc_{name}_grad_{i}']
        np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())


def test_crops(losses_file: dict[str, np.ndarray]) -> None:
    images, predicted, _, _ = localization_case(losses_file)
    bboxes = clip_boxes(predicted[0].detach(), 300, 300)
    crops = crop_boxes(images, bboxes, torch.zeros(len(bboxes), dtype=torch.int64), 112)
    expected = losses_file['crops_px']
    np.testing.assert_allclose(crops[:, :, ::28, ::28], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(crops.mean((1, 2, 3)), losses_file['crops_mean'], rtol=1e-4)


@pytest.mark.parametrize('parts', ['head', pytest.param('all', marks=pytest.mark.long)])
def test_distilled_ssd300(teacher: FrozenTeacher, parts: str) -> None:
    model, images, gt, expected = golden_ssd300()
    outputs = model(images, mode='tensor')
    samples = model.head.positives(outputs, model.head.match(outputs.anchors, gt), gt)
    assert len(samples.bboxes) == 49
    crops = crop_boxes(images, samples.gt_bboxes, samples.gt_image, 112)
    logits = teacher.logits(crops, model.normalization)
    np.testing.assert_allclose(logits, expected['teacher_logits'], rtol=1e-3, atol=2e-3)

    distiller = ClassifierDistiller(
        crop_size=112,
        teacher=teacher,
        kd_cls=SoftmaxKDLoss(temperature=2, loss_weight=0.4),
        kd_loc=CropL1Loss(('pixels', 'stem'), (4, 8), loss_weight=0.15),
    )
    losses = distiller(images, model.normalization, samples)
    published = {'loss_kd_cls': 'loss_kt_cls', 'loss_kd_loc': 'loss_kt_loc'}
    assert set(losses) == set(published)
    names = expected['param_names']
    chosen = np.array([parts == 'all' or not name.startswith('backbone.') for name in names])
    for name, loss in losses.items():
        np.testing.assert_allclose(loss.item(), expected[published[name]], rtol=1e-4)
        norms = gradient_norms(model, loss, names[chosen])
        reference = expected[f'grad_norm_{published[name]}'][chosen]
        np.testing.assert_allclose(norms, reference, rtol=1e-3, atol=1e-5 * reference.max())

"""Training a teacher on the detector's batches, and handing it over."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper

from mmdet.distillation import CropClassifier, FrozenTeacher, SaveTeacherHook
from mmdet.evaluation import CropAccuracy
from mmdet.models import DetDataPreprocessor
from mmdet.structures import GroundTruth, crop_boxes

CLASSES = ('dark', 'bright')
MEAN, STD = (123.0, 116.0, 103.0), (2.0, 3.0, 4.0)


def batch(counts: tuple[int, ...], seed: int = 0) -> dict:
    """Noise images of 64 x 64 with bright and dark squares as objects."""
    generator = torch.Generator().manual_seed(seed)
    n = len(counts)
    inputs = torch.randint(90, 160, (n, 3, 64, 64), generator=generator, dtype=torch.uint8)
    size = torch.full((n, 2), 64)
    gt = GroundTruth(
        torch.arange(n), size, size, torch.zeros(n, 16, 4), torch.zeros(n, 16, dtype=torch.int64),
        torch.zeros(n, 16, dtype=torch.bool),
    )  # fmt: skip
    for i, count in enumerate(counts):
        for row in range(count):
            x, y = (int(v) for v in torch.randint(0, 40, (2,), generator=generator))
            label = int(torch.randint(0, 2, (1,), generator=generator))
            inputs[i, :, y : y + 20, x : x + 20] = 250 if label else 5
            gt.bboxes[i, row] = torch.tensor([x, y, x + 20, y + 20])
            gt.labels[i, row], gt.valid[i, row] = label, True
    return {'inputs': inputs, 'gt': gt, 'bad_images': []}


@pytest.fixture
def model() -> CropClassifier:
    torch.manual_seed(0)
    return CropClassifier(DetDataPreprocessor(MEAN, STD), 'resnet18', 2, CLASSES, crop_size=32)


def test_it_learns_and_the_teacher_answers_as_it_did(model: CropClassifier, tmp_path: Path) -> None:
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.02))
    model.train()
    for step in range(40):  # enough for the running statistics of the batch norms
        model.train_step(batch((1, 1, 1), seed=step), optimizer)
    model.eval()
    data = batch((1, 0, 1), seed=99)
    samples = model.val_step(data)
    assert [len(sample.gt_instances) for sample in samples] == [1, 0, 1]
    metric = CropAccuracy()
    metric.process(data, [sample.to_dict() for sample in samples])
    assert metric.evaluate(3) == {
        'crops/top1': 1.0,
        'crops/top5': 1.0,
        'crops/class_mean': 1.0,
        'crops/objects': 2.0,
    }

    hook = SaveTeacherHook(str(tmp_path / 'teachers' / 'model_best.pth.tar'))
    runner = SimpleNamespace(rank=0, epoch=3, model=model, logger=SimpleNamespace(info=lambda _: None))
    hook.after_val_epoch(runner, {'crops/top1': 1.0, 'crops/top5': 1.0})
    written = hook.file.stat().st_mtime_ns
    hook.after_val_epoch(runner, {'crops/top1': 0.5, 'crops/top5': 1.0})  # no better: stays
    assert hook.file.stat().st_mtime_ns == written

    content = torch.load(hook.file, weights_only=True)
    assert content['best_acc1'] == 1.0
    assert (content['arch'], content['epoch'], content['crop_size']) == ('resnet18', 3, 32)
    teacher = FrozenTeacher('resnet18', str(hook.file), num_classes=2, classes=CLASSES)
    processed = model.data_preprocessor(data)
    gt = processed['gt']
    crops = crop_boxes(processed['inputs'], gt.gt_bboxes, gt.gt_image, 32)
    answers = teacher.logits(crops, model.data_preprocessor.normalization)
    torch.testing.assert_close(answers, model(**processed, mode='tensor'), rtol=1e-4, atol=1e-4)


def test_loss_is_cross_entropy_over_all_crops(model: CropClassifier) -> None:
    processed = model.eval().data_preprocessor(batch((2, 0, 1)))
    logits = model(**processed, mode='tensor')
    loss = model(**processed, mode='loss')['loss_cls']
    torch.testing.assert_close(loss, F.cross_entropy(logits, processed['gt'].gt_labels))


def test_a_batch_without_objects_trains_nothing_but_touches_every_parameter(model: CropClassifier) -> None:
    loss = model.train()(**model.data_preprocessor(batch((0, 0)), True), mode='loss')['loss_cls']
    loss.backward()
    assert loss == 0
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_single_object_trains(model: CropClassifier) -> None:
    """Its feature map ends as one pixel, which batch norm alone refuses."""
    loss = model.train()(**model.data_preprocessor(batch((0, 1)), True), mode='loss')['loss_cls']
    loss.backward()
    assert torch.isfinite(loss)


def test_weights_to_start_from_fit_all_but_the_last_layer(tmp_path: Path) -> None:
    import torchvision

    source = torchvision.models.resnet18(num_classes=7)
    torch.save(source.state_dict(), tmp_path / 'imagenet.pth')
    model = CropClassifier(
        DetDataPreprocessor(MEAN, STD), 'resnet18', 2, weights=str(tmp_path / 'imagenet.pth')
    )
    model.init_weights()
    assert torch.equal(model.network.conv1.weight, source.conv1.weight)
    assert model.network.fc.weight.shape == (2, 512)


def test_accuracy_without_objects() -> None:
    assert CropAccuracy().evaluate(0)['crops/top1'] == 0

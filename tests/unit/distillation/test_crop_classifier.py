"""Training a teacher on the detector's batches, and handing it over."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmdet.distillation import CropClassifier, FrozenTeacher
from mmdet.distillation.crop_classifier import SinglePixelConv
from mmdet.distributed.launch import leave_process_group
from mmdet.engine.amp import AmpOptimWrapper
from mmdet.engine.hooks import SaveTeacherHook
from mmdet.evaluation import CropAccuracy
from mmdet.models import DetDataPreprocessor
from mmdet.structures import GroundTruth, Normalization, crop_boxes
from tests.helpers.forked import CONTEXT, start_server

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
        torch.zeros(n, 16, dtype=torch.bool), torch.zeros(n, 16, dtype=torch.int64),
    )  # fmt: skip
    for i, count in enumerate(counts):
        for row in range(count):
            x, y = (int(v) for v in torch.randint(0, 40, (2,), generator=generator))
            label = int(torch.randint(0, 2, (1,), generator=generator))
            inputs[i, :, y : y + 20, x : x + 20] = 250 if label else 5
            gt.bboxes[i, row] = torch.tensor([x, y, x + 20, y + 20])
            gt.labels[i, row], gt.valid[i, row] = label, True
    return {'inputs': inputs, 'gt': gt, 'bad_images': []}


def build(arch: str = 'resnet18', **arguments: Any) -> CropClassifier:
    torch.manual_seed(0)
    settings = {'classes': CLASSES, 'crop_size': 32, **arguments}
    return CropClassifier(DetDataPreprocessor(MEAN, STD), arch, 2, **settings)


@pytest.fixture
def model() -> CropClassifier:
    return build()


@pytest.mark.parametrize(('side', 'stride', 'groups'), [(1, 1, 1), (1, 2, 2), (4, 2, 1)])
def test_the_center_of_the_kernel_is_enough_for_a_single_pixel(side: int, stride: int, groups: int) -> None:
    conv = nn.Conv2d(4, 6, 3, stride, padding=1, groups=groups)
    x = torch.rand(3, 4, side, side, requires_grad=True)
    results = []
    for layer in (conv, SinglePixelConv(conv)):
        y = layer(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, layer.weight, layer.bias))))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)
    assert (
        sum(isinstance(one, SinglePixelConv) for one in build().modules()) == 16
    )  # of ResNet18, not its first


class Answering(nn.Module):
    """A network whose answer is known."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, crops: Tensor) -> Tensor:
        assert len(crops) == len(self.logits)
        return self.logits


def test_it_learns_and_the_teacher_answers_as_it_did(tmp_path: Path) -> None:
    model = build(crop_size=16)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.02))
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.3  # running statistics that follow in few steps
    for step in range(20):
        model.train_step(batch((4, 4, 4), seed=step), optimizer)
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
        'crops/left_out': 0.0,
    }

    hook, file = SaveTeacherHook(), tmp_path / 'work' / 'model_best.pth.tar'
    runner = SimpleNamespace(
        rank=0, epoch=3, model=model, work_dir=str(file.parent), logger=SimpleNamespace(info=lambda _: None)
    )
    hook.after_val_epoch(runner, {'crops/top1': 1.0, 'crops/top5': 1.0})
    written = file.stat().st_mtime_ns
    hook.after_val_epoch(runner, {'crops/top1': 0.5, 'crops/top5': 1.0})  # no better: stays
    assert file.stat().st_mtime_ns == written

    content = torch.load(file, weights_only=True)
    assert content['best_acc1'] == 1.0
    assert (content['arch'], content['epoch'], content['crop_size']) == ('resnet18', 3, 16)
    assert content['focal_weight'] == 0
    teacher = FrozenTeacher('resnet18', str(file), num_classes=2, classes=CLASSES)
    processed = model.data_preprocessor(data)
    gt = processed['gt']
    crops = crop_boxes(processed['inputs'], gt.gt_bboxes, gt.gt_image, 16)
    answers = teacher.logits(crops, model.data_preprocessor.normalization)
    torch.testing.assert_close(answers, model(**processed, mode='tensor'), rtol=1e-4, atol=1e-4)


def test_loss_is_cross_entropy_over_all_crops(model: CropClassifier) -> None:
    processed = model.eval().data_preprocessor(batch((2, 0, 1)))
    logits = model(**processed, mode='tensor')
    loss = model(**processed, mode='loss')['loss_cls']
    torch.testing.assert_close(loss, F.cross_entropy(logits, processed['gt'].gt_labels))


def test_a_single_object_trains(model: CropClassifier) -> None:
    """Its feature map ends as one pixel, which batch norm alone refuses."""
    loss = model.train()(**model.data_preprocessor(batch((0, 1)), True), mode='loss')['loss_cls']
    loss.backward()
    assert torch.isfinite(loss)


def test_a_sigmoid_focal_loss_beside_the_softmax() -> None:
    """By hand: p = sigmoid(logit) or 1 - sigmoid(logit), each class costs alpha (1 - p)^2 (-ln p)."""
    model = build(focal_weight=2.0)
    model.network = Answering([[2.0, -1.0], [0.0, 0.5]])
    data = model.data_preprocessor(batch((2, 0)))
    data['gt'].labels[0, :2] = torch.tensor([0, 1])
    losses = model(**data, mode='loss')
    assert losses.keys() == {'loss_cls', 'loss_focal'}
    by_hand = (
        0.25 * 0.119203**2 * 0.126928  # crop 0, class 0 is its own: p = 0.880797
        + 0.75 * 0.268941**2 * 0.313262  # class 1 is not: p = 0.731059
        + 0.75 * 0.5**2 * 0.693147  # crop 1, class 0 is not
        + 0.25 * 0.377541**2 * 0.474077  # class 1 is: p = 0.622459
    )
    torch.testing.assert_close(losses['loss_focal'], torch.tensor(2 * by_hand / 2), rtol=1e-5, atol=0)
    cross_entropy = (0.048587 + 0.474077) / 2  # ln(1 + e^-3), ln(1 + e^-0.5)
    torch.testing.assert_close(losses['loss_cls'], torch.tensor(cross_entropy), rtol=1e-5, atol=0)


def test_label_smoothing_is_of_the_softmax_alone() -> None:
    model = build(label_smoothing=0.2, focal_weight=1.0)
    model.network = Answering([[2.0, -1.0]])
    data = model.data_preprocessor(batch((1,)))
    data['gt'].labels[0, 0] = 0
    losses = model.eval()(**data, mode='loss')
    smooth = 0.9 * 0.048587 + 0.1 * 3.048587  # a fifth of the target goes to both classes
    torch.testing.assert_close(losses['loss_cls'], torch.tensor(smooth), rtol=1e-5, atol=0)
    by_hand = 0.25 * 0.119203**2 * 0.126928 + 0.75 * 0.268941**2 * 0.313262
    torch.testing.assert_close(losses['loss_focal'], torch.tensor(by_hand), rtol=1e-5, atol=0)


@pytest.mark.parametrize('settings', [{}, {'weights': 'imagenet'}, {'mean': MEAN, 'std': STD}])
def test_a_teacher_of_bgr_images_is_refused(settings: dict) -> None:
    preprocessor = DetDataPreprocessor(MEAN, STD, bgr_to_rgb=False)
    with pytest.raises(ValueError, match=r'set model\.data_preprocessor\.bgr_to_rgb=True'):
        CropClassifier(preprocessor, 'resnet18', 2, **settings)


def with_sides(*sides: tuple[float, float]) -> dict:
    """One image with objects of these widths and heights at (10, 10)."""
    data = batch((len(sides),))
    for row, (width, height) in enumerate(sides):
        data['gt'].bboxes[0, row] = torch.tensor([10, 10, 10 + width, 10 + height])
    return data


def test_small_objects_are_neither_trained_on_nor_counted_but_said() -> None:
    model = build(min_side=8.0)
    data = model.data_preprocessor(with_sides((20, 7.9), (8, 8), (3, 30), (20, 20)))
    crops, kept = model.crop(**data)
    assert kept.valid[0, :5].tolist() == [False, True, False, True, False]
    large = crop_boxes(data['inputs'], data['gt'].bboxes[0, [1, 3]], torch.tensor([0, 0]), 32)
    assert torch.equal(crops, large)
    assert model.train()(**data, mode='loss')['left_out'] == 0.5
    samples = model.eval()(**data, mode='predict')
    assert [len(sample.gt_instances) for sample in samples] == [2]
    metric = CropAccuracy()
    metric.process(data, [sample.to_dict() for sample in samples])
    metrics = metric.evaluate(1)
    assert (metrics['crops/objects'], metrics['crops/left_out']) == (2, 2)
    assert 'left_out' not in build()(**data, mode='loss')


@pytest.mark.parametrize('sides', [(), ((3, 3), (20, 2))])
def test_nothing_left_trains_nothing_but_touches_every_parameter(sides: tuple) -> None:
    model = build(min_side=8.0, focal_weight=1.0)
    losses = model.train()(**model.data_preprocessor(with_sides(*sides), True), mode='loss')
    assert losses.pop('left_out') == (1 if sides else 0)
    assert losses.keys() == {'loss_cls', 'loss_focal'}
    sum(losses.values()).backward()
    assert not any(losses.values())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_training_boxes_jitter_as_torch_is_seeded_and_stay_inside_the_image() -> None:
    model = build(box_jitter=0.25)
    data = model.data_preprocessor(batch((9, 0, 9)))
    gt = data['gt']
    gt.bboxes[0, 0] = torch.tensor([0.0, 0, 64, 64])  # the whole image
    gt.img_shape[2] = torch.tensor([50, 60])  # the rest is padding
    gt = data['gt'] = gt._replace(bboxes=gt.bboxes.minimum(gt.img_shape.flip(1).repeat(1, 2)[:, None]))
    torch.manual_seed(5)
    crops, moved = model.train().crop(**data)
    sides = (gt.bboxes[..., 2:] - gt.bboxes[..., :2]).repeat(1, 1, 2)
    moves = ((moved.bboxes - gt.bboxes) / sides)[gt.valid]  # (G, 4)
    assert (moves.abs() <= 0.25 + 1e-6).all()
    assert moves.std() > 0.1 and moves.abs().max() > 0.2  # uniform over [-0.25, 0.25]: 0.144
    assert (moved.bboxes >= 0).all() and not moved.bboxes[~gt.valid].any()
    assert (moved.bboxes[2] <= torch.tensor([60.0, 50, 60, 50])).all()
    assert (moved.bboxes[2] == torch.tensor([60.0, 50, 60, 50])).any()  # some had to be clipped
    assert (moved.gt_bboxes[:, 2:] > moved.gt_bboxes[:, :2]).all()
    assert torch.equal(crops, crop_boxes(data['inputs'], moved.gt_bboxes, gt.gt_image, 32))
    assert not torch.equal(model.crop(**data)[1].bboxes, moved.bboxes)
    torch.manual_seed(5)
    assert torch.equal(model.crop(**data)[0], crops)
    assert torch.equal(model.eval().crop(**data)[1].bboxes, gt.bboxes)


@pytest.mark.parametrize('share', [-0.1, 0.5])
def test_a_jitter_that_could_turn_boxes_over_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match='box_jitter'):
        build(box_jitter=share)


def test_mixed_precision_reaches_the_network_and_not_the_crops() -> None:
    """A bfloat16 sampling grid is half a pixel off."""
    model = build(box_jitter=0.1, min_side=4.0, mean=(1.0, 2.0, 3.0), std=(50.0, 60.0, 70.0)).train()
    seen: list[Tensor] = []
    model.network.conv1.register_forward_hook(lambda module, given, out: seen.extend((given[0], out)))
    data = batch((3, 0, 2))
    state = torch.get_rng_state()
    losses = model.train_step(data, AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.0)))
    torch.set_rng_state(state)
    crops, _ = model.crop(**model.data_preprocessor(data, True))
    assert seen[1].dtype == torch.bfloat16
    assert torch.equal(seen[0], crops)
    assert all(value.dtype == torch.float32 for value in losses.values())


def test_the_network_has_a_normalization_of_its_own_and_the_teacher_undoes_it(tmp_path: Path) -> None:
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    model = build(mean=mean, std=std).eval()
    data = batch((2, 1))
    processed = model.data_preprocessor(data)
    crops, gt = model.crop(**processed)
    pixels = data['inputs'].flip(1).float()
    by_hand = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(crops, crop_boxes(by_hand, gt.gt_bboxes, gt.gt_image, 32))

    file = tmp_path / 'teacher.pth.tar'
    content = model.teacher_file(1, {'top1': 0.5})
    assert (content['mean'], content['std']) == (list(mean), list(std))
    torch.save(content, file)
    teacher = FrozenTeacher('resnet18', str(file), num_classes=2, classes=CLASSES, mean=mean, std=std)
    source = model.data_preprocessor.normalization
    raw_crops = crop_boxes(processed['inputs'], gt.gt_bboxes, gt.gt_image, 32)
    torch.testing.assert_close(teacher.normalize(raw_crops, source), crops)
    other = Normalization(torch.zeros(3), torch.ones(3))  # a student that shows it raw pixels
    shown = crop_boxes(pixels, gt.gt_bboxes, gt.gt_image, 32)
    torch.testing.assert_close(teacher.logits(shown, other), model(**processed), rtol=1e-3, atol=1e-3)
    assert torch.equal(build().crop(**processed)[0], raw_crops)  # None: the preprocessor's, bit for bit
    with pytest.raises(ValueError, match='both or neither'):
        build(mean=mean)


def step_in_process(rank: int, folder: Path) -> None:
    """One of two processes; in the second step the other one has no objects, in the third only small ones."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', f'file://{folder / "meet"}', rank=rank, world_size=2)
    model = build('resnet18', focal_weight=1.0, min_side=8.0)
    network = MMDistributedDataParallel(model, broadcast_buffers=False).train()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    own = [batch((2,)), batch((1,), seed=1), batch((2,), seed=2)]
    others = [batch((1,)), batch((0, 0)), with_sides((5, 30))]
    for data in (own, others)[rank]:
        network.train_step(data, optimizer)
    torch.save([parameter.data for parameter in model.parameters()], folder / f'{rank}.pth')
    leave_process_group()


def test_a_process_without_objects_keeps_step_with_the_other(tmp_path: Path) -> None:
    start_server()
    processes = [CONTEXT.Process(target=step_in_process, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], next(build().parameters()))


def test_accuracy_without_objects() -> None:
    assert CropAccuracy().evaluate(0) == {}  # nothing to score, and no best teacher

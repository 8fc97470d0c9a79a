"""What every family of students promises, plain and distilled."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet.distillation import FrozenTeacher
from mmdet.models.detectors import BaseDetector
from mmdet.models.detectors.base import HeadStep
from mmdet.models.losses import BoxLoss, ClassificationLoss
from mmdet.registry import MODELS
from mmdet.structures import PositiveSamples, clip_boxes
from tests.helpers.slow_distiller import slow_losses
from tests.helpers.students import FAMILIES, build, make_batch, model_config
from tests.helpers.tiny_run import CLASSES, save_teacher

K = len(CLASSES)


@pytest.fixture(scope='module', params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope='module')
def written(name: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A distilled config, as it is written."""
    return model_config(name, save_teacher(tmp_path_factory.mktemp(name) / 'teacher.pth'))


@pytest.fixture(scope='module')
def config(written: dict[str, Any]) -> dict[str, Any]:
    """The same with its teacher, built once for all tests: a copy of a teacher is itself."""
    return {
        **written,
        'distiller': {**written['distiller'], 'teacher': MODELS.build(written['distiller']['teacher'])},
    }


@pytest.fixture(scope='module')
def plain(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != 'distiller'}


def inputs_of(model: BaseDetector, name: str, counts: tuple[int, ...] = (3, 0, 2)) -> dict[str, Any]:
    return model.data_preprocessor(make_batch(FAMILIES[name].scale, counts), training=True)


def step_of(model: BaseDetector, data: dict[str, Any]) -> tuple[HeadStep, PositiveSamples]:
    torch.manual_seed(5)  # samples of a two-stage detector are random
    step = model.train().head_step(model.extract_feat(data['inputs']), data['gt'])
    return step, model.head.positives(step.outputs, step.matched, data['gt'])


def test_losses_are_weighed(config: dict[str, Any], plain: dict[str, Any], name: str) -> None:
    """By their own weights, and boxes beside recognition by the distiller's."""
    model = MODELS.build(plain).train()
    data = inputs_of(model, name)

    def losses() -> dict[str, Tensor]:
        torch.manual_seed(5)
        return model(**data, mode='loss')

    before = losses()
    for part in model.modules():
        if isinstance(part, (ClassificationLoss, BoxLoss)):
            part.loss_weight = 2.0 if isinstance(part, BoxLoss) else 3.0
    weights = {key: 2 if 'bbox' in key else 3 if 'cls' in key else 1 for key in before}
    weighed = losses()
    torch.testing.assert_close(weighed, {key: weights[key] * before[key] for key in before})
    for kd_cls, factor in ((config['distiller']['kd_cls'], 1.5), (None, 1)):
        model.distiller = MODELS.build({**config['distiller'], 'kd_cls': kd_cls, 'bbox_weight': 1.5})
        distilled = losses()
        for key in before:
            assert distilled[key] == (factor if 'bbox' in key else 1) * weighed[key]


def gradients(model: BaseDetector, data: dict[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(5)
    losses = model.train()(**data, mode='loss')
    torch.stack(list(losses.values())).sum().backward()
    return {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}


def test_the_teacher_belongs_to_the_loss(written: dict[str, Any], plain: dict[str, Any], name: str) -> None:
    student, distilled = build(plain), build(written)
    assert student.state_dict().keys() == distilled.state_dict().keys()
    for key, value in student.state_dict().items():  # it draws no random number of the student's
        assert torch.equal(value, distilled.state_dict()[key])
    teacher = distilled.distiller.teacher
    before = copy.deepcopy(teacher.network.state_dict())
    seen: list[int] = []
    teacher.network.fc.register_forward_hook(lambda _, __, logits: seen.append(len(logits)))
    gradients(distilled, inputs_of(distilled, name))
    assert seen == [5]  # each object once
    assert not any(isinstance(layer, FrozenTeacher) for layer in distilled.modules())
    assert not any(layer.training for layer in teacher.modules())
    assert all(value.grad is None for value in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.network.state_dict().items())
    assert next(distilled.double().distiller.teacher.parameters()).dtype == torch.float64


def test_weights_0_equal_plain_training_bit_for_bit(
    config: dict[str, Any], plain: dict[str, Any], name: str
) -> None:
    silent = copy.deepcopy(config)
    silent['distiller']['bbox_weight'] = 1
    for part in ('kd_cls', 'kd_loc'):
        silent['distiller'][part]['loss_weight'] = 0.0
    student, distilled = build(plain), build(silent)
    data = inputs_of(student, name)
    one, other = gradients(student, data), gradients(distilled, data)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_hand_over_is_what_the_head_predicted_one_anchor_at_a_time(
    config: dict[str, Any], name: str
) -> None:
    model = build(config)
    data = inputs_of(model, name)
    step, samples = step_of(model, data)
    gt, outputs = data['gt'], step.outputs
    first = [0, 3, 3]  # row of each image's first object
    places = (step.matched >= 0).nonzero().tolist()
    assert len(samples.bboxes) == len(places) > 0
    for sample, (i, anchor) in enumerate(places):
        row = int(step.matched[i, anchor])
        deltas = outputs.box_deltas[i, anchor]
        deltas = deltas if deltas.dim() == 1 else deltas[gt.labels[i, row]]
        boxes = outputs.anchors.boxes
        box = model.head.bbox_coder.decode(boxes[anchor] if boxes.dim() == 2 else boxes[i, anchor], deltas)
        torch.testing.assert_close(samples.bboxes[sample], clip_boxes(box, *gt.img_shape[i]))
        assert torch.equal(samples.cls_logits[sample], outputs.cls_logits[i, anchor])
        assert int(samples.gt_index[sample]) == first[i] + row
    assert torch.equal(samples.gt_bboxes, gt.gt_bboxes)
    assert samples.gt_image.tolist() == [0, 0, 0, 2, 2]
    assert samples.gt_ann_ids.tolist() == [0, 1, 2, 20, 21]
    assert samples.cls_logits.shape[1] == model.head.cls_loss.channels(K)
    assert samples.bboxes.requires_grad
    assert samples.cls_logits.requires_grad


def test_both_losses_equal_one_object_at_a_time(config: dict[str, Any], name: str) -> None:
    model = build(config)
    data = inputs_of(model, name)
    samples = step_of(model, data)[1]
    some = slice(None, None, 1 + len(samples.bboxes) // 30)  # of hundreds
    of_positives = {key: getattr(samples, key)[some] for key in ('cls_logits', 'bboxes', 'gt_index')}
    samples = dataclasses.replace(samples, **of_positives)
    losses = model.distiller(data['inputs'], model.normalization, samples)
    expected = slow_losses(model.distiller, data['inputs'], model.normalization, samples)
    assert losses.keys() == expected.keys()
    for key, inputs in (('loss_kd_cls', samples.cls_logits), ('loss_kd_loc', samples.bboxes)):
        torch.testing.assert_close(losses[key], expected[key], rtol=1e-4, atol=1e-6)
        one, other = (torch.autograd.grad(x[key], inputs, retain_graph=True)[0] for x in (losses, expected))
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_perfect_deltas_decode_to_the_matched_objects(plain: dict[str, Any], name: str) -> None:
    model = build(plain)
    data = inputs_of(model, name)
    (_, outputs, matched), _ = step_of(model, data)
    gt = data['gt']
    bboxes = gt.bboxes.gather(1, matched.clamp(min=0)[..., None].expand(-1, -1, 4))
    perfect = model.head.bbox_coder.encode(outputs.anchors.boxes, bboxes)
    if outputs.box_deltas.dim() == 4:
        perfect = perfect[:, :, None].expand_as(outputs.box_deltas)
    samples = model.head.positives(outputs._replace(box_deltas=perfect), matched, gt)
    torch.testing.assert_close(samples.bboxes, samples.gt_bboxes[samples.gt_index], atol=2e-3, rtol=0)


@pytest.mark.parametrize('counts', [(0, 0, 0), (0, 2, 0)])
def test_images_without_objects_are_a_normal_case(
    config: dict[str, Any], name: str, counts: tuple[int, ...]
) -> None:
    model = build(config)
    data = inputs_of(model, name, counts)
    losses = model(**data, mode='loss')
    assert all(loss.isfinite() for loss in losses.values())
    if not any(counts):
        boxes_and_distillation = [key for key in losses if 'bbox' in key or 'kd' in key]
        assert [losses[key].item() for key in boxes_and_distillation] == [0] * len(boxes_and_distillation)
    torch.stack(list(losses.values())).sum().backward()
    for key, value in model.named_parameters():  # DDP waits for each of them
        assert value.grad is not None, key
        assert value.grad.isfinite().all(), key


@torch.no_grad()
def test_detections_lie_inside_the_original_images(plain: dict[str, Any], name: str) -> None:
    model = build(plain)
    model.head.postprocess.score_thr = 0.0
    data = inputs_of(model, name, (1, 0))
    found = model.eval()(**data, mode='predict')
    assert len(found) == 2
    for sample, (height, width) in zip(found, data['gt'].ori_shape.tolist(), strict=True):
        detections = sample.pred_instances
        assert 0 < len(detections.bboxes) <= model.head.postprocess.max_per_img
        assert (detections.bboxes >= 0).all()
        assert (detections.bboxes <= torch.tensor([width, height] * 2)).all()
        assert detections.scores.tolist() == sorted(detections.scores.tolist(), reverse=True)
        assert set(detections.labels.tolist()) <= set(range(K))
    assert model(data['inputs'], mode='tensor').cls_logits.dim() == 3


def test_it_loads_its_own_checkpoint(plain: dict[str, Any]) -> None:
    one, other = build(plain), build(plain, seed=1)
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True))

"""Parity of RetinaNet-R50-FPN with MMDetection 2.10 (tests/golden)."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mmdet.models.detectors.base import HeadStep
from tests.golden import seeded
from tests.helpers.golden_model import Golden, assert_same_detections, golden_fpn, gradient_norms


@pytest.fixture(params=['retinanet_r50_fpn'], scope='module')
def case(request: pytest.FixtureRequest) -> Golden:
    return golden_fpn(request.param)


@pytest.fixture(scope='module')
def feats(case: Golden) -> list[Tensor]:
    return case.model.extract_feat(case.images)


@pytest.fixture(scope='module')
def step(case: Golden, feats: list[Tensor]) -> HeadStep:
    return case.model.head_step(feats, case.gt)


def test_inputs_and_trained_parameters_are_those_of_the_golden_file(case: Golden) -> None:
    for i in range(len(case.images)):
        np.testing.assert_array_equal(case.gt.bboxes[i, case.gt.valid[i]], case.expected[f'gt_bboxes_{i}'])
        np.testing.assert_array_equal(case.gt.labels[i, case.gt.valid[i]], case.expected[f'gt_labels_{i}'])
    trained = {name for name, value in case.model.train().named_parameters() if value.requires_grad}
    assert trained == set(case.expected['param_names'])  # the stem and the first stage stay
    assert not any(x.training for x in case.model.modules() if isinstance(x, torch.nn.BatchNorm2d))
    case.model.eval()


def test_features(case: Golden, feats: list[Tensor]) -> None:
    feats = [x.detach().double() for x in feats]
    assert [tuple(x.shape) for x in feats] == [tuple(shape) for shape in case.expected['feat_shape']]
    np.testing.assert_allclose([x.mean() for x in feats], case.expected['feat_mean'], rtol=1e-4)
    np.testing.assert_allclose([x.std() for x in feats], case.expected['feat_std'], rtol=1e-4)


def test_losses(case: Golden, step: HeadStep) -> None:
    assert set(step.losses) == {name for name in case.expected if name.startswith('loss_')}
    for name, loss in step.losses.items():
        np.testing.assert_allclose(loss.item(), case.expected[name], rtol=1e-4)


def test_gradients(case: Golden, step: HeadStep) -> None:
    for name, loss in step.losses.items():
        norms = gradient_norms(case.model, loss, case.expected['param_names'])
        np.testing.assert_allclose(norms, case.expected[f'grad_norm_{name}'], rtol=1e-3, atol=1e-7)


@torch.no_grad()
def test_detections(case: Golden) -> None:
    assert_same_detections(case.model.detect(case.images, case.gt), case.expected)


def test_the_inputs_are_normalized_by_the_mean_and_std_of_the_golden_file(case: Golden) -> None:
    for ours, theirs in zip(case.model.normalization, (seeded.PIXEL_MEAN, seeded.PIXEL_STD), strict=True):
        np.testing.assert_allclose(ours, theirs.ravel())

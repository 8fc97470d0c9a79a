"""Parity of the plain student with MMDetection 2.10 (tests/golden)."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mmdet.structures import HeadOutputs
from tests.helpers.golden_model import (
    Golden,
    assert_same_detections,
    golden_ssd300,
    golden_ssd512,
    gradient_norms,
)


@pytest.fixture(
    params=[golden_ssd300, pytest.param(golden_ssd512, marks=pytest.mark.long)],
    ids=['ssd300', 'ssd512'],
    scope='module',
)
def case(request: pytest.FixtureRequest) -> Golden:
    return request.param()


@pytest.fixture(scope='module')
def feats(case: Golden) -> list[Tensor]:
    return case.model.extract_feat(case.images)


@pytest.fixture(scope='module')
def outputs(case: Golden, feats: list[Tensor]) -> HeadOutputs:
    return case.model.head(feats)


def test_inputs_are_those_of_the_golden_file(case: Golden) -> None:
    sums = case.images.double().flatten(1).sum(1)
    np.testing.assert_allclose(sums, case.expected['image_checksum'], rtol=1e-7)
    for i in range(len(case.images)):
        rows = case.gt.bboxes[i, case.gt.valid[i]]
        np.testing.assert_array_equal(rows, case.expected[f'gt_bboxes_{i}'])


def test_features(case: Golden, feats: list[Tensor]) -> None:
    feats = [x.detach() for x in feats]
    assert [tuple(x.shape) for x in feats] == [tuple(shape) for shape in case.expected['feat_shape']]
    np.testing.assert_allclose([x.double().mean() for x in feats], case.expected['feat_mean'], rtol=1e-4)
    np.testing.assert_allclose([x.double().std() for x in feats], case.expected['feat_std'], rtol=1e-4)


def test_logits_and_deltas(case: Golden, outputs: HeadOutputs) -> None:
    sample = case.expected['anchor_sample']
    for ours, name in ((outputs.cls_logits, 'cls_logits'), (outputs.box_deltas, 'box_deltas')):
        np.testing.assert_allclose(ours.detach()[:, sample], case.expected[name], rtol=1e-4, atol=1e-4)


def test_matches_are_exact(case: Golden, outputs: HeadOutputs) -> None:
    matched = case.model.head.match(outputs.anchors, case.gt)
    for i, row in enumerate(matched):
        np.testing.assert_array_equal(row, case.expected[f'matched_{i}'])


def losses_of(case: Golden, outputs: HeadOutputs) -> dict:
    return case.model.head.loss(outputs, case.model.head.match(outputs.anchors, case.gt), case.gt)


def test_losses(case: Golden, outputs: HeadOutputs) -> None:
    losses = losses_of(case, outputs)
    assert set(losses) == {'loss_cls', 'loss_bbox'}
    for name, loss in losses.items():
        np.testing.assert_allclose(loss.item(), case.expected[name], rtol=1e-4)


@pytest.mark.parametrize('parts', ['neck and head', pytest.param('all', marks=pytest.mark.long)])
def test_gradients(case: Golden, outputs: HeadOutputs, parts: str) -> None:
    """Norms to 2e-3: those of the golden file differ by up to 1.09e-3 from a computation in float64.

    Ours in float32 differ from that by 0.85e-3 on a processor with AVX-512, in one bias of SSD512.
    """
    names = case.expected['param_names']
    chosen = np.array([parts == 'all' or not name.startswith('backbone.features') for name in names])
    for name, loss in losses_of(case, outputs).items():
        norms = gradient_norms(case.model, loss, names[chosen])
        np.testing.assert_allclose(norms, case.expected[f'grad_norm_{name}'][chosen], rtol=2e-3, atol=1e-7)


@torch.no_grad()
def test_detections(case: Golden, outputs: HeadOutputs) -> None:
    assert_same_detections(case.model.head.predict(outputs, case.gt.img_shape), case.expected)

"""Encoding and decoding are inverse."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.models.task_modules import DeltaXYWHBBoxCoder, DistanceBBoxCoder
from tests.unit.structures.test_boxes import random_boxes


def test_decode_inverts_encode() -> None:
    coder = DeltaXYWHBBoxCoder(target_means=(0.1, -0.1, 0.0, 0.2), target_stds=(0.1, 0.1, 0.2, 0.2))
    anchors = random_boxes(0, 40) + torch.tensor([0.0, 0.0, 5.0, 5.0])
    bboxes = random_boxes(1, 40) + torch.tensor([0.0, 0.0, 5.0, 5.0])
    deltas = coder.encode(anchors, bboxes)
    torch.testing.assert_close(coder.decode(anchors, deltas), bboxes, rtol=1e-4, atol=1e-3)


def test_no_delta_is_the_anchor_and_huge_deltas_stay_finite() -> None:
    coder = DeltaXYWHBBoxCoder()
    anchor = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert coder.decode(anchor, torch.zeros(1, 4)).tolist() == anchor.tolist()
    size = coder.decode(anchor, torch.tensor([[0.0, 0.0, 1e4, -1e4]]))
    width, height = (size[0, 2:] - size[0, :2]).tolist()
    assert math.isclose(width, 20 * 1000 / 16, rel_tol=1e-4)
    assert math.isclose(height, 40 * 16 / 1000, rel_tol=1e-4)


def test_distances_are_measured_from_the_center_of_the_anchor() -> None:
    anchor, bbox = torch.tensor([8.0, 16.0, 16.0, 24.0]), torch.tensor([2.0, 15.0, 40.0, 90.0])
    deltas = DistanceBBoxCoder().encode(anchor, bbox)
    torch.testing.assert_close(deltas.exp(), torch.tensor([10.0, 5.0, 28.0, 70.0]))
    torch.testing.assert_close(DistanceBBoxCoder().decode(anchor, deltas), bbox)


sides = st.tuples(*[st.floats(1, 500, width=32)] * 2)
corner = st.tuples(*[st.floats(-100, 400, width=32)] * 2)


@settings(deadline=None, max_examples=100)
@given(corner, sides, corner, sides, st.sampled_from([(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)]))
def test_any_box_comes_back_unless_its_side_is_clipped(start, size, of_anchor, anchor_size, stds) -> None:
    anchor, bbox = (
        torch.tensor([x, y, x + w, y + h], dtype=torch.float64)
        for (x, y), (w, h) in ((of_anchor, anchor_size), (start, size))
    )
    coder = DeltaXYWHBBoxCoder(target_stds=stds)
    decoded = coder.decode(anchor, coder.encode(anchor, bbox))
    ratio = torch.tensor(size, dtype=torch.float64) / torch.tensor(anchor_size, dtype=torch.float64)
    expected = torch.tensor(anchor_size, dtype=torch.float64) * ratio.clamp(16 / 1000, 1000 / 16)
    torch.testing.assert_close(decoded[2:] - decoded[:2], expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(decoded[2:] + decoded[:2], bbox[2:] + bbox[:2], rtol=1e-6, atol=1e-4)

"""Box geometry against slow references."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from mmdet.structures import bbox_overlaps, clip_boxes


def random_boxes(seed: int, count: int, side: float = 100.0) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)) * side
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 6), st.integers(1, 9))
def test_iou_is_torchvisions(seed: int, count: int, anchors: int) -> None:
    boxes, others = random_boxes(seed, count), random_boxes(seed + 1, anchors)
    torch.testing.assert_close(bbox_overlaps(boxes, others), box_iou(boxes, others), rtol=1e-5, atol=1e-6)


def test_batched_iou_is_the_single_one() -> None:
    boxes, anchors = random_boxes(0, 12).view(3, 4, 4), random_boxes(1, 50)
    batched = bbox_overlaps(boxes, anchors)
    assert batched.shape == (3, 4, 50)
    for i in range(3):
        torch.testing.assert_close(batched[i], bbox_overlaps(boxes[i], anchors), rtol=0, atol=0)


def test_empty_boxes_have_iou_0() -> None:
    empty = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert bbox_overlaps(empty, empty).item() == 0


def test_clip_passes_the_whole_gradient_on_the_border_and_none_outside() -> None:
    boxes = torch.tensor([[0.0, 0.0, 50.0, 40.0], [-1.0, -2.0, 51.0, 42.0]], requires_grad=True)
    clipped = clip_boxes(boxes, torch.tensor([40, 40]), torch.tensor([50, 50]))
    assert clipped.tolist() == [[0, 0, 50, 40]] * 2
    clipped.sum().backward()
    assert boxes.grad is not None
    assert boxes.grad.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]


def test_a_box_outside_becomes_an_empty_box_and_no_mirrored_one() -> None:
    clipped = clip_boxes(torch.tensor([[60.0, -30.0, 80.0, -10.0]]), 40, 50)
    assert clipped.tolist() == [[50, 0, 50, 0]]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(1, 60), st.floats(1, 60))
def test_clipped_boxes_lie_inside_and_clipping_again_changes_nothing(
    seed: int, count: int, height: float, width: float
) -> None:
    boxes = random_boxes(seed, count) - 30
    clipped = clip_boxes(boxes, height, width)
    limits = torch.tensor([width, height, width, height])
    assert (clipped >= 0).all() and (clipped <= limits).all()
    assert (clipped[:, 2:] >= clipped[:, :2]).all()
    assert torch.equal(clip_boxes(clipped, height, width), clipped)
    inside = (boxes >= 0).all(1) & (boxes <= limits).all(1)
    assert torch.equal(clipped[inside], boxes[inside])

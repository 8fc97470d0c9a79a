"""Cropping: geometry, gradient, and that both ways of sampling agree."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.structures import crop_boxes, crops
from tests.unit.structures.test_boxes import random_boxes


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 60, 100, generator=torch.Generator().manual_seed(0))


def test_a_box_of_whole_pixels_at_its_own_size_is_a_slice(images: torch.Tensor) -> None:
    crop = crop_boxes(images, torch.tensor([[10.0, 20.0, 42.0, 52.0]]), torch.tensor([2]), 32)
    torch.testing.assert_close(crop[0], images[2, :, 20:52, 10:42], rtol=1e-4, atol=1e-4)


def test_an_enlarged_crop_is_an_interpolated_slice(images: torch.Tensor) -> None:
    crop = crop_boxes(images, torch.tensor([[10.0, 20.0, 26.0, 36.0]]), torch.tensor([0]), 64)
    expected = F.interpolate(images[:1, :, 20:36, 10:26], size=64, mode='bilinear', align_corners=False)
    inner = slice(4, -4)  # interpolate repeats the border, the sampler sees the pixels beyond it
    torch.testing.assert_close(crop[:, :, inner, inner], expected[:, :, inner, inner], rtol=1e-3, atol=1e-3)


def test_outside_the_image_is_zero(images: torch.Tensor) -> None:
    crop = crop_boxes(images + 10, torch.tensor([[-40.0, 0.0, 0.0, 40.0]]), torch.tensor([1]), 16)
    assert crop[:, :, :, :14].abs().max() == 0


@pytest.mark.parametrize('image_index', [[0, 0, 1, 2, 2], [2, 0, 1, 0, 2], [1, 1, 1, 1, 1]])
def test_both_ways_of_sampling_agree(images: torch.Tensor, image_index: list[int]) -> None:
    index = torch.tensor(image_index)
    results = []
    for sample in (crops._sample_expanded, crops._sample_as_volume):
        bboxes = random_boxes(3, 5, 60).requires_grad_()
        cut = sample(images, bboxes, index, 14)
        cut.square().sum().backward()
        results.append((cut.detach(), bboxes.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


def test_each_box_alone_gives_the_same_crop(images: torch.Tensor) -> None:
    bboxes, index = random_boxes(4, 6, 60), torch.tensor([2, 0, 1, 0, 2, 1])
    together = crop_boxes(images, bboxes, index, 20)
    for i in range(6):
        torch.testing.assert_close(
            together[i : i + 1], crop_boxes(images, bboxes[i : i + 1], index[i : i + 1], 20)
        )


def test_gradient_reaches_the_box() -> None:
    images = torch.arange(50.0).expand(1, 3, 40, 50).contiguous()  # brightness = x
    bboxes = torch.tensor([[10.3, 10.3, 30.3, 30.3]], requires_grad=True)
    crop_boxes(images, bboxes, torch.tensor([0]), 10).mean().backward()
    # The mean brightness is the box's center: it follows x1 and x2 half each, and not y.
    torch.testing.assert_close(bboxes.grad, torch.tensor([[0.5, 0.0, 0.5, 0.0]]), rtol=1e-4, atol=1e-4)


def test_no_box_stays_in_the_graph(images: torch.Tensor) -> None:
    bboxes = torch.zeros(0, 4, requires_grad=True)
    crop = crop_boxes(images, bboxes, torch.zeros(0, dtype=torch.int64), 12)
    assert crop.shape == (0, 3, 12, 12)
    crop.sum().backward()
    assert bboxes.grad is not None


def test_autocast_changes_nothing(images: torch.Tensor) -> None:
    bboxes, index = random_boxes(5, 6, 60), torch.tensor([0, 0, 1, 1, 2, 2])
    plain = crop_boxes(images, bboxes, index, 20)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = crop_boxes(images, bboxes, index, 20)
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)


def crop_by_pixel(image: torch.Tensor, box: torch.Tensor, size: int) -> torch.Tensor:
    """Eq 8 in words: the crop's pixel centers in the image, its four neighbors, 0 outside."""
    x1, y1, x2, y2 = box.unbind()
    _, height, width = image.shape
    rows = []
    for i in range(size):
        for j in range(size):
            x = x1 + (x2 - x1) * (j + 0.5) / size - 0.5
            y = y1 + (y2 - y1) * (i + 0.5) / size - 0.5
            left, top = int(x.floor()), int(y.floor())
            value = image[:, 0, 0] * 0 * x
            for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= row < height and 0 <= column < width:
                    value = value + image[:, row, column] * (1 - (x - column).abs()) * (1 - (y - row).abs())
            rows.append(value)
    return torch.stack(rows, 1).view(-1, size, size)


place = st.floats(-8, 24, width=32)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(place, place, place, place, st.integers(0, 1)), min_size=1, max_size=3))
def test_any_box_is_cut_as_pixel_by_pixel(boxes: list[tuple[float, float, float, float, int]]) -> None:
    """Also mirrored boxes, and boxes outside; the gradient too, away from the kinks at pixel centers."""
    images = torch.randn(2, 1, 9, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bboxes = (torch.tensor([box[:4] for box in boxes], dtype=torch.float64) + 0.0123).requires_grad_()
    index = torch.tensor([box[4] for box in boxes])
    weights = torch.randn(
        len(boxes), 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    cut = crop_boxes(images, bboxes, index, 3)
    expected = torch.stack([crop_by_pixel(images[i], box, 3) for i, box in zip(index, bboxes, strict=True)])
    torch.testing.assert_close(cut, expected, rtol=1e-6, atol=1e-6)
    ours, theirs = (torch.autograd.grad((crop * weights).sum(), bboxes)[0] for crop in (cut, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

"""Thousands of draws of our augmentation against as many of the baseline: the same distributions.

The two draw from different random streams. The check can fail: parameters that are moved a little are told
from the true ones.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import augmentation
from mmdet.datasets.transforms import (
    Expand,
    MinIoURandomCrop,
    PhotoMetricDistortion,
    RandomFlip,
    Resize,
    color,
)
from mmdet.datasets.transforms.window import Window

HEIGHT, WIDTH = 360, 480
BOXES = np.array([[40, 60, 300, 320], [200, 20, 470, 200]], np.float32)
OURS, BASELINE = 8_000, 5_000  # draws
LIMIT = 1.95  # of Kolmogorov's statistic: a true hypothesis exceeds it once in a thousand times
ROUNDING = {'largest': 5.0, 'center': 0.1, 'contrast seen': 1.0, 'saturation seen': 1.0} | {
    f'mean of {name}': 1.0 for name in 'bgr'
}
Columns = dict[str, NDArray[np.float64]]


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Kolmogorov and Smirnov's distance of two samples, in units in which `LIMIT` is the bound."""
    at = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(sample), at, side='right') / len(sample) for sample in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max() / np.sqrt(1 / len(one) + 1 / len(other)))


def differing(ours: Columns, baseline: Columns) -> set[str]:
    """The quantities whose distributions differ."""
    assert ours.keys() == baseline.keys()
    return {name for name in ours if distance(ours[name], baseline[name]) > LIMIT}


def columns(rows: list[dict[str, float]]) -> Columns:
    """The rows by quantity. Where both ways round differently, noise of that size hides it: a fifth of all
    draws change nothing, and the distance of two such peaks would be a fifth however near they are.
    """
    rng = np.random.default_rng(len(rows))
    return {
        name: np.array([row[name] for row in rows]) + rng.normal(0, ROUNDING.get(name, 0), len(rows))
        for name in rows[0]
    }


def geometry_row(
    left: float, top: float, right: float, bottom: float, flip: bool, boxes: Any
) -> dict[str, float]:
    """What is seen of the photo, in its sides; boxes in pixels of the output."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return {
        'left': left / WIDTH,
        'top': top / HEIGHT,
        'across': (right - left) / WIDTH,
        'down': (bottom - top) / HEIGHT,
        'aspect': (bottom - top) / (right - left),
        'flip': float(flip),
        'kept': len(boxes),
        'largest': areas.max(initial=0),
        'center': boxes[0, [0, 2]].mean() if len(boxes) else -1,
    }


def our_geometry(expand: Any = None, crop: Any = None, flip: Any = None) -> Columns:
    """Through our transforms; each can be replaced."""
    expand = expand or Expand(augmentation.MEAN_RGB, ratio_range=(1, 4))
    transforms = (
        expand,
        crop or MinIoURandomCrop(),
        Resize((300, 300)),
        flip or RandomFlip(0.5),
    )
    rows = []
    for draw in range(OURS):
        results: Any = {
            'rng': np.random.Generator(np.random.Philox(key=[1, draw])),
            'window': Window.whole(HEIGHT, WIDTH),
            'bboxes': BOXES,
            'labels': np.array([0, 1]),
        }
        for transform in transforms:
            results = transform(results)
        window = results['window']
        edges = (window.left, window.top, window.right, window.bottom)
        rows.append(geometry_row(*edges, window.flip, results['bboxes']))
    return columns(rows)


@pytest.fixture(scope='module')
def baseline_geometry() -> Columns:
    rows = []
    with pytest.MonkeyPatch.context() as patch:  # numbers alone, no pixels
        patch.setattr(augmentation, 'distort', lambda img, *_: (img, {}))
        patch.setattr(augmentation.Geometry, 'of_photo', lambda _, photo, __: photo)
        photo = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        photo_once = np.broadcast_to(photo[:1, :1], photo.shape)
        for draw in range(BASELINE):
            rng = np.random.Generator(np.random.Philox(key=[2, draw]))
            sample = augmentation.reference_sample(photo_once, BOXES, [0, 1], rng, contrast_first=True)
            _, _, top, left = sample.geometry.canvas or (0, 0, 0, 0)
            x1, y1, x2, y2 = sample.geometry.patch
            rows.append(
                geometry_row(x1 - left, y1 - top, x2 - left, y2 - top, sample.geometry.flip, sample.bboxes)
            )
    return columns(rows)


def test_windows_and_boxes_are_drawn_alike(baseline_geometry: Columns) -> None:
    assert differing(our_geometry(), baseline_geometry) == set()


@pytest.mark.parametrize(
    ('changed', 'seen'),
    [
        ({'expand': Expand(ratio_range=(1, 3.4))}, 'across'),
        ({'flip': RandomFlip(0.45)}, 'flip'),
        pytest.param({'expand': Expand(ratio_range=(1, 4), prob=0.4)}, 'across', marks=pytest.mark.long),
        pytest.param({'crop': MinIoURandomCrop(min_crop_size=0.4)}, 'across', marks=pytest.mark.long),
    ],
)
def test_other_parameters_are_noticed(baseline_geometry: Columns, changed: dict[str, Any], seen: str) -> None:
    assert seen in differing(our_geometry(**changed), baseline_geometry)


def color_row(pixels: NDArray[Any], drawn: dict[str, float]) -> dict[str, float]:
    """What was drawn, and what it made of the pixels (h, w, 3)."""
    pixels = pixels.astype(np.float64).clip(0, 255)
    channels = {f'mean of {name}': pixels[..., k].mean() for k, name in enumerate('bgr')}
    spread = pixels.max(2) - pixels.min(2)
    return {**drawn, **channels, 'contrast seen': pixels.std(), 'saturation seen': spread.mean()}


PATCH = np.random.default_rng(0).integers(20, 230, (6, 6, 3)).astype(np.uint8)


def our_colors(**changed: Any) -> Columns:
    transform, rows = PhotoMetricDistortion(**changed), []
    for draw in range(OURS):
        results: Any = {'rng': np.random.Generator(np.random.Philox(key=[3, draw]))}
        color = transform(results)['color']
        drawn = {name: getattr(color, name) for name in ('brightness', 'contrast', 'saturation', 'hue')} | {
            'order': color.ORDERS.index(color.channels)
        }
        rows.append(color_row(color.distort(PATCH, color)[..., color.channels], drawn))
    return columns(rows)


@pytest.fixture(scope='module')
def baseline_colors() -> Columns:
    neutral = {'brightness': 0.0, 'contrast': 1.0, 'saturation': 1.0, 'hue': 0.0}
    rows = []
    for draw in range(BASELINE):
        rng = np.random.Generator(np.random.Philox(key=[4, draw]))
        numbers, coin = rng.random((5, 2)), bool(rng.random() < 0.5)
        img, drawn = augmentation.distort(PATCH.astype(np.float32), numbers, coin)
        values = {name: drawn[name] if drawn[name] is not None else rest for name, rest in neutral.items()}
        rows.append(color_row(img, {**values, 'order': color.ORDERS.index(drawn['channels'])}))
    return columns(rows)


def test_colors_are_drawn_alike(baseline_colors: Columns) -> None:
    assert differing(our_colors(), baseline_colors) == set()


@pytest.mark.parametrize(
    ('changed', 'seen'),
    [
        ({'brightness_delta': 25}, 'brightness'),
        ({'contrast_range': (0.5, 1.35)}, 'contrast'),
        ({'saturation_range': (0.65, 1.5)}, 'saturation'),
        ({'hue_delta': 14}, 'hue'),
    ],
)
def test_other_colors_are_noticed(baseline_colors: Columns, changed: dict[str, Any], seen: str) -> None:
    assert seen in differing(our_colors(**changed), baseline_colors)


@pytest.mark.parametrize('sample', [np.zeros, np.ones])
def test_the_distance_of_equal_and_of_disjoint_samples(sample: Callable[..., Any]) -> None:
    assert distance(sample(50), sample(70)) == 0
    assert distance(sample(50), sample(70) + 1) > 5

"""Thousands of draws of our augmentation against as many of the baseline: the same distributions.

The two draw from different random streams. The check can fail: parameters that are moved are told from the
true ones.
"""

import functools
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
PATCH = np.random.default_rng(0).integers(20, 230, (6, 6, 3)).astype(np.uint8)
OURS, BASELINE = 4_000, 2_500  # draws
LIMIT = 1.95  # of Kolmogorov's statistic: a true hypothesis exceeds it once in a thousand times
ROUNDING = {'largest': 5.0, 'center': 0.1, 'contrast seen': 1.0, 'saturation seen': 1.0} | {
    f'mean of {name}': 1.0 for name in 'bgr'
}
NEUTRAL = {'brightness': 0.0, 'contrast': 1.0, 'saturation': 1.0, 'hue': 0.0}
Columns = dict[str, NDArray[np.float64]]
long = pytest.mark.long


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Kolmogorov and Smirnov's distance of two samples, in units in which `LIMIT` is the bound."""
    at = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(sample), at, side='right') / len(sample) for sample in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max() / np.sqrt(1 / len(one) + 1 / len(other)))


def columns(rows: list[dict[str, float]]) -> Columns:
    """The rows by quantity. Where both ways round differently, noise of that size hides it: a fifth of all
    draws change nothing, and the distance of two such peaks would be a fifth however near they are.
    """
    rng = np.random.default_rng(len(rows))
    return {
        name: np.array([row[name] for row in rows]) + rng.normal(0, ROUNDING.get(name, 0), len(rows))
        for name in rows[0]
    }


def generator(stream: int, draw: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[stream, draw]))


def geometry_row(edges: Any, flip: bool, boxes: Any) -> dict[str, float]:
    """What is seen of the photo, in its sides; boxes in pixels of the output."""
    (left, top, right, bottom), boxes = edges, np.asarray(boxes).reshape(-1, 4)
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


def our_geometry(draw: int, expand: Any = None, crop: Any = None, flip: Any = None) -> dict[str, float]:
    """Through our transforms; each can be replaced."""
    expand = expand or Expand(augmentation.MEAN_RGB, ratio_range=(1, 4))
    whole = Window.whole(HEIGHT, WIDTH)
    given = {'bboxes': BOXES, 'labels': np.array([0, 1]), 'ann_ids': np.array([0, 1])}
    results: Any = {'rng': generator(1, draw), 'window': whole, **given}
    for transform in (expand, crop or MinIoURandomCrop(), Resize((300, 300)), flip or RandomFlip(0.5)):
        results = transform(results)
    window = results['window']
    return geometry_row(
        (window.left, window.top, window.right, window.bottom), window.flip, results['bboxes']
    )


def baseline_geometry(draw: int) -> dict[str, float]:
    """Without any pixels."""
    photo = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (HEIGHT, WIDTH, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augmentation, 'distort', lambda img, *_: (img, {}))
        patch.setattr(augmentation.Geometry, 'of_photo', lambda _, photo, __: photo)
        sample = augmentation.reference_sample(photo, BOXES, [0, 1], generator(2, draw), contrast_first=True)
    _, _, top, left = sample.geometry.canvas or (0, 0, 0, 0)
    edges = np.array(sample.geometry.patch) - [left, top, left, top]
    return geometry_row(edges, sample.geometry.flip, sample.bboxes)


def color_row(pixels: NDArray[Any], drawn: dict[str, float]) -> dict[str, float]:
    """What was drawn, and what it made of the pixels (h, w, 3)."""
    pixels = pixels.astype(np.float64).clip(0, 255)
    channels = {f'mean of {name}': pixels[..., k].mean() for k, name in enumerate('bgr')}
    spread = pixels.max(2) - pixels.min(2)
    return {**drawn, **channels, 'contrast seen': pixels.std(), 'saturation seen': spread.mean()}


def our_colors(draw: int, **changed: Any) -> dict[str, float]:
    jitter = PhotoMetricDistortion(**changed)({'rng': generator(3, draw)})['color']
    drawn = {name: getattr(jitter, name) for name in NEUTRAL}
    order = color.ORDERS.index(jitter.channels)
    return color_row(color.distort(PATCH, jitter)[..., jitter.channels], {**drawn, 'order': order})


def baseline_colors(draw: int) -> dict[str, float]:
    rng = generator(4, draw)
    numbers, coin = rng.random((5, 2)), bool(rng.random() < 0.5)
    img, drawn = augmentation.distort(PATCH.astype(np.float32), numbers, coin)
    values = {name: rest if drawn[name] is None else drawn[name] for name, rest in NEUTRAL.items()}
    return color_row(img, {**values, 'order': color.ORDERS.index(drawn['channels'])})


WAYS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    'geometry': (our_geometry, baseline_geometry),
    'colors': (our_colors, baseline_colors),
}


@functools.cache
def baseline_columns(kind: str) -> Columns:
    return columns([WAYS[kind][1](draw) for draw in range(BASELINE)])


def differing(kind: str, **changed: Any) -> set[str]:
    """The quantities whose distributions differ, with some of our parameters changed."""
    ours, theirs = columns([WAYS[kind][0](draw, **changed) for draw in range(OURS)]), baseline_columns(kind)
    assert ours.keys() == theirs.keys()
    return {name for name in ours if distance(ours[name], theirs[name]) > LIMIT}


@pytest.mark.parametrize('kind', WAYS)
def test_drawn_alike(kind: str) -> None:
    assert differing(kind) == set()


@pytest.mark.parametrize(
    ('kind', 'changed', 'seen'),
    [
        ('geometry', {'expand': Expand(ratio_range=(1, 3.2))}, 'across'),
        pytest.param('geometry', {'flip': RandomFlip(0.4)}, 'flip', marks=long),
        pytest.param('geometry', {'expand': Expand(ratio_range=(1, 4), prob=0.4)}, 'across', marks=long),
        pytest.param('geometry', {'crop': MinIoURandomCrop(min_crop_size=0.5)}, 'across', marks=long),
        ('colors', {'brightness_delta': 22}, 'brightness'),
        ('colors', {'contrast_range': (0.5, 1.3)}, 'contrast'),
        ('colors', {'saturation_range': (0.7, 1.5)}, 'saturation'),
        ('colors', {'hue_delta': 12}, 'hue'),
    ],
)
def test_other_parameters_are_noticed(kind: str, changed: dict[str, Any], seen: str) -> None:
    assert seen in differing(kind, **changed)


@pytest.mark.parametrize('sample', [np.zeros, np.ones])
def test_the_distance_of_equal_and_of_disjoint_samples(sample: Callable[..., Any]) -> None:
    assert distance(sample(50), sample(70)) == 0
    assert distance(sample(50), sample(70) + 1) > 5

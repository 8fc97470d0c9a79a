"""Draw photo-like backgrounds of the generated data set: surfaces, clutter, and what a camera adds.

Pictures are float32 (H, W, 3), BGR, 0..255; a size is (H, W) in pixels. Every number comes from the
generator that is handed in.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from mmdet.synthetic.objects import Array, color_of
from mmdet.visualization.canvas import Color

Size = tuple[int, int]


def draw_background(size: Size, rng: Generator) -> Array:
    """Draw a scene without objects: a surface, and in most of them some blurred clutter."""
    picture = SURFACES[rng.integers(len(SURFACES))](size, rng)
    return _clutter(picture, rng) if rng.random() < 0.7 else picture


def expose(picture: Array, light: Array, rng: Generator) -> Array:
    """Light a finished scene unevenly, tint it, and add what a lens and a sensor add."""
    height, width = picture.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    strength, vignette = rng.uniform(0, 0.22), rng.uniform(0, 0.22)
    exposure = 1 + strength * (x * light[0] + y * light[1]) - vignette * (x * x + y * y)
    tint = rng.uniform(0.93, 1.07, 3).astype(np.float32) * np.float32(rng.uniform(0.8, 1.12))
    picture = picture * cv2.transform(exposure, tint[:, None])
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (5, 5), rng.uniform(0.4, 0.9))
    noise = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(0.5, 6))
    picture += cv2.merge([noise] * 3)
    return np.clip(picture, 0, 255, out=picture)


def _noise(size: Size, cells: tuple[float, float], rng: Generator) -> Array:
    """Draw smooth noise (H, W) in [0, 1] with `cells` (down, across) random values over the picture."""
    grid = rng.random((max(round(cells[0]), 2), max(round(cells[1]), 2)), np.float32)
    return np.clip(cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)


def _octaves(size: Size, cells: float, across: float, rng: Generator) -> Array:
    """Draw three octaves of noise (H, W) about [0, 1]; `across` over 1 draws it out from top to bottom."""
    scales = [(cells * 3**i, cells * 3**i * across, 0.55 / 1.9**i) for i in range(3)]
    return np.sum([weight * _noise(size, (down, right), rng) for down, right, weight in scales], axis=0)


def _blend(low: Color, high: Color, share: Array) -> Array:
    """Mix two colors, share (H, W) of the second -> (H, W, 3)."""
    start, end = np.array(low, np.float32), np.array(high, np.float32)
    return cv2.transform(share, np.stack([end - start, start], -1))  # several times as fast as broadcasting


def _pair(rng: Generator, saturation: float) -> tuple[Color, Color]:
    """Draw two related colors of any hue, a darker and a lighter one."""
    hue, value = rng.random(), rng.uniform(0.25, 0.75)
    tone = rng.uniform(0, saturation)
    return color_of(hue, tone, value), color_of(hue + rng.uniform(-0.12, 0.12), tone * 0.8, value + 0.3)


def _wall(size: Size, rng: Generator) -> Array:
    """Draw plaster or sky: a gradient with soft clouds of noise."""
    fall = np.linspace(rng.uniform(0, 0.4), rng.uniform(0.6, 1), size[0], dtype=np.float32)[:, None]
    return _blend(*_pair(rng, 0.6), 0.6 * fall + 0.5 * _octaves(size, rng.uniform(2, 5), 1, rng))


def _planks(size: Size, rng: Generator) -> Array:
    """Draw wooden boards: noise that is drawn out along them, each board a little different."""
    height, width = size
    grain = _octaves((width, height), rng.uniform(2, 4), rng.uniform(6, 14), rng).T  # along x
    hue = rng.uniform(0.04, 0.11)
    dark = color_of(hue, rng.uniform(0.3, 0.65), rng.uniform(0.2, 0.45))
    light = color_of(hue + 0.02, rng.uniform(0.25, 0.5), rng.uniform(0.6, 0.9))
    board = rng.uniform(0.12, 0.3) * height
    rows = (np.arange(height) + rng.uniform(0, board)) / board
    shift = rng.uniform(-0.16, 0.16, int(rows[-1]) + 1).astype(np.float32)[rows.astype(int)]
    gap = np.where(rows % 1 < 1.6 / board, 0.55, 1).astype(np.float32)
    return _blend(dark, light, grain + shift[:, None]) * gap[:, None, None]


def _room(size: Size, rng: Generator) -> Array:
    """Draw a wall that stands on a floor."""
    horizon = int(rng.uniform(0.3, 0.6) * size[0])
    floor = _planks if rng.random() < 0.5 else _wall
    wall = _wall((horizon, size[1]), rng)
    wall[-max(size[0] // 60, 1) :] *= 0.7
    return np.concatenate([wall, floor((size[0] - horizon, size[1]), rng)])


def _meadow(size: Size, rng: Generator) -> Array:
    """Draw grass, gravel or sand: noise that is strong in fine detail."""
    cells = rng.uniform(14, 26)
    blades = 0.5 * _octaves(size, 3, 1, rng) + 0.7 * _noise(size, (cells, cells * rng.uniform(3, 6)), rng)
    hue = rng.choice([0.2, 0.26, 0.32, 0.1, 0.07])
    dark = color_of(hue, rng.uniform(0.3, 0.8), rng.uniform(0.15, 0.35))
    return _blend(dark, color_of(hue - 0.03, rng.uniform(0.25, 0.6), rng.uniform(0.6, 0.85)), blades)


def _tiles(size: Size, rng: Generator) -> Array:
    """Draw a tiled floor, seen at a slant."""
    side, joint = rng.uniform(28, 60), rng.uniform(1.2, 3)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    turn, tilt = rng.uniform(0, np.pi / 2), rng.uniform(0, 0.002)
    depth = 1 / (1 + tilt * y)
    u = (x * np.cos(turn) + y * np.sin(turn)) * depth / side
    v = (y * np.cos(turn) - x * np.sin(turn)) * depth / side
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    tone = rng.uniform(0.2, 0.9, (61,)).astype(np.float32)[(column * 7 + row * 13) % 61]
    picture = _blend(*_pair(rng, 0.5), 0.55 * tone + 0.35 * _octaves(size, 6, 1, rng))
    seam = np.minimum(np.minimum(u - column, v - row) * side / joint, 1)
    return picture * (0.6 + 0.4 * seam[..., None])


def _cloth(size: Size, rng: Generator) -> Array:
    """Draw woven cloth with stripes or checks."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    turn, period = rng.uniform(0, np.pi), rng.uniform(14, 50)
    stripe = np.sin((x * np.cos(turn) + y * np.sin(turn)) * (2 * np.pi / period))
    if rng.random() < 0.5:
        stripe = (stripe + np.sin((y * np.cos(turn) - x * np.sin(turn)) * (2 * np.pi / period))) / 2
    share = 0.5 + rng.uniform(0.15, 0.4) * np.clip(3 * stripe, -1, 1)
    folds = 0.8 + 0.35 * _octaves(size, 2, 1, rng)
    return _blend(*_pair(rng, 0.7), share) * (folds + 0.05 * ((x + y) % 3 - 1))[..., None]


def _night(size: Size, rng: Generator) -> Array:
    """Draw something far out of focus: soft discs of light on a dark ground."""
    picture = _wall(size, rng) * rng.uniform(0.35, 0.6)
    glow = np.zeros_like(picture)
    for _ in range(int(rng.integers(8, 22))):
        center = int(rng.uniform(0, size[1])), int(rng.uniform(0, size[0]))
        lamp = color_of(rng.random(), rng.uniform(0.1, 0.6), 0.6)
        cv2.circle(glow, center, int(rng.uniform(0.02, 0.09) * size[1]), lamp, -1)
    return picture + cv2.GaussianBlur(glow, (0, 0), rng.uniform(1.5, 3))


def _clutter(picture: Array, rng: Generator) -> Array:
    """Lay a few out-of-focus things without a class over a picture: rods, blobs and slabs."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2  # blurred anyway: half size will do
    layer = np.zeros((height, width, 4), np.float32)
    for _ in range(int(rng.integers(1, 6))):
        color = (*color_of(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.15, 0.9)), 1.0)
        center = rng.uniform(0, 1, 2) * (width, height)
        reach = rng.uniform(0.05, 0.22) * min(width, height) * np.array([1, rng.uniform(0.2, 1)])
        if rng.random() < 0.5:
            corners = rng.uniform(-1, 1, (int(rng.integers(3, 6)), 2)) * reach + center
            cv2.fillConvexPoly(layer, cv2.convexHull(corners.round().astype(np.int32)), color)
        else:
            box = (center.tolist(), (2 * reach).tolist(), rng.uniform(0, 180))
            cv2.ellipse(layer, box, color, -1)
    layer = cv2.resize(cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.7, 3)), picture.shape[1::-1])
    *colors, cover = cv2.split(layer * np.float32(rng.uniform(0.5, 0.95)))
    return picture * cv2.merge([1 - cover] * 3) + cv2.merge(colors)


SURFACES: tuple[Callable[[Size, Generator], Array], ...] = (
    _wall,
    _planks,
    _room,
    _meadow,
    _tiles,
    _cloth,
    _night,
)

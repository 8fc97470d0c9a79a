"""Draw the ten kinds of objects of the generated data set, each with its shape, colors and shading.

Unit coordinates: an object lies in about [-1, 1] x [-1, 1], x to the right, y down, before it is
stretched, sheared and turned. Colors are BGR, 0..255. Every number comes from the generator that is
handed in, so the same generator state draws the same pixels.
"""

import colorsys
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from mmdet.visualization.canvas import Color

Array = NDArray[Any]  # float32 unless said otherwise; cv2's own types leave that open

SUBPIXEL_BITS = 4  # cv2 takes polygon corners as integers, in units of 1/16 pixel


class Cutout(NamedTuple):
    """A drawn object, cut out along its bounding box.

    h, w: the box of the object, in pixels
    """

    pixels: Array  # (h, w, 3) BGR, 0..255
    alpha: Array  # (h, w) coverage, 0..1


class Brush:
    """A patch on which one object is drawn: an outline that covers, and paint that is seen inside it only.

    Args:
        side: Length in pixels of two units.
        turn: Rotation in radians.
        stretch: Width over height, relative to the shape as it is defined.
        shear: Slant along x.
    """

    def __init__(self, side: float, turn: float, stretch: float, shear: float) -> None:
        canvas = int(1.7 * side * max(stretch, 1 / stretch) ** 0.5) + 8  # room for every rotation
        self.albedo: Array = np.zeros((canvas, canvas, 3), np.uint8)
        self.alpha: Array = np.zeros((canvas, canvas), np.uint8)
        self.side = side
        shape = np.array([[stretch**0.5, shear], [0, stretch**-0.5]])
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        self._matrix = side / 2 * rotation @ shape
        self._center = canvas / 2

    def outline(self, points: ArrayLike, covers: bool = True) -> None:
        """Add the inside of a polygon, points (n, 2), to the object; or cut it out."""
        cv2.fillPoly(self.alpha, [self._corners(points)], 255 * covers, cv2.LINE_AA, SUBPIXEL_BITS)

    def outline_stroke(self, points: ArrayLike, width: float) -> None:
        """Add an open line, points (n, 2), `width` units wide, to the object."""
        thickness = max(round(width * self.side / 2), 1)
        corners = self._corners(points)
        cv2.polylines(self.alpha, [corners], False, 255, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

    def flood(self, color: Color, outline: ArrayLike | None = None) -> None:
        """Paint everything; with an outline, points (n, 2), its inside becomes the object."""
        self.albedo = cv2.merge([np.full_like(self.alpha, round(channel)) for channel in color])
        if outline is not None:
            self.outline(outline)

    def mirror(self, sign: float) -> None:
        """Mirror left and right what is drawn from now on, where the sign is negative."""
        self._matrix[:, 0] *= sign

    def fill(self, points: ArrayLike, color: Color) -> None:
        """Paint the inside of a polygon, points (n, 2)."""
        cv2.fillPoly(self.albedo, [self._corners(points)], color, cv2.LINE_AA, SUBPIXEL_BITS)

    def stroke(self, points: ArrayLike, color: Color, width: float, closed: bool = False) -> None:
        """Paint a line, points (n, 2), `width` units wide but at least one pixel."""
        thickness = max(round(width * self.side / 2), 1)
        corners = self._corners(points)
        cv2.polylines(self.albedo, [corners], closed, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

    def _corners(self, points: ArrayLike) -> NDArray[np.int32]:
        pixels = np.asarray(points, np.float32) @ self._matrix.T + self._center
        return (pixels * 2**SUBPIXEL_BITS).round().astype(np.int32)


class Kind(NamedTuple):
    """How one kind of object is drawn and how it varies."""

    draw: Callable[[Brush, Generator], None]
    turn: float  # largest rotation either way, degrees
    rounding: float  # width of the rounded rim, in units of the largest inner radius; 1 is a sphere or a tube
    gloss: float  # strength of the highlight
    grain: float  # strength of the surface's own noise


def draw_object(name: str, side: float, light: Array, rng: Generator) -> Cutout:
    """Draw an object of the kind `name`, about `side` pixels long, lit from direction `light` (x, y, z)."""
    kind = KINDS[name]
    stretch, shear = np.exp(rng.uniform(-0.15, 0.15)), rng.uniform(-0.1, 0.1)
    brush = Brush(side, np.radians(kind.turn) * rng.uniform(-1, 1), stretch, shear)
    kind.draw(brush, rng)
    x, y, w, h = cv2.boundingRect(brush.alpha)
    window = slice(y - 1, y + h + 1), slice(x - 1, x + w + 1)  # a free border, for the distance to the rim
    alpha = brush.alpha[window]
    pixels = _shade(brush.albedo[window].astype(np.float32), alpha, light, kind, rng)
    return Cutout(pixels[1:-1, 1:-1], alpha[1:-1, 1:-1].astype(np.float32) / 255)


def _shade(albedo: Array, alpha: Array, light: Array, kind: Kind, rng: Generator) -> Array:
    """Light a flat drawing, albedo (h, w, 3), alpha (h, w) uint8, as a body whose rim is rounded."""
    inner = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3)
    reach = max(kind.rounding * float(inner.max()), 1.5)
    slope = np.minimum(inner / reach, 1)
    height = np.sqrt(slope * (2 - slope)) * (reach * 0.9)  # a quarter of a circle
    height = cv2.GaussianBlur(height, (0, 0), max(0.1 * reach, 0.7))
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    length = np.sqrt(dx * dx + dy * dy + 1)
    facing = (light[2] - dx * light[0] - dy * light[1]) / length
    half = light + np.array([0, 0, 1], np.float32)  # between the light and the eye
    half /= np.linalg.norm(half)
    glint = np.maximum((half[2] - dx * half[0] - dy * half[1]) / length, 0) ** 24
    shade = 0.42 + 0.68 * np.maximum(facing, 0)
    shade += kind.grain * _speckle(albedo.shape[:2], rng)
    highlight = glint * np.float32(rng.uniform(0.6, 1.2) * kind.gloss * 255)
    pixels = albedo * cv2.merge([shade] * 3) + cv2.merge([highlight] * 3)
    return np.clip(pixels, 0, 255, out=pixels)


def _speckle(shape: tuple[int, ...], rng: Generator) -> Array:
    """Draw noise (h, w) of deviation about 1, a fine and a coarse part."""
    height, width = shape
    fine = rng.standard_normal((height // 2 + 1, width // 2 + 1), np.float32)
    coarse = rng.standard_normal((height // 10 + 2, width // 10 + 2), np.float32)
    return 0.7 * cv2.resize(fine, (width, height)) + 0.9 * cv2.resize(coarse, (width, height))


def color_of(hue: float, saturation: float, value: float) -> Color:
    """Convert to BGR 0..255: hue in turns (any number), saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return 255 * blue, 255 * green, 255 * red


def _scaled(color: Color, factor: float) -> Color:
    blue, green, red = (min(channel * factor, 255) for channel in color)
    return blue, green, red


def _ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 1) -> Array:
    """Compute points (n, 2) on an ellipse from `start` to `end`, in turns, clockwise from the right."""
    angle = np.linspace(start, end, max(round(40 * abs(end - start)), 8)) * 2 * np.pi
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], -1)


def _polar(radii: list[float], start: float = -0.25) -> Array:
    """Compute points (n, 2) at equal angles around the origin."""
    angle = (np.arange(len(radii)) / len(radii) + start) * 2 * np.pi
    return np.array(radii)[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)


def _ball(brush: Brush, rng: Generator) -> None:
    """Draw a beach ball: panels that meet at a pole, or a ball with one band."""
    hue = rng.random()
    brush.flood(color_of(hue, rng.uniform(0.6, 0.95), rng.uniform(0.75, 1)), _ellipse(0, 0, 0.95, 0.95))
    other = color_of(hue + rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.9), rng.uniform(0.85, 1))
    if rng.random() < 0.65:
        pole, panels = rng.uniform(-0.4, 0.4, 2), int(rng.integers(3, 5))
        first = rng.random()
        for i in range(panels):
            start = first + i / panels
            rim = _ellipse(0, 0, 1.1, 1.1, start, start + 0.5 / panels)
            brush.fill([pole, *rim], other)
        brush.fill(_ellipse(pole[0], pole[1], 0.14, 0.14), color_of(0, 0, 0.95))
    else:
        band = _ellipse(0, rng.uniform(-0.9, -0.3), 1.2, 0.7, 0.02, 0.48)
        brush.stroke(band, other, rng.uniform(0.25, 0.5))


def _box(brush: Brush, rng: Generator) -> None:
    """Draw a cardboard or gift box with three faces in sight, closed with tape or a ribbon."""
    depth, rise = rng.uniform(0.35, 0.6), rng.uniform(0.25, 0.45)
    brush.mirror(rng.choice([-1, 1]))
    card = rng.random() < 0.6
    hue, saturation = (rng.uniform(0.06, 0.1), rng.uniform(0.4, 0.6)) if card else (rng.random(), 0.6)
    color = color_of(hue, saturation, rng.uniform(0.6, 0.85))
    right, top = 0.9 - depth, -0.9 + rise
    front = [(-0.9, top), (right, top), (right, 0.9), (-0.9, 0.9)]
    lid = [(-0.9, top), (-0.9 + depth, -0.9), (0.9, -0.9), (right, top)]
    side = [(right, top), (0.9, -0.9), (0.9, 0.9 - rise), (right, 0.9)]
    for face, factor in ((front, 1.0), (lid, 1.28), (side, 0.62)):
        brush.outline(face)
        brush.fill(face, _scaled(color, factor))
    tape = color_of(0.12, 0.25, 0.92) if card else color_of(hue + rng.uniform(0.3, 0.7), 0.8, 0.95)
    middle, half = (right - 0.9) / 2, rng.uniform(0.07, 0.13)
    low = 0.9 if not card else top + 0.35
    band = [(middle - half, top), (middle + half, top), (middle + half, low), (middle - half, low)]
    over = [(middle - half + depth, -0.9), (middle + half + depth, -0.9), band[1], band[0]]
    brush.fill(band, _scaled(tape, 0.9))
    brush.fill(over, tape)
    for edge in (front, lid, side):
        brush.stroke(edge, _scaled(color, 0.5), 0.015, closed=True)


def _star(brush: Brush, rng: Generator) -> None:
    """Draw a five-pointed star, mostly golden."""
    inner = rng.uniform(0.42, 0.52)
    hue = rng.uniform(0.1, 0.16) if rng.random() < 0.6 else rng.random()
    color = color_of(hue, rng.uniform(0.65, 0.95), rng.uniform(0.85, 1))
    brush.flood(color, _polar([1, inner] * 5))
    if rng.random() < 0.5:
        brush.fill(_polar([0.6, 0.6 * inner] * 5), color_of(hue + rng.uniform(-0.1, 0.1), 0.35, 1))


def _ring(brush: Brush, rng: Generator) -> None:
    """Draw a doughnut with sprinkles, or a life belt in segments."""
    hole = rng.uniform(0.36, 0.52)
    brush.outline(_ellipse(0, 0, 0.95, 0.95))
    brush.outline(_ellipse(0, 0, hole, hole), covers=False)
    if rng.random() < 0.6:
        brush.flood(color_of(0.08, 0.6, rng.uniform(0.6, 0.8)))
        flavors = [(0.93, 0.45, 0.95), (0.06, 0.75, 0.35), (0.1, 0.1, 0.95), (0.45, 0.3, 0.9)]
        icing = color_of(*flavors[rng.integers(4)])
        middle = (0.95 + hole) / 2
        waves = middle + 0.18 + 0.05 * np.sin(np.arange(36) * rng.integers(5, 9) / 36 * 2 * np.pi)
        brush.fill(_polar(list(waves)), icing)
        brush.fill(_ellipse(0, 0, hole + 0.06, hole + 0.06), color_of(0.08, 0.5, 0.7))
        for _ in range(22):
            angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(hole + 0.12, middle + 0.12)
            center = radius * np.array([np.cos(angle), np.sin(angle)])
            turn = rng.uniform(0, 6)
            half = np.array([np.cos(turn), np.sin(turn)]) / 24
            brush.stroke([center - half, center + half], color_of(rng.random(), 0.75, 1), 0.05)
    else:
        brush.flood(color_of(0, 0, 0.93))
        color = color_of(rng.choice([0.0, 0.02, 0.6, 0.08]), 0.85, 0.85)
        first = rng.random()
        for i in range(4):
            wedge = _ellipse(0, 0, 1.2, 1.2, first + i / 4, first + i / 4 + 0.12)
            brush.fill([(0, 0), *wedge], color)


def _cross(brush: Brush, rng: Generator) -> None:
    """Draw a thick plus sign with a rim, as on a first-aid post."""
    arm = rng.uniform(0.26, 0.36)
    hue = rng.choice([0.0, 0.98, 0.36, 0.6, 0.78])
    face, rim = color_of(hue, rng.uniform(0.75, 0.95), rng.uniform(0.65, 0.95)), color_of(hue, 0.1, 0.97)
    if rng.random() < 0.3:
        face, rim = rim, face
    quarter = [(arm, -arm), (0.9, -arm), (0.9, arm), (arm, arm), (arm, 0.9), (-arm, 0.9)]
    plus = [*quarter, *((-x, -y) for x, y in quarter)]
    brush.flood(face, plus)
    brush.stroke(plus, rim, rng.uniform(0.12, 0.2), closed=True)


def _leaf(brush: Brush, rng: Generator) -> None:
    """Draw a leaf with a midrib, side veins and a stem, from spring green to autumn red."""
    hue = rng.uniform(0.2, 0.36) if rng.random() < 0.7 else rng.uniform(0.01, 0.13)
    color = color_of(hue, rng.uniform(0.6, 0.9), rng.uniform(0.45, 0.8))
    width, point = rng.uniform(0.38, 0.5), rng.uniform(0.75, 1.05)
    t = np.linspace(0, 1, 25)
    half = width * np.sin(np.pi * t**point) ** 0.8 * (1 + 0.1 * (np.arange(25) % 2))  # a toothed edge
    x = 1.7 * t - 0.75
    blade = np.concatenate([np.stack([x, half], -1), np.stack([x, -half], -1)[::-1]]).astype(np.float32)
    brush.flood(color, blade)
    brush.outline_stroke([(-1, 0.06), (-0.7, 0)], 0.07)
    brush.fill(blade[: len(t)] * np.array([1, 1.1], np.float32), _scaled(color, 0.82))  # the half in shade
    vein = color_of(hue - 0.02, 0.45, 0.85)
    brush.stroke([(-1, 0.06), (-0.7, 0), (0.9, 0)], vein, 0.05)
    for start in np.linspace(-0.55, 0.5, 6):
        for way in (-1, 1):
            brush.stroke([(start, 0), (start + 0.26, way * 0.42)], vein, 0.02)


def _bottle(brush: Brush, rng: Generator) -> None:
    """Draw an upright glass bottle with a cap and a label."""
    half, neck = rng.uniform(0.3, 0.38), rng.uniform(0.1, 0.14)
    shoulder = rng.uniform(-0.35, -0.15)
    hue = rng.choice([0.33, 0.28, 0.09, 0.57, 0.48])
    glass = color_of(hue, rng.uniform(0.5, 0.85), rng.uniform(0.35, 0.75))
    right = [(neck, -0.95), (neck, shoulder - 0.3), (0.75 * half, shoulder - 0.12), (half, shoulder + 0.08)]
    right += [(half, 0.88), (half - 0.06, 0.95)]
    brush.flood(glass, [*right, *((-x, y) for x, y in reversed(right))])
    level = rng.uniform(shoulder - 0.1, shoulder + 0.2)
    brush.fill([(-1, -1), (1, -1), (1, level), (-1, level)], _scaled(glass, 1.35))  # empty glass
    cap = color_of(rng.random(), 0.7, 0.8)
    brush.fill([(-1, -1), (1, -1), (1, -0.8), (-1, -0.8)], cap)
    top, bottom = rng.uniform(0.05, 0.2), rng.uniform(0.55, 0.72)
    label = color_of(rng.random(), rng.uniform(0.05, 0.4), 0.93)
    brush.fill([(-1, top), (1, top), (1, bottom), (-1, bottom)], label)
    middle = (top + bottom) / 2
    ink = color_of(rng.random(), 0.8, 0.5)
    brush.fill(_ellipse(0, middle, 0.6 * half, 0.32 * (bottom - top)), ink)


def _mug(brush: Brush, rng: Generator) -> None:
    """Draw a mug with a handle and something to drink in it."""
    brush.mirror(rng.choice([-1, 1]))
    foot = rng.uniform(0.48, 0.6)
    color = color_of(rng.random(), rng.uniform(0.03, 0.55), rng.uniform(0.75, 0.97))
    base, rim = _ellipse(-0.25, 0.68, foot, 0.16, 0, 0.5), _ellipse(-0.25, -0.62, 0.62, 0.2, 0.5, 1)
    brush.outline_stroke(_ellipse(0.32, 0.02, 0.46, 0.44, -0.25, 0.25), 0.17)
    brush.flood(color, [*base, *rim])
    pattern = color_of(rng.random(), 0.75, rng.uniform(0.5, 0.9))
    style = rng.integers(3)
    if style == 0:
        stripe = _ellipse(-0.25, rng.uniform(-0.2, 0.1), 0.6, 0.18, 0, 0.5)
        brush.stroke(stripe, pattern, rng.uniform(0.1, 0.3))
    elif style == 1:
        for x in (-0.6, -0.25, 0.1):
            for y in (-0.15, 0.2, 0.55):
                brush.fill(_ellipse(x, y, 0.09, 0.09), pattern)
    brush.fill(_ellipse(-0.25, -0.62, 0.62, 0.2), _scaled(color, 1.1))
    drink = color_of(rng.uniform(0.04, 0.1), 0.7, rng.uniform(0.2, 0.5))
    brush.fill(_ellipse(-0.25, -0.6, 0.53, 0.145), drink)


def _fish(brush: Brush, rng: Generator) -> None:
    """Draw a fish with tail, fins, an eye, and stripes or scales."""
    brush.mirror(rng.choice([-1, 1]))
    hue = rng.choice([0.05, 0.08, 0.55, 0.6, 0.14]) + rng.uniform(-0.03, 0.03)
    color = color_of(hue, rng.uniform(0.6, 0.95), rng.uniform(0.75, 1))
    fin = color_of(hue + rng.uniform(-0.06, 0.06), 0.85, 0.6)
    deep = rng.uniform(0.36, 0.48)
    t = np.linspace(0, np.pi, 20)
    back = np.stack([0.25 - 0.7 * np.cos(t), -deep * np.sin(t)], -1).astype(np.float32)
    back -= np.array([0.05, 0], np.float32)
    body = np.concatenate([back, (back * np.array([1, -0.9], np.float32))[::-1]])
    body *= np.array([-1, 1], np.float32)
    fins = [
        [(0.35, 0), (0.98, -0.45), (0.8, 0), (0.98, 0.45)],
        [(-0.45, -0.8 * deep), (0.15, -deep - 0.28), (0.35, -0.5 * deep)],
        [(-0.1, 0.7 * deep), (0.2, deep + 0.2), (0.3, 0.5 * deep)],
    ]
    brush.flood(color)
    for part in fins:
        brush.outline(part)
        brush.fill(part, fin)
    brush.outline(body)
    brush.fill(body, color)
    if rng.random() < 0.5:
        for x in (-0.3, 0.02, 0.3):
            brush.stroke(_ellipse(x, 0, 0.12, deep, 0.3, 0.7), color_of(0.1, 0.05, 0.97), 0.1)
    else:
        belly = body[20:] * np.array([1, 0.9], np.float32) + np.array([0, 0.5 * deep], np.float32)
        brush.fill(belly, color_of(hue, 0.25, 0.97))
        for x, y in ((-0.25, -0.15), (0.0, -0.2), (0.25, -0.1), (-0.1, 0.02), (0.15, 0.05)):
            brush.stroke(_ellipse(x, y, 0.1, 0.1, -0.25, 0.25), fin, 0.035)
    brush.fill(_ellipse(-0.62, -0.1, 0.11, 0.11), color_of(0, 0, 0.98))
    brush.fill(_ellipse(-0.64, -0.1, 0.06, 0.06), color_of(0, 0, 0.08))


def _bolt(brush: Brush, rng: Generator) -> None:
    """Draw a steel or brass bolt: a hexagonal head and a threaded shank."""
    hue, saturation = (0.11, rng.uniform(0.4, 0.6)) if rng.random() < 0.3 else (0.6, rng.uniform(0, 0.14))
    metal = color_of(hue, saturation, rng.uniform(0.6, 0.88))
    head, shank, neck = rng.uniform(0.44, 0.54), rng.uniform(0.19, 0.25), -0.5
    brush.flood(metal)
    half = [(neck, -shank), (0.9, -shank), (1, -0.6 * shank)]
    brush.outline([*half, *((x, -y) for x, y in reversed(half))])
    thread = rng.uniform(-0.35, -0.1)
    for x in np.arange(thread, 1.05, 0.12):
        brush.stroke([(x, -0.4), (x + 0.1, 0.4)], _scaled(metal, 0.42), 0.05)
    half = [(-1, -0.8 * head), (-0.92, -head), (neck - 0.08, -head), (neck, -0.8 * head)]
    hexagon = [*half, *((x, -y) for x, y in reversed(half))]
    brush.outline(hexagon)
    brush.fill(hexagon, metal)
    for low, high, factor in ((-1.1, -0.5, 1.15), (0.5, 1.1, 0.65)):  # the facets beside the middle one
        facet = [(-1, low * head), (neck, low * head), (neck, high * head), (-1, high * head)]
        brush.fill(facet, _scaled(metal, factor))


KINDS = {
    'ball': Kind(_ball, turn=180, rounding=1.0, gloss=0.6, grain=0.02),
    'box': Kind(_box, turn=14, rounding=0.04, gloss=0.0, grain=0.05),
    'star': Kind(_star, turn=180, rounding=0.8, gloss=0.35, grain=0.04),
    'ring': Kind(_ring, turn=180, rounding=1.0, gloss=0.3, grain=0.03),
    'cross': Kind(_cross, turn=40, rounding=0.3, gloss=0.2, grain=0.03),
    'leaf': Kind(_leaf, turn=180, rounding=0.5, gloss=0.08, grain=0.06),
    'bottle': Kind(_bottle, turn=20, rounding=1.0, gloss=0.8, grain=0.01),
    'mug': Kind(_mug, turn=14, rounding=0.5, gloss=0.4, grain=0.02),
    'fish': Kind(_fish, turn=50, rounding=0.7, gloss=0.35, grain=0.05),
    'bolt': Kind(_bolt, turn=180, rounding=0.9, gloss=0.5, grain=0.03),
}

"""A white page to draw pictures on.

Units are pixels of a page 900 wide, y points downward; the files have twice as many pixels.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve
from numpy.typing import NDArray
from PIL import Image

WIDTH = 900
COLORS = 192
INK, MUTED = '#1f2933', '#52606d'


@dataclass(frozen=True)
class Tone:
    """The colors of what belongs together."""

    line: str
    fill: str


STUDENT = Tone('#1a5a99', '#e6eff8')
TEACHER = Tone('#b45309', '#fdf0e0')
LOSS = Tone('#86267a', '#f8e9f5')
NEUTRAL = Tone('#9aa5b1', '#f5f7f9')
WHITE = Tone('#9aa5b1', '#ffffff')


class Box(NamedTuple):
    """A rectangle on the page."""

    x: float
    y: float
    w: float
    h: float

    @property
    def center(self) -> tuple[float, float]:
        """Return the middle of the rectangle."""
        return self.x + self.w / 2, self.y + self.h / 2


class Page:
    """A white page to draw on."""

    def __init__(self, height: int) -> None:
        self.figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=200, facecolor='white')
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(height, 0), autoscale_on=False)
        self.axes.axis('off')

    def text(self, x: float, y: float, words: str, size: float = 12, **style: Any) -> None:
        """Write words at (x, y), centered unless `ha` says otherwise; `mono=True` for code."""
        family = 'DejaVu Sans Mono' if style.pop('mono', False) else 'DejaVu Sans'
        weight = 'bold' if style.pop('bold', False) else 'normal'
        style = {'ha': 'center', 'va': 'baseline', 'color': INK, 'zorder': 6} | style
        lines = words.split('\n')
        for i, line in enumerate(
            lines
        ):  # by their baselines: matplotlib spaces lines by what letters they hold
            low = y + size * (0.36 + 1.35 * (i - (len(lines) - 1) / 2))
            self.axes.text(x, low, line, fontsize=size * 0.72, family=family, weight=weight, **style)

    def box(self, box: Box, tone: Tone = WHITE, radius: float = 5, width: float = 1, **style: Any) -> None:
        """Draw a rounded rectangle."""
        style = {'ec': tone.line, 'fc': tone.fill, 'lw': width, 'zorder': 2} | style
        shape = f'round,pad=0,rounding_size={radius}'
        self.axes.add_patch(FancyBboxPatch((box.x, box.y), box.w, box.h, boxstyle=shape, **style))

    def block(self, box: Box, words: str, tone: Tone, **style: Any) -> None:
        """Draw a white block with words in the color of its tone."""
        self.box(box, Tone(tone.line, 'white'), zorder=3)
        self.text(*box.center, words, **({'color': tone.line} | style))

    def arrow(self, points: list[tuple[float, float]], color: str, gradient: bool = True) -> None:
        """Draw an arrow through points, with round corners; it is dashed where no gradient flows back."""
        way = np.array(points, float)
        step = way[-1] - way[-2]
        step /= np.linalg.norm(step)
        tip, across = way[-1].copy(), np.array([-step[1], step[0]])
        way[-1] -= 7 * step
        nodes, codes = [way[0]], [Curve.MOVETO]
        for before, corner, after in zip(way, way[1:], way[2:], strict=False):
            ends = [corner + 9 * (end - corner) / np.linalg.norm(end - corner) for end in (before, after)]
            nodes += [ends[0], corner, ends[1]]
            codes += [Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
        line = Curve([*nodes, way[-1]], [*codes, Curve.LINETO])
        dashes = '-' if gradient else (0, (3, 1.8))
        self.axes.add_patch(PathPatch(line, fc='none', ec=color, lw=1.5, ls=dashes, zorder=5))
        head = [tip, tip - 8 * step + 4 * across, tip - 8 * step - 4 * across]
        self.axes.add_patch(Polygon(head, fc=color, ec='none', zorder=5))

    def picture(self, pixels: NDArray[Any], box: Box, color: str) -> None:
        """Show an image (H, W, 3), or a map (H, W) as squares, stretched over a box, with a frame."""
        extent = (box.x, box.x + box.w, box.y + box.h, box.y)
        how = 'bilinear' if pixels.ndim == 3 else 'nearest'
        shades = LinearSegmentedColormap.from_list('', ['white', color])
        self.axes.imshow(pixels, cmap=shades, extent=extent, aspect='auto', interpolation=how, zorder=4)
        self.box(box, Tone(color, 'none'), radius=0.1, width=1.6, zorder=5)

    def save(self, file: Path) -> None:
        """Write a PNG of few colors, which keeps it small."""
        drawn = io.BytesIO()
        self.figure.savefig(drawn)
        image = Image.open(drawn).convert('RGB')
        image.quantize(COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, optimize=True)

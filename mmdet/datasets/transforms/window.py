"""Describe an augmentation as numbers, so that pixels are touched only once, at the end.

A geometric transform changes the boxes and a `Window`; it never sees a pixel. So a photo is decoded and
resized once, whatever is in the list, and the size of a sample is known even when its file is broken.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]  # uint8 (H, W, 3) BGR, or a part of one; OpenCV's annotations do not tell uint8


class View(NamedTuple):
    """The part of a photo that a window shows; all 0 where it shows no center of a pixel."""

    src_box: tuple[int, int, int, int] = (0, 0, 0, 0)  # xyxy of the part of the photo, in its pixels
    dst_box: tuple[int, int, int, int] = (0, 0, 0, 0)  # xyxy of the output pixels whose centers lie on it
    # across, down, x, y: the center of output pixel (i, j) lies at (across i + x, down j + y) of the part,
    # whose first pixel has its center at (0, 0)
    affine: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


class Window(NamedTuple):
    """The visible rectangle of the source image, and the size at which it is drawn.

    left, top, right, bottom in whole pixels of the source, right and bottom exclusive; the rectangle may
    reach beyond the source, where the fill color shows. height, width in pixels of the output. With `flip`
    the drawn rectangle is mirrored left to right.
    """

    left: int
    top: int
    right: int
    bottom: int
    height: int
    width: int
    flip: bool = False

    @classmethod
    def whole(cls, height: int, width: int) -> Window:
        """Make the window that shows a whole image at its size."""
        return cls(0, 0, width, height, height, width)

    def cut(self, left: int, top: int, right: int, bottom: int) -> Window:
        """Crop or extend the window: coordinates in pixels of the output.

        Raises:
            ValueError: After a resize, where a whole pixel is no longer a whole pixel of the source.
        """
        if (self.height, self.width) != (self.bottom - self.top, self.right - self.left):
            raise ValueError('Expand and MinIoURandomCrop must stand before Resize in the pipeline')
        x1, x2 = (self.width - right, self.width - left) if self.flip else (left, right)
        return self._replace(
            left=self.left + x1,
            top=self.top + top,
            right=self.left + x2,
            bottom=self.top + bottom,
            height=bottom - top,
            width=right - left,
        )

    def view(self, height: int, width: int) -> View:
        """Compute what the window shows of a photo of this size."""
        left, right = max(self.left, 0), min(self.right, width)
        top, bottom = max(self.top, 0), min(self.bottom, height)
        across = (self.right - self.left) / self.width  # pixels of the photo per pixel of the output
        down = (self.bottom - self.top) / self.height
        x1, x2 = (math.ceil((edge - self.left) / across - 0.5) for edge in (left, right))
        y1, y2 = (math.ceil((edge - self.top) / down - 0.5) for edge in (top, bottom))
        if x1 >= x2 or y1 >= y2:
            return View()
        x, y = across / 2 - 0.5 + self.left - left, down / 2 - 0.5 + self.top - top
        if self.flip:
            x1, x2 = self.width - x2, self.width - x1
            across, x = -across, x + across * (self.width - 1)
        return View((left, top, right, bottom), (x1, y1, x2, y2), (across, down, x, y))


class ColorJitter(NamedTuple):
    """A drawn change of color, in the order in which it is applied; the defaults change nothing.

    The values add to, or multiply, pixel values in [0, 255].
    """

    brightness: float = 0.0  # added
    contrast: float = 1.0  # factor
    saturation: float = 1.0  # factor of S in HSV
    hue: float = 0.0  # degrees added to H in HSV
    channels: tuple[int, int, int] = (0, 1, 2)  # which channel (of B, G, R) lands in each place


class Results(TypedDict, total=False):
    """What a transform takes and returns; each reads and writes only what its docstring names.

    G boxes of the image · boxes xyxy in pixels of the window's output
    """

    img_path: Path
    img: Image  # when the image is given as pixels and not as a file
    img_id: int
    ori_shape: tuple[int, int]  # (h, w) in the annotation file
    # boxes (G, 4) in pixels of the source, labels (G,), ids (G,)
    annotations: tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]
    rng: np.random.Generator  # the only source of random numbers

    window: Window
    bboxes: NDArray[np.float32]  # (G, 4)
    labels: NDArray[np.int64]  # (G,)
    ann_ids: NDArray[np.int64]  # (G,) in the annotation file
    fill: tuple[float, float, float]  # BGR, shown where the window reaches beyond the source
    color: ColorJitter

"""Text on pictures, and pictures on sheets.

Pictures are uint8 (H, W, 3), BGR; x, y are pixels from the upper left corner.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[Any]
Color = tuple[float, float, float]  # BGR, 0..255

PAPER: Color = (255, 255, 255)
INK: Color = (40, 34, 30)
SMALLEST_TEXT = 7  # pixels; below it a text is shortened instead


@lru_cache(maxsize=64)
def _font(size: int) -> Any:
    """The font that matplotlib brings along: OpenCV 4 draws ASCII letters only."""
    import matplotlib as mpl
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(mpl.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')), size)


def line_height(size: int) -> int:
    """Height in pixels of a line of text of a font size."""
    ascent, descent = _font(size).getmetrics()
    return int(ascent + descent)


def text_width(text: str, size: int) -> int:
    """Width in pixels of a text."""
    left, _, right, _ = _font(size).getbbox(text)
    return int(right - min(left, 0))


def fit_text(text: str, width: int, size: int, tail: str = '') -> tuple[str, int]:
    """Make a text fit into `width` pixels: smaller letters first, then fewer of them; `tail` stays whole.

    Returns:
        The text with its tail, and its font size; '' where not one letter fits.
    """
    while text_width(text + tail, size) > width and size > SMALLEST_TEXT:
        size -= 1
    shorter = (text[:length].rstrip() + '…' for length in range(len(text) - 1, 0, -1))
    for candidate in (text, *shorter):
        if text_width(candidate + tail, size) <= width:
            return candidate + tail, size
    return '', size


def write_text(picture: Picture, text: str, x: int, y: int, size: int, color: Color = INK) -> None:
    """Write one line onto a picture, in place; (x, y) is the upper left corner of the line."""
    if not text:
        return
    from PIL import Image, ImageDraw

    line = Image.new('L', (text_width(text, size) + 1, line_height(size)))
    ImageDraw.Draw(line).text((0, 0), text, fill=255, font=_font(size))
    height, width = picture.shape[:2]
    top, left = max(y, 0), max(x, 0)
    bottom, right = max(height - y, 0), max(width - x, 0)
    cover = np.asarray(line, np.float32)[top - y : bottom, left - x : right, None] / 255
    part = picture[top : top + cover.shape[0], left : left + cover.shape[1]]
    part[:] = np.rint(part + cover * (np.array(color, np.float32) - part)).astype(np.uint8)


def tile(pictures: Sequence[Picture], columns: int, gap: int = 8, paper: Color = PAPER) -> Picture:
    """Lay pictures of any sizes out on a sheet, row by row, each in the middle of its cell.

    Raises:
        ValueError: No picture.
    """
    if not pictures:
        raise ValueError('a sheet needs at least one picture')
    columns = min(columns, len(pictures))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    widths = [max(picture.shape[1] for picture in pictures[column::columns]) for column in range(columns)]
    size = sum(heights) + gap * (len(rows) + 1), sum(widths) + gap * (columns + 1)
    sheet = np.full((*size, 3), paper, np.uint8)
    y = gap
    for row, cell_height in zip(rows, heights, strict=True):
        x = gap
        for picture, cell_width in zip(row, widths, strict=False):
            height, width = picture.shape[:2]
            top, left = y + (cell_height - height) // 2, x + (cell_width - width) // 2
            sheet[top : top + height, left : left + width] = picture
            x += cell_width + gap
        y += cell_height + gap
    return sheet


def with_title(picture: Picture, title: str, size: int = 15) -> Picture:
    """Put a title above a picture, as large as fits."""
    text, size = fit_text(title, picture.shape[1], size)
    strip = np.full((line_height(size) + 4, picture.shape[1], 3), PAPER, np.uint8)
    write_text(strip, text, (picture.shape[1] - text_width(text, size)) // 2, 0, size)
    return np.concatenate([strip, picture])


def write_picture(file: Path, picture: Picture) -> None:
    """Write a picture to a file, and its folder where there is none.

    Raises:
        OSError: It cannot be written.
    """
    import cv2

    file.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(file), picture):
        raise OSError(f'cannot write {file}; is the disk full, or the folder read-only?')

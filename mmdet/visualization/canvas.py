"""Write text on pictures, and lay pictures out on a canvas.

Pictures are uint8 (H, W, 3), BGR; x, y are pixels from the upper left corner.
"""

import sys
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[Any]
Color = tuple[float, float, float]  # BGR, 0..255

INK: Color = (40, 34, 30)
SMALLEST_TEXT = 7  # pixels; below it a text is shortened instead


@lru_cache(maxsize=256)
def _font(size: int, text: str = '') -> Any:
    """Load a font that has the letters of a text: OpenCV 4 draws ASCII letters only."""
    from PIL import ImageFont

    return ImageFont.truetype(_find_font(frozenset(text)), size)


@lru_cache(maxsize=1024)
def _find_font(letters: frozenset[str]) -> str:
    """Find the font file that lacks the fewest letters: matplotlib's own, or one of this machine."""
    import matplotlib as mpl
    from matplotlib.font_manager import findSystemFonts

    usual = str(Path(mpl.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf'))
    if letters <= _letters_of(usual):
        return usual
    best = min([usual, *sorted(findSystemFonts())], key=lambda file: len(letters - _letters_of(file)))
    if not letters <= _letters_of(best):
        _note_missing_letters()
    return best


@cache
def _letters_of(file: str) -> frozenset[str]:
    """List the letters of a font; none of one that cannot be read or has a single size, as emoji have."""
    from matplotlib.ft2font import FT2Font
    from PIL import ImageFont

    try:
        ImageFont.truetype(file, SMALLEST_TEXT)
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _note_missing_letters() -> None:
    print(
        'note: no font of this machine has all letters of a name in the pictures, which show boxes in their '
        "place. Install one, such as Debian's fonts-noto-cjk or fonts-noto-core",
        file=sys.stderr,
    )


def line_height(size: int) -> int:
    """Measure the height in pixels of a line of text."""
    ascent, descent = _font(size).getmetrics()
    return int(ascent + descent)


def text_width(text: str, size: int) -> int:
    """Measure the width in pixels of a text."""
    left, _, right, _ = _font(size, text).getbbox(text)
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


def write_text(
    picture: Picture,
    text: str,
    x: int,
    y: int,
    size: int,
    color: Color = INK,
    anchor: str = 'la',
    max_width: int | None = None,
) -> None:
    """Write one line of text onto a picture, in place; what lies beyond its border is cut off.

    Args:
        picture: (H, W, 3) uint8.
        text: The line.
        x: Where the anchor lies.
        y: Upper edge of the line.
        size: Of the font, in pixels.
        color: BGR.
        anchor: 'la' for the left end of the text, 'ma' for its middle, 'ra' for its right end.
        max_width: Pixels; a longer text is made smaller, then shorter.
    """
    from PIL import Image, ImageDraw

    if max_width is not None:
        text, fitting = fit_text(text, max_width, size)
        y, size = y + (line_height(size) - line_height(fitting)) // 2, fitting
    image = Image.fromarray(picture)
    ink = tuple(round(channel) for channel in color)
    baseline = y + _font(size).getmetrics()[0]  # the same in every font
    ImageDraw.Draw(image).text((x, baseline), text, fill=ink, font=_font(size, text), anchor=f'{anchor[0]}s')
    picture[:] = np.asarray(image)


def tile(pictures: Sequence[Picture], columns: int, gap: int = 8) -> Picture:
    """Lay one or more pictures of any sizes out on a canvas, row by row, each in the middle of its cell."""
    columns = min(columns, len(pictures))
    starts = range(0, len(pictures), columns)
    heights = [max(picture.shape[0] for picture in pictures[start : start + columns]) for start in starts]
    widths = [max(picture.shape[1] for picture in pictures[column::columns]) for column in range(columns)]
    tops, lefts = (np.cumsum([gap, *(side + gap for side in sides)]) for sides in (heights, widths))
    canvas = np.full((tops[-1], lefts[-1], 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        height, width = picture.shape[:2]
        top = tops[row] + (heights[row] - height) // 2
        left = lefts[column] + (widths[column] - width) // 2
        canvas[top : top + height, left : left + width] = picture
    return canvas


def with_title(picture: Picture, title: str, size: int = 15) -> Picture:
    """Put a title above a picture, as large as fits."""
    width = picture.shape[1]
    strip = np.full((line_height(size) + 4, width, 3), 255, np.uint8)
    write_text(strip, title, width // 2, 0, size, anchor='ma', max_width=width)
    return np.concatenate([strip, picture])


def find_free_place(places: NDArray[Any], taken: NDArray[Any]) -> int:
    """Find the place that shares the fewest pixels with boxes that are taken, the first of equal ones.

    places (P, 4), P > 0 · taken (T, 4), all xyxy in whole pixels · returns a row of `places`
    """
    sides = np.minimum(places[:, None, 2:], taken[:, 2:]) - np.maximum(places[:, None, :2], taken[:, :2])
    return int(sides.clip(0).prod(2).sum(1).argmin())


def write_picture(file: Path, picture: Picture, quality: int = 95) -> None:
    """Write a picture to a file, and its folder where there is none; `quality` is that of a JPEG.

    Raises:
        OSError: It cannot be written.
    """
    import cv2

    file.parent.mkdir(parents=True, exist_ok=True)
    of_jpeg = [cv2.IMWRITE_JPEG_QUALITY, quality] if file.suffix.lower() in ('.jpg', '.jpeg') else []
    if not cv2.imwrite(str(file), picture, of_jpeg):  # OpenCV 5 warns of options of another format
        raise OSError(f'cannot write {file}; is the disk full, or the folder read-only?')

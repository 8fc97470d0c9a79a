"""Boxes with labels on a picture.

D boxes · pictures uint8 (H, W, 3) BGR · boxes xyxy in pixels of the picture
"""

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from mmdet.visualization.canvas import (
    INK,
    Color,
    Picture,
    fit_text,
    line_height,
    text_width,
    tile,
    with_title,
    write_text,
)

Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2, the last two exclusive


def class_color(label: int) -> Color:
    """The color (BGR) of a class: always the same one, neighbors far apart."""
    hue = (label * 0.618034 + 0.02) % 1
    saturation, value = ((0.85, 0.95), (0.6, 1.0), (0.95, 0.7))[label // 12 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_detections(
    image_bgr: Picture,
    bboxes: Any,
    labels: Any,
    scores: Any = None,
    classes: Sequence[str] = (),
    score_thr: float = 0.3,
) -> Picture:
    """Draw boxes, and beside each the name of its class and its score.

    Every label lies wholly in the picture; where there is room it covers no other label.

    Args:
        image_bgr: (H, W, 3) uint8; stays as it is.
        bboxes: (D, 4), tensor or array. Boxes with NaN, or wholly outside the picture, are left out.
        labels: (D,), in [0, K).
        scores: (D,), or None to draw all boxes, as for ground truth.
        classes: K names; a label without one is written as its number.
        score_thr: Boxes that score less are left out.

    Returns:
        (H, W, 3) uint8.
    """
    picture = np.ascontiguousarray(image_bgr).copy()
    height, width = picture.shape[:2]
    boxes, names = _to_array(bboxes).reshape(-1, 4), _to_array(labels).astype(int)
    sure = np.ones(len(boxes)) if scores is None else _to_array(scores)
    if not len(boxes) == len(names) == len(sure):
        raise ValueError(f'{len(boxes)} boxes, but {len(names)} labels and {len(sure)} scores')
    thickness = min(max(round(min(height, width) / 160), 1), 5)
    size = min(max(round(min(height, width) / 22), 11), 26)

    shown: list[tuple[int, Rectangle, str, str]] = []
    for row in np.argsort(sure, kind='stable'):  # the best on top
        drawn = scores is None or sure[row] >= score_thr
        if not drawn or not np.isfinite(boxes[row]).all():
            continue
        x1, y1 = np.floor(np.maximum(boxes[row, :2], 0)).astype(int)
        x2, y2 = np.ceil(np.minimum(boxes[row, 2:], (width, height))).astype(int)
        if x2 <= x1 or y2 <= y1:
            continue
        label = int(names[row])
        name = classes[label] if 0 <= label < len(classes) else str(label)
        score = '' if scores is None else f' {sure[row]:.2f}'
        shown.append((label, (int(x1), int(y1), int(x2), int(y2)), name, score))
    for label, (left, top, right, bottom), _, _ in shown:
        corners = (left, top), (right - 1, bottom - 1)
        cv2.rectangle(picture, *corners, INK, thickness + 2, cv2.LINE_AA)  # seen on every ground
        cv2.rectangle(picture, *corners, class_color(label), thickness, cv2.LINE_AA)
    taken: list[Rectangle] = []
    for label, box, name, score in reversed(shown):  # the best chooses its place first
        text, fitting = fit_text(name, width - 6, min(size, max(height - 2, 1)), tail=score)
        taken.append(_draw_label(picture, text, fitting, class_color(label), box, taken))
    return picture


def _draw_label(
    picture: Picture, text: str, size: int, color: Color, box: Rectangle, taken: Sequence[Rectangle]
) -> Rectangle:
    """Write a label at a free place beside its box; returns the place."""
    height, width = picture.shape[:2]
    w, h = text_width(text, size) + 6, min(line_height(size), height)
    x1, y1, x2, y2 = box
    spots = [
        (x1, y1 - h),
        (x1, y1),
        (x1, y2),
        (x1, y2 - h),
        (x2 - w, y1 - h),
        (x2 - w, y2),
        (x2, y1),
        (x1 - w, y1),
    ]
    places = []
    for x, y in spots:
        left, top = min(max(x, 0), max(width - w, 0)), min(max(y, 0), height - h)
        places.append((left, top, left + w, top + h))
    place = min(places, key=lambda one: sum(_overlap(one, other) for other in taken))  # the first of the best
    left, top, right, bottom = place
    picture[top:bottom, left:right] = color
    write_text(picture, text, left + 3, top, size, _contrast(color))
    return place


def _overlap(one: Rectangle, other: Rectangle) -> int:
    """Pixels that two rectangles share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)


def _contrast(color: Color) -> Color:
    """Black or white, whichever is read more easily on a color."""
    blue, green, red = color
    return (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else (255, 255, 255)


def _to_array(values: Any) -> np.ndarray:
    values = values.detach().cpu().float() if isinstance(values, Tensor) else values
    return np.asarray(values, np.float32)


def draw_side_by_side(left: Picture, right: Picture, titles: tuple[str, str]) -> Picture:
    """Two pictures of any sizes beside each other, each under its title.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    height = max(left.shape[0], right.shape[0])
    titled = []
    for picture, title in zip((left, right), titles, strict=True):
        below = np.full((height - picture.shape[0], picture.shape[1], 3), 255, np.uint8)
        titled.append(with_title(np.concatenate([picture, below]), title))
    tallest = max(picture.shape[0] for picture in titled)  # titles may differ in size
    above = [np.full((tallest - one.shape[0], one.shape[1], 3), 255, np.uint8) for one in titled]
    return tile([np.concatenate(pair) for pair in zip(above, titled, strict=True)], columns=2)

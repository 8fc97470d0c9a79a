"""Draw boxes with labels on a picture.

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
    find_free_place,
    fit_text,
    line_height,
    text_width,
    tile,
    with_title,
    write_text,
)


def class_color(label: int) -> Color:
    """Choose the color (BGR) of a class: always the same one, neighbors far apart."""
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
    boxes = _to_array(bboxes).reshape(-1, 4)
    names = _to_array(labels).astype(int).tolist()
    sure = np.full(len(boxes), np.inf) if scores is None else _to_array(scores)
    if not len(boxes) == len(names) == len(sure):
        raise ValueError(f'{len(boxes)} boxes, but {len(names)} labels and {len(sure)} scores')
    thickness = min(max(round(min(height, width) / 160), 1), 5)
    size = min(max(round(min(height, width) / 22), 11), 26)

    start, end = np.floor(np.maximum(boxes[:, :2], 0)), np.ceil(np.minimum(boxes[:, 2:], (width, height)))
    drawn = (sure >= score_thr) & np.isfinite(boxes).all(1) & (end > start).all(1)
    order = [row for row in np.argsort(sure, kind='stable') if drawn[row]]  # the best on top
    rectangles = np.nan_to_num(np.concatenate([start, end], 1)).astype(int)
    for row in order:
        left, top, right, bottom = rectangles[row].tolist()
        corners = (left, top), (right - 1, bottom - 1)
        cv2.rectangle(picture, *corners, INK, thickness + 2, cv2.LINE_AA)  # seen on every ground
        cv2.rectangle(picture, *corners, class_color(names[row]), thickness, cv2.LINE_AA)
    taken = np.zeros((0, 4), int)
    for row in reversed(order):  # the best chooses its place first
        label = names[row]
        name = classes[label] if 0 <= label < len(classes) else str(label)
        tail = '' if scores is None else f' {sure[row]:.2f}'
        text, fitting = fit_text(name, width - 6, min(size, max(height - 2, 1)), tail)
        place = _draw_label(picture, text, fitting, class_color(label), rectangles[row], taken)
        taken = np.concatenate([taken, [place]])
    return picture


def draw_beside_truth(
    image_bgr: Picture,
    dataset: Any,
    img_id: int,
    found: Any,
    score_thr: float,
    scale: float = 1.0,
) -> Picture:
    """Draw the detections of an image beside its ground truth, where the set has some.

    Args:
        image_bgr: (H, W, 3) uint8.
        dataset: The `CocoDataset` of the image.
        img_id: Its id.
        found: bboxes (D, 4) xyxy in pixels of the original image, labels (D,), scores (D,).
        score_thr: Detections with a lower score are not drawn.
        scale: Side of `image_bgr` over that of the original.

    Returns:
        (H', W', 3) uint8.
    """
    classes = dataset.metainfo['classes']
    drawn = draw_detections(image_bgr, found.bboxes * scale, found.labels, found.scores, classes, score_thr)
    if not len(dataset.bboxes):  # perhaps a set without annotations
        return drawn
    bboxes, labels = dataset.boxes_of(img_id)
    truth = draw_detections(image_bgr, bboxes * scale, labels, classes=classes)
    found_title = f'found, score from {score_thr:g}'
    return tile([with_title(truth, 'ground truth'), with_title(drawn, found_title)], columns=2)


def _draw_label(
    picture: Picture, text: str, size: int, color: Color, box: np.ndarray, taken: np.ndarray
) -> np.ndarray:
    """Write a label beside its box, where it covers least of the others; returns the place.

    box (4,) · taken (T, 4), places of other labels · returns (4,), all xyxy
    """
    height, width = picture.shape[:2]
    w, h = text_width(text, size) + 6, min(line_height(size), height)
    x1, y1, x2, y2 = box.tolist()
    spots = [(x1, y1 - h), (x1, y1), (x1, y2), (x1, y2 - h)]
    spots += [(x2 - w, y1 - h), (x2 - w, y2), (x2, y1), (x1 - w, y1)]
    corners = np.clip(spots, 0, (max(width - w, 0), height - h))  # (8, 2)
    places = np.concatenate([corners, np.add(corners, (w, h))], 1)
    place = places[find_free_place(places, taken)]
    left, top, right, bottom = place.tolist()
    picture[top:bottom, left:right] = color
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 140
    write_text(picture, text, left + 3, top, size, (0, 0, 0) if bright else (255, 255, 255))
    return place


def _to_array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu().float() if isinstance(values, Tensor) else values, np.float32)

"""The stock SSD training pipeline in float32 on whole photos, as plainly as it can be written.

Colour on the full photo, then a canvas, a crop, a resize and a flip, each on all pixels; nothing is rounded
or clipped in between. It takes the same random numbers as the package's transforms, in the same order, and
shares no code with them.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

MEAN_RGB = (123.675, 116.28, 103.53)

PIPELINE = [
    {'type': 'LoadImageFromFile'},
    {'type': 'LoadAnnotations'},
    {'type': 'Expand', 'mean': MEAN_RGB, 'to_rgb': True, 'ratio_range': (1, 4)},
    {'type': 'MinIoURandomCrop', 'min_ious': (0.1, 0.3, 0.5, 0.7, 0.9), 'min_crop_size': 0.3},
    {'type': 'Resize', 'scale': (300, 300), 'keep_ratio': False},
    {'type': 'RandomFlip', 'prob': 0.5},
    {
        'type': 'PhotoMetricDistortion',
        'brightness_delta': 32,
        'contrast_range': (0.5, 1.5),
        'saturation_range': (0.5, 1.5),
        'hue_delta': 18,
    },
    {'type': 'PackDetInputs'},
]
TEST_PIPELINE = [PIPELINE[0], PIPELINE[4], PIPELINE[7]]


@dataclass
class Reference:
    img: Any  # float32 (300, 300, 3) BGR, not clipped
    photo: Any  # float32 (300, 300), share of the photo in each pixel; the rest is canvas
    bboxes: Any  # (G, 4)
    labels: Any  # (G,)
    steps: dict[str, Any]  # what was drawn


def reference_sample(photo, bboxes, labels, rng, contrast_first: bool) -> Reference:
    """The sample that the stock pipeline makes of a photo, uint8 (H, W, 3) BGR.

    `contrast_first`: contrast before saturation and hue, or after them: SSD throws a coin.
    """
    height, width = photo.shape[:2]
    boxes = [[float(side) for side in box] for box in bboxes]
    labels = [int(label) for label in labels]

    chance, at, along, down = rng.random(4)
    canvas = None
    if chance < 0.5:
        ratio = 1 + 3 * at
        left, top = int((width * ratio - width) * along), int((height * ratio - height) * down)
        canvas = (int(height * ratio), int(width * ratio), top, left)
        boxes = [[x1 + left, y1 + top, x2 + left, y2 + top] for x1, y1, x2, y2 in boxes]
    canvas_height, canvas_width = canvas[:2] if canvas else (height, width)

    patch, min_iou = draw_patch(boxes, canvas_height, canvas_width, rng)
    if patch is not None:
        left, top, right, bottom = patch
        inside = [left < (x1 + x2) / 2 < right and top < (y1 + y2) / 2 < bottom for x1, y1, x2, y2 in boxes]
        boxes = [box for box, kept in zip(boxes, inside, strict=True) if kept]
        labels = [label for label, kept in zip(labels, inside, strict=True) if kept]
        boxes = [
            [max(x1, left) - left, max(y1, top) - top, min(x2, right) - left, min(y2, bottom) - top]
            for x1, y1, x2, y2 in boxes
        ]
    else:
        patch = (0, 0, canvas_width, canvas_height)
    across, up = 300 / (patch[2] - patch[0]), 300 / (patch[3] - patch[1])
    boxes = [[x1 * across, y1 * up, x2 * across, y2 * up] for x1, y1, x2, y2 in boxes]
    flip = rng.random() < 0.5
    if flip:
        boxes = [[300 - x2, y1, 300 - x1, y2] for x1, y1, x2, y2 in boxes]

    img, colour = distort(photo.astype(np.float32), rng.random((5, 2)), contrast_first)
    seen = np.ones((height, width), np.float32)
    if canvas:
        canvas_height, canvas_width, top, left = canvas
        larger = np.empty((canvas_height, canvas_width, 3), np.float32)
        larger[:] = MEAN_RGB[::-1]
        larger[top : top + height, left : left + width] = img
        img = larger
        larger = np.zeros((canvas_height, canvas_width), np.float32)
        larger[top : top + height, left : left + width] = seen
        seen = larger
    left, top, right, bottom = patch
    img, seen = (
        cv2.resize(np.ascontiguousarray(plane[top:bottom, left:right]), (300, 300)) for plane in (img, seen)
    )
    if flip:
        img, seen = img[:, ::-1], seen[:, ::-1]
    steps = {'canvas': canvas, 'patch': patch, 'min_iou': min_iou, 'flip': flip, **colour}
    return Reference(img, seen, np.array(boxes, np.float64).reshape(-1, 4), labels, steps)


def draw_patch(boxes, height, width, rng):
    """A patch (left, top, right, bottom) that fits, and its IoU; (None, 1) for no cut."""
    while True:
        min_iou = (1, 0.1, 0.3, 0.5, 0.7, 0.9, 0)[int(rng.random() * 7)]
        if min_iou == 1:
            return None, 1
        for wide, high, along, down in rng.random((50, 4)):
            w, h = width * (0.3 + 0.7 * wide), height * (0.3 + 0.7 * high)
            if h / w < 0.5 or h / w > 2:
                continue
            x, y = (width - w) * along, (height - h) * down
            patch = (int(x), int(y), int(x + w), int(y + h))
            if patch[0] == patch[2] or patch[1] == patch[3]:
                continue
            if boxes and min(iou(patch, box) for box in boxes) < min_iou:
                continue
            centres = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes]
            if boxes and not any(patch[0] < x < patch[2] and patch[1] < y < patch[3] for x, y in centres):
                continue
            return patch, min_iou


def iou(first, second) -> float:
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / max(sum(areas) - width * height, 1e-6)


def distort(img, numbers, contrast_first: bool):
    """Brightness, contrast, saturation, hue, contrast, channels; each drawn by a coin."""
    done = numbers[:, 0] < 0.5
    brightness, contrast, saturation, hue = (
        low + (high - low) * at
        for (low, high), at in zip(
            ((-32, 32), (0.5, 1.5), (0.5, 1.5), (-18, 18)), numbers[:, 1], strict=False
        )
    )
    if done[0]:
        img = img + np.float32(brightness)
    if done[1] and contrast_first:
        img = img * np.float32(contrast)
    hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
    if done[2]:
        hsv[..., 1] *= saturation
    if done[3]:
        hsv[..., 0] += hue
        hsv[..., 0][hsv[..., 0] > 360] -= 360
        hsv[..., 0][hsv[..., 0] < 0] += 360
    img = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if done[1] and not contrast_first:
        img = img * np.float32(contrast)
    order = (0, 1, 2)
    if done[4]:
        order = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)][int(numbers[4, 1] * 6)]
        img = img[..., order]
    names = ('brightness', 'contrast', 'saturation', 'hue')
    drawn = {
        name: value if coin else None
        for name, value, coin in zip(names, (brightness, contrast, saturation, hue), done, strict=False)
    }
    return img, {**drawn, 'channels': tuple(order)}

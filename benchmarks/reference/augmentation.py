"""The baseline SSD training pipeline in float32 on whole photos, as plainly as it can be written.

MMDetection 2.x decodes a photo, turns it into float32, and takes every step of the augmentation on all of
its pixels: color on the full photo, a canvas filled with the mean color, a crop, a resize, a flip, the
normalization. Nothing is rounded or clipped in between. It takes the same random numbers as the package's
transforms, in the same order, and shares no code with them.

H, W size of the photo · G boxes, xyxy in pixels
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

Pixels = NDArray[Any]
Box = Sequence[float]
SIZE = 300
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


class Geometry(NamedTuple):
    """What was drawn for a photo of height x width pixels."""

    canvas: tuple[int, int, int, int] | None  # height, width, top and left of the photo on it
    patch: tuple[int, int, int, int]  # left, top, right, bottom on the canvas
    flip: bool
    min_iou: float

    def of_photo(self, photo: Pixels, fill: Any) -> Pixels:
        """Apply the geometry to a photo, float32 (H, W) or (H, W, 3)."""
        height, width = photo.shape[:2]
        if self.canvas:
            canvas_height, canvas_width, top, left = self.canvas
            larger = np.empty((canvas_height, canvas_width, *photo.shape[2:]), np.float32)
            larger[:] = fill
            larger[top : top + height, left : left + width] = photo
            photo = larger
        left, top, right, bottom = self.patch
        photo = cv2.resize(np.ascontiguousarray(photo[top:bottom, left:right]), (SIZE, SIZE))
        return photo[:, ::-1] if self.flip else photo


class Reference(NamedTuple):
    """A sample of the baseline pipeline, before its normalization."""

    img: Pixels  # float32 (300, 300, 3) BGR, not clipped
    bboxes: NDArray[np.float64]  # (G, 4)
    labels: list[int]
    geometry: Geometry
    color: dict[str, Any]  # what was drawn, by name; None: left alone

    @property
    def steps(self) -> dict[str, Any]:
        """Return all that was drawn, by name."""
        return {**self.geometry._asdict(), **self.color}

    def differences(self, img: Pixels, photo_shape: tuple[int, int]) -> tuple[float, float]:
        """Compare a sample (300, 300, 3) BGR with this one, in gray levels, away from the photo's edge.

        Returns the largest difference to the mean color on the canvas, and the mean difference on the photo.
        """
        share = self.geometry.of_photo(np.ones(photo_shape, np.float32), 0)  # of the photo in each pixel
        near = np.ones((5, 5))
        canvas = cv2.erode((share < 1e-6).astype(np.uint8), near, borderValue=1) > 0
        photo = cv2.erode((share > 1 - 1e-6).astype(np.uint8), near, borderValue=1) > 0
        of_canvas = np.abs(img[canvas] - np.array(MEAN_RGB[::-1])).max(initial=0)
        of_photo = np.abs(img.astype(np.float32) - self.img.clip(0, 255))[photo]
        return float(of_canvas), float(of_photo.mean()) if photo.any() else 0.0


def baseline_pipeline(file: Path, boxes: Any, labels: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Turn a file into a sample: img (3, 300, 300) normalized, RGB; boxes, labels."""
    photo: Any = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    sample = reference_sample(photo, boxes, labels, rng, contrast_first=True)
    img: Any = cv2.cvtColor(np.ascontiguousarray(sample.img), cv2.COLOR_BGR2RGB)
    img -= np.array(MEAN_RGB, np.float32)
    img /= np.ones(3, np.float32)
    return {
        'img': torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1))),
        'bboxes': torch.from_numpy(sample.bboxes.astype(np.float32)),
        'labels': torch.tensor(sample.labels),
    }


def reference_sample(
    photo: Pixels, bboxes: Any, labels: Any, rng: np.random.Generator, contrast_first: bool
) -> Reference:
    """Augment a photo, uint8 (H, W, 3) BGR, as the baseline does.

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
        inside = centers(patch, boxes)
        boxes, labels = list(itertools.compress(boxes, inside)), list(itertools.compress(labels, inside))
        boxes = [
            [max(x1, left) - left, max(y1, top) - top, min(x2, right) - left, min(y2, bottom) - top]
            for x1, y1, x2, y2 in boxes
        ]
    else:
        patch = (0, 0, canvas_width, canvas_height)
    across, up = SIZE / (patch[2] - patch[0]), SIZE / (patch[3] - patch[1])
    boxes = [[x1 * across, y1 * up, x2 * across, y2 * up] for x1, y1, x2, y2 in boxes]
    geometry = Geometry(canvas, patch, bool(rng.random() < 0.5), min_iou)
    if geometry.flip:
        boxes = [[SIZE - x2, y1, SIZE - x1, y2] for x1, y1, x2, y2 in boxes]

    img, color = distort(photo.astype(np.float32), rng.random((5, 2)), contrast_first)
    img = geometry.of_photo(img, MEAN_RGB[::-1])
    return Reference(img, np.array(boxes, np.float64).reshape(-1, 4), labels, geometry, color)


def draw_patch(
    boxes: list[list[float]], height: int, width: int, rng: np.random.Generator
) -> tuple[tuple[int, int, int, int] | None, float]:
    """Draw a patch (left, top, right, bottom) that fits, and its IoU; (None, 1) for no cut."""
    while True:
        min_iou = (1, 0.1, 0.3, 0.5, 0.7, 0.9, 0)[int(rng.random() * 7)]
        if min_iou == 1:
            return None, 1
        for wide, high, along, down in rng.random((50, 4)):
            w, h = width * (0.3 + 0.7 * wide), height * (0.3 + 0.7 * high)
            x, y = (width - w) * along, (height - h) * down
            patch = (int(x), int(y), int(x + w), int(y + h))
            if not 0.5 <= h / w <= 2 or patch[0] == patch[2] or patch[1] == patch[3]:
                continue
            if not boxes or (min(iou(patch, box) for box in boxes) >= min_iou and any(centers(patch, boxes))):
                return patch, min_iou


def centers(patch: Box, boxes: Sequence[Box]) -> list[bool]:
    """Test whether the center of each box lies in a patch."""
    left, top, right, bottom = patch
    return [left < (x1 + x2) / 2 < right and top < (y1 + y2) / 2 < bottom for x1, y1, x2, y2 in boxes]


def iou(first: Box, second: Box) -> float:
    """Compute the IoU of two boxes."""
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / max(sum(areas) - width * height, 1e-6)


def distort(img: Pixels, numbers: Pixels, contrast_first: bool) -> tuple[Pixels, dict[str, Any]]:
    """Distort brightness, contrast, saturation, hue and the order of channels, each by a coin."""
    ranges = {'brightness': (-32, 32), 'contrast': (0.5, 1.5), 'saturation': (0.5, 1.5), 'hue': (-18, 18)}
    drawn: dict[str, Any] = {
        name: low + (high - low) * at if coin < 0.5 else None
        for (name, (low, high)), (coin, at) in zip(ranges.items(), numbers, strict=False)
    }
    if drawn['brightness'] is not None:
        img = img + np.float32(drawn['brightness'])
    if drawn['contrast'] is not None and contrast_first:
        img = img * np.float32(drawn['contrast'])
    hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
    if drawn['saturation'] is not None:
        hsv[..., 1] *= drawn['saturation']
    if drawn['hue'] is not None:
        hsv[..., 0] += drawn['hue']
        hsv[..., 0][hsv[..., 0] > 360] -= 360
        hsv[..., 0][hsv[..., 0] < 0] += 360
    img = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if drawn['contrast'] is not None and not contrast_first:
        img = img * np.float32(drawn['contrast'])
    order = (0, 1, 2)
    if numbers[4, 0] < 0.5:
        order = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)][int(numbers[4, 1] * 6)]
        img = img[..., order]
    return img, {**drawn, 'channels': tuple(order)}

"""The end of a pipeline: from a window on a file to tensors.

H, W size of the output in pixels
"""

from typing import Any

import cv2
import numpy as np
import torch

from mmdet.datasets.transforms.color import distort
from mmdet.datasets.transforms.loading import read_image
from mmdet.datasets.transforms.window import Colour, Image, Results, Window
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackDetInputs:
    """Decodes the image, draws what the window shows of it, and packs the sample.

    Reads img or img_path, img_id, ori_shape, window, bboxes, labels, colour, fill. Returns a dict:
    img uint8 (3, H, W) tensor, BGR · bboxes float32 (G, 4) xyxy in pixels of img, none empty ·
    labels int64 (G,) · img_id int · ori_shape (h, w) · img_shape (H, W).

    Raises:
        BadImageError: The file cannot be used.
    """

    def __call__(self, results: Results) -> dict[str, Any]:
        """Make the sample."""
        ori_shape, window = results['ori_shape'], results['window']
        source = results['img'] if 'img' in results else read_image(results['img_path'], ori_shape)
        img = render(source, window, results.get('colour', Colour()), results.get('fill', (0, 0, 0)))
        bboxes, labels = results['bboxes'], results['labels']
        whole = (bboxes[:, 2] > bboxes[:, 0]) & (bboxes[:, 3] > bboxes[:, 1])
        return {
            'img': torch.from_numpy(img),
            'bboxes': torch.from_numpy(bboxes[whole]),
            'labels': torch.from_numpy(labels[whole]),
            'img_id': results['img_id'],
            'ori_shape': ori_shape,
            'img_shape': (window.height, window.width),
        }


def render(source: Image, window: Window, colour: Colour, fill: tuple[float, float, float]) -> Image:
    """Draw a window: one resize of the part that is seen, its colour, then the fill around it.

    The seen part is placed on whole pixels of the output, up to half a pixel from where it belongs; that
    makes it one plain resize, ten times as fast as an exact warp. The fill is never coloured.

    source uint8 (h, w, 3) BGR · fill BGR · returns uint8 (3, H, W), BGR unless `colour.channels` says else
    """
    img = np.empty((3, window.height, window.width), np.uint8)
    left, right = max(window.left, 0), min(window.right, source.shape[1])
    top, bottom = max(window.top, 0), min(window.bottom, source.shape[0])
    if (left, top, right, bottom) != window[:4]:
        img[:] = np.rint(fill).astype(np.uint8)[:, None, None]
    if left >= right or top >= bottom:
        return img
    x1, x2 = _place(left - window.left, right - window.left, window.right - window.left, window.width)
    y1, y2 = _place(top - window.top, bottom - window.top, window.bottom - window.top, window.height)
    patch = source[top:bottom, left:right]
    if patch.shape[:2] != (y2 - y1, x2 - x1):
        patch = cv2.resize(patch, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
    if window.flip:
        patch = cv2.flip(patch, 1)
        x1, x2 = window.width - x2, window.width - x1
    patch = distort(patch, colour)
    for plane, channel in zip(img, colour.channels, strict=True):
        cv2.extractChannel(patch, channel, plane[y1:y2, x1:x2])
    return img


def _place(start: int, stop: int, source_size: int, size: int) -> tuple[int, int]:
    """Where a stretch of the window lands in the output, in whole pixels, at least one of them."""
    scale = size / source_size
    first = min(round(start * scale), size - 1)
    return first, max(round(stop * scale), first + 1)

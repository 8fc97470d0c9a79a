"""The end of a pipeline: from a window on a file to tensors.

H, W size of the output in pixels
"""

import math
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
        whole = (bboxes[:, 2:] > bboxes[:, :2]).all(1)
        return {
            'img': torch.from_numpy(img),
            'bboxes': torch.from_numpy(bboxes[whole]),
            'labels': torch.from_numpy(labels[whole]),
            'img_id': results['img_id'],
            'ori_shape': ori_shape,
            'img_shape': (window.height, window.width),
        }


def render(source: Image, window: Window, colour: Colour, fill: tuple[float, float, float]) -> Image:
    """Draw a window: the part that is seen, resized once; its colour; the fill around it, never coloured.

    source uint8 (h, w, 3) BGR · fill BGR · returns uint8 (3, H, W), BGR unless `colour.channels` says else
    """
    img = np.empty((3, window.height, window.width), np.uint8)
    if _covers(source, window):
        seen = source[window.top : window.bottom, window.left : window.right]
        patch, x1, y1 = cv2.resize(seen, (window.width, window.height)), 0, 0
    else:
        img[:] = np.rint(fill).astype(np.uint8)[:, None, None]
        patch, x1, y1 = _draw_beside_fill(source, window)
        if not patch.size:
            return img
    height, width = patch.shape[:2]
    if window.flip:
        patch, x1 = cv2.flip(patch, 1), window.width - x1 - width
    place = colour.channels.index  # of a channel of the patch in the output
    cv2.split(distort(patch, colour), [img[place(c), y1 : y1 + height, x1 : x1 + width] for c in range(3)])
    return img


def _covers(source: Image, window: Window) -> bool:
    height, width = source.shape[:2]
    return window.left >= 0 and window.top >= 0 and window.right <= width and window.bottom <= height


def _draw_beside_fill(source: Image, window: Window) -> tuple[Image, int, int]:
    """The output pixels whose centres lie on the source: (h, w, 3), and x, y of the first one.

    The edge of the source falls inside an output pixel. To round it away and resize would move the whole
    photo by up to half a pixel of the output, which can be several of the source, so this is an exact warp.
    It takes three times as long as a resize, of the fewer pixels beside a fill.
    """
    left, right = max(window.left, 0), min(window.right, source.shape[1])
    top, bottom = max(window.top, 0), min(window.bottom, source.shape[0])
    across = (window.right - window.left) / window.width  # pixels of the source per pixel of the output
    down = (window.bottom - window.top) / window.height
    x1, x2 = (math.ceil((edge - window.left) / across - 0.5) for edge in (left, right))
    y1, y2 = (math.ceil((edge - window.top) / down - 0.5) for edge in (top, bottom))
    if x1 >= x2 or y1 >= y2:
        return np.empty((0, 0, 3), np.uint8), 0, 0
    to_source = np.array(
        [
            [across, 0, across * (x1 + 0.5) - 0.5 + window.left - left],
            [0, down, down * (y1 + 0.5) - 0.5 + window.top - top],
        ]
    )
    patch = cv2.warpAffine(
        source[top:bottom, left:right],
        to_source,
        (x2 - x1, y2 - y1),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return patch, x1, y1

"""Pack a sample: draw the window on its image, convert to tensors.

H, W size of the output in pixels
"""

from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from mmdet.datasets.transforms.color import distort
from mmdet.datasets.transforms.loading import read_image, read_photo
from mmdet.datasets.transforms.window import ColorJitter, Image, Results, Window
from mmdet.registry import TRANSFORMS
from mmdet.structures import EncodedImages


@TRANSFORMS.register_module()
class PackDetInputs:
    """Decode the image, draw what the window shows of it, and pack the sample as tensors.

    Reads img or img_path, img_id, ori_shape, window, bboxes, labels, ann_ids, color, fill. Returns a dict:
    img uint8 (3, H, W) tensor, BGR · bboxes float32 (G, 4) xyxy in pixels of img, none empty ·
    labels, ann_ids int64 (G,) · img_id int · ori_shape (h, w) · img_shape (H, W).

    Args:
        decode: Where a photo is decoded and drawn: here, in the 'worker', or on the 'device', by
            DetDataPreprocessor. Then img is an `EncodedImages` of one image. The file is read and checked
            here all the same, and decoded here where a device could not do it.

    Raises:
        BadImageError: The file cannot be used.
    """

    def __init__(self, decode: Literal['worker', 'device'] = 'worker') -> None:
        if decode not in ('worker', 'device'):
            raise ValueError(f"PackDetInputs: decode must be 'worker' or 'device', but is {decode!r}")
        self.decode = decode

    def __call__(self, results: Results) -> dict[str, Any]:
        """Make the sample."""
        ori_shape, window = results['ori_shape'], results['window']
        img: Tensor | EncodedImages
        if self.decode == 'device':
            photo = results['img'] if 'img' in results else read_photo(results['img_path'], ori_shape)
            img = encode(photo, results)
        else:
            source = results['img'] if 'img' in results else read_image(results['img_path'], ori_shape)
            color, fill = results.get('color', ColorJitter()), results.get('fill', (0, 0, 0))
            img = torch.from_numpy(render(source, window, color, fill))
        bboxes = results['bboxes']
        whole = (bboxes[:, 2:] > bboxes[:, :2]).all(1)
        return {
            'img': img,
            'bboxes': torch.from_numpy(bboxes[whole]),
            'labels': torch.from_numpy(results['labels'][whole]),
            'ann_ids': torch.from_numpy(results['ann_ids'][whole]),
            'img_id': results['img_id'],
            'ori_shape': ori_shape,
            'img_shape': (window.height, window.width),
        }


def render(source: Image, window: Window, color: ColorJitter, fill: tuple[float, float, float]) -> Image:
    """Draw a window: the visible part, resized once and color-jittered, and the fill around it.

    source uint8 (h, w, 3) BGR · fill BGR · returns uint8 (3, H, W), BGR unless `color.channels` says else
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
    place = color.channels.index  # of a channel of the patch in the output
    cv2.split(distort(patch, color), [img[place(c), y1 : y1 + height, x1 : x1 + width] for c in range(3)])
    return img


def _covers(source: Image, window: Window) -> bool:
    height, width = source.shape[:2]
    return window.left >= 0 and window.top >= 0 and window.right <= width and window.bottom <= height


def _draw_beside_fill(source: Image, window: Window) -> tuple[Image, int, int]:
    """Draw the output pixels whose centers lie on the source, not flipped: (h, w, 3), and x, y of the first.

    The edge of the source falls inside an output pixel. To round it away and resize would move the whole
    photo by up to half a pixel of the output, which can be several of the source, so this is an exact warp.
    It takes three times as long as a resize, of the fewer pixels beside a fill.
    """
    view = window._replace(flip=False).view(*source.shape[:2])
    left, top, right, bottom = view.src_box
    x1, y1, x2, y2 = view.dst_box
    if x1 == x2:
        return np.empty((0, 0, 3), np.uint8), 0, 0
    across, down, x, y = view.affine
    patch = cv2.warpAffine(
        source[top:bottom, left:right],
        np.array([[across, 0, across * x1 + x], [0, down, down * y1 + y]]),
        (x2 - x1, y2 - y1),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return patch, x1, y1


def encode(photo: bytes | Image, results: Results) -> EncodedImages:
    """Collect what a device needs to draw one window as `render` does.

    Args:
        photo: A JPEG file that is not decoded, or uint8 (h, w, 3), BGR, of which only what is seen is kept.
        results: Of the pipeline: ori_shape, window, color, fill.
    """
    window, color = results['window'], results.get('color', ColorJitter())
    view = window.view(*results['ori_shape'])
    if isinstance(photo, bytes):
        data = np.frombuffer(photo, np.uint8).copy()
    else:
        left, top, right, bottom = view.src_box
        data = photo[top:bottom, left:right, ::-1].transpose(2, 0, 1).flatten()
    return EncodedImages(
        data=torch.from_numpy(data),
        lengths=torch.tensor([data.size]),
        is_jpeg=torch.tensor([isinstance(photo, bytes)]),
        src_boxes=torch.tensor([view.src_box]),
        dst_boxes=torch.tensor([view.dst_box]),
        affine=torch.tensor([view.affine]),
        colors=torch.tensor([color[:4]]),
        channels=torch.tensor([color.channels]),
        fills=torch.tensor([results.get('fill', (0, 0, 0))], dtype=torch.float32).round(),
        shape=(window.height, window.width),
    )

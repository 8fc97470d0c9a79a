"""Reading image files, and the transforms that begin a pipeline.

H, W height and width of an image · images are uint8 (H, W, 3) BGR
"""

from pathlib import Path

import cv2
import numpy as np

from mmdet.datasets.transforms.window import Image, Results, Window
from mmdet.registry import TRANSFORMS

JPEG_START = b'\xff\xd8'
JPEG_END = b'\xff\xd9'
PNG_START = b'\x89PNG\r\n\x1a\n'
START_OF_SCAN = 0xDA

AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
AS_SHOWN = cv2.IMREAD_COLOR  # turned as its EXIF data says


class BadImageError(ValueError):
    """An image file that cannot be used; the message is the reason alone, without file and remedy."""


def read_image(path: Path, size: tuple[int, int] | None = None) -> Image:
    """Read an image file as 8-bit colour, whatever it holds (gray, CMYK, 16 bit, alpha, palette).

    Args:
        path: The file; its content decides the format, not its name.
        size: (h, w) that the annotations were made for. The image is turned as its EXIF data says only
            when that gives this size and the stored pixels do not: boxes of most sets, COCO among them,
            belong to the pixels as stored. Without a size it is turned, as every viewer does.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        BadImageError: The file is missing, empty, truncated, not an image, or of another size.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = 'the file is missing' if isinstance(error, FileNotFoundError) else str(error)
        raise BadImageError(reason) from error
    if not data:
        raise BadImageError('the file is empty')
    if _is_truncated(data):
        raise BadImageError('the file is truncated')
    if size is None:
        return _decode(data, AS_SHOWN)
    img = _decode(data, AS_STORED)
    if img.shape[:2] != size:
        stored, img = img, _decode(data, AS_SHOWN)
        if img.shape[:2] != size:
            raise BadImageError(
                f'the image is {stored.shape[1]} x {stored.shape[0]} pixels (width x height), '
                f'its annotation says {size[1]} x {size[0]}'
            )
    return img


def _decode(data: bytes, flags: int) -> Image:
    try:
        img = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # for example more pixels than OpenCV allows
        raise BadImageError(f'the file cannot be decoded: {error}') from error
    if img is None:
        raise BadImageError('the file is not an image')
    return img


def _is_truncated(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; the decoder fills the missing part with grey and only warns.

    A few microseconds a file: the headers are stepped over (a thumbnail inside them has an end marker of
    its own), then the end marker is looked for from behind. It cannot occur inside compressed JPEG data,
    and bytes behind it do no harm. Other formats fail in the decoder itself.
    """
    if data.startswith(PNG_START):
        return data.rfind(b'IEND') < 0
    if not data.startswith(JPEG_START):
        return False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != START_OF_SCAN:
        padding = data[at + 1] == 0xFF  # any number of fill bytes may stand in front of a marker
        at += 1 if padding else 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return data.rfind(JPEG_END, at) < 0


@TRANSFORMS.register_module()
class LoadImageFromFile:
    """Opens the window on a whole image, without boxes so far.

    Nothing is decoded yet: that is PackDetInputs' work, once it is known which part is seen. Only an image
    whose size nobody told (no `ori_shape`) is read here. An image given as pixels (`img`) is taken as it is.

    Reads img_path, img, ori_shape; writes window, bboxes, labels, and what was missing of img, ori_shape.
    """

    def __call__(self, results: Results) -> Results:
        """Open the window."""
        results = results.copy()
        if 'img' not in results and 'ori_shape' not in results:
            results['img'] = read_image(results['img_path'])
        if 'img' in results:
            height, width = results['img'].shape[:2]
            results['ori_shape'] = (height, width)
        results['window'] = Window.whole(*results['ori_shape'])
        results['bboxes'] = np.zeros((0, 4), np.float32)
        results['labels'] = np.zeros(0, np.int64)
        return results


@TRANSFORMS.register_module()
class LoadAnnotations:
    """Takes the boxes of the image from the annotations.

    Reads annotations; writes bboxes, labels.
    """

    def __call__(self, results: Results) -> Results:
        """Take the boxes."""
        bboxes, labels = results['annotations']
        return {**results, 'bboxes': bboxes.copy(), 'labels': labels.copy()}

"""Read and check image files; the transforms that begin a pipeline.

H, W height and width of an image · images are uint8 (H, W, 3) BGR
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mmdet.datasets.transforms.window import Image, Results, Window
from mmdet.registry import TRANSFORMS

JPEG_START = b'\xff\xd8'
JPEG_END = b'\xff\xd9'
PNG_START = b'\x89PNG\r\n\x1a\n'
START_OF_SCAN = 0xDA
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers behind which a JPEG says its size
PLAIN_FRAMES = {0xC0, 0xC2}  # baseline, progressive; others are lossless, arithmetically coded, extended
ADOBE = 0xEE  # says which colors three or four components are

AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
AS_SHOWN = cv2.IMREAD_COLOR  # turned as its EXIF data says


class BadImageError(ValueError):
    """An image file that cannot be used; the message is the reason alone, without file and remedy."""


def read_image(path: Path, size: tuple[int, int] | None = None) -> Image:
    """Read an image file as 8-bit color, whatever it holds (gray, CMYK, 16 bit, alpha, palette).

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
    data, _ = _read(path, size)
    return _decode_as_annotated(data, size)


def read_photo(path: Path, size: tuple[int, int]) -> bytes | Image:
    """Read an image file without decoding it, or decoded where only OpenCV can do that.

    Args:
        path: The file.
        size: (h, w) that the annotations were made for.

    Returns:
        A JPEG file of that size as stored that every decoder reads alike, else what `read_image` returns.

    Raises:
        BadImageError: As `read_image`, except for damage that only decoding would find.
    """
    data, head = _read(path, size)
    return data if head.plain_jpeg and head.size == size else _decode_as_annotated(data, size)


class _Header(NamedTuple):
    """What the header of a file tells."""

    size: tuple[int, int] | None = None  # (h, w), where it says one
    truncated: bool = False
    plain_jpeg: bool = False  # of 8 bits, baseline or progressive, gray or YCbCr


def _read(path: Path, size: tuple[int, int] | None) -> tuple[bytes, _Header]:
    """Read an image file and its header.

    Raises:
        BadImageError: The file is missing, empty or truncated, or says another size.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = 'the file is missing' if isinstance(error, FileNotFoundError) else str(error)
        raise BadImageError(reason) from error
    if not data:
        raise BadImageError('the file is empty')
    head = _parse_header(data)
    if head.truncated:
        raise BadImageError('the file is truncated')
    if size is not None and head.size is not None and head.size not in (size, size[::-1]):
        raise _other_size(head.size, size)  # and is not decoded: a small file can hold gigabytes
    return data, head


def _decode_as_annotated(data: bytes, size: tuple[int, int] | None) -> Image:
    if size is None:
        return decode_image(data, AS_SHOWN)
    img = decode_image(data, AS_STORED)
    if img.shape[:2] != size:
        stored, img = img.shape[:2], decode_image(data, AS_SHOWN)
        if img.shape[:2] != size:
            raise _other_size(stored, size)
    return img


def _other_size(stored: tuple[int, ...], size: tuple[int, int]) -> BadImageError:
    return BadImageError(
        f'the image is {stored[1]} x {stored[0]} pixels (width x height), '
        f'its annotation says {size[1]} x {size[0]}'
    )


def decode_image(data: bytes | Image, flags: int) -> Image:
    """Decode the content of an image file with OpenCV: uint8 (H, W, 3), BGR.

    Raises:
        BadImageError: It cannot be decoded.
    """
    try:
        img = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        reason = ' '.join(error.err.split())
        if 'CV_IO_MAX_IMAGE_PIXELS' in reason:
            reason = 'it has more pixels than OPENCV_IO_MAX_IMAGE_PIXELS allows (2^30 when unset)'
        raise BadImageError(f'the file cannot be decoded: {reason}') from error
    if img is None:
        raise BadImageError('the file is not an image')
    return img


def _parse_header(data: bytes) -> _Header:
    """Parse the header of a JPEG or PNG; of other formats, which fail in the decoder, nothing.

    Whether the end is missing is asked because the decoder fills the missing part with gray and only warns.

    A few microseconds a file: the headers are stepped over (a thumbnail inside them has an end marker of
    its own), then the end marker is looked for from behind. It cannot occur inside compressed JPEG data,
    and bytes behind it do no harm.
    """
    if data.startswith(PNG_START):
        height, width = (int.from_bytes(data[at : at + 4], 'big') for at in (20, 16))
        return _Header((height, width), data.rfind(b'IEND') < 0)
    if not data.startswith(JPEG_START):
        return _Header()
    height, width, at, plain, as_rgb = 0, 0, 2, False, False
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != START_OF_SCAN:
        marker = data[at + 1]
        if marker in START_OF_FRAME:
            height, width = (int.from_bytes(data[side : side + 2], 'big') for side in (at + 5, at + 7))
            bits, names = data[at + 4 : at + 5], data[at + 10 : at + 19 : 3]  # names: one byte a component
            plain = (
                marker in PLAIN_FRAMES and bits == b'\x08' and data[at + 9 : at + 10] in (b'\x01', b'\x03')
            )
            as_rgb |= names == b'RGB'
        elif marker == ADOBE:
            as_rgb |= data[at + 4 : at + 9] == b'Adobe' and data[at + 15 : at + 16] == b'\x00'
        padding = marker == 0xFF  # any number of fill bytes may stand in front of a marker
        at += 1 if padding else 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    size = (height, width) if height and width else None
    return _Header(size, data.rfind(JPEG_END, at) < 0, plain and not as_rgb)


@TRANSFORMS.register_module()
class LoadImageFromFile:
    """Starts a pipeline with a window on the whole image, without boxes so far.

    Nothing is decoded yet: that is PackDetInputs' work, once it is known which part is seen. Only an image
    whose size nobody told (no `ori_shape`) is read here. An image given as pixels (`img`) is taken as it is.

    Reads img_path, img, ori_shape; writes window, bboxes, labels, ann_ids, and what was missing of the first
    three.
    """

    def __call__(self, results: Results) -> Results:
        """Make the window."""
        results = results.copy()
        if 'img' not in results and 'ori_shape' not in results:
            results['img'] = read_image(results['img_path'])
        if 'img' in results:
            height, width = results['img'].shape[:2]
            results['ori_shape'] = (height, width)
        results['window'] = Window.whole(*results['ori_shape'])
        results['bboxes'] = np.zeros((0, 4), np.float32)
        results['labels'] = results['ann_ids'] = np.zeros(0, np.int64)
        return results


@TRANSFORMS.register_module()
class LoadAnnotations:
    """Takes the boxes, labels and ids of the image's annotations.

    Reads annotations; writes bboxes, labels, ann_ids.
    """

    def __call__(self, results: Results) -> Results:
        """Copy them."""
        bboxes, labels, ann_ids = results['annotations']
        return {**results, 'bboxes': bboxes.copy(), 'labels': labels.copy(), 'ann_ids': ann_ids.copy()}

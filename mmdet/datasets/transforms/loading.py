"""Read and check image files; the transforms that begin a pipeline.

H, W height and width of an image · images are uint8 (H, W, 3) BGR
"""

import contextlib
import errno
import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mmdet.datasets.transforms.window import Image, Results, Window
from mmdet.files import HEAD, UNKNOWN, describe
from mmdet.registry import TRANSFORMS

JPEG_START = b'\xff\xd8'
JPEG_END = b'\xff\xd9'
PNG_START = b'\x89PNG\r\n\x1a\n'
START_OF_SCAN = 0xDA
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers behind which a JPEG says its size
PLAIN_FRAMES = {0xC0, 0xC2}  # baseline, progressive; others are lossless, arithmetically coded, extended
ADOBE = 0xEE  # says which colors three or four components are
EXIF = 0xE1
ORIENTATION = 0x0112  # the tag in EXIF data: 1 as stored; 2 to 4 keep the size, 5 to 8 swap height and width
TURNED_BY_OPENCV = ('JPEG', 'MPO', 'PNG', 'WEBP')  # the formats of which it reads the tag
SHALLOW_STARTS = (b'BM', b'RIFF', b'GIF8')  # how files begin that cannot hold more than 8 bits
READABLE = tuple(f'a {name} image' for name in ('JPEG', 'PNG', 'BMP', 'WebP', 'JPEG 2000'))  # by OpenCV 4.9
MIN_LEVELS = 32  # gray levels of 256 that a 16-bit image must have left with 8 bits
DEPTHS = (10, 12, 14)  # bits of cameras and scanners, often written into the lower ones of 16

AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
AS_SHOWN = cv2.IMREAD_COLOR  # turned as its EXIF data says


class BadImageError(ValueError):
    """An image file that cannot be used; the message is the reason alone, without file and remedy."""


def read_image(path: Path, size: tuple[int, int] | None = None) -> Image:
    """Read an image file as 8-bit color, whatever it holds (gray, CMYK, 16 bit, alpha, palette).

    Args:
        path: The file; its content decides the format, not its name.
        size: (h, w) that the annotations were made for. The image is turned as its EXIF data says only
            wherever that gives this size, as viewers and labeling tools show it, and as MMDetection reads
            it; else it is taken as stored. Without a size it is turned.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        BadImageError: The file is missing, empty, truncated, not an image, of another size, or holds
            numbers that 8 bits would lose.
    """
    data, head = _read(path, size)
    return _decode_as_annotated(data, size, head.deep)


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
    turned = head.exif and exif_reading(data, size) == 'upright'
    if head.plain_jpeg and head.size == size and not turned:
        return data
    return _decode_as_annotated(data, size, head.deep)


def exif_reading(data: bytes, size: tuple[int, int]) -> str:
    """Say how a photo is read that its EXIF data turn: 'upright' or 'as stored'; '' where they do not.

    Args:
        data: The file.
        size: (h, w) that the annotations were made for.
    """
    from PIL import Image as Pillow  # slow to load, and rarely needed

    unknown = (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError)  # to Pillow
    with contextlib.suppress(*unknown), Pillow.open(io.BytesIO(data)) as img:
        turn = img.getexif().get(ORIENTATION, 1)
        if img.format in TURNED_BY_OPENCV and turn in range(2, 9):
            return 'upright' if img.size == (size if turn > 4 else size[::-1]) else 'as stored'
    return ''


class _Header(NamedTuple):
    """What the header of a file tells."""

    size: tuple[int, int] | None = None  # (h, w), where it says one
    truncated: bool = False
    plain_jpeg: bool = False  # of 8 bits, baseline or progressive, gray or YCbCr
    exif: bool = False  # whether it is a JPEG with EXIF data
    deep: bool = False  # whether it may hold more than 8 bits


def _read(path: Path, size: tuple[int, int] | None) -> tuple[bytes, _Header]:
    """Read an image file and its header.

    Raises:
        BadImageError: The file is missing, empty or truncated, or says another size.
        OSError: The limit of open files is reached.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # no fault of this file: it must not be skipped
            raise OSError(f'{path}: too many files are open; raise the limit: `ulimit -n 4096`') from error
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


def _decode_as_annotated(data: bytes, size: tuple[int, int] | None, deep: bool) -> Image:
    img = decode_image(data, AS_SHOWN, deep)
    if size is not None and img.shape[:2] != size:
        img = decode_image(data, AS_STORED)
        if img.shape[:2] != size:
            raise _other_size(img.shape, size)
    return img


def _other_size(stored: tuple[int, ...], size: tuple[int, int]) -> BadImageError:
    swapped = ': has it swapped the two?' if stored[:2] == size[::-1] else ''
    return BadImageError(
        f'the image is {stored[1]} x {stored[0]} pixels (width x height), '
        f'its annotation says {size[1]} x {size[0]}{swapped}'
    )


def decode_image(data: bytes | Image, flags: int, deep: bool = False) -> Image:
    """Decode the content of an image file with OpenCV: uint8 (H, W, 3), BGR.

    Args:
        data: The content.
        flags: OpenCV's.
        deep: Whether it may hold more than 8 bits, and is to be looked at before it is cut to them.

    Raises:
        BadImageError: It cannot be decoded, or holds numbers that 8 bits would lose.
    """
    img = _decode(data, flags | cv2.IMREAD_ANYDEPTH if deep else flags)
    if deep and (img is None or img.dtype != np.uint8):
        wide = _decode(data, cv2.IMREAD_UNCHANGED) if img is None else img
        img = _decode(data, flags)
        _refuse_loss(wide, img)
    if img is None:
        what = describe(bytes(data[:HEAD]))
        if what in READABLE:
            raise BadImageError(
                f'the file begins as {what} but cannot be decoded: it is damaged, or of a rare kind'
            )
        told = '' if what == UNKNOWN else f' that OpenCV reads: it is {what}'
        raise BadImageError(f'the file is not an image{told}')
    return img


def _decode(data: bytes | Image, flags: int) -> Image | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        reason = ' '.join(error.err.split())
        if 'CV_IO_MAX_IMAGE_PIXELS' in reason:
            reason = 'it has more pixels than OPENCV_IO_MAX_IMAGE_PIXELS allows (2^30 when unset)'
        raise BadImageError(f'the file cannot be decoded: {reason}') from error


def _refuse_loss(wide: Image | None, img: Image | None) -> None:
    """Refuse an image of which hardly anything is left with 8 bits, or that fills only the lower of 16 bits.

    Args:
        wide: As the file holds it, as far as it can be read so.
        img: The same with 8 bits.

    Raises:
        BadImageError: Says what it holds, and what to do.
    """
    if wide is None or wide.dtype == np.uint8:
        return
    low, high = wide.min(), wide.max()
    if wide.dtype != np.uint16 or img is None:
        raise BadImageError(
            f'the file holds {wide.dtype} numbers from {low:g} to {high:g}, not colors of 8 or 16 bits; '
            'scale them to 0 ... 255 and write them so'
        )
    levels = int(img.max()) - int(img.min()) + 1
    depth = next((bits for bits in DEPTHS if high < 1 << bits), 16)
    if depth == 16 and levels >= min(MIN_LEVELS, int(high) - int(low) + 1):
        return
    scaled_by_decoder = img.max() > (high >> 8) + 1  # 10 bits of AVIF
    if scaled_by_decoder or not (wide % 257).any() or not (wide & (255 if depth == 16 else 3)).any():
        return  # or once scaled up, from 8 bits or by a camera: the photo itself is dark or pale
    remedy = (
        f'they look like data of {depth} bits: multiply those of the whole set by {1 << 16 - depth}, or, '
        'where the photo is meant to be so dark, write it with 8 bits'
    )
    if depth == 16:
        remedy = 'scale those of the whole set alike to 0 ... 65535, or to 0 ... 255 and 8 bits'
    raise BadImageError(
        f'the file holds 16-bit numbers from {low} to {high}, of which {levels} gray levels are left with 8 '
        f'bits; {remedy}'
    )


def _parse_header(data: bytes) -> _Header:
    """Parse the header of a JPEG or PNG; of other formats, which fail in the decoder, nothing.

    Whether the end is missing is asked because the decoder fills the missing part with gray and only warns.

    A few microseconds a file: the headers are stepped over (a thumbnail inside them has an end marker of
    its own), then the end marker is looked for from behind. It cannot occur inside compressed JPEG data,
    and bytes behind it do no harm.
    """
    if data.startswith(PNG_START):
        height, width = (int.from_bytes(data[at : at + 4], 'big') for at in (20, 16))
        return _Header((height, width), data.rfind(b'IEND') < 0, deep=data[24:25] == b'\x10')
    if not data.startswith(JPEG_START):
        return _Header(deep=not data.startswith(SHALLOW_STARTS))
    height, width, at, plain, as_rgb, exif = 0, 0, 2, False, False, False
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != START_OF_SCAN:
        marker = data[at + 1]
        if marker in START_OF_FRAME:
            height, width = (int.from_bytes(data[side : side + 2], 'big') for side in (at + 5, at + 7))
            bits, components = data[at + 4 : at + 5], data[at + 9 : at + 10]
            plain = marker in PLAIN_FRAMES and bits == b'\x08' and components in (b'\x01', b'\x03')
            as_rgb |= data[at + 10 : at + 19 : 3] == b'RGB'  # the names of the components
        elif marker == ADOBE:
            as_rgb |= data[at + 4 : at + 9] == b'Adobe' and data[at + 15 : at + 16] == b'\x00'
        exif |= marker == EXIF
        padding = marker == 0xFF  # any number of fill bytes may stand in front of a marker
        at += 1 if padding else 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    size = (height, width) if height and width else None
    return _Header(size, data.rfind(JPEG_END, at) < 0, plain and not as_rgb, exif)


@TRANSFORMS.register_module()
class LoadImageFromFile:
    """Start a pipeline with a window on the whole image, without boxes so far.

    Nothing is decoded yet: that is PackDetInputs' work, once it is known which part is seen. Only an image
    of unknown size (no `ori_shape`) is read here. An image given as pixels (`img`) is taken as it is.

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
    """Take the boxes, labels and ids of the image's annotations.

    Reads annotations; writes bboxes, labels, ann_ids.
    """

    def __call__(self, results: Results) -> Results:
        """Copy them."""
        bboxes, labels, ann_ids = results['annotations']
        return {**results, 'bboxes': bboxes.copy(), 'labels': labels.copy(), 'ann_ids': ann_ids.copy()}

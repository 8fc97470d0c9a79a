"""Decode and draw a batch on the device, as a data worker does it image by image in `PackDetInputs`.

N images · H, W size of the batch in pixels · h, w of the part of a photo that is seen · P pixels of all parts
"""

import logging
from collections.abc import Sequence
from functools import cache

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmdet.datasets.transforms.loading import AS_STORED, BadImageError, decode_image
from mmdet.structures import EncodedImages

EPS = torch.finfo(torch.float32).eps  # OpenCV's, in HSV
REMEDY = (
    '`python tools/misc/check_dataset.py CONFIG` finds files that cannot be decoded; '
    "PackDetInputs(decode='worker') with on_bad_image='skip' leaves them out."
)


def draw_images(images: EncodedImages, device: torch.device, img_ids: Sequence[int]) -> Tensor:
    """Decode the photos in one call, sample what is visible of them, jitter its color, and fill the rest.

    Args:
        images: On the CPU.
        device: Where it is done.
        img_ids: (N,) for messages.

    Returns:
        float32 (N, 3, H, W) BGR in [0, 255], not rounded. In the padding of the batch the fill.

    Raises:
        ValueError: A file can be decoded neither there nor by OpenCV; names the image.
    """
    parts = _decode_parts(images, device, img_ids)
    affine, place, channels, fills = (
        value.to(device, non_blocking=True)
        for value in (images.affine, images.dst_boxes, images.channels, images.fills)
    )
    drawn = change_colors(_sample(parts, affine, images.shape), images.colors)
    drawn = drawn.gather(1, channels[:, :, None, None].expand_as(drawn))
    return torch.where(pixels_inside(place, images.shape), drawn, fills[:, :, None, None])


def pixels_inside(bboxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Mark the pixels of images of (H, W) inside a box: (N, 4) xyxy, whole pixels -> (N, 1, H, W) bool."""
    x1, y1, x2, y2 = bboxes.T[..., None]  # (N, 1) each
    rows, columns = (torch.arange(side, device=bboxes.device) for side in shape)
    inside_rows, inside_columns = (rows >= y1) & (rows < y2), (columns >= x1) & (columns < x2)
    return (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]


def _decode_parts(images: EncodedImages, device: torch.device, img_ids: Sequence[int]) -> list[Tensor]:
    """Decode the visible part of each photo: N x uint8 (3, h, w) RGB."""
    photos = images.data.split(images.lengths.tolist())
    is_jpeg = images.is_jpeg.tolist()
    files = {i: photo for i, photo in enumerate(photos) if is_jpeg[i]}
    decoded = dict(zip(files, decode(list(files.values()), device, [img_ids[i] for i in files]), strict=True))
    return [
        decoded[i][:, top:bottom, left:right]
        if is_jpeg[i]
        else photos[i].to(device, non_blocking=True).view(3, bottom - top, right - left)
        for i, (left, top, right, bottom) in enumerate(images.src_boxes.tolist())
    ]


def decode(files: list[Tensor], device: torch.device, img_ids: Sequence[int]) -> list[Tensor]:
    """Decode JPEG files, uint8 (bytes,) on the CPU each: uint8 (3, h, w), RGB, as stored, on the device.

    Where the device fails, OpenCV decodes the batch in this process, and the log says so once a reason.

    Raises:
        ValueError: OpenCV fails, too; names the image.
    """
    if not files:
        return []
    try:
        from torchvision.io import ImageReadMode, decode_jpeg  # torchvision 0.29 means to remove it some day

        if device.type == 'cuda':
            # nvJPEG writes on a stream of its own, at once, into memory that was freed here but that kernels
            # in the queue may still read: https://github.com/pytorch/vision/pull/9606
            torch.cuda.current_stream(device).synchronize()
        photos: list[Tensor] = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    except torch.OutOfMemoryError:
        raise
    except (ImportError, RuntimeError) as error:  # torchvision's decoders raise nothing finer
        _warn_once(str(device), str(error).splitlines()[0])
        photos = [_decode_with_opencv(file, img_id) for file, img_id in zip(files, img_ids, strict=True)]
    return [photo.to(device) for photo in photos]  # from other devices than CUDA they come on the CPU


def _decode_with_opencv(file: Tensor, img_id: int) -> Tensor:
    try:
        img = decode_image(file.numpy(), AS_STORED)
    except BadImageError as error:
        raise ValueError(f'image {img_id} cannot be decoded: {error}. {REMEDY}') from error
    return torch.from_numpy(img).permute(2, 0, 1).flip(0)  # RGB


@cache
def _warn_once(device: str, reason: str) -> None:
    print_log(
        f'a batch could not be decoded on {device} ({reason}). OpenCV decodes such batches in this process, '
        f'which is slow. {REMEDY}',
        'current',
        level=logging.WARNING,
    )


def _sample(parts: list[Tensor], affine: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sample each pixel of the batch from its part, bilinear; beyond a part its edge is repeated.

    The parts lie one behind another in a row of P pixels: no canvas that one huge photo would make huge for
    all, and no float32 copy.

    parts N x uint8 (3, h, w) RGB · affine (N, 4) · returns float32 (N, 3, H, W) BGR
    """
    device = affine.device
    sizes = torch.tensor([part.shape[1:] for part in parts], device=device)  # (N, 2) h, w
    areas = sizes.prod(1)
    first = (areas.cumsum(0) - areas)[:, None]  # (N, 1)
    nothing = parts[0].new_zeros(3, 1)  # what a part without pixels is looked up in
    row = torch.cat([*(part.flatten(1) for part in parts), nothing], 1)
    pixels = row.flip(0).T.contiguous()  # (P + 1, 3)
    across, down, x, y = affine.T[..., None]  # (N, 1) each
    left, right, to_right = _neighbors(across, x, sizes[:, 1:], shape[1])  # (N, W) each
    upper, lower, to_lower = _neighbors(down, y, sizes[:, :1], shape[0])  # (N, H) each

    def across_row(row: Tensor) -> Tensor:  # (N, H) -> (N, H, W, 3)
        begin = (first + row * sizes[:, 1:])[:, :, None]
        at_left, at_right = (look_up(begin + column[:, None, :]) for column in (left, right))
        return at_left.lerp(at_right, to_right[:, None, :, None])

    def look_up(index: Tensor) -> Tensor:  # a pixel at a time: a quarter of the time of `pixels[index]`, CPU
        return pixels.index_select(0, index.flatten()).view(*index.shape, 3).float()

    drawn = across_row(upper).lerp(across_row(lower), to_lower[:, :, None, None])
    return drawn.permute(0, 3, 1, 2)


def _neighbors(step: Tensor, start: Tensor, size: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find the two neighbors of each place along one side, and its distance from the first of them.

    step, start, size (N, 1) · returns (N, count) int64, int64, float32 in [0, 1)
    """
    last = (size - 1).clamp(min=0)
    places = (step * torch.arange(count, device=step.device) + start).clamp(min=0).minimum(last)
    before = places.floor()
    return before.long(), (before.long() + 1).minimum(last), places - before


def change_colors(images: Tensor, colors: Tensor) -> Tensor:
    """Jitter colors as `distort` of the data workers does, without rounding.

    images float32 (N, 3, H, W) BGR · colors (N, 4), on the CPU · returns the same as images, in [0, 255]
    """
    hued = colors[:, 3].nonzero()[:, 0].tolist()
    values = colors.to(images.device, non_blocking=True).T[..., None, None, None]
    brightness, contrast, saturation, hue = values  # (N, 1, 1, 1) each
    images = images + brightness
    largest = images.amax(1, keepdim=True)
    images = largest + saturation * (images - largest)
    if hued:
        images[hued] = _turn_hue(images[hued], hue[hued, 0])
    return (contrast * images).clamp(0, 255)


def _turn_hue(images: Tensor, hue: Tensor) -> Tensor:
    """Add to H in HSV, as OpenCV does it, also with values below 0.

    images (N, 3, H, W) BGR · hue (N, 1, 1), degrees
    """
    blue, green, red = images.unbind(1)
    largest, smallest = images.amax(1), images.amin(1)  # (N, H, W)
    spread = largest - smallest
    sixth = torch.where(
        red == largest, green - blue, torch.where(green == largest, blue - red, red - green)
    ) / (spread + EPS)
    sixth += torch.where(red == largest, 0, torch.where(green == largest, 2, 4)) + hue / 60
    chroma = largest * spread / (largest.abs() + EPS)
    offsets = torch.tensor([1, 3, 5], device=images.device)[:, None, None]  # of B, G, R on the wheel of six
    along = (sixth[:, None] + offsets) % 6  # (N, 3, H, W)
    return largest[:, None] - chroma[:, None] * torch.minimum(along, 4 - along).clamp(0, 1)

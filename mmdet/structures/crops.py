"""Cutting boxes out of images, differentiably.

N images · M boxes · S crop side · boxes xyxy in pixels of the images
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet.structures.device import on_gpu


def crop_boxes(images: Tensor, bboxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    """Cut boxes out of images by a bilinear sampler, differentiably in the box coordinates.

    Eq 8 of arXiv 2106.05209: `align_corners=False`, zeros outside the image, so `images` should be
    normalized to mean 0. Runs in the dtype of `images`, with autocast off (a half-precision sampling
    grid is half a pixel off). No image is copied per box.

    images (N, 3, H, W) · bboxes (M, 4) xyxy in pixels of `images` · image_index (M,) in [0, N)
    returns (M, 3, size, size)
    """
    if len(bboxes) == 0:  # `grid_sample` refuses that; the result must stay in the graph
        return images.new_zeros(0, images.shape[1], size, size) + bboxes.sum()
    with torch.autocast(images.device.type, enabled=False):
        bboxes = bboxes.to(images.dtype)
        sample = _sample_as_volume if on_gpu(images) else _sample_expanded
        return sample(images, bboxes, image_index, size)


def sampling_grid(
    bboxes: Tensor, image_size: tuple[int, ...], size: int, depth: Tensor | None = None
) -> Tensor:
    """Where the S x S pixels of each crop lie in its image, or in a volume of images.

    bboxes (M, 4) xyxy in pixels · image_size (H, W) · depth (M,) of each box, in [-1, 1]
    returns (M, S, S, 2), (x, y) in [-1, 1] as `F.grid_sample` takes them; with `depth` (M, S, S, 3)
    """
    height, width = image_size
    x1, y1, x2, y2 = bboxes[:, :, None].unbind(1)  # (M, 1)
    centers = torch.linspace(-1, 1, size, device=bboxes.device, dtype=bboxes.dtype) * (size - 1) / size
    x = (x2 - x1) / width * centers + ((x1 + x2) / width - 1)  # (M, S), as `F.affine_grid` rounds it
    y = (y2 - y1) / height * centers + ((y1 + y2) / height - 1)
    axes = [x[:, None], y[:, :, None]]
    if depth is not None:
        axes.append(depth[:, None, None])
    return torch.stack([axis.expand(len(bboxes), size, size) for axis in axes], 3)


def _sample_expanded(images: Tensor, bboxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    """One call per image on a view of it that is repeated without a copy: the fast form on a CPU."""
    grid = sampling_grid(bboxes, images.shape[-2:], size)  # (M, S, S, 2)
    rows = [(image_index == i).nonzero()[:, 0] for i in range(len(images))]
    crops = [
        F.grid_sample(image.expand(len(row), -1, -1, -1), grid[row], align_corners=False)
        for image, row in zip(images, rows, strict=True)
        if len(row)
    ]
    return torch.cat(crops)[torch.cat(rows).argsort()]


def _sample_as_volume(images: Tensor, bboxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    """One call for the batch, the images as the slices of one volume: for a GPU."""
    depth = (2 * image_index + 1).to(bboxes.dtype) / len(images) - 1  # (M,) of the slice
    grid = sampling_grid(bboxes, images.shape[-2:], size, depth)  # (M, S, S, 3)
    crops = F.grid_sample(images.transpose(0, 1)[None], grid[None], align_corners=False)  # (1, 3, M, S, S)
    return crops[0].transpose(0, 1)

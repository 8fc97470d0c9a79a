"""Cutting boxes out of images, differentiably.

N images · M boxes · S crop side · boxes xyxy in pixels of the images
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_boxes(images: Tensor, bboxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    """Cut boxes out of images by a bilinear sampler, differentiably in the box coordinates.

    Eq 8 of arXiv 2106.05209: `align_corners=False`, zeros outside the image, so `images` should be
    normalised to mean 0. Runs in the dtype of `images`, with autocast off (a half-precision sampling
    grid is half a pixel off). No image is copied per box.

    images (N, 3, H, W) · bboxes (M, 4) xyxy in pixels of `images` · image_index (M,) in [0, N)
    returns (M, 3, size, size)
    """
    with torch.autocast(images.device.type, enabled=False):
        grid = sampling_grid(bboxes.to(images.dtype), images.shape[-2:], size)  # (M, S, S, 2)
        sample = _sample_stacked if images.is_cuda else _sample_expanded
        return sample(images, grid, image_index)


def sampling_grid(bboxes: Tensor, image_size: tuple[int, ...], size: int) -> Tensor:
    """Where the S x S pixels of each crop lie in its image.

    bboxes (M, 4) xyxy in pixels · image_size (H, W)
    returns (M, S, S, 2), (x, y) in [-1, 1] as `F.grid_sample` takes them
    """
    height, width = image_size
    steps = (torch.arange(size, dtype=bboxes.dtype, device=bboxes.device) * 2 + 1) / size - 1  # centres
    x1, y1, x2, y2 = bboxes[:, :, None].unbind(1)  # (M, 1)
    x = (x2 - x1) / width * steps + ((x1 + x2) / width - 1)  # (M, S)
    y = (y2 - y1) / height * steps + ((y1 + y2) / height - 1)
    return torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1)


def _sample_expanded(images: Tensor, grid: Tensor, image_index: Tensor) -> Tensor:
    """One call per image on a view of it that is repeated without a copy: the fast form on a CPU."""
    rows = [(image_index == i).nonzero()[:, 0] for i in range(len(images))]
    crops = [
        F.grid_sample(image.expand(len(row), -1, -1, -1), grid[row], align_corners=False)
        for image, row in zip(images, rows, strict=True)
        if len(row)
    ]
    if not crops:  # nothing to cut: `grid_sample` refuses that, and the result must stay in the graph
        return images.new_zeros(0, images.shape[1], *grid.shape[1:3]) + grid.sum()
    return torch.cat(crops)[torch.cat(rows).argsort()]


def _sample_stacked(images: Tensor, grid: Tensor, image_index: Tensor) -> Tensor:
    """One call for the batch, the crops of each image stacked along the grid's height: fast on a GPU."""
    count, size = grid.shape[:2]
    per_image = torch.bincount(image_index, minlength=len(images))  # (N,)
    most = int(per_image.max())
    if most == 0:
        return images.new_zeros(0, images.shape[1], size, size) + grid.sum()
    order = image_index.argsort(stable=True)
    rank = torch.empty_like(order)  # (M,) position of the box among those of its image
    rank[order] = (
        torch.arange(count, device=grid.device) - (per_image.cumsum(0) - per_image)[image_index[order]]
    )
    stacked = grid.new_full((len(images), most, size, size, 2), 2.0)  # 2 lies outside: zeros
    stacked = stacked.index_put((image_index, rank), grid).flatten(1, 2)
    crops = F.grid_sample(images, stacked, align_corners=False)  # (N, 3, most * S, S)
    return crops.unflatten(2, (most, size))[image_index, :, rank]

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
    if len(bboxes) == 0:  # `affine_grid` and `grid_sample` refuse that; the result must stay in the graph
        return images.new_zeros(0, images.shape[1], size, size) + bboxes.sum()
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
    x1, y1, x2, y2 = bboxes.unbind(1)  # (M,)
    zero = torch.zeros_like(x1)
    rows = (
        [(x2 - x1) / width, zero, (x1 + x2) / width - 1],
        [zero, (y2 - y1) / height, (y1 + y2) / height - 1],
    )
    affine = torch.stack([torch.stack(row, 1) for row in rows], 1)  # (M, 2, 3)
    return F.affine_grid(affine, [len(bboxes), 1, size, size], align_corners=False)


def _sample_expanded(images: Tensor, grid: Tensor, image_index: Tensor) -> Tensor:
    """One call per image on a view of it that is repeated without a copy: the fast form on a CPU."""
    rows = [(image_index == i).nonzero()[:, 0] for i in range(len(images))]
    crops = [
        F.grid_sample(image.expand(len(row), -1, -1, -1), grid[row], align_corners=False)
        for image, row in zip(images, rows, strict=True)
        if len(row)
    ]
    return torch.cat(crops)[torch.cat(rows).argsort()]


def _sample_stacked(images: Tensor, grid: Tensor, image_index: Tensor) -> Tensor:
    """One call for the batch, the crops of each image stacked along the grid's height: fast on a GPU."""
    count, size = grid.shape[:2]
    per_image = torch.bincount(image_index, minlength=len(images))  # (N,)
    most = int(per_image.max())
    order = image_index.argsort(stable=True)
    rank = torch.empty_like(order)  # (M,) position of the box among those of its image
    first = per_image.cumsum(0) - per_image  # (N,) position in `order` of each image's first box
    rank[order] = torch.arange(count, device=grid.device) - first[image_index[order]]
    stacked = grid.new_full((len(images), most, size, size, 2), 2.0)  # 2 lies outside: zeros
    stacked = stacked.index_put((image_index, rank), grid).flatten(1, 2)
    crops = F.grid_sample(images, stacked, align_corners=False)  # (N, 3, most * S, S)
    return crops.unflatten(2, (most, size))[image_index, :, rank]

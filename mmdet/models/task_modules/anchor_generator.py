"""Anchors.

Flat order: levels one after another, inside a level row-major over (H_l, W_l), then the anchors of a cell.
Boxes are xyxy in pixels of the network input, not clipped to it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet.registry import MODELS
from mmdet.structures import Anchors

# Percent of the input at which the second level starts -> that of the first one: SSD300 and SSD512 for COCO
# and for VOC (arXiv 1512.02325).
FIRST_LEVEL = {10: 4, 15: 7, 20: 10}


class GridAnchors(ABC):
    """Anchors on a grid: the same boxes at every cell of a level.

    Args:
        strides: Distance of two neighboring cells per level, pixels.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        self.strides = tuple(strides)
        self._cache: dict[tuple[tuple[tuple[int, int], ...], torch.device], Anchors] = {}

    @abstractmethod
    def cell_anchors(self, level: int) -> Tensor:
        """(B, 4) anchors of a level's cell at the origin."""

    @property
    def num_base_anchors(self) -> list[int]:
        """Anchors per cell of each level."""
        return [len(self.cell_anchors(level)) for level in range(len(self.strides))]

    def __call__(self, feature_sizes: Sequence[tuple[int, int]], device: torch.device) -> Anchors:
        """Lay the anchors of all levels over feature maps of sizes (H_l, W_l); cached per size and device."""
        key = (tuple(feature_sizes), device)
        if key not in self._cache:
            if len(feature_sizes) != len(self.strides):
                raise ValueError(
                    f'{len(feature_sizes)} feature maps, but {len(self.strides)} levels of anchors'
                )
            levels = [self._lay_out(level, *size) for level, size in enumerate(feature_sizes)]
            self._cache[key] = Anchors(torch.cat(levels).to(device), [len(level) for level in levels])
        return self._cache[key]

    def _lay_out(self, level: int, height: int, width: int) -> Tensor:
        """(H_l * W_l * B, 4): the cell's anchors at every cell."""
        stride = self.strides[level]
        return _shifted(self.cell_anchors(level), stride * torch.arange(height), stride * torch.arange(width))


@MODELS.register_module()
class SSDAnchorGenerator(GridAnchors):
    """SSD's anchors: per cell a square, a larger square, and for each ratio r the shapes 1/r and r.

    Sizes are given in one of two ways: by `input_size` and `basesize_ratio_range`, as published, or as
    numbers by `min_sizes` and `max_sizes`.

    Args:
        strides: Distance of two neighboring cells per level, pixels; None: the input divided by the cells.
        ratios: Height / width of the elongated anchors per level.
        input_size: Side of the network input, or (w, h), pixels; needed for `strides=None`, too.
        basesize_ratio_range: Share of the input that the second and the last level's squares measure.
        min_sizes: Side of the square anchor per level, pixels.
        max_sizes: The larger square has side `sqrt(min_size * max_size)`.
    """

    def __init__(
        self,
        strides: Sequence[int] | None,
        ratios: Sequence[Sequence[float]],
        input_size: int | tuple[int, int] | None = None,
        basesize_ratio_range: tuple[float, float] | None = None,
        min_sizes: Sequence[float] | None = None,
        max_sizes: Sequence[float] | None = None,
    ) -> None:
        size = (input_size, input_size) if isinstance(input_size, int) else input_size
        if size is not None and basesize_ratio_range is not None and min_sizes is max_sizes is None:
            side = round(math.sqrt(size[0] * size[1]))
            min_sizes, max_sizes = published_sizes(side, basesize_ratio_range, len(ratios))
        elif min_sizes is None or max_sizes is None or basesize_ratio_range is not None:
            raise ValueError('give input_size and basesize_ratio_range, or min_sizes and max_sizes')
        if strides is None and size is None:
            raise ValueError('strides=None needs input_size')
        self.input_size = size if strides is None else None
        strides = strides or [0] * len(ratios)  # anchors around a cell's corner; `_lay_out` finds its center
        if not len(strides) == len(ratios) == len(min_sizes) == len(max_sizes):
            raise ValueError(
                f'levels differ: {len(strides)} strides, {len(ratios)} ratios, '
                f'{len(min_sizes)} min_sizes, {len(max_sizes)} max_sizes'
            )
        super().__init__(strides)
        self.base_anchors = [
            _cell_anchors(stride, ratio, low, high)
            for stride, ratio, low, high in zip(strides, ratios, min_sizes, max_sizes, strict=True)
        ]

    def cell_anchors(self, level: int) -> Tensor:
        """(B, 4): the squares of `min_size` and `sqrt(min_size * max_size)`, then 1/r and r of each ratio."""
        return self.base_anchors[level]

    def _lay_out(self, level: int, height: int, width: int) -> Tensor:
        """(H_l * W_l * B, 4): the cell's anchors at every cell."""
        if self.input_size is None:
            return super()._lay_out(level, height, width)
        across, down = self.input_size[0] / width, self.input_size[1] / height
        base = self.cell_anchors(level)
        return _shifted(base, down * (torch.arange(height) + 0.5), across * (torch.arange(width) + 0.5))


@MODELS.register_module()
class AnchorGenerator(GridAnchors):
    """The anchors of RPN, RetinaNet and FCOS: each of some scales in each of some ratios.

    Args:
        strides: Distance of two neighboring cells per level, pixels.
        ratios: Height / width.
        scales: Side of a square anchor, in strides of its level; RetinaNet's three divide an octave.
        center_offset: Center of the anchors, in strides from the cell's upper left corner.
    """

    def __init__(
        self,
        strides: Sequence[int],
        ratios: Sequence[float],
        scales: Sequence[float],
        center_offset: float = 0.0,
    ) -> None:
        super().__init__(strides)
        self.center_offset = center_offset
        tall = torch.tensor(ratios, dtype=torch.float32).sqrt()[:, None]  # sqrt(h / w)
        sides = torch.stack([1 / tall * torch.tensor(scales), tall * torch.tensor(scales)], -1)  # (R, S, 2)
        self.half = sides.flatten(0, 1) * 0.5  # (B, 2), ratios one after another

    def cell_anchors(self, level: int) -> Tensor:
        """(B, 4), the anchors of one ratio after another."""
        half = self.strides[level] * self.half
        center = self.strides[level] * self.center_offset
        return torch.cat([center - half, center + half], 1)


def published_sizes(
    input_size: int, basesize_ratio_range: tuple[float, float], num_levels: int
) -> tuple[list[float], list[float]]:
    """Square sizes per level: equal steps in whole percent of the input, whole pixels."""
    low, high = (round(share * 100) for share in basesize_ratio_range)
    if low not in FIRST_LEVEL:
        raise ValueError(
            f'no published sizes for basesize_ratio_range={basesize_ratio_range}; give min_sizes, max_sizes'
        )
    step = (high - low) // (num_levels - 2)
    percents = [FIRST_LEVEL[low], low, *(low + step * level for level in range(1, num_levels))]
    sizes: list[float] = [input_size * percent // 100 for percent in percents]
    return sizes[:-1], sizes[1:]


def _cell_anchors(stride: int, ratios: Sequence[float], min_size: float, max_size: float) -> Tensor:
    """(B, 4) anchors of the cell at the origin.

    Every product in float32 and in the published order: a float64 scale shifts anchors by 2e-5 pixels,
    enough to change a match.
    """
    tall = torch.tensor([1.0, *(shape for r in ratios for shape in (1 / r, r))]).sqrt()  # sqrt(h / w)
    scale = torch.ones_like(tall)
    large = torch.tensor([math.sqrt(max_size / min_size)])
    tall, scale = (torch.cat([x[:1], y, x[1:]]) for x, y in ((tall, tall[:1]), (scale, large)))
    half = torch.stack([min_size * scale * (1 / tall), min_size * scale * tall], 1) * 0.5  # (B, 2)
    return torch.cat([stride / 2 - half, stride / 2 + half], 1)


def _shifted(base: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(H * W * B, 4): a cell's anchors (B, 4), moved by every pair of `rows` (H,) and `columns` (W,)."""
    y, x = torch.meshgrid(rows, columns, indexing='ij')
    shift = torch.stack([x, y, x, y], -1).float()  # (H, W, 4)
    return (shift[:, :, None] + base).reshape(-1, 4)

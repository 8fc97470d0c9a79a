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

# Sizes of the first level in percent of the input, by (input size, percent at which the second level starts):
# SSD300 and SSD512 for COCO and for VOC (arXiv 1512.02325).
FIRST_LEVEL = {(300, 15): (7, 15), (300, 20): (10, 20), (512, 10): (4, 10), (512, 15): (7, 15)}


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
            levels = [
                _shifted(size, stride, self.cell_anchors(level))
                for level, (size, stride) in enumerate(zip(feature_sizes, self.strides, strict=True))
            ]
            self._cache[key] = Anchors(torch.cat(levels).to(device), [len(level) for level in levels])
        return self._cache[key]


@MODELS.register_module()
class SSDAnchorGenerator(GridAnchors):
    """SSD's anchors: per cell a square, a larger square, and for each ratio r the shapes 1/r and r.

    Sizes are given in one of two ways: by `input_size` and `basesize_ratio_range`, as published, or as
    numbers by `min_sizes` and `max_sizes`.

    Args:
        strides: Distance of two neighboring cells per level, pixels.
        ratios: Height / width of the elongated anchors per level.
        input_size: Side of the network input, pixels.
        basesize_ratio_range: Share of the input that the second and the last level's squares measure.
        min_sizes: Side of the square anchor per level, pixels.
        max_sizes: The larger square has side `sqrt(min_size * max_size)`.
    """

    def __init__(
        self,
        strides: Sequence[int],
        ratios: Sequence[Sequence[float]],
        input_size: int | None = None,
        basesize_ratio_range: tuple[float, float] | None = None,
        min_sizes: Sequence[float] | None = None,
        max_sizes: Sequence[float] | None = None,
    ) -> None:
        if input_size is not None and basesize_ratio_range is not None and min_sizes is max_sizes is None:
            min_sizes, max_sizes = published_sizes(input_size, basesize_ratio_range, len(strides))
        elif min_sizes is None or max_sizes is None or basesize_ratio_range is not None:
            raise ValueError('give input_size and basesize_ratio_range, or min_sizes and max_sizes')
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
    if (input_size, low) not in FIRST_LEVEL:
        raise ValueError(
            f'no published sizes for input_size={input_size}, basesize_ratio_range={basesize_ratio_range}; '
            'give min_sizes and max_sizes'
        )
    step = (high - low) // (num_levels - 2)
    first = FIRST_LEVEL[input_size, low]
    percents = [*first, *(low + step * level for level in range(1, num_levels))]
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


def _shifted(feature_size: tuple[int, int], stride: int, base: Tensor) -> Tensor:
    """(H_l * W_l * B, 4): the cell's anchors at every cell."""
    height, width = feature_size
    y, x = torch.meshgrid(torch.arange(height) * stride, torch.arange(width) * stride, indexing='ij')
    shift = torch.stack([x, y, x, y], -1).float()  # (H_l, W_l, 4)
    return (shift[:, :, None] + base).reshape(-1, 4)

"""The layers that SSD puts on top of its backbone (arXiv 1512.02325).

N images · L levels · C_l channels
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mmdet.models.layers import ConvModule, L2Norm, xavier_init
from mmdet.registry import MODELS


@MODELS.register_module()
class SSDNeck(nn.Module):
    """Normalize the first backbone level and add smaller and smaller levels after the last one.

    Args:
        in_channels: Channels of the backbone's levels.
        out_channels: Channels of all levels; starts with `in_channels`.
        level_strides: Stride of the 3x3 convolution of each added level.
        level_paddings: Its padding.
        l2_norm_scale: Start value of the first level's L2Norm; None leaves that level as it is.
        last_kernel_size: Kernel of the last added level (4 in SSD512).
        batch_norm: Batch norm after each convolution.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        level_strides: Sequence[int],
        level_paddings: Sequence[int],
        l2_norm_scale: float | None = 20.0,
        last_kernel_size: int = 3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if tuple(out_channels[: len(in_channels)]) != tuple(in_channels):
            raise ValueError(f'out_channels {out_channels} must start with in_channels {in_channels}')
        added = list(out_channels[len(in_channels) :])
        if not len(added) == len(level_strides) == len(level_paddings):
            raise ValueError(
                f'{len(added)} added levels, but {len(level_strides)} strides, {len(level_paddings)} paddings'
            )
        self.l2_norm = None if l2_norm_scale is None else L2Norm(in_channels[0], l2_norm_scale)
        self.extra_layers = nn.ModuleList()
        channels = in_channels[-1]
        kernel_sizes = [3] * (len(added) - 1) + [last_kernel_size]
        shapes = zip(added, kernel_sizes, level_strides, level_paddings, strict=True)
        for out, kernel_size, stride, padding in shapes:
            self.extra_layers.append(
                nn.Sequential(
                    ConvModule(channels, out // 2, 1, batch_norm=batch_norm),
                    ConvModule(out // 2, out, kernel_size, stride, padding, batch_norm=batch_norm),
                )
            )
            channels = out
        xavier_init(self.extra_layers)

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Backbone levels (N, C_l, H_l, W_l) -> all L levels; the added ones start from the last given."""
        levels = list(feats)
        for layer in self.extra_layers:
            levels.append(layer(levels[-1]))
        if self.l2_norm is not None:
            levels[0] = self.l2_norm(levels[0])
        return levels

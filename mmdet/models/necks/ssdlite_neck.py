"""The levels that SSDLite puts on top of its backbone (arXiv 1801.04381).

N images · L levels · C_l channels
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mmdet.models.layers import ConvModule, DepthwiseConvModule, kaiming_init
from mmdet.registry import MODELS


@MODELS.register_module()
class SSDLiteNeck(nn.Module):
    """Add levels of half the size each after the last one, by depthwise convolutions.

    Args:
        in_channels: Channels of the backbone's levels.
        extra_channels: Channels of each added level.
    """

    def __init__(self, in_channels: Sequence[int], extra_channels: Sequence[int]) -> None:
        super().__init__()
        before = [in_channels[-1], *extra_channels]
        self.extra_layers = nn.ModuleList(
            nn.Sequential(
                ConvModule(channels, out // 2, 1, batch_norm=True, relu6=True),
                DepthwiseConvModule(out // 2, out, stride=2),
            )
            for channels, out in zip(before, extra_channels, strict=False)
        )
        kaiming_init(self)

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Backbone levels (N, C_l, H_l, W_l) -> all L levels."""
        levels = list(feats)
        for layer in self.extra_layers:
            levels.append(layer(levels[-1]))
        return levels

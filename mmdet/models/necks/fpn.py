"""Feature pyramid network (arXiv 1612.03144).

N images · L levels · C channels, the same on all levels
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.models.layers import xavier_init
from mmdet.registry import MODELS


@MODELS.register_module()
class FPN(nn.Module):
    """Add each level, upsampled, to the next finer one; parameters are named as in MMDetection.

    Args:
        in_channels: Channels of the backbone's levels.
        out_channels: C.
        num_outs: L.
        start_level: First level of the backbone that is used.
        add_extra_convs: Where the levels beyond the backbone's come from: 'on_input', 3x3 convolutions of
            stride 2 from the backbone's last level on (RetinaNet); 'on_output', the same from the neck's last
            level on (FCOS); None, every second pixel of the last level (Faster R-CNN).
        relu_before_extra_convs: Between those convolutions (FCOS).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        num_outs: int = 5,
        start_level: int = 0,
        add_extra_convs: Literal['on_input', 'on_output'] | None = None,
        relu_before_extra_convs: bool = False,
    ) -> None:
        super().__init__()
        used = list(in_channels[start_level:])
        self.start_level = start_level
        self.num_outs = num_outs
        self.add_extra_convs = add_extra_convs
        self.relu_before_extra_convs = relu_before_extra_convs
        self.lateral_convs = nn.ModuleList(_conv(channels, out_channels, 1) for channels in used)
        self.fpn_convs = nn.ModuleList(_conv(out_channels, out_channels, 3) for _ in used)
        if add_extra_convs is not None:
            first = used[-1] if add_extra_convs == 'on_input' else out_channels
            for place in range(num_outs - len(used)):
                self.fpn_convs.append(_conv(first if place == 0 else out_channels, out_channels, 3, stride=2))
        xavier_init(self)

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Backbone levels (N, C_l, H_l, W_l), each half the one before -> L x (N, C, H_l, W_l)."""
        feats = feats[self.start_level :]
        levels = [conv(x) for conv, x in zip(self.lateral_convs, feats, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], levels[i - 1].shape[2:])
        levels = [conv(x) for conv, x in zip(self.fpn_convs, levels, strict=False)]
        x = feats[-1] if self.add_extra_convs == 'on_input' else levels[-1]
        for conv in self.fpn_convs[len(feats) :]:
            x = conv(x)
            levels.append(x)
            x = x.relu() if self.relu_before_extra_convs else x
        while len(levels) < self.num_outs:
            levels.append(levels[-1][:, :, ::2, ::2])
        return levels


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Make a convolution of the name `conv`, which keeps the size but for its stride."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
    return nn.Sequential(OrderedDict(conv=conv))

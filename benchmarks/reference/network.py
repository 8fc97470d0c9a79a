"""SSD300's network: plain convolutions in the order in which MMDetection 2.10 keeps them.

N images · levels of (H_l, W_l) cells with B_l anchors each · K classes, K the background
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VGG16: tuple[Any, ...] = (64, 64, 'M', 128, 128, 'M', 256, 256, 256, 'M', 512, 512, 512, 'M', 512, 512, 512)
CONV5_1 = 14  # its entry; the pooling before it is behind conv4_3
ANCHORS_PER_CELL = (4, 6, 6, 6, 4, 4)
EXTRA_STRIDES = ((2, 1), (2, 1), (1, 0), (1, 0))  # stride and padding of each added level


class BaselineSSD300(nn.Module):
    """VGG16 with fc6 and fc7 as convolutions, four added levels, two convolutions a level as the head.

    Args:
        num_classes: K.
        width: Factor on the channels of VGG16 and of the added levels.
    """

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        wide = [int(channels * width) for channels in (512, 1024, 512, 256, 256, 256)]

        layers: list[nn.Module] = []
        channels = 3
        for number, entry in enumerate(VGG16):
            if number == CONV5_1 - 1:
                self.conv4_3 = len(layers)  # layers up to the ReLU behind it
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            else:
                out = int(entry * width)
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
                channels = out
        layers += [nn.MaxPool2d(3, 1, padding=1)]
        layers += [nn.Conv2d(channels, wide[1], 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(wide[1], wide[1], 1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.l2_norm = nn.ParameterList([torch.full((wide[0],), 20.0)])
        self.extra = nn.ModuleList()
        for before, out, (stride, padding) in zip(wide[1:], wide[2:], EXTRA_STRIDES, strict=False):
            self.extra.append(nn.Conv2d(before, out // 2, 1))
            self.extra.append(nn.Conv2d(out // 2, out, 3, stride, padding))
        heads = list(zip(wide, ANCHORS_PER_CELL, strict=True))
        self.cls_convs = nn.ModuleList(nn.Conv2d(c, b * (num_classes + 1), 3, padding=1) for c, b in heads)
        self.reg_convs = nn.ModuleList(nn.Conv2d(c, b * 4, 3, padding=1) for c, b in heads)

    def take_weights(self, detector: nn.Module) -> 'BaselineSSD300':
        """Copy the weights of a detector of this toolbox, which come in the same order; returns itself."""
        self.load_state_dict(dict(zip(self.state_dict(), detector.state_dict().values(), strict=True)))
        return self

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute maps of classes and of boxes per level from images (N, 3, 300, 300), RGB, mean-subtracted.

        returns L x (N, B_l (K + 1), H_l, W_l) and L x (N, 4 B_l, H_l, W_l)
        """
        conv4_3 = self.features[: self.conv4_3](images)
        x = self.features[self.conv4_3 :](conv4_3)
        norm = conv4_3.float().pow(2).sum(1, keepdim=True).sqrt() + 1e-10
        levels = [(self.l2_norm[0][None, :, None, None] * conv4_3 / norm).to(conv4_3.dtype), x]
        for number, conv in enumerate(self.extra):
            x = F.relu(conv(x))
            if number % 2:
                levels.append(x)
        return (
            [conv(level) for conv, level in zip(self.cls_convs, levels, strict=True)],
            [conv(level) for conv, level in zip(self.reg_convs, levels, strict=True)],
        )


def flat(maps: Sequence[Tensor], image: int, values: int) -> Tensor:
    """Flatten the maps of all levels to (A, values) of one image."""
    return torch.cat([level[image].permute(1, 2, 0).reshape(-1, values) for level in maps])

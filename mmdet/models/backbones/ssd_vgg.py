"""VGG16 as SSD uses it (arXiv 1512.02325).

N images · H x W pixels
"""

from typing import Any

from torch import Tensor, nn

from mmdet.classifiers import IMAGENET, load_pretrained
from mmdet.models.conv_relu import conv_relu
from mmdet.models.layers import kaiming_init, xavier_init
from mmdet.registry import MODELS

STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # (convolutions, channels); VGG16's "D"
FEATURES = 'IMAGENET1K_FEATURES'  # torchvision's VGG16 trained for detection: RGB, mean-subtracted, std 1


@MODELS.register_module()
class SSDVGG(nn.Module):
    """VGG16 with rounded-up pooling, a pool5 that keeps the resolution, and fc6, fc7 as convolutions.

    Args:
        width: Factor on every channel count.
        batch_norm: Batch norm after each convolution, as in torchvision's `vgg16_bn`.
        weights: What training starts from: 'IMAGENET1K_FEATURES' (torchvision's file) or 'imagenet' (the
            same), the path of a file with VGG16 weights, or None for random weights. Read by `init_weights`,
            which the runner calls when a training starts from scratch; testing and resuming never ask for it.
    """

    def __init__(self, width: float = 1.0, batch_norm: bool = False, weights: str | None = FEATURES) -> None:
        super().__init__()
        if weights == IMAGENET:  # not torchvision's default, which is made for another normalization
            weights = FEATURES
        if weights == FEATURES and (width != 1 or batch_norm):
            raise ValueError(
                f'{FEATURES} fits width=1, batch_norm=False only; give a file of your own or weights=None'
            )
        self.weights = weights
        layers: list[nn.Module] = []
        channels = 3

        def conv(out_channels: int, kernel_size: int, padding: int = 0, dilation: int = 1) -> None:
            nonlocal channels
            bias = not batch_norm
            layers.append(
                nn.Conv2d(channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=bias)
            )
            if batch_norm:
                layers.append(nn.BatchNorm2d(out_channels))
            layers.append(nn.ReLU(inplace=True))
            channels = out_channels

        for stage, (depth, stage_channels) in enumerate(STAGES):
            for _ in range(depth):
                conv(int(stage_channels * width), 3, padding=1)
            if stage == 3:
                self._conv4_3 = len(layers)  # layers up to the ReLU after conv4_3
            if stage < 4:
                # Before the ReLU, which gives the same and has a quarter to do; conv4_3 is an output with it.
                layers.insert(len(layers) - (stage < 3), nn.MaxPool2d(2, 2, ceil_mode=True))
        vgg_layers = len(layers)
        layers.append(nn.MaxPool2d(3, 1, padding=1))
        conv(int(1024 * width), 3, padding=6, dilation=6)
        conv(int(1024 * width), 1)
        self.features = nn.Sequential(*layers)
        self.out_channels = (int(512 * width), channels)
        kaiming_init(self.features[:vgg_layers])
        xavier_init(self.features[vgg_layers:])

    def init_weights(self) -> None:
        """Load the weights that training starts from; raises as `load_pretrained`."""
        if self.weights is not None:
            load_pretrained(self, 'vgg16', self.weights)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> conv4_3 (N, 512, H/8, W/8) and conv7 (N, 1024, H/16, W/16), both after ReLU."""
        conv4_3 = _run(self.features[: self._conv4_3], x)
        return conv4_3, _run(self.features[self._conv4_3 :], conv4_3)


def _run(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Apply the layers, convolutions and what follows them together where that is faster."""
    rest: list[Any] = list(layers)
    while rest:
        match [*map(type, rest[:3])]:
            case [nn.Conv2d, nn.ReLU, *_]:
                x, rest = conv_relu(rest[0], x), rest[2:]
            case [nn.Conv2d, nn.MaxPool2d, nn.ReLU]:
                x, rest = conv_relu(rest[0], x, rest[1]), rest[3:]
            case _:
                x, rest = rest[0](x), rest[1:]
    return x

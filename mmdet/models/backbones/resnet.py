"""ResNet with MMDetection's names and options (arXiv 1512.03385).

N images · H x W pixels · C base channels
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import BasicBlock, Bottleneck

from mmdet.classifiers import IMAGENET, load_pretrained
from mmdet.models.layers import kaiming_init
from mmdet.registry import MODELS

BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {  # depth -> block, blocks a stage
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


@MODELS.register_module()
class ResNet(nn.Module):
    """Extract feature maps of strides 4, 8, 16, 32; a bottleneck's stride sits in its 3x3 convolution.

    A ResNet of the usual width is also a `ClassifierBackbone`, with the same names of parameters; this one
    has any width.

    Args:
        depth: 18, 34, 50, 101 or 152.
        base_channels: C; 64 as published, 16 in QR50, the paper's quarter of a ResNet50.
        weights: What training starts from: 'imagenet' (torchvision's, for C = 64), the path of a file, or
            None for random weights; see ClassifierBackbone.
        frozen_stages: The stem (0) and so many stages keep their weights and statistics; -1 freezes nothing.
        norm_eval: All batch norms keep their statistics.

    Raises:
        ValueError: Frozen layers, or statistics that stay, without weights.
    """

    def __init__(
        self,
        depth: int = 50,
        base_channels: int = 64,
        weights: str | None = IMAGENET,
        frozen_stages: int = 1,
        norm_eval: bool = True,
    ) -> None:
        super().__init__()
        if weights is None and (frozen_stages >= 0 or norm_eval):
            raise ValueError(
                'weights=None needs frozen_stages=-1 and norm_eval=False: what is frozen would stay random'
            )
        self.depth, self.weights, self.norm_eval = depth, weights, norm_eval
        block, lengths = BLOCKS[depth]
        channels = base_channels
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = [f'layer{stage}' for stage in (1, 2, 3, 4)]
        self.out_channels = [base_channels * 2**stage * block.expansion for stage in range(4)]
        for stage, (name, out) in enumerate(zip(self.stages, self.out_channels, strict=True)):
            stride = 1 if stage == 0 else 2
            shortcut = None
            if stride > 1 or channels != out:
                shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            inner = out // block.expansion
            blocks = [block(channels, inner, stride, shortcut)]
            blocks += [block(out, inner) for _ in range(lengths[stage] - 1)]
            self.add_module(name, nn.Sequential(*blocks))
            channels = out
        kaiming_init(self)
        self._frozen = ['conv1', 'bn1', *self.stages[:frozen_stages]] if frozen_stages >= 0 else []
        for name in self._frozen:
            self.get_submodule(name).requires_grad_(requires_grad=False)

    def init_weights(self) -> None:
        """Load the weights that training starts from; raises as `load_pretrained`."""
        if self.weights is not None:
            load_pretrained(self, f'resnet{self.depth}', self.weights)

    def train(self, mode: bool = True) -> ResNet:
        """Set the training mode, but keep the statistics of frozen batch norms."""
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).eval()
        for layer in self.modules() if self.norm_eval else ():
            if isinstance(layer, _BatchNorm):
                layer.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) -> four levels (N, C_l, H / s, W / s), s = 4, 8, 16, 32, rounded up."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        levels = []
        for name in self.stages:
            x = self.get_submodule(name)(x)
            levels.append(x)
        return levels

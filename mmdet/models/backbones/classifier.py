"""Any classifier of torchvision or timm as a backbone.

N images · H x W pixels · L levels · C_l channels
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet.classifiers import IMAGENET, build_classifier, feature_extractor, load_pretrained
from mmdet.registry import MODELS


@MODELS.register_module()
class ClassifierBackbone(nn.Module):
    """Extract feature maps of a classifier; parameters are named as in the classifier.

    Args:
        arch: torchvision's name, or 'timm/NAME'.
        out_levels: Strides (the last layer of that stride) or names of layers, one per level.
        weights: What training starts from: 'imagenet' (torchvision's or timm's own weights), the path of a
            file, or None for random weights. Layers of another shape start at random and are named in the
            log. Read by `init_weights`, which the runner calls when a training starts from scratch.
        frozen_levels: n: layers up to stride 2**n keep their weights, and batch norms there their statistics.
            MMDetection's `frozen_stages=1` of a ResNet, the stem and the first stage, is `frozen_levels=2`.
        norm_eval: All batch norms keep their statistics.

    Raises:
        ValueError: No such classifier or layer; frozen layers, or statistics that stay, without weights.
    """

    def __init__(
        self,
        arch: str,
        out_levels: Sequence[int | str] = (8, 16, 32),
        weights: str | None = IMAGENET,
        frozen_levels: int = 0,
        norm_eval: bool = False,
    ) -> None:
        super().__init__()
        if weights is None and (frozen_levels or norm_eval):
            what, off = ('frozen_levels', 0) if frozen_levels else ('norm_eval', False)
            raise ValueError(
                f'{what} keeps random numbers where weights=None: give model.backbone.weights, or train all '
                f'layers by `--cfg-options model.backbone.{what}={off}`'
            )
        self.arch = arch
        self.weights = weights
        self.norm_eval = norm_eval
        network = build_classifier(arch, num_classes=1)
        trunk = feature_extractor(network, {str(level): level for level in out_levels})
        # Its layers, under the classifier's own names. One dictionary: sync_bn replaces a layer in both.
        self._modules = trunk.network._modules
        self._network = (trunk.network,)
        self.out_channels = trunk.channels
        limit = 2**frozen_levels if frozen_levels else 0
        self._frozen = {name for name, stride in trunk.strides.items() if stride <= limit}
        for name, parameter in self.named_parameters():
            if any(f'{name}.'.startswith(f'{layer}.') for layer in self._frozen):
                parameter.requires_grad = False
        self.train()

    def init_weights(self) -> None:
        """Load the weights that training starts from; raises as `load_pretrained`."""
        if self.weights is not None:
            load_pretrained(self, self.arch, self.weights)

    def train(self, mode: bool = True) -> ClassifierBackbone:
        """Set the training mode, but keep the statistics of frozen batch norms."""
        super().train(mode)
        for name, layer in self.named_modules():
            if isinstance(layer, _BatchNorm) and (self.norm_eval or name in self._frozen):
                layer.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Extract the levels of images (N, 3, H, W): L x (N, C_l, H_l, W_l)."""
        return list(self._network[0](images).values())

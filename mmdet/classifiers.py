"""Classifiers of torchvision and timm: build one, load its weights, know its normalization.

Teachers use them, and backbones. A name is torchvision's, 'resnet50', or timm's as 'timm/NAME'.
"""

from __future__ import annotations

import difflib

import torchvision
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet.checkpoint.pretrained import remedy, state_of_file, torchvision_state

IMAGENET = 'imagenet'
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's ImageNet weights, pixels 0..1
TIMM = 'timm/'
WITH_AUXILIARY = ('googlenet', 'inception_v3')  # return the logits of further layers in training


def build_classifier(arch: str, num_classes: int) -> nn.Module:
    """Build an untrained classifier of torchvision or timm.

    Raises:
        ValueError: No such architecture; names those that come closest, or the package to install.
    """
    if arch.startswith(TIMM):
        try:
            import timm
        except ImportError as error:
            raise ValueError(f"arch '{arch}' needs timm: `pip install timm`") from error
        return timm.create_model(arch.removeprefix(TIMM), pretrained=False, num_classes=num_classes)
    options = {'aux_logits': False, 'init_weights': True} if arch in WITH_AUXILIARY else {}
    try:
        return torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **options)
    except ValueError as error:
        near = difflib.get_close_matches(arch, torchvision.models.list_models(torchvision.models), 5)
        raise ValueError(
            f"arch '{arch}' is not a torchvision classifier; near: {', '.join(near) or 'none'}. "
            "timm's models are written 'timm/NAME'"
        ) from error


def load_pretrained(network: nn.Module, arch: str, weights: str, key: str = 'model.weights') -> None:
    """Load the weights that fit a classifier; layers of another shape start at random and are logged.

    Args:
        network: As `build_classifier` makes it.
        arch: Its name there.
        weights: A file, or 'imagenet': torchvision's or timm's own, from the local cache or the network.
        key: Of the config, for messages.

    Raises:
        FileNotFoundError: They cannot be had; says what to do.
        ValueError: Nothing in them fits.
    """
    state = _imagenet_state(arch, key) if weights == IMAGENET else state_of_file(weights, key)
    own = network.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise ValueError(f'{weights} holds nothing that fits {arch}; {remedy(key)}')
    network.load_state_dict(fitting, strict=False)
    random = [name for name, _ in network.named_parameters() if name not in fitting]
    print_log(f'{arch} starts from {weights}; at random: {", ".join(random) or "nothing"}', 'current')


def imagenet_normalization(network: nn.Module) -> tuple[list[float], list[float]]:
    """Get the mean and std, RGB, 0..255, that a classifier's ImageNet weights were trained with."""
    of_timm = getattr(network, 'pretrained_cfg', {})
    values = (of_timm.get('mean', MEAN), of_timm.get('std', STD))
    mean, std = ([round(255 * number, 3) for number in three] for three in values)
    return mean, std


def _imagenet_state(arch: str, key: str) -> dict[str, Tensor]:
    """Get torchvision's or timm's weights of an architecture."""
    if not arch.startswith(TIMM):
        return torchvision_state(torchvision.models.get_model_weights(arch).DEFAULT, arch, key)
    import timm

    try:
        return dict(timm.create_model(arch.removeprefix(TIMM), pretrained=True).state_dict())
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f'the ImageNet weights of {arch} cannot be had: {error}; {remedy(key)}'
        ) from error

"""Weights that the training of a classifier starts from."""

import torchvision
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet.checkpoint.pretrained import remedy, state_of_file, torchvision_state

IMAGENET = 'imagenet'
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's ImageNet weights, pixels 0..1
KEY = 'model.weights'  # of the config


def load_fitting(network: nn.Module, arch: str, weights: str) -> None:
    """Load what fits the network and log what does not: layers of another shape start at random.

    Args:
        network: As `build_classifier` makes it.
        arch: Its name there.
        weights: A file, or 'imagenet': torchvision's or timm's own, from the local cache or the network.

    Raises:
        FileNotFoundError: They cannot be had; says what to do.
        ValueError: Nothing in them fits.
    """
    state = _imagenet_state(arch) if weights == IMAGENET else state_of_file(weights, KEY)
    own = network.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise ValueError(f'{weights} holds nothing that fits {arch}; {remedy(KEY)}')
    network.load_state_dict(fitting, strict=False)
    random = [name for name, _ in network.named_parameters() if name not in fitting]
    print_log(f'{arch} starts from {weights}; at random: {", ".join(random) or "nothing"}', 'current')


def imagenet_normalization(network: nn.Module) -> tuple[list[float], list[float]]:
    """Mean and std, RGB, 0..255, that the ImageNet weights of a classifier were trained with."""
    of_timm = getattr(network, 'pretrained_cfg', {})
    values = (of_timm.get('mean', MEAN), of_timm.get('std', STD))
    mean, std = ([round(255 * number, 3) for number in three] for three in values)
    return mean, std


def _imagenet_state(arch: str) -> dict[str, Tensor]:
    """What torchvision or timm offers for an architecture."""
    if arch.startswith('timm/'):
        import timm

        try:
            return dict(timm.create_model(arch.removeprefix('timm/'), pretrained=True).state_dict())
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f'the ImageNet weights of {arch} cannot be had: {error}; {remedy(KEY)}'
            ) from error
    return torchvision_state(torchvision.models.get_model_weights(arch).DEFAULT, arch, KEY)

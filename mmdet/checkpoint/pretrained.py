"""Get the weights that training starts from: out of a file, or torchvision's own."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from mmdet.checkpoint.io import load_checkpoint
from mmdet.files import suggest


def remedy(key: str) -> str:
    """Say what to type instead, where weights cannot be had.

    Args:
        key: Of the config, 'model.backbone.weights'.
    """
    return (
        f'give a file of your own by `--cfg-options {key}=FILE`, or start from random weights by '
        f'`--cfg-options {key}=None`'
    )


def state_of_file(file: str, key: str) -> dict[str, Tensor]:
    """Read the state dict in a file of weights to start from.

    Args:
        file: What `load_checkpoint` reads.
        key: As in `remedy`.

    Raises:
        FileNotFoundError: There is none; says what to do.
    """
    try:
        return dict(load_checkpoint(file)['state_dict'])
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'weights to start from not found: {Path(file).absolute()}.{suggest(file)} Else {remedy(key)}'
        ) from error


def torchvision_state(weights: WeightsEnum, arch: str, key: str) -> dict[str, Tensor]:
    """Get a state dict of torchvision's, from the local cache or the network.

    Args:
        weights: Which.
        arch: The classifier's name, for messages.
        key: As in `remedy`.

    Raises:
        FileNotFoundError: It cannot be had; says where to put the file.
    """
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / 'checkpoints'
        raise FileNotFoundError(
            f'the ImageNet weights of {arch} cannot be had: {error}. Put the file {Path(weights.url).name} '
            f'({weights.url}) into {folder}, {remedy(key)}'
        ) from error

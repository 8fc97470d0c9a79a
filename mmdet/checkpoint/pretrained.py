"""Start from the weights of a file, as far as they fit."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet.checkpoint.io import load_checkpoint
from mmdet.files import suggest

BACKBONE = 'backbone.'  # under which a detector's checkpoint holds one
COUNTER = 'num_batches_tracked'  # of a batch norm: no weight, and older files lack it
SHOWN = 8  # parts of a network that are listed before they are only counted


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
    """Read the state dict in a file of weights to start from; of a detector's checkpoint its backbone's.

    Args:
        file: What `load_checkpoint` reads.
        key: As in `remedy`.

    Raises:
        FileNotFoundError: There is none; says what to do.
    """
    try:
        state = load_checkpoint(file)['state_dict']
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'weights to start from not found: {Path(file).absolute()}.{suggest(file)} Else {remedy(key)}'
        ) from error
    inside = {name.removeprefix(BACKBONE): x for name, x in state.items() if name.startswith(BACKBONE)}
    return inside or dict(state)


def load_fitting(network: nn.Module, state: Mapping[str, Tensor], source: str, advice: str) -> list[str]:
    """Load the tensors that a network has under the same name in the same shape; the others stay.

    Older names are converted by the network first, see `load_weights`, which is strict.

    Returns:
        Names of the tensors that stay.

    Raises:
        ValueError: Nothing fits; names `source` and gives the `advice`.
    """
    own = network.state_dict()
    fitting: set[str] = set()

    def keep_fitting(_network: nn.Module, converted: dict[str, Tensor], *_: Any) -> None:
        for name, tensor in list(converted.items()):
            if name in own and _describe(own[name]) == _describe(tensor):
                fitting.add(name)
            else:
                del converted[name]

    with network.register_load_state_dict_pre_hook(keep_fitting):  # torch calls it with the newer names
        network.load_state_dict(dict(state), strict=False)
    if all(name.endswith(COUNTER) for name in fitting):
        there = ', '.join([*state][:3])
        raise ValueError(
            f'{source} holds nothing that fits this {type(network).__name__}: it has {there}, ..., and not '
            f'{next(iter(own))}; {advice}'
        )
    return [name for name in own if name not in fitting and not name.endswith(COUNTER)]


def _describe(tensor: Tensor) -> tuple[torch.Size, bool]:
    return tensor.shape, tensor.is_floating_point()


def report_fit(network: nn.Module, missing: Sequence[str], source: str, filled: tuple[str, ...] = ()) -> None:
    """Log how many tensors of a network are from a source, and the parts that have some at random.

    missing: from `load_fitting` · filled: prefixes of the names of those that were loaded from elsewhere
    """
    names = [name for name in network.state_dict() if not name.endswith(COUNTER)]
    random = dict.fromkeys('.'.join(name.split('.')[:2]) for name in missing if not name.startswith(filled))
    rest = f' and {len(random) - SHOWN} more' if len(random) > SHOWN else ''
    print_log(
        f'loaded {len(names) - len(missing)} of {len(names)} tensors from {source}; at random: '
        f'{", ".join([*random][:SHOWN]) or "nothing"}{rest}',
        'current',
        logging.WARNING if 2 * len(missing) > len(names) else logging.INFO,
    )

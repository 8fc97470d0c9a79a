"""Numbers of the config as tensors."""

from functools import cache

import torch
from torch import Tensor


def cached_tensor(values: tuple[float, ...], like: Tensor) -> Tensor:
    """`values` in the dtype and on the device of `like`; not to be changed.

    Made once: each copy of numbers to a GPU waits until it has done all that it was given before.
    """
    return _made_once(values, like.dtype, like.device)


@cache
def _made_once(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):  # what is made in there could never take part in training
        return torch.tensor(values, dtype=dtype, device=device)

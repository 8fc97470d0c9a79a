"""Numbers of the config as tensors."""

from functools import cache

import torch
from torch import Tensor


def cached_tensor(values: tuple[float, ...], like: Tensor) -> Tensor:
    """`values` in the dtype and on the device of `like`; not to be changed.

    Cached: a copy from the host to a GPU synchronizes with it.
    """
    return _cached(values, like.dtype, like.device)


@cache
def _cached(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):  # an inference tensor could never take part in training
        return torch.tensor(values, dtype=dtype, device=device)

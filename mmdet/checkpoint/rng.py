"""Save and restore the state of the random number generators."""

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def get_rng_state() -> dict[str, Tensor]:
    """Get the state of this process's global random number generators (Python, NumPy, torch, CUDA).

    Returns:
        uint8 tensors by the name of the generator.
    """
    version, numbers, gauss = random.getstate()
    python = np.array([version, *numbers, gauss is not None, gauss or 0.0], dtype=np.float64)
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 (others use this generator)
    numpy = np.array([*keys, position, has_gauss, cached], dtype=np.float64)  # 32-bit numbers: exact
    state = {
        'torch': torch.get_rng_state(),
        'python': torch.from_numpy(python).view(torch.uint8),
        'numpy': torch.from_numpy(numpy).view(torch.uint8),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Tensor]) -> None:
    """Set the global random number generators to a state that `get_rng_state` returned."""
    torch.set_rng_state(state['torch'])
    version, *numbers, has_gauss, gauss = state['python'].view(torch.float64).tolist()
    random.setstate((int(version), tuple(int(n) for n in numbers), gauss if has_gauss else None))
    *keys, position, has_gauss, cached = state['numpy'].view(torch.float64).tolist()
    np.random.set_state(  # noqa: NPY002 (as above)
        ('MT19937', np.array(keys, dtype=np.uint32), int(position), int(has_gauss), cached)
    )
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])

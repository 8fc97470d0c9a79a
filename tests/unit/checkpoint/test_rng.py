"""The state of the random number generators survives a checkpoint."""

import random

import numpy as np
import torch

from mmdet.checkpoint.io import to_serializable
from mmdet.checkpoint.rng import get_rng_state, set_rng_state


def test_random_states():
    def draw():
        return (
            torch.rand(3).tolist(),
            random.random(),
            random.gauss(0, 1),
            np.random.rand(),  # noqa: NPY002
            np.random.randn(),  # noqa: NPY002
        )

    draw()
    state = to_serializable(get_rng_state())
    first = draw()
    draw()
    set_rng_state(state)
    assert draw() == first

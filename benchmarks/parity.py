"""Whether two contenders computed the same."""

from collections.abc import Mapping

import torch
from torch import Tensor

CHECKED = 24  # photos whose pixels are compared
MEAN_DIFFERENCE, MOST_DIFFERENCE = 0.45, 1.2  # grey levels; rounding to uint8 costs 0.2 to 0.35


def differing_numbers(
    ours: Mapping[str, float], theirs: Mapping[str, float], tolerance: float | Mapping[str, float]
) -> list[str]:
    """Which of the same-named numbers differ by more than `tolerance` times theirs; one line each.

    NaN is equal to nothing. Names that only one of both has are a difference.
    """
    faults = [f'only one of both has {name}' for name in sorted(ours.keys() ^ theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        allowed = tolerance if isinstance(tolerance, float) else tolerance[name]
        if not abs(ours[name] - theirs[name]) <= allowed * abs(theirs[name]):
            faults.append(f'{name} is {ours[name]:.7g}, the reference says {theirs[name]:.7g}')
    return faults


def gradient_norm(parameters: list[Tensor]) -> float:
    """L2 norm over the gradients of all parameters, in float64."""
    norms = [p.grad.double().norm() for p in parameters if p.grad is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0

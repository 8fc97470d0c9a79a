"""Whether two contenders computed the same."""

import contextlib
import statistics
from collections.abc import Iterator, Mapping

import torch

CHECKED = 24  # photos whose pixels are compared
MEAN_DIFFERENCE, MOST_DIFFERENCE = 0.45, 1.2  # gray levels; rounding to uint8 costs 0.2 to 0.35


def differing_numbers(
    ours: Mapping[str, float], theirs: Mapping[str, float], tolerance: float | Mapping[str, float]
) -> list[str]:
    """List the numbers that differ by more than `tolerance` times theirs; one line each.

    NaN is equal to nothing. Names that only one of both has are a difference.
    """
    faults = [f'only one of both has {name}' for name in sorted(ours.keys() ^ theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        allowed = tolerance if isinstance(tolerance, float) else tolerance[name]
        if not abs(ours[name] - theirs[name]) <= allowed * abs(theirs[name]):
            faults.append(f'{name} is {ours[name]:.7g}, the reference says {theirs[name]:.7g}')
    return faults


def differing_pixels(differences: Mapping[str, float]) -> list[str]:
    """List the photos whose mean difference in gray levels is too large; one line each."""
    faults = [f'{k} differs by {v:.2f} gray levels' for k, v in differences.items() if v > MOST_DIFFERENCE]
    mean = statistics.fmean(differences.values()) if differences else 0.0
    if mean > MEAN_DIFFERENCE:
        faults.append(f'{len(differences)} photos differ by {mean:.2f} gray levels on average')
    return faults


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 convolutions in float32: otherwise cuDNN rounds their operands to TF32's ten bits.

    It does not look for the fastest ones either: among the slow ones of float32 that takes minutes.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32 = cudnn.benchmark = False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before

"""Whether two contenders computed the same, and whether their trainings end at the same AP."""

import contextlib
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

CHECKED = 24  # photos whose pixels are compared
MEAN_DIFFERENCE, MOST_DIFFERENCE = 0.45, 1.2  # gray levels; rounding to uint8 costs 0.2 to 0.35
# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
RESOLUTION = 0.25  # of the AP: a difference of this size may not hide in the spread of the seeds


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


class Comparison(NamedTuple):
    """A way of training beside float32."""

    difference: float  # of the means, AP
    allowed: float  # AP
    verdict: str  # 'same', 'different', or 'spread too wide'


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Judge by their seeds whether two ways of training end at the same AP.

    The same: 0 lies in the 95 % interval of the difference of the means, by Student's t with the standard
    deviation pooled over both ways; and this interval reaches less than RESOLUTION of ours to each side, so
    that noise does not pass for agreement. Two equal ways are told apart by chance once in twenty times.
    """
    difference = statistics.fmean(theirs) - statistics.fmean(ours)
    freedom = len(ours) + len(theirs) - 2
    if not freedom:
        return Comparison(difference, math.inf, 'spread too wide')  # one seed says nothing of it
    squares = sum(sum((ap - statistics.fmean(of)) ** 2 for ap in of) for of in (ours, theirs))
    deviation = (squares / freedom * (1 / len(ours) + 1 / len(theirs))) ** 0.5
    allowed = T95[min(freedom, len(T95)) - 1] * deviation
    if not abs(difference) <= allowed:  # NaN is equal to nothing
        return Comparison(difference, allowed, 'different')
    narrow = allowed < RESOLUTION * statistics.fmean(ours)
    return Comparison(difference, allowed, 'same' if narrow else 'spread too wide')

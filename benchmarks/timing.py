"""Timing of contenders that take turns, so that what slows the machine down slows all of them.

R rounds · in each round every contender runs once, every other round backwards: A B C, C B A, A B C ...
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> 'Spread':
        """Compute it of at least one value."""
        return cls(*np.quantile(values, [0.5, 0.25, 0.75]).tolist())


class Timing(NamedTuple):
    """What was measured of one contender."""

    seconds: tuple[float, ...]  # (R,)
    peak_mib: float = 0.0  # largest memory of its tensors on a GPU in the last round; 0: unknown

    @property
    def spread(self) -> Spread:
        """Return the spread of the seconds."""
        return Spread.of(self.seconds)

    def rate(self, count: float) -> Spread:
        """Return the spread of `count` things a run, in things a second."""
        return Spread.of([count / seconds for seconds in self.seconds])


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device, warm_up: int = 1
) -> dict[str, Timing]:
    """Time contenders in turns, every other round backwards; returns the timing of each by its name.

    Backwards (A B C, C B A), because what ran before leaves memory and caches behind: nobody is always the
    one after the largest. The rounds of the warm-up are not timed. What runs on a GPU is waited for.
    """
    if repeats < 1 or warm_up < 1:
        raise ValueError(f'repeats and warm_up must be at least 1; got {repeats} and {warm_up}')
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peaks, on_gpu = dict[str, float](), device.type == 'cuda'
    for number in range(-warm_up, repeats):
        for name in list(contenders)[:: -1 if number > 0 and number % 2 else 1]:
            if on_gpu:
                torch.cuda.synchronize(device)
                torch.cuda.reset_peak_memory_stats(device)
            start = time.perf_counter()
            contenders[name]()
            if on_gpu:
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - start)
            peaks[name] = torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else 0.0
    return {name: Timing(tuple(seconds[name][-repeats:]), peaks[name]) for name in contenders}


def ratio(over: Timing, under: Timing) -> Spread:
    """Compute the quotients of the rounds, `over` / `under`: paired ratios, not a ratio of medians.

    The two ran right after each other, so a machine that gets slower over the rounds changes both alike.
    """
    return Spread.of([a / b for a, b in zip(over.seconds, under.seconds, strict=True)])

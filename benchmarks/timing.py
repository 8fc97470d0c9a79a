"""Timing of contenders that take turns, so that what slows the machine down slows all of them.

R rounds · in each round every contender runs once, every other round backwards: A B C, C B A, A B C ...
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

STATUS, CLEAR = Path('/proc/self/status'), Path('/proc/self/clear_refs')


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> 'Spread':
        """Of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method='inclusive')
        return cls(median, low, high)


class Timing(NamedTuple):
    """What was measured of one contender."""

    seconds: tuple[float, ...]  # (R,)
    peak_mib: float | None  # largest memory while it ran: of the process, on a GPU of its tensors
    result: Any  # what it returned when it warmed up: the parity check compares it

    @property
    def spread(self) -> Spread:
        """Of the seconds."""
        return Spread.of(self.seconds)

    def rate(self, count: float) -> Spread:
        """Of `count` things a run, in things a second."""
        return Spread.of([count / seconds for seconds in self.seconds])


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device, warm_up: int = 1
) -> dict[str, Timing]:
    """Run contenders in turns, every other round backwards; returns what was measured of each by its name.

    Backwards (A B C, C B A), because what ran before leaves memory and caches behind: nobody is always the
    one after the largest. The rounds of the warm-up are not timed. What runs on a GPU is waited for.
    """
    if repeats < 1 or warm_up < 1:
        raise ValueError(f'repeats and warm_up must be at least 1; got {repeats} and {warm_up}')
    results = {name: run() for name, run in contenders.items()}
    for _ in range(warm_up - 1):
        for run in contenders.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peaks: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repeats):
        for name, run in list(contenders.items())[:: -1 if number % 2 else 1]:
            _wait(device)
            _forget_peak(device)
            start = time.perf_counter()
            run()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
            if (peak := _peak_mib(device)) is not None:
                peaks[name].append(peak)
    return {
        name: Timing(tuple(seconds[name]), max(peaks[name], default=None), results[name])
        for name in contenders
    }


def ratio(over: Timing, under: Timing) -> Spread:
    """Of the quotients of the rounds, `over` / `under`: the median of paired ratios, not a ratio of medians.

    The two ran right after each other, so a machine that gets slower over the rounds changes both alike.
    """
    return Spread.of([a / b for a, b in zip(over.seconds, under.seconds, strict=True)])


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        CLEAR.write_text('5')  # Linux: VmHWM starts anew from what is resident now


def _peak_mib(device: torch.device) -> float | None:
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**20
    if not STATUS.exists():
        return None
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return next(int(line[1]) / 2**10 for line in lines if line[0] == 'VmHWM:')

"""Contenders take turns, and their figures come out as they should."""

import time

import pytest
import torch

from benchmarks.timing import Spread, Timing, interleaved, ratio

CPU = torch.device('cpu')


def test_contenders_take_turns() -> None:
    called: list[str] = []
    contenders = {name: lambda name=name: called.append(name) for name in 'ABC'}
    times = interleaved(contenders, repeats=3, device=CPU, warm_up=2)
    assert ''.join(called) == 'ABC' * 2 + 'ABCCBAABC'  # warm-up, and every other round backwards
    assert [len(timing.seconds) for timing in times.values()] == [3, 3, 3]
    with pytest.raises(ValueError, match='at least 1'):
        interleaved(contenders, repeats=0, device=CPU)


def test_time_is_of_the_contender() -> None:
    times = interleaved({'sleeps': lambda: time.sleep(0.05), 'nothing': lambda: None}, repeats=2, device=CPU)
    assert min(times['sleeps'].seconds) >= 0.05 > max(times['nothing'].seconds)


def test_spreads() -> None:
    assert Spread.of([4.0]) == (4, 4, 4)
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 9.0]) == (3, 2, 4)
    assert Timing((2.0, 4.0)).rate(8) == (3, 2.5, 3.5)


def test_a_ratio_is_the_median_of_quotients() -> None:
    """A machine that slows down tenfold leaves it alone; the ratio of medians would be 2.5."""
    slow, fast = Timing((2.0, 20.0, 50.0)), Timing((1.0, 10.0, 20.0))
    assert ratio(slow, fast).median == 2
    assert ratio(slow, fast).high == 2.25

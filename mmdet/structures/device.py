"""What differs between a GPU and a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_as_on_a_gpu: list[bool] = []  # one entry for each `branches_of_a_gpu` that is open


def on_gpu(x: Tensor) -> bool:
    """Whether to compute with `x` in the form that is fast on a GPU."""
    return x.is_cuda or bool(_as_on_a_gpu)


@contextmanager
def branches_of_a_gpu() -> Iterator[None]:
    """Compute on a CPU what a GPU would compute: to test it, and to count its operations."""
    _as_on_a_gpu.append(True)
    try:
        yield
    finally:
        _as_on_a_gpu.pop()

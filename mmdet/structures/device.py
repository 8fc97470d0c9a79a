"""What differs between a GPU and a CPU."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import torch
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


def launches(x: Tensor) -> bool:
    """Whether kernels of our own are wanted and can be launched for `x`; a compiler fuses by itself.

    The variable MMDET_KERNELS=1 asks for them: no card has shown yet that they are right and faster.
    """
    wanted = x.is_cuda and os.environ.get('MMDET_KERNELS') == '1'
    return wanted and not torch.compiler.is_compiling() and _triton_works()


def launch(
    kernel: str, grid: tuple[int, ...], out: Tensor, arguments: tuple[Any, ...], constants: dict[str, int]
) -> None:
    """Launch a Triton kernel, `MODULE.NAME`, that writes `out`, which is among its arguments.

    `out` is named for what counts launches in this function's place, as benchmarks/ops.py does.
    """
    module, _, name = kernel.rpartition('.')
    getattr(import_module(module), name)[grid](*arguments, **constants)  # Triton takes half a second


@cache
def _triton_works() -> bool:
    """Try a kernel: Triton comes with torch for CUDA on Linux, and needs a C compiler."""
    image, index = torch.zeros(1, 1, 1, 4, device='cuda'), torch.zeros(1, dtype=torch.int64, device='cuda')
    out = torch.empty_like(image)
    arguments = (image, image, index, out, 1, 4, 2, *image.stride())
    try:
        launch('mmdet.structures.crop_kernels.crop_kernel', (1, 1), out, arguments, {'C': 1, 'BLOCK': 16})
    except Exception as error:  # whatever Triton, the compiler or the driver raise
        warnings.warn(f'the kernels for GPUs cannot run, so that steps take longer: {error!r}', stacklevel=2)
        return False
    return True

"""Faster bfloat16 convolutions on processors without instructions for them.

There torch convolves bfloat16 some ten times slower than float32. What such instructions compute is known:
products of bfloat16 numbers, summed in float32, the sum rounded to bfloat16. So the rounded numbers are
convolved in float32 here and the result is rounded; only the order of the sums is another.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


def quick_bfloat16() -> contextlib.AbstractContextManager[Any]:
    """Choose torch's own bfloat16 convolutions where the processor has them, else `RoundedConvolutions`."""
    own = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return contextlib.nullcontext() if own else RoundedConvolutions()


class RoundedConvolutions(TorchDispatchMode):
    """Compute bfloat16 convolutions and their gradients in float32, and round the results."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call an operator of torch."""
        keywords = kwargs or {}
        if func not in CONVOLUTIONS or args[0].dtype != torch.bfloat16:
            return func(*args, **keywords)
        found = func(*tree_map_only(torch.Tensor, torch.Tensor.float, args), **keywords)
        return tree_map_only(torch.Tensor, torch.Tensor.bfloat16, found)

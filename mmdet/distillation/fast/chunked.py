"""A loss over many boxes, a few at a time.

M boxes · chunks of at most `CHUNK_SIZE`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet.structures import on_gpu

CHUNK_SIZE = 16  # boxes whose feature maps are held together; on a CPU they fit the cache
CHUNK_SIZE_GPU = 1024
MULTIPLE_GPU = 64  # a network gets such a multiple of crops, see `missing_rows`
GRADIENT_SCALE = 2.0**14  # keeps the gradient inside a float16 network from vanishing; a power of 2 is exact


def sum_in_chunks(loss: Callable[..., Tensor], bboxes: Tensor, *indices: Tensor) -> Tensor:
    """Sum a loss over boxes whose gradient is taken chunk by chunk, so that memory does not grow with M.

    The gradient with respect to the boxes is computed at once, in the forward pass, and each chunk's feature
    maps are dropped. Nothing else may need a gradient.

    Args:
        loss: Called with the boxes of a chunk and their part of each of `indices`; returns a scalar. On a GPU
            some boxes are added whose numbers are all 0; their loss has to be 0.
        bboxes: (M, 4).
        indices: (M,) each.

    Returns:
        A scalar that is connected to `bboxes`, also where M is 0.
    """
    size = CHUNK_SIZE_GPU if on_gpu(bboxes) else CHUNK_SIZE
    missing = missing_rows(bboxes)
    inputs = [F.pad(x, [0] * (2 * x.dim() - 1) + [missing]) for x in (bboxes.detach(), *indices)]
    values, gradients = [], []
    chunks = zip(*(x.split(size) for x in inputs), strict=True)
    for boxes, *rows in chunks:
        with torch.enable_grad():
            boxes.requires_grad_()
            value = loss(boxes, *rows)
        with torch.autocast(bboxes.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(value * GRADIENT_SCALE, boxes)
        values.append(value.detach())
        gradients.append(gradient / GRADIENT_SCALE)
    return PrecomputedGradient.apply(bboxes, torch.stack(values).sum(), torch.cat(gradients)[: len(bboxes)])


def missing_rows(x: Tensor) -> int:
    """Count the rows that `x` (M, ...) lacks to the next multiple, on a GPU.

    Every batch has another number of objects and of positives, and for each number cuDNN looks anew for the
    fastest algorithm of each convolution (`env_cfg.cudnn_benchmark`): so there are few numbers.
    """
    return -len(x) % MULTIPLE_GPU if on_gpu(x) else 0


class PrecomputedGradient(torch.autograd.Function):
    """A value whose gradient is already known."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Return `value`, a function of `inputs` with `gradient`, which has the shape of `inputs`."""
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        """Apply the chain rule."""
        (gradient,) = ctx.saved_tensors
        return grad_outputs[0] * gradient, None, None

"""Compile the networks of a training step, where the machine can."""

from typing import Any

import torch
from torch import Tensor, nn


def compile_network(model: nn.Module, **settings: Any) -> str | None:
    """Compile the network of a detector, and its teacher's, in place; names of parameters stay.

    torch compiles at the first call, deep inside a step. So something small is compiled here first: what the
    machine lacks (a C++ compiler, Triton) shows at once. A part that torch cannot compile runs as it is, with
    a warning of torch's.

    Args:
        model: Not wrapped.
        settings: As `torch.compile` takes them: mode, backend, ...

    Returns:
        Why nothing was compiled, or None.
    """
    device = next(model.parameters()).device
    try:
        probe = torch.compile(_probe, **settings)
        probe(torch.ones(8, device=device, requires_grad=True)).backward()
    except Exception as error:  # backends raise what they like
        reason = str(error).strip().partition('\n')[0]
        return f'{type(error).__name__}: {reason}'
    torch._dynamo.config.suppress_errors = True
    for name in ('backbone', 'neck', 'head', 'distiller'):
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            part.compile(**settings)
    return None


def _probe(x: Tensor) -> Tensor:
    return (2 * x).relu().sum()

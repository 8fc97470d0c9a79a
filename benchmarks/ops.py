"""`ops`: what a training step asks of a GPU, counted on a CPU: operations, bytes, calls that wait.

The step takes the branches of a GPU (`mmdet.structures.branches_of_a_gpu`), in bfloat16 with the channels
last. What these numbers allow at best on a card is an estimate: the sum over the operations of the larger of
two times, that of its bytes at the card's bandwidth and that of its multiply-adds at the card's rate.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from mmengine.optim import build_optim_wrapper
from torch import Tensor
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from benchmarks.distill import CHEAP
from benchmarks.report import Row, Target
from benchmarks.settings import Settings
from benchmarks.students import BATCH, Subject, make_teacher, store_answers, subject
from benchmarks.timing import Spread
from mmdet.models import conv_relu
from mmdet.structures import branches_of_a_gpu

FREE = {'detach', 'alias', 'empty', 'empty_like', 'empty_strided', 'new_empty', 'lift_fresh', '_unsafe_view'}
FREE |= {'_record_function_enter_new', '_record_function_exit'}
WAITING = {'_local_scalar_dense', 'nonzero', 'masked_select', 'equal', '_unique2', 'repeat_interleave'}


class Card(NamedTuple):
    """A GPU by its data sheet."""

    name: str
    bandwidth: float  # bytes/s
    rate: float  # floating-point operations/s, bfloat16, dense


CARDS = (Card('H100', 3.35e12, 989e12), Card('H200', 4.8e12, 989e12))


class OperationCounter(TorchDispatchMode):
    """Count what is dispatched while it is active, views and empty tensors aside."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.waits = self.bytes = 0
        self.names: list[str] = []  # of the operations
        self.seconds = dict.fromkeys(CARDS, 0.0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        out = _zeros_as(func, args) if name.startswith('convolution') else func(*args, **kwargs)
        is_view = any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
        for_shape = any(isinstance(x, Tensor) and x.is_meta for x in tree_leaves(out))
        if not (is_view or for_shape or name in FREE):
            flops = flop_registry.get(func.overloadpacket, lambda *_, **__: 0)(*args, **kwargs, out_val=out)
            self.add(name, tree_leaves((args, kwargs, out)), flops)
        by_mask = name.startswith('index') and any(
            isinstance(x, Tensor) and x.dtype == torch.bool for x in tree_leaves(args[1])
        )
        self.waits += name in WAITING or by_mask
        return out

    def add(self, name: str, values: list[Any], flops: float = 0) -> None:
        """Count an operation on the tensors among `values`, each read or written once."""
        tensors = {id(x): x for x in values if isinstance(x, Tensor)}
        size = sum(_stored_bytes(x) for x in tensors.values())
        self.operations += 1
        self.names.append(name)
        self.bytes += size
        for card in CARDS:
            self.seconds[card] += max(size / card.bandwidth, flops / card.rate)


def _zeros_as(func: Any, args: tuple[Any, ...]) -> Any:
    """Return zeros in the shape of a result that takes long to compute."""
    shapes = func(*tree_map_only(Tensor, lambda x: torch.empty_like(x, device='meta'), args))
    return tree_map_only(Tensor, lambda x: _zeros(x.shape, x.dtype), shapes)


def _zeros(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.zeros(shape, dtype=dtype).to(memory_format=layout)


def _stored_bytes(x: Tensor) -> int:
    """Count the bytes that a tensor touches; an expanded one touches some of them often."""
    touched = [size for size, stride in zip(x.shape, x.stride(), strict=True) if stride]
    return torch.Size(touched).numel() * x.element_size()


@contextmanager
def counting() -> Iterator[OperationCounter]:
    """Count what a GPU would be asked, on a CPU.

    A fused optimizer is one operation, and so is each of our kernels, which computes nothing here. A copy of
    numbers to the device waits, and so does `.to` unless it is told not to.
    """
    counter = OperationCounter()
    make, move = torch.tensor, Tensor.to
    before: list[int] = []

    def made(*args: Any, **kwargs: Any) -> Tensor:
        counter.waits += kwargs.get('device') is not None
        return make(*args, **kwargs)

    def moved(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        to_device = isinstance(kwargs.get('device', args[0] if args else None), (torch.device, str))
        counter.waits += to_device and not kwargs.get('non_blocking')
        return move(x, *args, **kwargs)

    def launched(kernel: str, out: Tensor, pool: Any, *arguments: Any) -> None:
        counter.add(kernel, list(arguments))
        with _disable_current_modes():
            out.zero_()

    def one_operation(*_: Any) -> None:
        counter.operations = before.pop() + 1
        counter.names[counter.operations - 1 :] = ['optimizer']

    with ExitStack() as stack:
        for target, name, substitute in (
            (torch, 'tensor', made),
            (Tensor, 'to', moved),
            (conv_relu, 'launches', lambda _: True),
            (conv_relu, 'launch', launched),
        ):
            stack.enter_context(patch.object(target, name, substitute))
        stack.enter_context(branches_of_a_gpu())
        hooks = (
            register_optimizer_step_pre_hook(lambda *_: before.append(counter.operations)),
            register_optimizer_step_post_hook(one_operation),
        )
        for hook in hooks:
            stack.callback(hook.remove)
        stack.enter_context(counter)
        yield counter


QUANTITIES = {  # name -> unit, what the distilled steps should reach
    'operations': ('', Target(1.3, at_least=False, of='ratio')),
    'waits': ('', Target(4, at_least=False)),
    'gigabytes': ('', None),
    **{f'at best on {card.name}': ('ms', None) for card in CARDS},
}


def run(settings: Settings) -> list[Row]:
    """Count a plain step, a distilled one, and one with the cheap localization of `distill`."""
    settings = settings._replace(device=torch.device('cpu'), amp=True, channels_last=True)
    count, teacher = settings.batch_size or BATCH, make_teacher(settings)
    if settings.teacher == 'stored':
        teacher = store_answers(subject(settings._replace(amp=False), count, teacher), teacher)
    steps = {'plain': subject(settings, count), 'distilled': subject(settings, count, teacher)}
    steps['cheaply distilled'] = subject(settings, count, teacher, **CHEAP)
    stored = ', stored answers' if settings.teacher == 'stored' else ''
    counted = {name: count_step(step) for name, step in steps.items()}
    return [
        Row(
            'ops',
            f'{quantity}, {name} step{stored}',
            unit,
            target=None if name == 'plain' else target,
            ours=Spread.of([found[quantity]]),
            ratio=None if quantity == 'waits' else Spread.of([found[quantity] / counted['plain'][quantity]]),
            note=f'batch {count}; counted on a CPU',
        )
        for quantity, (unit, target) in QUANTITIES.items()
        for name, found in counted.items()
    ]


def count_step(step: Subject) -> dict[str, float]:
    """Count one training step, the second: the first one makes tensors that stay."""
    detector = step.detector.train()
    optim_wrapper = build_optim_wrapper(detector, step.cfg.optim_wrapper)
    for _ in range(2):
        with counting() as found:
            detector.train_step(step.data, optim_wrapper)
    best = {f'at best on {card.name}': 1e3 * seconds for card, seconds in found.seconds.items()}
    gigabytes = found.bytes / 1e9
    return {'operations': found.operations, 'waits': found.waits, 'gigabytes': gigabytes, **best}

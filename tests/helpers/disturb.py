"""Hooks by which a training disturbs itself: signals, faults of a process, numbers that are not finite."""

import hashlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from typing import Any

from mmengine.dist import barrier
from mmengine.hooks import Hook
from torch import Tensor

from mmdet.distributed import heartbeat
from mmdet.registry import HOOKS

HANG, ERROR = 'hang', 'error'


@HOOKS.register_module()
class SignalHook(Hook):
    """Sends one SIGTERM.

    Args:
        moment: A method of hooks.
        number: Which call of it, counted from 1.
        rank: The process that sends it.
        to: 'process': itself; 'group': itself and its data workers; 'launcher'.
    """

    priority = 'VERY_HIGH'

    def __init__(self, moment: str, number: int = 1, rank: int = 0, to: str = 'group') -> None:
        self.left, self.rank, self.to = number, rank, to
        setattr(self, moment, self._maybe)
        if to == 'group':
            os.setpgid(0, 0)  # not the tests' own
            print(f'<group {os.getpid()}>', flush=True)

    def _maybe(self, runner: Any, **_: Any) -> None:
        self.left -= 1
        if self.left:
            return
        if runner.world_size > 1:
            barrier()  # a process that is still loading ends as ever
        if runner.rank == self.rank:
            targets = {'process': os.getpid(), 'group': -os.getpgid(0), 'launcher': os.getppid()}
            os.kill(targets[self.to], signal.SIGTERM)


@HOOKS.register_module()
class OverflowHook(Hook):
    """In a step, counted from 1, the losses of process 1 are not finite."""

    def __init__(self, step: int) -> None:
        self.step, self.now = step, False

    def before_train(self, runner: Any) -> None:
        """Watch what the head returns."""
        runner.model.module.bbox_head.register_forward_hook(self._spoil)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Whether this is such a step."""
        self.now = runner.rank == 1 and runner.iter + 1 == self.step

    def _spoil(self, module: Any, given: Any, returned: Any) -> Any:
        return returned._replace(cls_logits=returned.cls_logits * float('nan')) if self.now else None


@HOOKS.register_module()
class RuinHook(Hook):
    """After a step, counted from 1, the weights of every process are not finite."""

    priority = 'VERY_HIGH'

    def __init__(self, step: int) -> None:
        self.step = step

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Ruin the first."""
        if runner.iter + 1 == self.step:
            next(runner.model.parameters()).data.fill_(float('nan'))


@HOOKS.register_module()
class FaultHook(Hook):
    """What happens to processes; tells start, process, iteration and pid of each step.

    Args:
        faults: Start, counted from 0, process and iteration of each, and what happens there: `HANG`, `ERROR`
            or a signal.
        pause: Seconds before each step.
        grace: Seconds that the others have to answer.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self, faults: Sequence[Sequence[Any]] = (), pause: float = 0, grace: float = heartbeat.GRACE
    ) -> None:
        self.faults = {tuple(place): what for *place, what in faults}
        self.pause = pause
        heartbeat.GRACE = grace
        self.start = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', '0'))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Hang, fail or be killed."""
        time.sleep(self.pause)
        print(f'<{self.start} {runner.rank} {runner.iter + 1} {os.getpid()}>', flush=True)
        what = self.faults.get((self.start, runner.rank, runner.iter + 1))
        if what == HANG:
            time.sleep(1000)
        elif what == ERROR:
            raise ValueError('a fault of its own')
        elif what:
            os.kill(os.getpid(), signal.Signals[what])


@HOOKS.register_module()
class WeightsHook(Hook):
    """Tells a hash of the parameters that each process ends with, and of all that process 0 saves.

    Other processes' statistics of BatchNorm are their own, and begin anew in a resumed run.
    """

    def after_train(self, runner: Any) -> None:
        """Tell them."""
        saved = digest(runner.model.state_dict().values()) if runner.rank == 0 else ''
        print(f'<{runner.rank} ends with {digest(runner.model.parameters())} {saved}>', flush=True)


@HOOKS.register_module()
class ObjectsHook(Hook):
    """Tells how many objects each image holds that a process trains on."""

    def before_train(self, runner: Any) -> None:
        """Begin to count."""
        self.counts: list[int] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any = None) -> None:
        """Count those of a batch."""
        self.counts += data_batch['gt'].valid.sum(1).tolist()

    def after_train(self, runner: Any) -> None:
        """Tell them."""
        print(f'<{runner.rank} sees {" ".join(map(str, self.counts))} objects>', flush=True)


def digest(tensors: Iterable[Tensor]) -> str:
    """A hash of their bits."""
    return hashlib.sha256(b''.join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()

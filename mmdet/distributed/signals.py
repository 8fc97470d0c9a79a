"""Finish the step and save when SIGTERM or SIGINT comes while training.

Signals come to a whole group: a terminal's Ctrl-C, Slurm and torchrun reach the data workers, too, which must
outlive the step.
"""

import multiprocessing.util
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPS = (signal.SIGTERM, signal.SIGINT)
REPEAT = 2.0  # seconds in which the same signal comes again by another way: from Slurm, and from torchrun


class StoppedBySignal(SystemExit):
    """Exit of a training that has saved, with status 128 + the signal's number, as shells count: 143, 130.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(self.status)


class GracefulShutdown:
    """Note SIGTERM and SIGINT while it is entered; a second one, two seconds later or more, ends at once.

    Does nothing outside the main thread, and leaves a signal alone that the process was started to ignore.
    """

    def __init__(self) -> None:
        self.received = 0  # number of the signal, 0: none
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)

    def __exit__(self, *error: object) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler or signal.SIG_DFL)  # None: one that Python has not installed

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name.encode()
        if not self.received:
            self.received, self._when = number, time.monotonic()
            # past the buffer of stderr, which the interrupted code may be writing to
            os.write(2, name + b': finishing this step, then saving; a second signal ends at once\n')
        elif time.monotonic() - self._when >= REPEAT:
            os.write(2, name + b' again: ending at once\n')
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextmanager
def block_signals() -> Iterator[None]:
    """Block SIGTERM and SIGINT meanwhile, and for good in processes that are started inside: data workers.

    Such a process ends when its loader tells it to, within five seconds of its parent's death (torch looks
    for that), or by SIGKILL as its parent leaves: multiprocessing would wait for it after SIGTERM.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    multiprocessing.util.Finalize(None, _kill_workers, exitpriority=0)


def _kill_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch calls the end of a worker an error
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()

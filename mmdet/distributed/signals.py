"""SIGTERM and SIGINT while training: noted, so that the step ends and a checkpoint is written first.

Signals come to a whole group: a terminal's Ctrl-C, Slurm and torchrun reach the data workers, too, which must
outlive the step.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

STOPS = (signal.SIGTERM, signal.SIGINT)
REPEAT = 2.0  # seconds in which the same signal comes again by another way: from Slurm, and from torchrun


class StoppedBySignal(SystemExit):
    """Training has saved and leaves, with status 128 + the signal's number, as shells count: 143, 130.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(self.status)


class GracefulShutdown:
    """Notes SIGTERM and SIGINT while it is entered; a second one, two seconds later or more, ends at once.

    Does nothing outside the main thread, and leaves a signal alone that the process was started to ignore.
    """

    def __init__(self) -> None:
        self.received = 0  # number of the signal, 0: none
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                handler = signal.getsignal(number)
                if handler is not signal.SIG_IGN:
                    self._before[number] = signal.SIG_DFL if handler is None else handler
                    signal.signal(number, self._note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        now = time.monotonic()
        if not self.received:
            self.received, self._when = number, now
            _say(f'{name}: finishing this step, then saving; a second signal ends at once\n')
        elif now - self._when >= REPEAT:
            _say(f'{name} again: ending at once\n')
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def _say(text: str) -> None:
    """Write to stderr past its buffer, which the interrupted code may be writing to."""
    os.write(2, text.encode())


@contextmanager
def block_signals() -> Iterator[None]:
    """Keep SIGTERM and SIGINT back meanwhile; processes that are started inside keep them back for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent_only() -> None:
    """Make this process, a data worker, ignore SIGINT, and SIGTERM from everybody but its parent.

    A terminal's Ctrl-C, Slurm and torchrun send theirs to a whole group. The parent ends its workers when it
    leaves; where it is killed they notice that by themselves, within five seconds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    known = hasattr(signal, 'sigwaitinfo')  # not on macOS: there SIGTERM ends a worker as ever
    signal.pthread_sigmask(signal.SIG_BLOCK if known else signal.SIG_UNBLOCK, {signal.SIGTERM})
    if known:
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)

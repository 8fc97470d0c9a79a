"""Finish the step and save when SIGTERM or SIGINT comes while training.

Signals come to a whole group: a terminal's Ctrl-C, Slurm and torchrun reach the data workers, too, which must
outlive the step.
"""

import multiprocessing.util
import os
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

CAN_BLOCK = hasattr(signal, 'pthread_sigmask')  # not on Windows
STOPS = (signal.SIGTERM, signal.SIGINT)
REPEAT = 2.0  # seconds in which the same signal comes again by another way: from Slurm, and from torchrun


class StoppedBySignal(SystemExit):
    """Exit of a training that has saved, with status 128 + the signal's number, as shells count: 143, 130."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(self.status)


class GracefulShutdown:
    """Note SIGTERM and SIGINT while it is entered; a second one, two seconds later or more, ends at once.

    The second one also ends a process whose main thread is not running Python, but waits for other processes
    or a device. Does nothing outside the main thread, and leaves a signal alone that the process was started
    to ignore.
    """

    def __init__(self) -> None:
        self.received = 0  # number of the signal, 0: none
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        coming, self._sent = socket.socketpair()
        self._sent.setblocking(False)
        signal.set_wakeup_fd(self._sent.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(coming, set(self._before)), daemon=True).start()

    def __exit__(self, *error: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)
            self._sent.send(b'\0')
            self._sent.close()
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler or signal.SIG_DFL)  # None: one that Python has not installed

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number


def _watch(coming: socket.socket, stops: Collection[int]) -> None:
    """Tell that a signal came, and end the process at the second one, whatever its main thread does."""
    first = 0.0
    while number := coming.recv(1)[0]:
        if number in stops:
            name, now = signal.Signals(number).name, time.monotonic()
            if not first:
                first = now
                # past the buffer of stderr, which the main thread may be writing to
                os.write(
                    2, f'{name}: finishing this step, then saving; a second signal ends at once\n'.encode()
                )
            elif now - first >= REPEAT:
                os.write(2, f'{name} again: ending at once\n'.encode())
                _kill_workers()
                os._exit(128 + number)


@contextmanager
def block_signals() -> Iterator[None]:
    """Block SIGTERM and SIGINT meanwhile, and for good in processes that are started inside: data workers.

    Such a process ends when its loader tells it to, within five seconds of its parent's death (torch looks
    for that), or by SIGKILL as its parent leaves: multiprocessing would wait for it after SIGTERM.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS) if CAN_BLOCK else set()
    try:
        yield
    finally:
        if CAN_BLOCK:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    multiprocessing.util.Finalize(None, _leave_workers, exitpriority=0)


def _leave_workers() -> None:
    if CAN_BLOCK:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch calls the end of a worker an error
    _kill_workers()


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()

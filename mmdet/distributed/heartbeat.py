"""Which processes of a run are there and how far each has come, to name the one that the others wait for.

Every process notes its place in the launcher's key-value store, from the thread that trains: when that
thread hangs, the note grows old. A process that has lost the others says so there, and one that ends with an
error of its own leaves that. Who has said nothing a few seconds later has died or hangs.
"""

import contextlib
import faulthandler
import json
import os
import re
import signal
import socket
import sys
import time
from typing import ClassVar, NamedTuple

from torch.distributed import DistError, Store

INTERVAL = 1.0  # seconds between two notes; one takes about 0.1 ms
GRACE = 5.0  # seconds that the others have to say that they, too, have lost somebody


class Note(NamedTuple):
    """What a process says of itself."""

    host: str
    pid: int
    place: str
    time: float  # of its host's clock, seconds since 1970


class Heartbeat:
    """The notes of all processes.

    Args:
        store: Of the launcher, or of process 0 where the launcher has none.
        rank: Of this process.
        size: Number of processes.
    """

    of_run: ClassVar['Heartbeat | None'] = None  # None in a run of one process

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.store, self.rank, self.size = store, rank, size
        self._noted = -INTERVAL

    def note(self, place: str) -> None:
        """Write where this process is, unless it has done so within the last second.

        Raises:
            DistError: The store is gone, and the launcher with it.
        """
        now = time.monotonic()
        if now - self._noted >= INTERVAL:
            self._noted = now
            note = Note(socket.gethostname(), os.getpid(), place, time.time())
            self.store.set(f'note/{self.rank}', json.dumps(note))

    def leave(self, reason: str) -> None:
        """Tell the others that this process ends, and why; '' when it has lost one of them."""
        self.store.set(f'left/{self.rank}', reason)

    def absent(self) -> list[str]:
        """A line for each process that does not answer within `GRACE` seconds or ended with an error."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        silent, end = others, time.monotonic() + GRACE
        while silent and time.monotonic() < end:
            time.sleep(0.1)
            silent = [rank for rank in silent if not self.store.check([f'left/{rank}'])]
        lines = [self._describe(rank) for rank in silent]
        for rank in sorted(set(others) - set(silent)):
            reason = self.store.get(f'left/{rank}').decode()
            if reason:
                lines.append(f'process {rank} ended with an error: {reason}')
        return lines

    def _describe(self, rank: int) -> str:
        if not self.store.check([f'note/{rank}']):
            return f'process {rank} never began'
        note = Note(*json.loads(self.store.get(f'note/{rank}')))
        return (
            f'process {rank} (host {note.host}, pid {note.pid}) has died or hangs: it was last seen '
            f'{note.place}, {max(0.0, time.time() - note.time):.0f} s ago'
        )


def record_position(place: str) -> None:
    """Note where this process is; does nothing in a run of one."""
    if Heartbeat.of_run is not None:
        Heartbeat.of_run.note(place)


def note_end(reason: str) -> None:
    """Tell the others why this process ends; does nothing in a run of one."""
    if Heartbeat.of_run is not None:
        with contextlib.suppress(DistError):  # the launcher is gone: nobody is left to read it
            Heartbeat.of_run.leave(reason)


def explain_lost_ranks(error: BaseException) -> str | None:
    """What a failed communication means: names the processes that are not there any more.

    Waits some seconds for the others, in which SIGTERM, which a launcher sends to all when one has failed,
    does nothing. Ends the process if it is still there some seconds later.

    Args:
        error: What ended this process.

    Returns:
        The message; None when the error is of another kind.
    """
    heartbeat = Heartbeat.of_run
    if heartbeat is None or not (isinstance(error, DistError) or re.search('gloo|NCCL', str(error))):
        return None
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # a store whose host has stopped never answers, and gloo may keep the interpreter from ending
    faulthandler.dump_traceback_later(4 * GRACE, exit=True)
    what = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    holder = os.environ.get('MASTER_ADDR')
    lost = f'process {heartbeat.rank} has lost the others'
    print(f'{lost}; asking {holder} for whom', file=sys.stderr, flush=True)
    try:
        heartbeat.leave('')
        lines = heartbeat.absent() or ['every process answers: the network between them failed']
    except DistError:
        lines = [f'the launcher on {holder}, which held the list of all, is gone']
    remedy = (
        'Go on from the last checkpoint with --resume, or let the launcher do that: MAX_RESTARTS=3. How long '
        'a process waits: --cfg-options env_cfg.dist_cfg.timeout=SECONDS'
    )
    return '\n  '.join([f'{lost} ({what})', *lines, remedy])

"""Name the process that the others of a run have lost.

Each process says in the launcher's key-value store who it is and, as it ends with an error, which. One that
has lost the others says so there, too. Who has said nothing a few seconds later has died or hangs.
(`torch.distributed.monitored_barrier` over a group of its own names one that hangs, but not one that died.)
"""

import contextlib
import datetime
import faulthandler
import os
import re
import signal
import socket
import sys
from typing import ClassVar

from torch.distributed import DistError, DistStoreError, Store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

GRACE = 5.0  # seconds that the others have to say that they, too, have lost somebody
REMEDY = (
    'Go on from the last checkpoint with --resume, or let the launcher do that: MAX_RESTARTS=3. How long a '
    'process waits: --cfg-options env_cfg.dist_cfg.timeout=SECONDS'
)
NETWORK = (
    'every process answers: the network between them failed. Without GPUs '
    'GLOO_SOCKET_IFNAME=NAME chooses the interface of each machine'
)


class Heartbeat:
    """What this process tells the others of its run, and what it hears of them.

    Args:
        store: Of the launcher, or of process 0 where the launcher has none.
        rank: Of this process.
        size: Number of processes.
    """

    of_run: ClassVar['Heartbeat | None'] = None  # None in a run of one process

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.store, self.rank, self.size = store, rank, size
        store.set(f'who/{rank}', f'host {socket.gethostname()}, pid {os.getpid()}')

    def leave(self, how: str) -> None:
        """Tell the others how this process ends; '' when it has lost one of them."""
        self.store.set(f'end/{self.rank}', how)

    def find_lost(self) -> list[str]:
        """Describe each process that does not answer within `GRACE` seconds, or ended with an error."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        with contextlib.suppress(DistStoreError):  # the time is over
            self.store.wait([f'end/{rank}' for rank in others], datetime.timedelta(seconds=GRACE))
        lines = []
        for rank in others:
            who = self._read(f'who/{rank}', 'it never began')
            if how := self._read(f'end/{rank}', f'({who}) does not answer: it has died or hangs'):
                lines.append(f'process {rank} {how}')
        return lines

    def _read(self, key: str, default: str) -> str:
        return self.store.get(key).decode() if self.store.check([key]) else default


def note_end(error: BaseException, reason: str) -> None:
    """Tell the launcher and the other processes why this one ends; does nothing in a run of one."""
    if Heartbeat.of_run is not None:
        get_error_handler().record_exception(error)
        with contextlib.suppress(DistError):  # the launcher is gone: nobody is left to read it
            Heartbeat.of_run.leave(f'ended with an error: {reason}')


def explain_lost_ranks(error: BaseException) -> str | None:
    """Explain a failed communication: name the processes that are not there any more.

    Waits some seconds for the others, in which SIGTERM, which a launcher sends to all when one has failed,
    does nothing. Ends the process if it is still there some seconds later.

    Returns:
        The message; None when the error is of another kind.
    """
    heartbeat = Heartbeat.of_run
    if heartbeat is None or not (isinstance(error, DistError) or re.search('gloo|NCCL', str(error))):
        return None
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # a store whose host has stopped never answers, and gloo may keep the interpreter from ending
    faulthandler.dump_traceback_later(4 * GRACE, exit=True)
    lost = f'process {heartbeat.rank} has lost the others'
    holder = os.environ.get('MASTER_ADDR')
    print(f'{lost}; asking {holder} which', file=sys.stderr, flush=True)
    try:
        heartbeat.leave('')
        lines = heartbeat.find_lost() or [NETWORK]
    except DistError:
        lines = [f'the launcher on {holder}, which held the list of all, is gone']
    what = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return '\n  '.join([f'{lost} ({what})', *lines, REMEDY])

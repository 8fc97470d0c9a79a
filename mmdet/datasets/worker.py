"""What a data worker does before its first sample."""

import os
import sys
import traceback
from functools import partialmethod
from multiprocessing.queues import Queue
from typing import Any, NoReturn

import cv2
import torch
from torch._utils import ExceptionWrapper


def init_worker(worker_id: int) -> None:
    """Limit a data worker to one thread, and let no error of it be lost: `worker_init_fn` of a DataLoader.

    Python's own threads in a worker, which send batches and the files that these lie in, only print an error
    and go on; torch waits for the batch for ever (pytorch#1355).
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    Queue._on_queue_feeder_error = partialmethod(_send_error, worker_id)  # type: ignore[attr-defined]
    sys.excepthook = _end_worker


def _send_error(queue: 'Queue[Any]', worker_id: int, error: Exception, unsent: Any) -> None:
    """Send the error that is being handled in place of the batch that could not be sent."""
    if not isinstance(unsent, tuple):  # bytes, perhaps half sent
        _end_worker(type(error), error, error.__traceback__)
    queue.put((unsent[0], ExceptionWrapper(where=f'in DataLoader worker process {worker_id}')))


def _end_worker(*error: Any) -> NoReturn:
    traceback.print_exception(*error)
    # Status 0: at another one torch's handler of SIGCHLD raises in the main process at any moment. Where that
    # waits for a batch, it notices the broken connection, or within five seconds the missing worker.
    os._exit(0)

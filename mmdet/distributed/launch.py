"""Join the processes that a launcher has started, on GPUs that the installed torch can drive."""

import ctypes
import datetime
import logging
import os
import re
import signal
import sys
from typing import NoReturn

import torch
import torch.distributed as dist

from mmdet.distributed.heartbeat import Heartbeat
from mmdet.distributed.launchers import LAUNCHERS, read_environment

OLDER_CARDS = "pip install 'torch==2.6.*' 'torchvision==0.21.*'"  # has code for compute capability 5.0 to 9.0
PR_SET_PDEATHSIG = 1  # asks Linux for a signal when the parent process has ended


def check_cards() -> None:
    """Stop before the first step on a GPU that the installed torch holds no code for.

    Code `sm_XY` runs on GPUs of the same major version and at least its minor one, `sm_90a` on exactly its
    own; `compute_XY` is compiled for any GPU from X.Y on.

    Raises:
        OSError: Names the GPU and the torch that fits.
    """
    known = torch.cuda.get_arch_list()
    numbers = [int(arch.removeprefix('compute_')) for arch in known if re.fullmatch(r'compute_\d+', arch)]
    for index in range(torch.cuda.device_count() if torch.version.cuda else 0):  # AMD's have no such numbers
        major, minor = torch.cuda.get_device_capability(index)
        own = {f'sm_{major}{lower}' for lower in range(minor + 1)} | {f'sm_{major}{minor}a'}
        if own.isdisjoint(known) and all(number > 10 * major + minor for number in numbers):
            raise OSError(
                f'{torch.cuda.get_device_name(index)} (compute capability {major}.{minor}) is not supported '
                f'by torch {torch.__version__}, which has code for {", ".join(known)}. '
                f'A torch that fits older cards:\n{OLDER_CARDS}'
            )


def leave_process_group(status: int = 0) -> NoReturn:
    """End this process with this status once all others have done their work, too.

    Nothing is torn down: a gloo thread that drops the last collective's tensors needs the interpreter then.
    In torch 2.6 it waits for ever against `destroy_process_group`; in newer ones the interpreter's end now
    and then aborts it ("terminate called without an active exception"), and a process whose work is done
    fails the whole run.
    """
    dist.barrier()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def start_process_group(launcher: str, backend: str | None = None, timeout: float = 1800) -> None:
    """Join the processes that a launcher started: over NCCL on GPUs, over gloo without.

    Sets RANK, LOCAL_RANK and WORLD_SIZE as torch.distributed.run does, and this process's card. When
    torch.distributed.run itself is killed, this process gets SIGTERM.

    Args:
        launcher: `pytorch` (torch.distributed.run), `slurm` or `mpi`.
        backend: Of torch.distributed where there are GPUs; default: NCCL.
        timeout: Seconds after which a process that waits for the others gives up.

    Raises:
        ValueError: Unknown launcher, not started by it, or with variables that cannot be right.
        OSError: More processes than GPUs on this machine, or the processes do not find each other.
    """
    read_environment(launcher)
    gpus = torch.cuda.device_count()
    if gpus:
        _choose_gpu(launcher, gpus)
    if launcher == 'pytorch' and sys.platform == 'linux':
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    limit = datetime.timedelta(seconds=timeout)
    try:
        store, rank, size = next(dist.rendezvous('env://', timeout=limit))
    except RuntimeError as error:  # a DistError, but of a port in use in torch 2.6
        raise OSError(_explain_rendezvous(launcher, str(error).splitlines()[0])) from error
    restart = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')  # finds in the store what was there before
    store = dist.PrefixStore(f'start_{restart}', store)
    Heartbeat.of_run = Heartbeat(dist.PrefixStore('heartbeat', store), rank, size)
    backend = (backend or 'nccl') if gpus else 'gloo'
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)


def _explain_rendezvous(launcher: str, reason: str) -> str:
    """Name the variables that are to be looked at."""
    address, port, size = map(os.environ.get, ('MASTER_ADDR', 'MASTER_PORT', 'WORLD_SIZE'))
    if 'EADDRINUSE' in reason:
        return f'port {port} is in use on {address}: set MASTER_PORT (PORT for tools/*.sh) to another'
    return (
        f'process {os.environ["RANK"]} did not meet the others ({reason}). Is MASTER_ADDR={address} the '
        f'machine of process 0, MASTER_PORT={port} (PORT for tools/*.sh) open there, and '
        f'{LAUNCHERS[launcher].world_size}={size} the number of processes?'
    )


def _choose_gpu(launcher: str, gpus: int) -> None:
    """Let this process use the GPU of its own, of those that it sees."""
    alone = launcher != 'pytorch' and gpus == 1  # Slurm may show each process its own card only
    local_rank = 0 if alone else int(os.environ['LOCAL_RANK'])
    if local_rank >= gpus:
        raise OSError(
            f'process {local_rank + 1} of this machine has no GPU: there are {gpus}. Start fewer (N of '
            'dist_train.sh, GPUS_PER_NODE of slurm_train.sh), or let CUDA_VISIBLE_DEVICES name more'
        )
    torch.cuda.set_device(local_rank)

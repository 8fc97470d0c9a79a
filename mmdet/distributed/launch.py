"""Join the processes that a launcher has started, on GPUs that the installed torch can drive."""

import contextlib
import ctypes
import datetime
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from typing import NoReturn

import torch
import torch.distributed as dist

from mmdet.distributed.heartbeat import Heartbeat

LAUNCHERS = {  # how each is started, and in which variables it tells RANK, LOCAL_RANK and WORLD_SIZE
    'pytorch': ('tools/dist_train.sh', 'RANK', 'LOCAL_RANK', 'WORLD_SIZE'),
    'slurm': ('tools/slurm_train.sh', 'SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    'mpi': ('mpirun', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
}
OLDER_CARDS = "pip install 'torch==2.6.*' 'torchvision==0.21.*'"  # has code for compute capability 5.0 to 9.0
SIOCGIFADDR = 0x8915  # asks Linux for an interface's IPv4 address
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

    Sets RANK, LOCAL_RANK and WORLD_SIZE as torch.distributed.run does, this process's card, and where it is
    not set the interface over which gloo talks. When torch.distributed.run itself is killed, this process
    gets SIGTERM.

    Args:
        launcher: `pytorch` (torch.distributed.run), `slurm` or `mpi`.
        backend: Of torch.distributed where there are GPUs; default: NCCL.
        timeout: Seconds after which a process that waits for the others gives up.

    Raises:
        ValueError: Unknown launcher, or not started by it.
        OSError: More processes than GPUs on this machine.
    """
    _read_environment(launcher)
    gpus = torch.cuda.device_count()
    if gpus:
        _choose_gpu(launcher, gpus)
    if interface := interface_to(os.environ['MASTER_ADDR']):
        os.environ.setdefault('GLOO_SOCKET_IFNAME', interface)
    if launcher == 'pytorch' and sys.platform == 'linux':
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    limit = datetime.timedelta(seconds=timeout)
    store, rank, size = next(dist.rendezvous('env://', timeout=limit))
    restart = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')  # finds in the store what was there before
    store = dist.PrefixStore(f'start_{restart}', store)
    Heartbeat.of_run = Heartbeat(dist.PrefixStore('heartbeat', store), rank, size)
    backend = (backend or 'nccl') if gpus else 'gloo'
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)


def _read_environment(launcher: str) -> None:
    """Set the variables of torch.distributed from those of a launcher."""
    if launcher not in LAUNCHERS:
        raise ValueError(f'--launcher is none, {", ".join(LAUNCHERS)}; got {launcher}')
    starter, *sources = LAUNCHERS[launcher]
    for name, source in zip(('RANK', 'LOCAL_RANK', 'WORLD_SIZE'), sources, strict=True):
        if source not in os.environ:
            raise ValueError(f'--launcher {launcher} needs {source} in the environment: start with {starter}')
        os.environ[name] = os.environ[source]
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_JOB_NODELIST']]
        os.environ['MASTER_ADDR'] = subprocess.check_output(command, text=True).split()[0]
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')


def _choose_gpu(launcher: str, gpus: int) -> None:
    """Let this process use the GPU of its own, of those that it sees."""
    alone = launcher != 'pytorch' and gpus == 1  # Slurm may show each process its own card only
    local_rank = 0 if alone else int(os.environ['LOCAL_RANK'])
    if local_rank >= gpus:
        raise OSError(f'process {local_rank + 1} of this machine has no GPU: there are {gpus}')
    torch.cuda.set_device(local_rank)


def interface_to(address: str) -> str | None:
    """Find the network interface from which packets to a host leave; None where that cannot be told.

    gloo's own choice is the one that this machine's host name stands for, which is often the loopback.
    """
    with contextlib.suppress(ImportError, OSError):  # no Linux, no IPv4 address
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing
            own = socket.inet_aton(probe.getsockname()[0])
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):  # has no address
                    if fcntl.ioctl(probe, SIOCGIFADDR, struct.pack('256s', name.encode()))[20:24] == own:
                        return name
    return None

"""What the machine offers: cards that the installed torch can drive, processes that can work together."""

import datetime
import fcntl
import logging
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

from mmdet.distributed.heartbeat import Heartbeat

OLDER_CARDS = "pip install 'torch==2.6.*' 'torchvision==0.21.*'"  # has code for compute capability 5.0 to 9.0
SIOCGIFADDR = 0x8915  # asks Linux for an interface's IPv4 address


def check_cards(
    cards: Sequence[tuple[str, tuple[int, int]]] | None = None, arch_list: Sequence[str] | None = None
) -> None:
    """Stop before the first step on a card that the installed torch holds no code for.

    Args:
        cards: Name and compute capability of each; default: the visible ones.
        arch_list: What torch was built for, `sm_80`, `compute_90`; default: of the installed torch.

    Raises:
        OSError: Names the card and the torch that fits.
    """
    if cards is None:
        count = torch.cuda.device_count() if torch.version.cuda else 0  # AMD's cards have no such numbers
        cards = [(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in range(count)]
    arch_list = torch.cuda.get_arch_list() if arch_list is None else arch_list
    for name, capability in cards:
        if not any(_runs(arch, capability) for arch in arch_list):
            raise OSError(
                f'{name} (compute capability {capability[0]}.{capability[1]}) is not supported by torch '
                f'{torch.__version__}, which has code for {", ".join(arch_list) or "no card"}. '
                f'A torch that fits older cards:\n{OLDER_CARDS}'
            )


def _runs(arch: str, capability: tuple[int, int]) -> bool:
    """Whether code built for `arch` runs on a card.

    `sm_XY` runs on cards of the same major version and at least its minor one, `sm_90a` on exactly its own,
    `compute_XY` is compiled for any card from X.Y on.
    """
    match = re.fullmatch(r'(sm|compute)_(\d+)(\d)([a-z]?)', arch)
    if match is None:
        return False
    kind, major, minor, special = match[1], int(match[2]), int(match[3]), match[4]
    if special == 'a':
        return capability == (major, minor)
    if kind == 'compute':
        return capability >= (major, minor)
    return capability[0] == major and capability[1] >= minor


def leave_process_group(status: int = 0) -> NoReturn:
    """End this process with this status once all others have done their work, too.

    Nothing is torn down: a gloo thread that drops the last collective's tensors needs the interpreter then.
    In torch 2.6 it waits for ever against `destroy_process_group`; in newer ones the interpreter's end now
    and then aborts it ("terminate called without an active exception"), and a process whose work is done
    fails the whole run.
    """
    torch.distributed.barrier()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def start_process_group(launcher: str, backend: str | None = None, timeout: float = 1800) -> None:
    """Join the processes that a launcher started: over NCCL on GPUs, over gloo without.

    Sets RANK, LOCAL_RANK and WORLD_SIZE as torch.distributed.run does, this process's card, and where it is
    not set the interface over which gloo talks.

    Args:
        launcher: `pytorch` (torch.distributed.run), `slurm` or `mpi`.
        backend: Of torch.distributed; default: as above. NCCL without GPUs is taken as gloo.
        timeout: Seconds after which a process that waits for the others gives up.

    Raises:
        ValueError: Unknown launcher, or not started by it.
        OSError: More processes than GPUs on this machine.
    """
    names = {
        'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'),
        'slurm': ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
        'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
    }
    if launcher not in names:
        raise ValueError(f'--launcher is none, {", ".join(names)}; got {launcher}')
    for name, source in zip(('RANK', 'LOCAL_RANK', 'WORLD_SIZE'), names[launcher], strict=True):
        if source not in os.environ:
            starter = {'pytorch': 'tools/dist_train.sh', 'slurm': 'tools/slurm_train.sh', 'mpi': 'mpirun'}
            raise ValueError(
                f'--launcher {launcher} needs {source} in the environment: start with {starter[launcher]}'
            )
        os.environ[name] = os.environ[source]
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        hosts = subprocess.run(
            ['scontrol', 'show', 'hostnames', os.environ['SLURM_JOB_NODELIST']],
            capture_output=True,
            text=True,
            check=True,
        )
        os.environ['MASTER_ADDR'] = hosts.stdout.split()[0]
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    gpus = torch.cuda.device_count()
    if gpus:
        local_rank = int(os.environ['LOCAL_RANK'])
        if launcher != 'pytorch' and gpus == 1:  # Slurm may show each process its own card only
            local_rank = 0
        if local_rank >= gpus:
            raise OSError(f'process {local_rank + 1} of this machine has no GPU: there are {gpus}')
        torch.cuda.set_device(local_rank)
    if backend is None or (backend == 'nccl' and not gpus):
        backend = 'nccl' if gpus else 'gloo'
    interface = interface_to(os.environ['MASTER_ADDR'])
    if interface is not None:
        os.environ.setdefault('GLOO_SOCKET_IFNAME', interface)
    limit = datetime.timedelta(seconds=timeout)
    store, rank, size = next(torch.distributed.rendezvous('env://', timeout=limit))
    restart = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')  # finds in the store what was there before
    store = torch.distributed.PrefixStore(f'start_{restart}', store)
    Heartbeat.of_run = Heartbeat(torch.distributed.PrefixStore('heartbeat', store), rank, size)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)


def interface_to(address: str) -> str | None:
    """Name of the network interface from which packets to a host leave; None where that cannot be told.

    gloo's own choice is the one that this machine's host name stands for, which is often the loopback.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing
            own = socket.inet_aton(probe.getsockname()[0])
            for _, name in socket.if_nameindex():
                request = struct.pack('256s', name.encode())
                try:
                    found = fcntl.ioctl(probe, SIOCGIFADDR, request)[20:24]
                except OSError:  # has no address
                    continue
                if found == own:
                    return name
    except OSError:  # not an IPv4 address
        pass
    return None

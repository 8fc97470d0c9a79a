"""Read what a launcher tells each process that it has started. Imports no torch."""

import os
import subprocess
from typing import NamedTuple


class Launcher(NamedTuple):
    """How it is started, and the variables in which it tells each process the three numbers of torch."""

    command: str
    rank: str
    local_rank: str
    world_size: str


LAUNCHERS = {
    'pytorch': Launcher('tools/dist_train.sh', 'RANK', 'LOCAL_RANK', 'WORLD_SIZE'),
    'slurm': Launcher('tools/slurm_train.sh', 'SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    'mpi': Launcher('mpirun', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
}
# set in each process; a batch script of Slurm is one process and knows SLURM_NTASKS, too
STARTED = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_STEP_NUM_TASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}


def choose_launcher(given: str | None) -> str:
    """Name the launcher of this process: the given one, or else torchrun where it has started several.

    Raises:
        ValueError: Another one has, and each process may be meant to be a run of its own.
    """
    for launcher, count in STARTED.items():
        if given is None and count in os.environ and LAUNCHERS[launcher].rank in os.environ:
            if _read_number(count) == 1 or launcher == 'pytorch':
                return launcher if _read_number(count) > 1 else 'none'
            raise ValueError(
                f'{count}={os.environ[count]}: several processes were started. --launcher {launcher} lets '
                'them work together, --launcher none makes each a run of its own'
            )
    return given or 'none'


def read_environment(launcher: str) -> None:
    """Set the variables of torch.distributed from those of a launcher.

    Raises:
        ValueError: Names the variable that is missing or wrong.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f'--launcher is none, {", ".join(LAUNCHERS)}; got {launcher}')
    command, *sources = LAUNCHERS[launcher]
    numbers = []
    for name, source in zip(('RANK', 'LOCAL_RANK', 'WORLD_SIZE'), sources, strict=True):
        if source not in os.environ:
            raise ValueError(f'--launcher {launcher} needs {source} in the environment: start with {command}')
        numbers.append(_read_number(source))
        os.environ[name] = os.environ[source]
    rank, local_rank, size = numbers
    if max(rank, local_rank) >= size:
        told = ', '.join(f'{source}={number}' for source, number in zip(sources, numbers, strict=True))
        raise ValueError(f'{told}: processes are numbered from 0 to {sources[2]} - 1')
    if 'MASTER_ADDR' not in os.environ:
        if launcher != 'slurm' and rank != local_rank:
            raise ValueError('several machines need MASTER_ADDR, the address of the one of process 0')
        os.environ['MASTER_ADDR'] = _first_host() if launcher == 'slurm' else '127.0.0.1'
    if not 0 < _read_number('MASTER_PORT', '29500') < 1 << 16:
        raise ValueError(f'MASTER_PORT={os.environ["MASTER_PORT"]} is not a port: they go from 1 to 65535')


def _read_number(name: str, default: str = '') -> int:
    text = os.environ.setdefault(name, default)
    if not text.isdecimal():
        raise ValueError(f'the environment says {name}={text}, which is no whole number')
    return int(text)


def _first_host() -> str:
    """Ask Slurm for the machine of process 0."""
    command = ['scontrol', 'show', 'hostnames', os.environ.get('SLURM_JOB_NODELIST', '')]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ValueError(
            f'{" ".join(command)} names no machine ({getattr(error, "stderr", "").strip() or error}): set '
            'MASTER_ADDR to the address of the machine of process 0, or SLURM_JOB_NODELIST'
        ) from error

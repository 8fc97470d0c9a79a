"""Watch a long training for memory, handles, threads and processes that grow; tools/misc/soak.sh starts it.

python -m tests.helpers.soak SECONDS FOLDER COMMAND ...

What the command and its children hold is written to FOLDER/samples.csv every few seconds. Exit status 1 where
something grew, a process was left behind, or the command ended by itself. Linux only; needs psutil
(requirements/tests.txt).
"""

import argparse
import contextlib
import csv
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from mmdet.cli import make_parser, run_main

INTERVAL = 10  # seconds between samples
WARM_UP = 0.2  # share of the samples that is left out: caches fill, the allocator finds its size
MEMORY_LIMIT = 20.0  # MiB an hour that count as noise
LEAVING = 10  # seconds; loader workers look for their parent every five


class Sample(NamedTuple):
    """What a process and its children hold at one moment.

    Memory is anonymous memory: pages of files are shared with processes that have nothing to do with it.
    """

    seconds: float  # since the start
    main_mib: float  # of the process, whether forked workers share it or not
    all_mib: float  # of it and its children; what they share counts once
    handles: int  # open files of the process
    threads: int  # of the process
    processes: int  # it and all below it
    shared_files: int  # in /dev/shm
    files: int  # in the work dir


def take_sample(process: psutil.Process, folder: Path, seconds: float) -> Sample:
    """Read what a process, its children and its work dir hold.

    Raises:
        psutil.Error: The process has ended.
    """
    family = [process, *process.children(recursive=True)]
    memory, together = process.memory_info(), 0
    for member in family:
        with contextlib.suppress(psutil.Error, OSError):  # a worker that has just ended
            together += sum(part.pss for part in member.memory_maps() if part.path.startswith('['))
    return Sample(
        seconds=round(seconds, 1),
        main_mib=(memory.rss - memory.shared) / 2**20,
        all_mib=together / 2**20,
        handles=process.num_fds(),
        threads=process.num_threads(),
        processes=len(family),
        shared_files=len(list(Path('/dev/shm').glob('*'))),
        files=sum(not file.is_dir() for file in folder.rglob('*')),
    )


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Compute how much each quantity has grown: memory in MiB an hour, the others in pieces.

    The median of the last quarter of the samples minus that of the first one, after the warm-up: workers
    come and go, so no two samples are alike.

    Raises:
        ValueError: Too few samples to say.
    """
    settled = samples[int(len(samples) * WARM_UP) :]
    quarter = len(settled) // 4
    if quarter < 2:
        raise ValueError(
            f'{len(samples)} samples are too few to see growth: run longer, or sample more often'
        )
    ends = (settled[:quarter], settled[-quarter:])
    first, last = (Sample(*map(statistics.median, zip(*part, strict=True))) for part in ends)
    hours = (last.seconds - first.seconds) / 3600
    changes = {name: getattr(last, name) - getattr(first, name) for name in Sample._fields[1:]}
    return {name: change / hours if name.endswith('_mib') else change for name, change in changes.items()}


def faults(samples: Sequence[Sample], memory_limit: float = MEMORY_LIMIT) -> list[str]:
    """List what grew."""
    found = []
    for name, change in growth(samples).items():
        if name.endswith('_mib') and change > memory_limit:
            found.append(f'{name} grew by {change:.1f} MiB an hour (at most {memory_limit:g} is noise)')
        elif not name.endswith('_mib') and change >= 1:
            found.append(f'{name} grew by {change:g}')
    return found


def watch(process: psutil.Popen, folder: Path, seconds: float, file: Path) -> list[Sample]:
    """Sample a process until the time is up or it ends, and write a CSV meanwhile."""
    samples, start = list[Sample](), time.monotonic()
    with file.open('w', newline='') as stream, contextlib.suppress(psutil.Error):
        writer = csv.writer(stream)
        writer.writerow(Sample._fields)
        while process.poll() is None and (passed := time.monotonic() - start) < seconds:
            samples.append(take_sample(process, folder, passed))
            writer.writerow(samples[-1])
            stream.flush()
            time.sleep(INTERVAL)
    return samples


def left_behind(command: Sequence[str]) -> list[str]:
    """List processes of a command, its loader workers among them, that do not end by themselves."""
    running = [process for process in psutil.process_iter(['cmdline']) if process.info['cmdline'] == command]
    return [f'process {p.pid} was left behind' for p in psutil.wait_procs(running, timeout=LEAVING)[1]]


def main(argv: Sequence[str] | None = None) -> int:
    """Watch, end the command, and report what grew; returns the exit status, 1 where something did.

    Raises:
        ChildProcessError: The command ended by itself.
    """
    parser = make_parser(__doc__)
    parser.add_argument('seconds', type=float)
    parser.add_argument('folder', type=Path, help='that the command writes to')
    parser.add_argument('command', nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    log = args.folder / 'soak.log'
    with log.open('w') as out, psutil.Popen(args.command, stdout=out, stderr=out) as process:
        samples = watch(process, args.folder, args.seconds, args.folder / 'samples.csv')
        if (status := process.poll()) is not None:
            raise ChildProcessError(f'the command ended with status {status}: see {log}')
        process.terminate()
        for running in psutil.wait_procs([process], timeout=60)[1]:
            running.kill()
    for name, change in growth(samples).items():
        unit = ' MiB an hour' if name.endswith('_mib') else ''
        print(f'{name}: {getattr(samples[-1], name):.0f} at the end, growth {change:+.1f}{unit}')
    wrong = faults(samples) + left_behind(args.command)
    print('\n'.join(wrong) or 'nothing grew')
    return int(bool(wrong))


if __name__ == '__main__':
    run_main(main)

"""Watch a long training for memory, handles, threads and processes that grow.

python tools/misc/soak.py 3600 --work-dir work_dirs/soak

Draws photos, trains a small teacher, and then trains the quickstart's distilled student until the time is up:
a checkpoint every epoch (seconds), new loader workers every epoch, an evaluation every tenth. What the
process and its children hold is written to samples.csv every few seconds. Exit status 1 where something grew,
a process was left behind, or the training ended by itself. Linux only.
"""

import argparse
import contextlib
import csv
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.cli import run_main

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 0.2  # of the samples, left out: caches fill, the allocator finds its size
MEMORY_LIMIT = 20.0  # MiB an hour that are taken for noise
LEAVING = 10  # seconds; loader workers look for their parent every five
TRAINING = [
    'train_cfg.max_iters=100000000',
    'train_cfg.val_interval=10',
    'train_dataloader.num_workers=2',
    'train_dataloader.persistent_workers=False',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.checkpoint.max_keep_ckpts=3',
]


class Sample(NamedTuple):
    """What a process and its children hold at one moment."""

    seconds: float  # since the start
    # Memory that is no file's: libraries are shared with processes that have nothing to do with this one.
    main_mib: float  # of the process, whether forked workers share it or not
    all_mib: float  # such memory of it and its children; what they share counts once
    handles: int  # open files of the process
    threads: int  # of the process
    processes: int  # it and all below it
    shared_files: int  # in /dev/shm
    files: int  # in the work dir


COUNTS = ('handles', 'threads', 'processes', 'shared_files', 'files')


def take_sample(pid: int, folder: Path, seconds: float) -> Sample:
    """Read /proc.

    Raises:
        OSError: The process has ended.
    """
    family = [pid, *descendants(pid)]
    status = _fields(Path(f'/proc/{pid}/status'))
    together = 0
    for member in family:
        with contextlib.suppress(OSError, KeyError):  # a worker that has just ended
            together += _fields(Path(f'/proc/{member}/smaps_rollup'))['Pss_Anon']
    shared = Path('/dev/shm')
    return Sample(
        seconds=round(seconds, 1),
        main_mib=status['RssAnon'] / 1024,
        all_mib=together / 1024,
        handles=len(list(Path(f'/proc/{pid}/fd').iterdir())),
        threads=status['Threads'],
        processes=len(family),
        shared_files=len(list(shared.iterdir())) if shared.is_dir() else 0,
        files=sum(1 for file in folder.rglob('*') if not file.is_dir()),
    )


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    parents: dict[int, list[int]] = {}
    for folder in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            after_name = (folder / 'stat').read_text().rpartition(')')[2].split()
            parents.setdefault(int(after_name[1]), []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _fields(file: Path) -> dict[str, int]:
    """The lines `Name: number ...` of a file of /proc."""
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0][:-1]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """How much of each thing came to stay: MiB an hour of memory, pieces of the rest.

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
    first, last = settled[:quarter], settled[-quarter:]
    hours = (_middle(last, 'seconds') - _middle(first, 'seconds')) / 3600
    changes = {name: _middle(last, name) - _middle(first, name) for name in Sample._fields[1:]}
    return {name: change / hours if name.endswith('_mib') else change for name, change in changes.items()}


def _middle(samples: Sequence[Sample], name: str) -> float:
    return float(statistics.median(getattr(sample, name) for sample in samples))


def faults(samples: Sequence[Sample], memory_limit: float = MEMORY_LIMIT) -> list[str]:
    """What grew; nothing when all is well."""
    changes = growth(samples)
    grown = [
        f'{name} grew by {changes[name]:.1f} MiB an hour (at most {memory_limit:g} is noise)'
        for name in ('main_mib', 'all_mib')
        if changes[name] > memory_limit
    ]
    return grown + [f'{name} grew by {changes[name]:g}' for name in COUNTS if changes[name] >= 1]


def watch(
    process: 'subprocess.Popen[bytes]', folder: Path, seconds: float, interval: float, file: Path
) -> list[Sample]:
    """Sample a process until the time is up or it ends, and write a CSV meanwhile."""
    samples: list[Sample] = []
    begun = time.monotonic()
    with file.open('w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(Sample._fields)
        while process.poll() is None and (passed := time.monotonic() - begun) < seconds:
            with contextlib.suppress(OSError, KeyError):
                samples.append(take_sample(process.pid, folder, passed))
                writer.writerow(samples[-1])
                stream.flush()
            time.sleep(interval)
    return samples


def tool(name: str, log: Path, *arguments: str) -> None:
    """Run a tool to its end.

    Raises:
        ChildProcessError: It failed; names its log.
    """
    with log.open('w') as stream:
        command = [sys.executable, str(ROOT / 'tools' / name), *arguments]
        if subprocess.run(command, stdout=stream, stderr=stream, check=False).returncode:
            raise ChildProcessError(f'{name} failed: see {log}')


@contextlib.contextmanager
def training(folder: Path) -> Iterator['subprocess.Popen[bytes]']:
    """The distilled student in training, on photos and with a teacher of its own; ended afterwards."""
    data, teacher, run = folder / 'data', folder / 'teacher', folder / 'run'
    folder.mkdir(parents=True, exist_ok=True)
    tool(
        'misc/make_synthetic.py',
        folder / 'data.log',
        str(data),
        *('--train', '64', '--val', '16'),
        *('--size', '96'),
    )
    tool(
        'train.py',
        folder / 'teacher.log',
        *(str(ROOT / 'configs_dev/teachers/resnet18_tiny.py'), '--data-root', str(data)),
        *('--work-dir', str(teacher), '--cfg-options', 'train_cfg.max_iters=20'),
    )
    weights = f'model.distiller.teacher.checkpoint={teacher / "model_best.pth.tar"}'
    command = [
        sys.executable,
        str(ROOT / 'tools/train.py'),
        str(ROOT / 'configs_dev/ssd/ssd_tiny_cls_loc.py'),
    ]
    command += ['--data-root', str(data), '--work-dir', str(run), '--cfg-options', weights, *TRAINING]
    with (folder / 'run.log').open('w') as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main(argv: Sequence[str] | None = None) -> None:
    """Train, watch, judge.

    Raises:
        SystemExit: With status 1 where something grew.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('seconds', type=float, nargs='?', default=3600, help='of the watched training; 3600')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/soak'))
    parser.add_argument('--interval', type=float, default=10, help='seconds between samples')
    args = parser.parse_args(argv)
    with training(args.work_dir) as process:
        samples = watch(
            process, args.work_dir / 'run', args.seconds, args.interval, args.work_dir / 'samples.csv'
        )
        ended = process.poll()
    if ended is not None:
        raise ChildProcessError(f'the training ended with status {ended}: see {args.work_dir / "run.log"}')
    time.sleep(LEAVING)
    left = [pid for pid in descendants(1) if _runs_below(pid, args.work_dir / 'run')]
    wrong = faults(samples) + [f'process {pid} was left behind' for pid in left]
    for name, change in growth(samples).items():
        unit = 'MiB an hour' if name.endswith('_mib') else ''
        print(
            f'{name:13} first {_middle(samples[:3], name):8.1f}  last {_middle(samples[-3:], name):8.1f}  ',
            end='',
        )
        print(f'growth {change:+.1f} {unit}')
    print(
        f'{len(samples)} samples over {samples[-1].seconds / 60:.1f} minutes: {args.work_dir / "samples.csv"}'
    )
    if wrong:
        print('\n'.join(wrong), file=sys.stderr)
        raise SystemExit(1)
    print('nothing grew')


def _runs_below(pid: int, folder: Path) -> bool:
    """Whether a process was started for this training."""
    with contextlib.suppress(OSError):
        return str(folder).encode() in Path(f'/proc/{pid}/cmdline').read_bytes()
    return False


if __name__ == '__main__':
    run_main(main)

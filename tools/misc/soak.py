"""Watch a long training for memory, handles, threads and processes that grow.

python tools/misc/soak.py 3600 --work-dir work_dirs/soak

Draws photos, trains a small teacher, and then trains the quickstart's distilled student until the time is up:
a checkpoint every epoch (seconds), new loader workers every epoch, an evaluation every tenth. What the
process and its children hold is written to samples.csv every few seconds. Exit status 1 where something grew,
a process was left behind, or the training ended by itself. Linux only; needs psutil (requirements/tests.txt).
"""

import argparse
import contextlib
import csv
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
from terminaltables import AsciiTable

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet.cli import run_main
from mmdet.synthetic.dataset import make_dataset

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 0.2  # share of the samples that is left out: caches fill, the allocator finds its size
MEMORY_LIMIT = 20.0  # MiB an hour that count as noise
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


def watch(process: psutil.Popen, folder: Path, seconds: float, interval: float, file: Path) -> list[Sample]:
    """Sample a process until the time is up or it ends, and write a CSV meanwhile."""
    samples, start = list[Sample](), time.monotonic()
    with file.open('w', newline='') as stream, contextlib.suppress(psutil.Error):
        writer = csv.writer(stream)
        writer.writerow(Sample._fields)
        while process.poll() is None and (passed := time.monotonic() - start) < seconds:
            samples.append(take_sample(process, folder, passed))
            writer.writerow(samples[-1])
            stream.flush()
            time.sleep(interval)
    return samples


@contextlib.contextmanager
def training(folder: Path) -> Iterator[psutil.Popen]:
    """Train the distilled student, on photos and with a teacher of its own; ended afterwards.

    Raises:
        ChildProcessError: The training of the teacher failed; names its log.
    """
    make_dataset(folder / 'data', 64, 16, size=96)

    def train(config: str, name: str, *options: str) -> psutil.Popen:
        command = [sys.executable, str(ROOT / 'tools/train.py'), str(ROOT / 'configs_dev' / config)]
        command += ['--data-root', str(folder / 'data'), '--work-dir', str(folder / name)]
        with (folder / f'{name}.log').open('w') as log:
            return psutil.Popen([*command, '--cfg-options', *options], stdout=log, stderr=log)

    if train('teachers/resnet18_tiny.py', 'teacher', 'train_cfg.max_iters=20').wait():
        raise ChildProcessError(f'the teacher was not trained: see {folder / "teacher.log"}')
    weights = f'model.distiller.teacher.checkpoint={folder / "teacher" / "model_best.pth.tar"}'
    process = train('ssd/ssd_tiny_cls_loc.py', 'run', weights, *TRAINING)
    try:
        yield process
    finally:
        process.terminate()
        for running in psutil.wait_procs([process], timeout=60)[1]:
            running.kill()
        process.wait()


def left_behind(folder: Path) -> list[str]:
    """List processes that were started for a work dir and do not end by themselves."""
    running = [p for p in psutil.process_iter(['cmdline']) if str(folder) in (p.info['cmdline'] or [])]
    return [f'process {p.pid} was left behind' for p in psutil.wait_procs(running, timeout=LEAVING)[1]]


def main(argv: Sequence[str] | None = None) -> None:
    """Train, watch, and report what grew.

    Raises:
        ChildProcessError: The training ended by itself.
        SystemExit: With status 1 where something grew.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('seconds', type=float, nargs='?', default=3600, help='of the watched training; 3600')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/soak'))
    parser.add_argument('--interval', type=float, default=10, help='seconds between samples')
    args = parser.parse_args(argv)
    run, file = args.work_dir / 'run', args.work_dir / 'samples.csv'
    with training(args.work_dir) as process:
        samples = watch(process, run, args.seconds, args.interval, file)
        ended = process.poll()
    if ended is not None:
        raise ChildProcessError(f'the training ended with status {ended}: see {args.work_dir / "run.log"}')
    wrong = faults(samples) + left_behind(run)
    rows = [['', 'at the end', 'growth (memory: MiB an hour)']]
    rows += [[k, f'{getattr(samples[-1], k):.0f}', f'{v:+.1f}'] for k, v in growth(samples).items()]
    print(AsciiTable(rows).table)
    print(f'{len(samples)} samples over {samples[-1].seconds / 60:.1f} minutes: {file}')
    if wrong:
        print('\n'.join(wrong), file=sys.stderr)
        raise SystemExit(1)
    print('nothing grew')


if __name__ == '__main__':
    run_main(main)

"""`startup`: from typing `tools/train.py` to its first step on annotations of full COCO size, and memory.

A real process is started and read. The annotation file has the images, boxes and polygons of train2017; all
its images share eight photos, so that 450 MB of text are everything that is large.
"""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.report import ROOT, Row, Target
from benchmarks.settings import Settings
from benchmarks.synthetic import write_annotations
from benchmarks.timing import Spread

FULL, QUICK = (118_287, 860_001), (1_183, 8_600)  # images and objects
CPU_CONFIG = 'configs/ssd/ssd_tiny.py'  # a step of SSD300 takes longer on a CPU than all that is measured
GPU_CONFIG = 'configs/ssd/ssd300.py'
STEP = re.compile(r'Iter\(train\)|Epoch\(train\)')
WORKERS, SETTLED = 2, 10  # loader processes; steps until their memory is read
TIMEOUT = 600  # seconds


class Start(NamedTuple):
    """One start of the training."""

    seconds: float  # until the line of the first step
    own_mib: float  # memory that no other process shares, largest of the loader's workers
    main_mib: float  # resident memory of the training process


def run(settings: Settings) -> list[Row]:
    """Time to the first step, and memory of a worker."""
    root = write_set(settings.work_dir / ('startup_quick' if settings.quick else 'startup'), settings.quick)
    config = GPU_CONFIG if settings.on_gpu else CPU_CONFIG
    work_dir = settings.work_dir / 'startup_run'
    starts = [start(root, config, work_dir, settings.quick) for _ in range(settings.repeats)]
    file = root / 'annotations' / 'instances_train2017.json'
    note = f'{config}, {file.stat().st_size / 1e6:.0f} MB of annotations'
    faults = [] if all(s.own_mib > 0 for s in starts) else ['no loader worker was found']
    return [
        Row(
            'startup',
            'tools/train.py to its first step',
            's',
            Target(20, at_least=False),
            ours=Spread.of([s.seconds for s in starts]),
            peak_mib={'training process': max(s.main_mib for s in starts)},
            note=note,
        ),
        Row(
            'startup',
            'memory of a loader worker of its own',
            'MiB',
            Target(150, at_least=False),
            ours=Spread.of([s.own_mib for s in starts]),
            faults=faults,
            note=f'private dirty pages, the larger of {WORKERS} workers, after {SETTLED} steps',
        ),
    ]


def write_set(root: Path, quick: bool) -> Path:
    """Write the data set, unless it is there; returns its folder."""
    file = root / 'annotations' / 'instances_train2017.json'
    if file.exists():
        return root
    folder = root / 'train2017'
    folder.mkdir(parents=True, exist_ok=True)
    rng, shapes = np.random.default_rng(0), []
    for number in range(8):
        height, width = (480, 640) if number % 3 else (640, 427)
        small = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{number}.jpg'), cv2.resize(small, (width, height)))
        shapes.append((f'{number}.jpg', height, width))
    images, objects = QUICK if quick else FULL
    write_annotations(file.with_name('instances_val2017.json'), 8, 60, shapes)
    write_annotations(file, images, objects, shapes)
    return root


def start(root: Path, config: str, work_dir: Path, quick: bool) -> Start:
    """Start a training, wait for its first steps, and stop it; `quick`: small ones.

    Raises:
        ChildProcessError: It ended before; its last lines.
    """
    options = [
        'val_img=train2017/',
        'model.backbone.weights=None',
        'train_cfg.max_iters=100000',
        'default_hooks.logger.interval=1',
        f'train_dataloader.num_workers={WORKERS}',
    ]
    if quick:
        options.append('train_dataloader.batch_size=2')
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(ROOT / config), '--no-validate']
    command += ['--data-root', str(root), '--work-dir', str(work_dir), '--cfg-options', *options]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            steps = _steps(process)
            next(steps)
            seconds = time.perf_counter() - begun
            for _ in range(SETTLED):
                next(steps)
            workers = [pid for pid in _children(process.pid) if _memory(pid, 'Rss') > 0]
            own = max((_memory(pid, 'Private_Dirty') for pid in workers), default=0.0)
            return Start(seconds, own, _memory(process.pid, 'Rss'))
        finally:
            process.terminate()


def _steps(process: 'subprocess.Popen[str]') -> Iterator[str]:
    """The lines of its log that report a step."""
    assert process.stdout is not None
    last, begun = [''], time.perf_counter()
    for line in process.stdout:
        last = [*last[-15:], line]
        if STEP.search(line):
            yield line
        if time.perf_counter() - begun > TIMEOUT:
            raise ChildProcessError(f'no step within {TIMEOUT} s:\n{"".join(last)}')
    raise ChildProcessError(f'the training ended early:\n{"".join(last)}')


def _children(pid: int) -> list[int]:
    """The processes that a process has started; Linux only, elsewhere none are found."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            after_name = (folder / 'stat').read_text().rpartition(')')[2].split()
            if int(after_name[1]) == pid and b'train.py' in (folder / 'cmdline').read_bytes():
                found.append(int(folder.name))
    return found


def _memory(pid: int, kind: str) -> float:
    """MiB of a kind of memory, as the kernel sums it up."""
    try:
        lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(f'{kind}:')), 0.0)

"""`startup`: from typing `tools/train.py` to its first step on annotations of full COCO size, and memory.

A real process is started and read. The annotation file has the images, boxes and polygons of train2017; all
its images share eight photos, so that 430 MB of text are everything that is large.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.report import ROOT, Row, Target
from benchmarks.settings import Settings
from benchmarks.synthetic import write_annotations
from benchmarks.timing import Spread
from mmdet.synthetic.dataset import make_dataset

ANNOTATIONS, VAL_ANNOTATIONS = 'many.json', 'few.json'
FULL, QUICK = (118_287, 860_001), (1_183, 8_600)  # images and objects
CPU_CONFIG = 'configs/ssd/ssd_tiny.py'  # a step of SSD300 takes longer on a CPU than all that is measured
GPU_CONFIG = 'configs/ssd/ssd300.py'
STEP = re.compile(r'Iter\(train\)|Epoch\(train\)')
WORKERS, SETTLED = 2, 10  # loader processes; steps until their memory is read
TIME_ROW = Row('startup', 'tools/train.py to its first step', 's', Target(20, at_least=False))
MEMORY_ROW = Row(
    'startup',
    'memory of a loader worker of its own',
    'MiB',
    Target(150, at_least=False),
    note=f'private dirty pages, the larger of {WORKERS} workers, after {SETTLED} steps',
)


def run(settings: Settings) -> list[Row]:
    """Measure the time to the first step, and the memory of a worker."""
    root = settings.work_dir / ('startup_quick' if settings.quick else 'startup')
    file = write_set(root, settings.quick)
    config = GPU_CONFIG if settings.on_gpu else CPU_CONFIG
    starts = [start(root, config, settings) for _ in range(settings.repeats)]
    seconds, own, main = zip(*starts, strict=True)
    faults = [] if all(own) else ['no loader worker was found']
    return [
        TIME_ROW._replace(
            ours=Spread.of(seconds),
            peak_mib={'training process': max(main)},
            note=f'{config}, {file.stat().st_size / 1e6:.0f} MB of annotations',
        ),
        MEMORY_ROW._replace(ours=Spread.of(own), faults=faults),
    ]


def write_set(root: Path, quick: bool) -> Path:
    """Draw a few photos and write as many annotations as COCO has, once; returns the annotation file."""
    make_dataset(root, train=8, val=8, size=640)
    file = root / 'annotations' / ANNOTATIONS
    if not file.exists():
        drawn = json.loads(file.with_name('instances_train2017.json').read_bytes())['images']
        shapes = [(photo['file_name'], photo['height'], photo['width']) for photo in drawn]
        write_annotations(file.with_name(VAL_ANNOTATIONS), 8, 60, shapes)
        write_annotations(file, *(QUICK if quick else FULL), shapes)
    return file


def start(root: Path, config: str, settings: Settings) -> tuple[float, float, float]:
    """Start a training, wait for its first steps, and stop it.

    Returns:
        Seconds until the line of the first step; memory that no other process shares, of the largest loader
        worker; resident memory of the training process, both in MiB.

    Raises:
        ChildProcessError: It ended before; its last lines.
    """
    options = [
        f'train_ann=annotations/{ANNOTATIONS}',
        f'val_ann=annotations/{VAL_ANNOTATIONS}',
        'val_img=train2017/',
        'model.backbone.weights=None',
        'train_cfg.max_iters=100000',
        'default_hooks.logger.interval=1',
        f'train_dataloader.num_workers={WORKERS}',
        *(['train_dataloader.batch_size=2'] if settings.quick else []),
    ]
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(ROOT / config), '--no-validate']
    command += ['--data-root', str(root), '--work-dir', str(settings.work_dir / 'startup_run')]
    command += ['--cfg-options', *options]
    begun = time.perf_counter()
    with psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            steps = _steps(process)
            next(steps)
            seconds = time.perf_counter() - begun
            for _ in range(SETTLED):
                next(steps)
            own = [sum(part.private_dirty for part in w.memory_maps()) for w in process.children()]
            return seconds, max(own, default=0) / 2**20, process.memory_info().rss / 2**20
        finally:
            process.terminate()


def _steps(process: psutil.Popen) -> Iterator[str]:
    """Yield the lines of the log that report a step."""
    last = ['']
    for line in process.stdout:
        last = [*last[-15:], line]
        if STEP.search(line):
            yield line
    raise ChildProcessError(f'the training ended early:\n{"".join(last)}')

"""`end_to_end`: distilled training from JPEG files, beside the same steps on one batch that lies in memory.

1 means that the loader keeps up with the device: decoding and augmentation cost nothing.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.optim import build_optim_wrapper

from benchmarks.report import Row, Target
from benchmarks.settings import Settings
from benchmarks.step import BATCH, BATCH_GPU, peaks
from benchmarks.students import Subject, make_teacher, subject
from benchmarks.timing import interleaved, ratio
from mmdet.engine import DetRunner

STEPS, QUICK_STEPS = 20, 1  # of a round
ROW = Row('end_to_end', 'distilled training, from JPEG files / from memory', 'x', Target(0.95))


def run(settings: Settings) -> list[Row]:
    """One row; not measured without a GPU, or with fewer cores than loader workers."""
    cores = len(os.sched_getaffinity(0))
    if not settings.quick and not settings.on_gpu:
        return [ROW._replace(note='no GPU in this run')]
    if not settings.quick and cores < settings.workers:
        return [ROW._replace(note=f'needs {settings.workers} cores, here are {cores}')]
    count = settings.batch_size or (BATCH_GPU if settings.on_gpu else BATCH)
    _, file = make_teacher(settings, subject(settings, 1).classes)
    student = subject(settings, count, file)
    steps = QUICK_STEPS if settings.quick else STEPS
    train = trainer(student)
    batches = loader(student, settings, count)
    memory = next(batches)
    contenders: dict[str, Callable[[], Any]] = {
        'files': lambda: [train(next(batches)) for _ in range(steps)],
        'memory': lambda: [train(memory) for _ in range(steps)],
    }
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=2)
    images = steps * count
    rates = {name: time.rate(images).median for name, time in times.items()}
    return [
        ROW._replace(
            ours=ratio(times['memory'], times['files']),
            peak_mib=peaks(times),
            note=f'batch {count}, {settings.workers} workers: {rates["files"]:.0f} images/s from files, '
            f'{rates["memory"]:.0f} from memory',
        )
    ]


def trainer(student: Subject) -> Callable[[Any], Any]:
    """A training step on a batch of the loader."""
    student.detector.train()
    optim_wrapper = build_optim_wrapper(student.detector, student.cfg.optim_wrapper)

    def step(data: Any) -> Any:
        return student.detector.train_step(data, optim_wrapper)

    return step


def loader(student: Subject, settings: Settings, count: int) -> Iterator[Any]:
    """Batches of the training set without end, as a training gets them."""
    config = student.cfg.train_dataloader.to_dict()
    config.update(batch_size=count, num_workers=0 if settings.quick else settings.workers, drop_last=True)
    config['sampler']['times'] = 1000
    built = DetRunner.build_dataloader(config)
    return itertools.chain.from_iterable(itertools.repeat(built))

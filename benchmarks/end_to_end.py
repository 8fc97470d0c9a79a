"""`end_to_end`: distilled training from JPEG files, beside the same steps on one batch in memory.

1 means that the loader keeps up with the device: decoding and augmentation cost nothing.
"""

import itertools
from collections.abc import Callable
from typing import Any

from mmengine.optim import build_optim_wrapper

from benchmarks.report import NO_GPU, Row, Target, peaks
from benchmarks.settings import Settings
from benchmarks.students import BATCH, BATCH_GPU, make_teacher, subject
from benchmarks.timing import interleaved, ratio
from mmdet.engine import DetRunner

STEPS, QUICK_STEPS = 20, 1  # of a round
ROW = Row('end_to_end', 'distilled training, from JPEG files / from memory', 'x', Target(0.95))


def run(settings: Settings) -> list[Row]:
    """Measure one row; needs a GPU, and a core for each loader worker."""
    if not settings.quick and (missing := settings.missing_cores if settings.on_gpu else NO_GPU):
        return [ROW._replace(note=missing)]
    count = settings.batch_size or (BATCH_GPU if settings.on_gpu else BATCH)
    student = subject(settings, count, make_teacher(settings))
    steps = QUICK_STEPS if settings.quick else STEPS
    detector = student.detector.train()
    optim_wrapper = build_optim_wrapper(detector, student.cfg.optim_wrapper)
    loader = student.cfg.train_dataloader.to_dict()
    loader.update(batch_size=count, num_workers=0 if settings.quick else settings.workers, drop_last=True)
    loader['sampler']['times'] = 1000
    batches = itertools.chain.from_iterable(itertools.repeat(DetRunner.build_dataloader(loader)))
    memory = next(batches)
    contenders: dict[str, Callable[[], Any]] = {
        'files': lambda: [detector.train_step(next(batches), optim_wrapper) for _ in range(steps)],
        'memory': lambda: [detector.train_step(memory, optim_wrapper) for _ in range(steps)],
    }
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=2)
    files, from_memory = (times[name].rate(steps * count).median for name in contenders)
    note = (
        f'batch {count}, {settings.workers} workers: {files:.0f} images/s from files, {from_memory:.0f} from'
    )
    quotient = ratio(times['memory'], times['files'])
    return [ROW._replace(ours=quotient, peak_mib=peaks(times), note=f'{note} memory')]

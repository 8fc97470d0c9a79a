"""`distill`: what distillation adds to a training step, beside the published way."""

from benchmarks.report import Row, Target, for_device, peaks
from benchmarks.settings import Settings
from benchmarks.students import (
    BATCH,
    BATCH_GPU,
    baseline_step,
    baseline_student,
    check_step,
    make_teacher,
    our_step,
    subject,
)
from benchmarks.timing import interleaved, ratio

TOLERANCE = 1e-4
CPU_ROW = Row('distill', 'distilled / plain step, CPU', 'x', Target(1.18, at_least=False))
GPU_ROW = Row('distill', 'distilled / plain step, GPU', 'x', Target(1.12, at_least=False))


def run(settings: Settings) -> list[Row]:
    """Measure the ratio on the device of this run, and the distilled step itself."""
    return for_device(settings, [CPU_ROW], [GPU_ROW], lambda row: measure(settings, row))


def measure(settings: Settings, row: Row) -> list[Row]:
    """Time a plain and a distilled step of either contender."""
    count = settings.batch_size or (BATCH_GPU if settings.on_gpu else BATCH)
    plain = subject(settings, count)
    teacher = make_teacher(settings, plain.classes)
    row = row._replace(
        faults=check_step(settings, count, TOLERANCE, teacher),
        parity=f'four losses and the length of the gradient {TOLERANCE:g}, in float32',
    )
    distilled, student = subject(settings, count, teacher.file), baseline_student(plain)
    contenders = {
        'plain': our_step(plain),
        'ours': our_step(distilled),
        'reference plain': baseline_step(plain, student),
        'reference': baseline_step(distilled, student, teacher),
    }
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=3 if settings.on_gpu else 1)
    objects, plainly = sum(map(len, plain.objects)), times['plain'].spread.median
    added = row._replace(
        ours=ratio(times['ours'], times['plain']),
        reference=ratio(times['reference'], times['reference plain']),
        peak_mib=peaks(times),
        note=f'batch {count}, {objects} objects; medians of the quotients of each round',
    )
    name, note = row.name.replace('distilled / plain', 'distilled'), f'of it ours plain {plainly:.3g} s'
    whole = row._replace(name=name, unit='s', target=None).measured(times, count, peak_mib={}, note=note)
    return [added, whole]

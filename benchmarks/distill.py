"""`distill`: what distillation adds to a training step, beside the published way."""

from benchmarks.parity import differing_numbers, exact_float32
from benchmarks.report import Row, Target
from benchmarks.settings import Settings
from benchmarks.step import BATCH, BATCH_GPU, peaks
from benchmarks.students import (
    baseline_step,
    baseline_student,
    make_teacher,
    our_step,
    subject,
    with_gradient,
)
from benchmarks.timing import interleaved, ratio

TOLERANCE = 1e-4
CPU_ROW = Row('distill', 'distilled / plain step, CPU', 'x', Target(1.18, at_least=False))
GPU_ROW = Row('distill', 'distilled / plain step, GPU', 'x', Target(1.12, at_least=False))


def run(settings: Settings) -> list[Row]:
    """The ratio on the device of this run, and the distilled step itself."""
    count = settings.batch_size or (BATCH_GPU if settings.on_gpu else BATCH)
    exact = settings._replace(amp=False)
    plain = subject(exact, count)
    teacher, file = make_teacher(settings, plain.classes)
    distilled = subject(exact, count, file)
    student = baseline_student(plain, settings.device)
    steps = (our_step(distilled), baseline_step(distilled, student, exact, teacher))
    with exact_float32():
        ours, theirs = map(with_gradient, steps)
    faults = differing_numbers(ours, theirs, TOLERANCE)
    if settings.amp:
        plain, distilled = subject(settings, count), subject(settings, count, file)
    contenders = {
        'plain': our_step(plain),
        'ours': our_step(distilled),
        'reference plain': baseline_step(plain, student, settings),
        'reference': baseline_step(distilled, student, settings, teacher),
    }
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=3 if settings.on_gpu else 1)
    objects = sum(map(len, plain.objects))
    measured = (GPU_ROW if settings.on_gpu else CPU_ROW)._replace(
        ours=ratio(times['ours'], times['plain']),
        reference=ratio(times['reference'], times['reference plain']),
        peak_mib=peaks(times),
        faults=faults,
        parity=f'four losses and the length of the gradient {TOLERANCE:g}, in float32',
        note=f'batch {count}, {objects} objects; medians of the quotients of each round',
    )
    whole = Row(
        'distill',
        f'distilled step, {"GPU" if settings.on_gpu else "CPU"}',
        's',
        ours=times['ours'].spread,
        reference=times['reference'].spread,
        ratio=ratio(times['reference'], times['ours']),
        faults=faults,
        parity=measured.parity,
        note=f'of it ours plain {times["plain"].spread.median:.3g} s',
    )
    if settings.on_gpu:
        return [CPU_ROW._replace(note='run with --device cpu'), measured, whole]
    return [measured, whole, GPU_ROW._replace(note='no GPU in this run')]

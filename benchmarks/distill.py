"""`distill`: what distillation adds to a training step; of SSD300 beside the published way.

Localization as the config has it, and the cheap one: small crops of a few positives an object.
"""

import torch

from benchmarks.parity import differing_numbers, exact_float32
from benchmarks.report import Row, Target, for_device, peaks
from benchmarks.settings import Settings
from benchmarks.students import (
    BATCH,
    BATCH_COMPACT,
    BATCH_GPU,
    Teacher,
    baseline_step,
    baseline_student,
    check_step,
    make_teacher,
    our_step,
    store_answers,
    subject,
    with_gradient,
)
from benchmarks.timing import interleaved, ratio

TOLERANCE = 1e-4
STORED_TOLERANCE = 1e-3  # answers are kept in float16
CHEAP = {'crop_size': 16, 'max_per_object': 2}  # of kd_loc
TARGETS = {  # student, teacher, device: ratio with cheap localization
    ('ssd300', 'online', 'GPU'): Target(1.35, at_least=False),
    ('ssd300', 'stored', 'CPU'): Target(1.08, at_least=False),
    ('ssd300', 'stored', 'GPU'): Target(1.12, at_least=False),
    ('ssd_tiny', 'online', 'CPU'): Target(1.35, at_least=False),
    ('ssd_tiny', 'stored', 'CPU'): Target(1.15, at_least=False),
    ('ssdlite_small', 'stored', 'CPU'): Target(1.15, at_least=False),
}
WHOLE_TARGETS = {('ssd300', 'online', 'CPU'): Target(1.18, at_least=False)}  # with that of the config


def run(settings: Settings) -> list[Row]:
    """Measure the ratios on the device of this run, and the distilled step itself."""
    rows = [cheap_row(settings, device) for device in ('CPU', 'GPU')]
    return for_device(settings, rows[:1], rows[1:], lambda row: measure(settings, row))


def cheap_row(settings: Settings, device: str) -> Row:
    """Name the row of the cheap localization, with its target."""
    case = settings.student, settings.teacher, device
    student = '' if settings.student == 'ssd300' else f' of {settings.student}'
    stored = ', stored answers' if settings.teacher == 'stored' else ''
    name = f'distilled / plain step{student}{stored}, cheap localization, {device}'
    return Row('distill', name, 'x', TARGETS.get(case))


def measure(settings: Settings, cheap: Row) -> list[Row]:
    """Time a plain and the distilled steps of ours; of SSD300 with a running teacher the baseline's, too."""
    published = (settings.student, settings.teacher) == ('ssd300', 'online')
    count = BATCH_GPU if settings.on_gpu else BATCH if settings.student == 'ssd300' else BATCH_COMPACT
    count = settings.batch_size or count
    plain, teacher = subject(settings, count), make_teacher(settings)
    answers = store_answers(subject(settings, count, teacher), teacher)
    used = answers if settings.teacher == 'stored' else teacher
    distilled = subject(settings, count, used)
    contenders = {
        'plain': our_step(plain),
        'ours': our_step(distilled),
        'cheap': our_step(subject(settings, count, used, **CHEAP)),
    }
    faults = check_stored(settings, count, teacher, answers)
    parity = f'stored answers and the running teacher: the losses and the gradient {STORED_TOLERANCE:g}'
    if published:
        student = baseline_student(plain)
        contenders['reference plain'] = baseline_step(plain, student)
        contenders['reference'] = baseline_step(distilled, student, teacher)
        faults += check_step(settings, count, TOLERANCE, teacher)
        parity = f'four losses and the length of the gradient {TOLERANCE:g}, in float32'
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=3 if settings.on_gpu else 1)
    note = f'batch {count}, {sum(map(len, plain.objects))} objects; medians of the quotients of each round'
    cheap = cheap._replace(faults=faults, parity=parity, peak_mib=peaks(times), note=note)
    device = 'GPU' if settings.on_gpu else 'CPU'
    whole = cheap._replace(
        name=cheap.name.replace(', cheap localization', ''),
        target=WHOLE_TARGETS.get((settings.student, settings.teacher, device)),
        ours=ratio(times['ours'], times['plain']),
        reference=ratio(times['reference'], times['reference plain']) if published else None,
    )
    of_it = f'of it ours plain {times["plain"].spread.median:.3g} s'
    step = whole._replace(name=whole.name.replace('distilled / plain', 'distilled'), unit='s', target=None)
    step = step._replace(ours=times['ours'].spread, reference=None, peak_mib={}, note=of_it)
    if published:
        step = step.measured(times, count, peak_mib={})
    return [whole, cheap._replace(ours=ratio(times['cheap'], times['plain'])), step]


def check_stored(settings: Settings, count: int, teacher: Teacher, answers: Teacher) -> list[str]:
    """Compare a step that reads stored answers with one whose teacher runs, in float32, each localization."""
    faults = []
    for kd_loc in ({}, CHEAP):
        found = []
        for each in (answers, teacher):
            step = our_step(subject(settings._replace(amp=False), count, each, **kd_loc))
            torch.manual_seed(0)  # the same positives are drawn
            with exact_float32():
                found.append(with_gradient(step))
        stored, online = found
        faults += differing_numbers(stored, online, STORED_TOLERANCE)
    return faults

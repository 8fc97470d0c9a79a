"""`step`: a plain training step of SSD300-VGG16 beside the baseline and torchvision."""

from benchmarks.report import Row, Target, for_device
from benchmarks.settings import Settings
from benchmarks.students import (
    BATCH,
    BATCH_GPU,
    baseline_step,
    baseline_student,
    check_step,
    our_step,
    subject,
    torchvision_step,
)
from benchmarks.timing import interleaved

TOLERANCE = {'loss_cls': 1e-5, 'loss_bbox': 1e-5, 'gradient': 1e-4}
PARITY = 'losses 1e-5, length of the gradient 1e-4, in float32'
CPU_ROW = Row('step', 'plain step, CPU', 's', Target(1.1, of='ratio'), parity=PARITY)
GPU_ROW = Row('step', 'plain step, GPU, bf16', 'images/s', Target(1500), parity=PARITY)


def run(settings: Settings) -> list[Row]:
    """Measure the row of the device of this run."""
    return for_device(settings, [CPU_ROW], [GPU_ROW], lambda row: [measure(settings, row)])


def measure(settings: Settings, row: Row) -> Row:
    """Time a step of each contender."""
    count = settings.batch_size or (BATCH_GPU if settings.on_gpu else BATCH)
    faults = check_step(settings, count, TOLERANCE)
    plain = subject(settings, count)
    contenders = {'ours': our_step(plain), 'reference': baseline_step(plain, baseline_student(plain))}
    if not settings.quick:  # it has one size only
        contenders['torchvision'] = torchvision_step(plain)
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=3 if settings.on_gpu else 1)
    faster = min(times.keys() - {'ours'}, key=lambda name: times[name].spread.median)
    note = f'batch {count}, {sum(map(len, plain.objects))} objects; ratio to the faster of the two others'
    return row.measured(times, count, faster, faults=faults, note=note)

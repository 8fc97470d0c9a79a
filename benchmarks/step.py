"""`step`: a plain training step of a student beside the baseline and torchvision."""

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
)
from benchmarks.timing import interleaved
from benchmarks.torchvision_models import check_ssdlite_step, torchvision_step

TOLERANCE = {'loss_cls': 1e-5, 'loss_bbox': 1e-5, 'gradient': 1e-4}
PARITY = 'losses 1e-5, length of the gradient 1e-4, in float32'
SSDLITE_PARITY = (
    "losses 1e-5, length of the gradient 1e-3, in float32, batch norms held: torchvision's with our weights"
    ' and anchors'
)
ROWS = {  # of a CPU and of a GPU
    'ssd300': (
        Row('step', 'plain step, CPU', 's', Target(1.1, of='ratio'), parity=PARITY),
        Row('step', 'plain step, GPU, bf16', 'images/s', Target(1500), parity=PARITY),
    ),
    'ssdlite': (
        Row('step', 'plain step of SSDLite, CPU', 's', Target(1.15, of='ratio'), parity=SSDLITE_PARITY),
        Row(
            'step',
            'plain step of SSDLite, GPU, bf16',
            'images/s',
            Target(1.15, of='ratio'),
            parity=SSDLITE_PARITY,
        ),
    ),
}


def run(settings: Settings) -> list[Row]:
    """Measure the row of the device of this run."""
    cpu, gpu = ROWS[settings.student]
    return for_device(settings, [cpu], [gpu], lambda row: [measure(settings, row)])


def measure(settings: Settings, row: Row) -> Row:
    """Time a step of each contender."""
    count = settings.batch_size or (BATCH_GPU if settings.on_gpu else BATCH)
    ssd300 = settings.student == 'ssd300'
    faults = check_step(settings, count, TOLERANCE) if ssd300 else check_ssdlite_step(settings, count)
    plain = subject(settings, count)
    contenders = {'ours': our_step(plain)}
    if ssd300:
        contenders['reference'] = baseline_step(plain, baseline_student(plain))
    if not (settings.quick and ssd300):  # torchvision's has one size only
        contenders['torchvision'] = torchvision_step(plain)
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=3 if settings.on_gpu else 1)
    faster = min(times.keys() - {'ours'}, key=lambda name: times[name].spread.median)
    note = f'batch {count}, {sum(map(len, plain.objects))} objects; ratio to the faster of the others'
    return row.measured(times, count, faster, faults=faults, note=note)

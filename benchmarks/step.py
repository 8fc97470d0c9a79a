"""`step`: a plain training step of SSD300-VGG16 beside the baseline and torchvision."""

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor

from benchmarks.parity import differing_numbers, exact_float32
from benchmarks.report import Row, Target
from benchmarks.settings import Settings
from benchmarks.students import Subject, baseline_step, baseline_student, our_step, subject, with_gradient
from benchmarks.timing import Timing, interleaved, ratio

BATCH, BATCH_GPU = 8, 64
TOLERANCE = {'loss_cls': 1e-5, 'loss_bbox': 1e-5, 'gradient': 1e-4}
PARITY = 'losses 1e-5, length of the gradient 1e-4, in float32'
CPU_ROW = Row('step', 'plain step, CPU', 's', Target(1.1, of='ratio'))
GPU_ROW = Row('step', 'plain step, GPU, bf16', 'images/s', Target(1500))


def run(settings: Settings) -> list[Row]:
    """Rows of the CPU and of the GPU; the one whose device is not used is not measured."""
    count = settings.batch_size or (BATCH_GPU if settings.on_gpu else BATCH)
    faults = check(settings, count)
    plain = subject(settings, count)
    student = baseline_student(plain, settings.device)
    contenders = {'ours': our_step(plain), 'reference': baseline_step(plain, student, settings)}
    if not settings.quick:  # it has one size only
        contenders['torchvision'] = torchvision_step(plain, settings)
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=3 if settings.on_gpu else 1)
    faster = min((t for name, t in times.items() if name != 'ours'), key=lambda t: t.spread.median)
    rates = settings.on_gpu
    shown = {name: time.rate(count) if rates else time.spread for name, time in times.items()}
    measured = (GPU_ROW if rates else CPU_ROW)._replace(
        ours=shown['ours'],
        reference=shown['reference'],
        torchvision=shown.get('torchvision'),
        ratio=ratio(faster, times['ours']),
        peak_mib=peaks(times),
        faults=faults,
        parity=PARITY,
        note=f'batch {count}, {sum(map(len, plain.objects))} objects; ratio to the faster of the two others',
    )
    if rates:
        return [CPU_ROW._replace(note='run with --device cpu'), measured]
    return [measured, GPU_ROW._replace(note='no GPU in this run')]


def check(settings: Settings, count: int) -> list[str]:
    """Compare one step of ours with one of the reference, both in float32."""
    exact = settings._replace(amp=False)
    plain = subject(exact, count)
    student = baseline_student(plain, settings.device)
    steps = (our_step(plain), baseline_step(plain, student, exact))
    with exact_float32():
        ours, theirs = map(with_gradient, steps)
    return differing_numbers(ours, theirs, TOLERANCE)


def torchvision_step(plain: Subject, settings: Settings) -> Callable[[], dict[str, float]]:
    """A step of torchvision's SSD300-VGG16 on the same photos and boxes: its own loss, comparable work."""
    torch.manual_seed(0)
    model = torchvision.models.detection.ssd300_vgg16(
        weights=None, weights_backbone=None, num_classes=plain.num_classes + 1
    )
    model.to(settings.device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4)
    images = list(photos(plain, settings.device))
    targets = [
        {'boxes': boxes, 'labels': labels + 1}  # 0 is its background
        for boxes, labels in zip(plain.objects, plain.labels, strict=True)
    ]

    def step() -> dict[str, float]:
        optimizer.zero_grad()
        with torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.amp):
            found = model(images, targets)
        torch.stack(list(found.values())).sum().backward()
        optimizer.step()
        return {name: value.item() for name, value in found.items()}

    return step


def photos(plain: Subject, device: torch.device) -> Tensor:
    """(N, 3, H, W) RGB in [0, 1], as torchvision's detectors take images."""
    return plain.data['inputs'].to(device).flip(1).float() / 255


def peaks(times: dict[str, Timing]) -> dict[str, float | None]:
    """Peak memory of each contender."""
    return {name: time.peak_mib for name, time in times.items()}

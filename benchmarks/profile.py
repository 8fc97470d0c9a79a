"""`profile`: a distilled and a plain training step of SSD300-VGG16 by kernel, on a CPU by operator."""

import torch
from torch.autograd import DeviceType
from torch.profiler import profile

from benchmarks.report import Row
from benchmarks.settings import Settings
from benchmarks.students import BATCH, BATCH_GPU, Subject, make_teacher, our_step, subject
from benchmarks.timing import Spread

WARM_UP = 3  # steps: cuDNN looks for its fastest algorithms
SHOWN = 60  # kernels


def run(settings: Settings) -> list[Row]:
    """Print a table of each step, the most expensive kernels first, and return their sums as rows."""
    count = settings.batch_size or (BATCH_GPU if settings.on_gpu else BATCH)
    distilled = subject(settings, count, make_teacher(settings))
    steps = (('distilled', distilled), ('plain', subject(settings, count)))
    return [measure(settings, name, found) for name, found in steps]


def measure(settings: Settings, name: str, found: Subject) -> Row:
    """Profile one step after a few others."""
    step = our_step(found)
    for _ in range(WARM_UP):
        step()
    with profile() as recorded:
        step()
        if settings.on_gpu:
            torch.cuda.synchronize(settings.device)
    events = recorded.key_averages()
    column = 'self_device_time_total' if settings.on_gpu else 'self_cpu_time_total'
    print(events.table(sort_by=column, row_limit=SHOWN, max_name_column_width=100))
    # On a GPU a kernel's time is also that of the operator that launched it, and of annotations around it.
    where = DeviceType.CUDA if settings.on_gpu else DeviceType.CPU
    kernels = [event for event in events if event.device_type == where and not event.is_user_annotation]
    seconds = sum(getattr(kernel, column) for kernel in kernels) / 1e6
    return Row('profile', f'{name} step, all kernels', 's', ours=Spread.of([seconds]))

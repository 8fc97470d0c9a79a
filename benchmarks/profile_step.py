"""Where the time of one training step goes, by kernel: SSD300-VGG16 distilled, then plain.

python -m benchmarks.profile_step --device cuda --amp --channels-last --data-root data/coco-mini

On a CPU by operator, which is good for a trial. The file is written anew after each of the two steps.
"""

import argparse
import csv
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.logging import MMLogger
from terminaltables import AsciiTable
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.report import machine
from benchmarks.settings import Settings
from benchmarks.step import BATCH, BATCH_GPU
from benchmarks.students import make_teacher, our_step, subject
from benchmarks.timing import interleaved

WHOLE, SUM = 'whole step, without a profiler', 'sum of all below'
SHOWN, NAME_WIDTH = 25, 80  # on the screen; the file holds every name in full


class Entry(NamedTuple):
    """One line of the table."""

    step: str  # 'distilled' or 'plain'
    name: str  # of a kernel, on a CPU of an operator
    calls: int
    ms: float  # on the device, without what it calls itself
    share: float  # of the sum over all names


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    default = Settings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data-root', type=Path, default=default.data_root, help="in COCO's layout")
    parser.add_argument('--device', type=torch.device, default=default.device, help='cpu or cuda')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of torch')
    parser.add_argument('--repeats', type=int, default=3, help='timed steps without a profiler')
    parser.add_argument('--batch-size', type=int, help=f'default: {BATCH_GPU} on a GPU, else {BATCH}')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--channels-last', action='store_true', help='memory format of the student')
    parser.add_argument('--compile', action='store_true', help='torch.compile the student')
    parser.add_argument('--quick', action='store_true', help='tiny sizes: does it run, not how fast')
    parser.add_argument('--work-dir', type=Path, default=default.work_dir, help='for generated files')
    parser.add_argument(
        '--out', type=Path, default=Path('profile.csv'), help='CSV file; default: %(default)s'
    )
    return parser.parse_args(argv)


def profiled(step: Callable[[], Any], settings: Settings, kind: str) -> list[Entry]:
    """Time a step, then profile it once; the line of the whole, that of the sum, and the names by time.

    Args:
        step: A training step.
        settings: Of this run.
        kind: What the lines call the step.

    Raises:
        RuntimeError: The profiler saw nothing run on the device.
    """
    warm_up = 3 if settings.on_gpu else 1  # cuDNN looks for its fastest algorithms
    whole = interleaved({kind: step}, settings.repeats, settings.device, warm_up)[kind].spread.median
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if settings.on_gpu else [])]
    with profile(activities=activities) as recorded:
        step()
        if settings.on_gpu:
            torch.cuda.synchronize(settings.device)
    wanted = DeviceType.CUDA if settings.on_gpu else DeviceType.CPU
    found: dict[str, tuple[int, float]] = {}  # calls and milliseconds
    for event in recorded.key_averages():
        # Annotations of the user span the kernels within: they would count twice.
        if event.device_type == wanted and not getattr(event, 'is_user_annotation', False):
            spent = event.self_device_time_total if settings.on_gpu else event.self_cpu_time_total
            calls, ms = found.get(event.key, (0, 0.0))
            found[event.key] = calls + event.count, ms + spent / 1e3  # from microseconds
    total = sum(ms for _, ms in found.values())
    if not total:
        raise RuntimeError(f'the profiler of torch {torch.__version__} saw nothing run on {settings.device}')
    by_time = sorted(found.items(), key=lambda item: -item[1][1])
    return [
        Entry(kind, WHOLE, 1, whole * 1e3, whole * 1e3 / total),
        Entry(kind, SUM, sum(calls for calls, _ in found.values()), total, 1.0),
        *(Entry(kind, name, calls, ms, ms / total) for name, (calls, ms) in by_time),
    ]


def write_csv(entries: Sequence[Entry], about: Mapping[str, str], file: Path) -> None:
    """One line an entry; replaces the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open('w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow([*Entry._fields, *about])
        for step, name, calls, ms, share in entries:
            writer.writerow([step, name, calls, f'{ms:.4f}', f'{share:.4f}', *about.values()])


def table(entries: Sequence[Entry]) -> str:
    """The first lines as they appear on the screen."""
    head = [entries[0].step, 'calls', 'ms', 'share']
    body = [[e.name[:NAME_WIDTH], str(e.calls), f'{e.ms:.3f}', f'{e.share:.1%}'] for e in entries[:SHOWN]]
    return str(AsciiTable([head, *body]).table)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    args = vars(parse_args(argv))
    MMLogger.get_instance('mmengine', log_level='WARNING')
    settings = Settings(**{field: args[field] for field in Settings._fields if args.get(field) is not None})
    torch.set_num_threads(settings.threads)
    torch.backends.cudnn.benchmark = True  # as the configs set it
    count = settings.batch_size or (BATCH_GPU if settings.on_gpu else BATCH)
    _, teacher = make_teacher(settings, subject(settings, 1).classes)
    about = {'batch': str(count), **machine(settings)}
    entries: list[Entry] = []
    for kind, file in (('distilled', teacher), ('plain', None)):
        start = time.perf_counter()
        new = profiled(our_step(subject(settings, count, file)), settings, kind)
        entries += new
        write_csv(entries, about, args['out'])
        print(table(new))
        print(f'{kind}: {time.perf_counter() - start:.0f} s, written to {args["out"]}', flush=True)


if __name__ == '__main__':
    main()

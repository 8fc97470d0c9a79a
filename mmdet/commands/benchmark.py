"""Benchmark the toolbox against a baseline and torchvision, with a parity check for each number.

python tools/benchmark.py all --data-root data/coco-mini

Prints a table and writes it as CSV. Exit status 1 where a parity check fails: a speed-up that changes the
result is a bug. What the machine cannot run is printed as not measured. See benchmarks/README.md.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet.cli import make_parser, parse, usable_cores

if TYPE_CHECKING:
    from benchmarks.report import Row
    from benchmarks.settings import Settings

BENCHMARKS = {
    'data': 'the training pipeline, images/s',
    'step': 'a plain training step of SSD300-VGG16',
    'distill': 'what distillation adds to it',
    'end_to_end': 'distilled training from JPEG files over the same from memory',
    'infer': 'inference with NMS',
    'profile': 'a distilled and a plain step by kernel',
    'ops': 'operations, bytes and waits of a step on a GPU, counted on a CPU',
}
STUDENTS = {  # their distilled configs
    'ssd300': 'configs_dev/ssd/ssd300_coco_cls_loc.py',
    'ssdlite': 'configs_dev/ssdlite/ssdlite_mobilenet_v3_large_cls_loc.py',
    'ssdlite_small': 'configs_dev/ssdlite/ssdlite_efficientnet_lite0_small_cls_loc.py',
    'ssd_tiny': 'configs_dev/ssd/ssd_tiny_cls_loc.py',
}
OF_A_STUDENT = ('step', 'distill', 'end_to_end', 'infer', 'profile', 'ops')
RESULTS = Path('benchmarks') / 'results'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; what is not given is None, and then as in `benchmarks.settings`."""
    parser = make_parser(__doc__)
    parser.add_argument(
        'benchmark',
        choices=[*BENCHMARKS, 'all'],
        help='; '.join(f'{name}: {what}' for name, what in BENCHMARKS.items()),
    )
    parser.add_argument(
        '--student',
        choices=STUDENTS,
        default='ssd300',
        help=f'for {", ".join(OF_A_STUDENT)}; default: ssd300',
    )
    parser.add_argument(
        '--teacher',
        choices=['online', 'stored'],
        default='online',
        help='for distill and ops: run the teacher, or read stored outputs',
    )
    parser.add_argument('--data-root', type=Path, help="in COCO's layout; default: data/coco-mini")
    parser.add_argument('--device', help='cpu or cuda; default: the first GPU, or the CPU')
    parser.add_argument('--threads', type=int, help='torch threads; default: all cores')
    parser.add_argument('--repeats', type=int, help='timed rounds; default: 5')
    parser.add_argument('--batch-size', type=int, help='default: as in the targets')
    parser.add_argument('--workers', type=int, help='data, end_to_end: loader processes')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--channels-last', action='store_true', help='memory layout of our student')
    parser.add_argument('--compile', action='store_true', help='torch.compile our student and its teacher')
    parser.add_argument('--quick', action='store_true', help='tiny sizes, to test that it runs')
    parser.add_argument('--work-dir', type=Path, help='for generated files')
    parser.add_argument('--out', type=Path, help=f'default: {RESULTS}/NAME.csv of each benchmark')
    args = parse(parser, argv)
    if args.student != 'ssd300' and args.benchmark not in OF_A_STUDENT:
        parser.error(f'--student {args.student} goes with {", ".join(OF_A_STUDENT)}')
    return args


def measure(name: str, settings: 'Settings') -> 'list[Row]':
    """Measure the rows of one benchmark."""
    print(f'{name}: {BENCHMARKS[name]} ...', flush=True)
    rows = import_module(f'benchmarks.{name}').run(settings)
    return [row._replace(repeats=settings.repeats) for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit status, 1 where a parity check failed.

    Raises:
        ModuleNotFoundError: The package `benchmarks` is not there.
    """
    args = vars(parse_args(argv))
    import cv2
    import torch
    from mmengine.logging import MMLogger

    if find_spec('benchmarks') is None:
        raise ModuleNotFoundError(
            'the package benchmarks is not installed with mmdet: run this in a clone of the repository'
        )
    from benchmarks.report import machine, record, table_of, write_csv
    from benchmarks.settings import Settings

    MMLogger.get_instance('mmengine', log_level='WARNING')
    args['device'] = torch.device(args['device'] or ('cuda' if torch.cuda.is_available() else 'cpu'))
    args['threads'] = args['threads'] or usable_cores()
    settings = Settings(**{field: args[field] for field in Settings._fields if args[field] is not None})
    torch.set_num_threads(args['threads'])
    cv2.setNumThreads(0)
    torch.backends.cudnn.benchmark = True  # as the configs set it, for all contenders
    records: list[dict[str, str]] = []
    for name in BENCHMARKS if args['benchmark'] == 'all' else [args['benchmark']]:
        rows, about = measure(name, settings), machine(settings)
        new = [record(row, about) for row in rows]
        records += new
        stem = name if args['student'] == 'ssd300' else f'{name}_{args["student"]}'
        stem += '_stored' * (name in ('distill', 'ops') and args['teacher'] == 'stored')
        write_csv(records if args['out'] else new, args['out'] or RESULTS / f'{stem}.csv')
    print(table_of(records))
    print('\n'.join(f'{row["row"]}: {row["note"]}' for row in records if row['note']))
    print(' · '.join(f'{key} {value}' for key, value in about.items() if value))
    print(f'written to {args["out"] or RESULTS}')
    failed = [row for row in records if row['verdict'] == 'parity failed']
    for row in failed:
        print(f'parity failed: {row["row"]}: {row["parity"]}', file=sys.stderr)
    return int(bool(failed))

"""Train and test the rows (variants) of a distillation ablation over seeds.

Each row and seed writes OUT_DIR/ROW_seedN.json. Where that file exists the run is skipped, so the command may
be stopped and repeated. Weights, logs and test reports are in OUT_DIR/work and may be deleted.
`distill-det compare OUT_DIR` turns the files into tables.

python tools/analysis/run_rows.py configs_dev/ssd/ssd_tiny_cls_loc.py --seeds 0 1 2 --out-dir work_dirs/rows
"""

import shlex
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from mmdet.cli import (
    add_config_arguments,
    add_config_options,
    add_short_options,
    make_parser,
    parse,
    positive,
    short_options,
)
from mmdet.config.rows import ROWS


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing."""
    parser = make_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/rows'), help='of the results')
    teacher = parser.add_mutually_exclusive_group()
    teacher.add_argument('--teacher', type=Path, help="teacher file; default: the config's")
    teacher.add_argument('--teacher-config', help='train a teacher for each seed with this config')
    what = "override keys of --teacher-config; data are the student's, and classes and input_size by default"
    add_config_options(parser, '--teacher-options', what)
    parser.add_argument('--processes', type=positive, default=1, help='per training, one per GPU')
    parser.add_argument('--amp', action='store_true', help='mixed precision, bfloat16 or float16')
    add_short_options(parser)
    args = parse(parser, argv)
    args.cfg_options = {**args.cfg_options, **short_options(args)}
    typed = sys.argv[1:] if argv is None else argv
    args.command = shlex.join(['distill-det', 'run-rows', *typed])
    from mmdet.analysis.rows import load_row, result_file, run_row

    units = [(row, seed) for seed in args.seeds for row in args.rows]
    missing = [unit for unit in units if not result_file(args.out_dir, *unit).is_file()]
    for row in args.rows:
        load_row(row, args)  # fails now, not after the hours of the rows before it
    start = time.monotonic()
    for number, (row, seed) in enumerate(units, 1):
        print(f'{row}, seed {seed} ({number} of {len(units)})', flush=True)
        metrics = run_row(row, seed, args)['metrics']
        print(f'{row}, seed {seed}: AP {metrics["AP"]:.3f}, AP50 {metrics["AP50"]:.3f}', flush=True)
        if (row, seed) in missing[:-1]:
            done, taken = missing.index((row, seed)) + 1, time.monotonic() - start
            left = taken / done * (len(missing) - done)
            print(f'{_format(taken)} so far, about {_format(left)} left', flush=True)
    print(f'compare: distill-det compare {args.out_dir}')


def _format(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))

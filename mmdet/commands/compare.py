"""Compare the finished runs of rows: metrics over seeds, errors, calibration, size and speed.

Reads every *.json that tools/analysis/run_rows.py has left in the folders, and nothing else. Prints the
comparison and writes it as comparison.html and comparison.md, with pictures, and comparison.csv (one line per
run).

python tools/analysis/compare.py work_dirs/rows
"""

from collections.abc import Sequence
from pathlib import Path

from mmdet.cli import make_parser, parse


def main(argv: Sequence[str] | None = None) -> None:
    """Print and write the comparison."""
    parser = make_parser(__doc__)
    parser.add_argument('folders', nargs='+', type=Path, metavar='DIR', help='--out-dir of run_rows.py')
    parser.add_argument('--out-dir', type=Path, help='default: comparison/ in the first folder')
    args = parse(parser, argv)
    from mmdet.analysis.comparison import compare_folders

    out_dir = args.out_dir or args.folders[0] / 'comparison'
    print(compare_folders(args.folders, out_dir))
    print(f'written to {out_dir}/comparison.html')

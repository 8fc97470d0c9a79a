"""Write the table of docs/performance.md from the files of benchmarks/results.

python -m benchmarks.markdown docs/performance.md

Prints the table, and puts it in place of the one that a file holds.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import NOT_MEASURED, ROOT, cell
from benchmarks.timing import Spread
from mmdet.analysis.markdown import table
from mmdet.cli import make_parser

RESULTS = ROOT / 'benchmarks' / 'results'
ORDER = ('data', 'step', 'distill', 'end_to_end', 'infer', 'eval', 'startup')
HEAD = ('', 'unit', 'ours', 'baseline', 'torchvision', 'ratio', 'target', '', 'on', 'commit')


def lines(results: Path = RESULTS) -> list[str]:
    """Lay out head, rule, and a row for each row of each file."""
    files = [results / f'{name}.csv' for name in ORDER]
    texts = [file.read_text().splitlines() for file in files if file.exists()]
    return table(HEAD, [_cells(row) for text in texts for row in csv.DictReader(text)]).splitlines()


def replace(file: Path, new: Sequence[str]) -> None:
    """Put the table in the place of the one with the same head.

    Raises:
        ValueError: The file holds no such table.
    """
    old = file.read_text().splitlines()
    if new[0] not in old:
        raise ValueError(f'{file} holds no table that begins with {new[0]}')
    start = old.index(new[0])
    end = next((i for i in range(start, len(old)) if not old[i].startswith('|')), len(old))
    file.write_text('\n'.join([*old[:start], *new, *old[end:]]) + '\n')


def _cells(row: dict[str, str]) -> list[str]:
    target = row['target'].replace('>=', '≥').replace('<=', '≤')
    numbers = [_spread(row, name) for name in ('ours', 'reference', 'torchvision', 'ratio')]
    if row['verdict'] == NOT_MEASURED:
        return [row['row'], row['unit'], NOT_MEASURED, *numbers[1:], target, '', '', '']
    device = row['device'].partition(',')[0].removeprefix('NVIDIA ')  # 'CPU', 'H200'
    return [row['row'], row['unit'], *numbers, target, row['verdict'], device, row['commit']]


def _spread(row: dict[str, str], name: str) -> str:
    values = [row[f'{name}_{part}'] for part in Spread._fields]
    return cell(Spread(*map(float, values))) if all(values) else ''


def main() -> None:
    """Print the table, and put it into files."""
    parser = make_parser(__doc__)
    parser.add_argument('files', type=Path, nargs='*', help='Markdown files that hold the table')
    new = lines()
    print('\n'.join(new))
    for file in parser.parse_args().files:
        replace(file, new)


if __name__ == '__main__':
    main()

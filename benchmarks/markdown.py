"""The table of docs/performance.md and README.md, from the files of benchmarks/results.

python -m benchmarks.markdown README.md docs/performance.md

Prints the table, and puts it in place of the one that a file holds.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import NOT_MEASURED, ROOT, cell
from benchmarks.timing import Spread
from mmdet.analysis.markdown import table

RESULTS = ROOT / 'benchmarks' / 'results'
ORDER = ('data', 'step', 'distill', 'end_to_end', 'infer', 'eval', 'startup', 'ddp')
HEAD = ('', 'unit', 'ours', 'stock way', 'torchvision', 'ratio', 'target', '', 'on', 'commit')


def lines(results: Path = RESULTS) -> list[str]:
    """Head, rule, and a row for each row of each file."""
    rows = [row for name in ORDER for row in _read(results / f'{name}.csv')]
    return table(HEAD, [_cells(row) for row in rows]).splitlines()


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


def _read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline='') as stream:
        return list(csv.DictReader(stream))


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
    """Print, and replace."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('files', type=Path, nargs='*', help='Markdown files that hold the table')
    new = lines()
    print('\n'.join(new))
    for file in parser.parse_args().files:
        replace(file, new)


if __name__ == '__main__':
    main()

"""Rows of a benchmark: on the screen, and in a CSV file."""

import csv
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from terminaltables import AsciiTable

from benchmarks.settings import Settings
from benchmarks.timing import Spread
from mmdet.version import __version__

ROOT = Path(__file__).resolve().parents[1]
NOT_MEASURED = 'not measured'
MODES = ('quick', 'amp', 'channels_last', 'compile')  # of the settings


class Target(NamedTuple):
    """What a row is to reach."""

    bound: float
    at_least: bool = True  # else at most
    of: str = 'ours'  # or 'ratio'

    def __str__(self) -> str:
        """E.g. `ratio >= 1.2`."""
        return f'{self.of} {">=" if self.at_least else "<="} {self.bound:g}'


class Row(NamedTuple):
    """One figure: ours, the baseline's and torchvision's, from one run.

    A row without `ours` was not measured: the machine lacks what it needs, `note` says what.
    """

    benchmark: str  # the sub-command
    name: str
    unit: str
    target: Target | None = None
    ours: Spread | None = None
    reference: Spread | None = None
    torchvision: Spread | None = None
    ratio: Spread | None = None  # how many times better ours is than the reference, or as `note` says
    peak_mib: Mapping[str, float | None] = {}  # of each contender
    faults: Sequence[str] = ()  # where the parity check found that ours computes something else
    parity: str = ''  # what the parity check compared, and how closely
    note: str = ''
    repeats: int = 0  # timed rounds

    @property
    def verdict(self) -> str:
        """'parity failed', 'not measured', 'met', 'not met', or '' without a target."""
        if self.faults:
            return 'parity failed'
        if self.ours is None:
            return NOT_MEASURED
        if self.target is None:
            return ''
        measured = self.ours if self.target.of == 'ours' else self.ratio
        if measured is None:
            return NOT_MEASURED
        reached = measured.median >= self.target.bound
        return 'met' if reached == self.target.at_least or measured.median == self.target.bound else 'not met'


def machine(settings: Settings) -> dict[str, str]:
    """What the figures were measured on and with."""
    on_gpu = settings.on_gpu
    commit = subprocess.run(
        ['git', 'describe', '--always', '--dirty'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        'device': torch.cuda.get_device_name(settings.device) if on_gpu else f'CPU, {_processor()}',
        'cores': str(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()),
        'threads': str(settings.threads),
        'load': f'{os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else '',
        'mode': ' '.join(name for name in MODES if getattr(settings, name)),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'torchvision': torchvision.__version__,
        'distill_det': __version__,
        'commit': commit.stdout.strip() or 'unknown',
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as they appear on the screen: median and, in brackets, the quartiles."""
    head = ['', 'unit', 'ours', 'reference', 'torchvision', 'ratio', 'parity', 'target', '']
    body = [
        [
            row.name,
            row.unit,
            cell(row.ours) if row.ours else NOT_MEASURED,
            *map(cell, (row.reference, row.torchvision, row.ratio)),
            'FAILED' if row.faults else 'equal' if row.ours and row.parity else '',
            str(row.target or ''),
            row.verdict,
        ]
        for row in rows
    ]
    grid = AsciiTable([head, *body])
    remarks = [
        f'{row.name}: {remark}'
        for row in rows
        for remark in (row.note, *(f'PARITY FAILED: {fault}' for fault in row.faults))
        if remark
    ]
    return '\n'.join([grid.table, *remarks])


def write_csv(rows: Sequence[Row], about: Mapping[str, str], file: Path) -> None:
    """One line a row; replaces the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open('w', newline='') as stream:
        writer = csv.DictWriter(stream, [*_record(Row('', '', '')), *about])
        writer.writeheader()
        writer.writerows({**_record(row), **about} for row in rows)


def _record(row: Row) -> dict[str, str]:
    record = {'benchmark': row.benchmark, 'row': row.name, 'unit': row.unit}
    for name in ('ours', 'reference', 'torchvision', 'ratio'):
        spread = getattr(row, name)
        for part in Spread._fields:
            record[f'{name}_{part}'] = '' if spread is None else f'{getattr(spread, part):.6g}'
    peaks = '; '.join(f'{name} {peak:.0f}' for name, peak in row.peak_mib.items() if peak is not None)
    return record | {
        'target': str(row.target or ''),
        'verdict': row.verdict,
        'parity': '; '.join(row.faults) or row.parity,
        'peak_mib': peaks,
        'repeats': str(row.repeats),
        'note': row.note,
    }


def cell(spread: Spread | None) -> str:
    """Median and, in brackets, the quartiles where they differ from it."""
    if spread is None:
        return ''
    median, low, high = (f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}' for value in spread)
    return median if low == high else f'{median} [{low}, {high}]'


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()

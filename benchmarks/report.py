"""Rows of a benchmark: in a CSV file, and as a table in Markdown.

`python -m benchmarks.report` prints the table of benchmarks/notes.md from the files of benchmarks/results.
"""

import csv
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision

from benchmarks.settings import Settings
from benchmarks.timing import Spread, Timing, ratio
from mmdet.analysis.markdown import table
from mmdet.analysis.runs import describe_commit
from mmdet.cli import usable_cores
from mmdet.version import __version__

ROOT = Path(__file__).resolve().parents[1]
CONTENDERS = ('ours', 'reference', 'torchvision')
ORDER = (
    *('data', 'step', 'step_ssdlite', 'distill', 'distill_compact', 'end_to_end', 'infer', 'infer_ssdlite'),
    *('eval', 'startup'),
)
FIGURES = (*CONTENDERS, 'ratio')
HEAD = ('', 'unit', 'ours', 'baseline', 'torchvision', 'ratio', 'target', '', 'on', 'commit')
NOT_MEASURED, NO_GPU = 'not measured', 'no GPU in this run'
MODES = ('quick', 'amp', 'channels_last', 'compile')  # of the settings


class Target(NamedTuple):
    """A bound that a row should reach."""

    bound: float
    at_least: bool = True  # else at most
    of: str = 'ours'  # or 'ratio'

    def __str__(self) -> str:
        """Format as in `ratio >= 1.2`."""
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
    reference: Spread | None = None  # the baseline
    torchvision: Spread | None = None
    ratio: Spread | None = None  # how many times better ours is than the reference, or as `note` says
    peak_mib: Mapping[str, float] = {}  # of each contender
    faults: Sequence[str] = ()  # where the parity check found that ours computes something else
    parity: str = ''  # what the parity check compared, and how closely
    note: str = ''
    repeats: int = 0  # timed rounds

    def measured(
        self, times: Mapping[str, Timing], count: float, against: str = 'reference', **columns: Any
    ) -> 'Row':
        """Return this row with the figures of its contenders.

        Args:
            times: Of each contender.
            count: Things a run, where the unit is things a second.
            against: The contender that the ratio is to.
            **columns: Other fields.
        """
        figures = {
            name: times[name].rate(count) if self.unit.endswith('/s') else times[name].spread
            for name in CONTENDERS
            if name in times
        }
        compared = {'ratio': ratio(times[against], times['ours']), 'peak_mib': peaks(times)}
        return self._replace(**{**figures, **compared, **columns})

    @property
    def verdict(self) -> str:
        """Return 'parity failed', 'not measured', 'met', 'not met', or '' without a target."""
        if self.faults:
            return 'parity failed'
        measured = self.ratio if self.ours and self.target and self.target.of == 'ratio' else self.ours
        if measured is None:
            return NOT_MEASURED
        if self.target is None:
            return ''
        distance = measured.median - self.target.bound
        return 'met' if (distance if self.target.at_least else -distance) >= 0 else 'not met'


def peaks(times: Mapping[str, Timing]) -> dict[str, float]:
    """Return the peak memory of each contender, MiB."""
    return {name: timing.peak_mib for name, timing in times.items()}


def for_device(
    settings: Settings, cpu: Sequence[Row], gpu: Sequence[Row], measure: Callable[[Row], list[Row]]
) -> list[Row]:
    """Measure the rows of the device of this run; those of the other one stay not measured."""
    notes = (NO_GPU, 'run with --device cpu')
    others = cpu if settings.on_gpu else gpu
    unmeasured = [row._replace(note=notes[settings.on_gpu], parity='') for row in others]
    measured = [found for row in (gpu if settings.on_gpu else cpu) for found in measure(row)]
    return unmeasured + measured if settings.on_gpu else measured + unmeasured


def machine(settings: Settings) -> dict[str, str]:
    """Describe what the figures were measured on and with."""
    on_gpu = settings.on_gpu
    return {
        'device': torch.cuda.get_device_name(settings.device) if on_gpu else f'CPU, {_processor()}',
        'cores': str(usable_cores()),
        'threads': str(settings.threads),
        'load': f'{os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else '',
        'mode': ' '.join(name for name in MODES if getattr(settings, name)),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'torchvision': torchvision.__version__,
        'distill_det': __version__,
        'commit': describe_commit(),
    }


def record(row: Row, about: Mapping[str, str]) -> dict[str, str]:
    """Flatten a row to the columns of a CSV file; `about`: from `machine`."""
    spreads = {name: getattr(row, name) for name in FIGURES}
    return {
        'benchmark': row.benchmark,
        'row': row.name,
        'unit': row.unit,
        **{
            f'{name}_{part}': f'{getattr(spread, part):.6g}' if spread else ''
            for name, spread in spreads.items()
            for part in Spread._fields
        },
        'target': str(row.target or ''),
        'verdict': row.verdict,
        'parity': '; '.join(row.faults) or row.parity,
        'peak_mib': '; '.join(f'{name} {peak:.0f}' for name, peak in row.peak_mib.items() if peak),
        'repeats': str(row.repeats),
        'note': row.note,
        **about,
    }


def write_csv(records: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write one line a record; replaces the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open('w', newline='') as stream:
        writer = csv.DictWriter(stream, records[0])
        writer.writeheader()
        writer.writerows(records)


def table_of(records: Sequence[Mapping[str, str]]) -> str:
    """Lay out records in Markdown: median and, in brackets, the quartiles where they differ from it."""
    return table(HEAD, [_cells(row) for row in records])


def performance_table() -> str:
    """Lay out the committed results, in the order of benchmarks/notes.md."""
    texts = [(ROOT / f'benchmarks/results/{name}.csv').read_text() for name in ORDER]
    return table_of([row for text in texts for row in csv.DictReader(text.splitlines())])


def _cells(row: Mapping[str, str]) -> list[str]:
    ours, *others = (_figure([row[f'{name}_{part}'] for part in Spread._fields]) for name in FIGURES)
    target = row['target'].replace('>=', '≥').replace('<=', '≤')
    if row['verdict'] == NOT_MEASURED:
        return [row['row'], row['unit'], NOT_MEASURED, *others, target, '', '', '']
    device = row['device'].partition(',')[0].removeprefix('NVIDIA ')  # 'CPU', 'H200'
    return [row['row'], row['unit'], ours, *others, target, row['verdict'], device, row['commit']]


def _figure(spread: Sequence[str]) -> str:
    if not all(spread):
        return ''
    median, low, high = (f'{x:.3g}' if abs(x) < 1000 else f'{x:.0f}' for x in map(float, spread))
    return median if low == high else f'{median} [{low}, {high}]'


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    names = re.findall(r'^model name\s*: (.+)$', info.read_text() if info.exists() else '', re.MULTILINE)
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == '__main__':
    print(performance_table())

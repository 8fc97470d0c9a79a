"""Read, write and group the JSON files of runs: one row of an ablation, trained with one seed."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

from mmdet.config.rows import ROWS

ROOT = Path(__file__).resolve().parents[2]
FORMAT = 1
SETTINGS = ('data', 'config', 'options', 'iterations', 'batch_size', 'train_images', 'val_images')
LATER_SETTINGS = ('amp', 'annotations.train', 'annotations.test')  # files of earlier commits lack them
# 97.5 % point of Student's t by degrees of freedom, from 1; the last holds for more
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


class Run(NamedTuple):
    """One row with one seed."""

    file: Path
    values: dict[str, Any]  # of its JSON file; nested keys are joined by dots: 'metrics.AP'


Rows = dict[str, dict[int, Run]]  # title of a row -> seed -> run


def read_result(file: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read the JSON file of a run. A setting that it does not tell, as one of an earlier commit, may be any.

    Raises:
        ValueError: It was made with other settings.
    """
    found: dict[str, Any] = json.loads(file.read_text())
    known = flatten(found)
    for name, value in flatten(json.loads(json.dumps(settings))).items():
        if known.get(name, value) != value:
            raise ValueError(f'{file} was made with {name} {known[name]}, not {value}: choose another folder')
    return found


def describe_commit() -> str:
    """Name the commit of the code, `-dirty` when tracked files differ from it; 'unknown' without git."""
    git = ['git', '-C', str(ROOT), '--git-dir=.git', 'describe', '--always', '--dirty', '--exclude=*']
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or a tree without its .git
        return 'unknown'


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the runs in some folders, each an --out-dir of run_rows, in the order of their names.

    Raises:
        FileNotFoundError: No run in all of them.
        ValueError: A file that is not a run; names the file and what is wrong with it.
    """
    files = {file.resolve(): file for folder in folders for file in sorted(folder.glob('*.json'))}
    if not files:
        names = ', '.join(map(str, folders))
        raise FileNotFoundError(f'no *.json in {names}: give --out-dir of tools/analysis/run_rows.py')
    return [Run(file, _read_run(file)) for file in files.values()]


def _read_run(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    try:
        values = flatten(json.loads(file.read_bytes()))
        missing = [name for name in ('row', 'seed', *SETTINGS, 'command') if values.get(name) is None]
        wrong = f'it has no {", ".join(missing)}' if missing else ''
    except (ValueError, AttributeError) as error:
        wrong = str(error)
    if wrong or values.get('format') != FORMAT:
        wrong = wrong or f'its format is {values.get("format")}, not {FORMAT}'
        raise ValueError(
            f'{file} is not a result of tools/analysis/run_rows.py: {wrong}.\n'
            '  Only such files may lie there: move it, or run its row again.'
        )
    return values


def flatten(content: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Join nested keys by dots; options, whose keys have dots already, stay together."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        nested = isinstance(value, Mapping) and not key.endswith('options')
        flat |= flatten(value, f'{prefix}{key}.') if nested else {prefix + key: value}
    return flat


def group_runs(runs: Sequence[Run]) -> list[tuple[dict[str, Any], Rows]]:
    """Put runs of equal settings together, which alone may be compared.

    A run that does not tell one of `LATER_SETTINGS` goes to the first group that fits otherwise.

    Returns:
        For each group its settings and its rows, in the order of the paper.

    Raises:
        ValueError: Two runs of one row and seed, or teachers of several architectures in one row.
    """
    groups: list[tuple[dict[str, Any], Rows]] = []
    order = [*ROWS, *sorted({run.values['row'] for run in runs}.difference(ROWS))]
    for run in sorted(runs, key=lambda run: (order.index(run.values['row']), run.values['seed'])):
        settings, rows = _find_group(groups, run)
        settings |= {name: run.values[name] for name in (*SETTINGS, *LATER_SETTINGS) if name in run.values}
        row, seed = run.values['row'], run.values['seed']
        seeds = rows.setdefault(ROWS.get(row, row), {})
        other = next(iter(seeds.values()), run)
        if seed in seeds or other.values.get('teacher.arch') != run.values.get('teacher.arch'):
            raise ValueError(
                f'{seeds.get(seed, other).file} and {run.file} are of one row with the same settings, but '
                'have the same seed or teachers of different architectures: compare their folders apart'
            )
        seeds[seed] = run
    return sorted(
        groups,
        key=lambda group: json.dumps({name: group[0][name] for name in SETTINGS}, sort_keys=True),
    )


def _find_group(groups: list[tuple[dict[str, Any], Rows]], run: Run) -> tuple[dict[str, Any], Rows]:
    """Find the group whose settings are those of a run, or add an empty one."""
    for settings, rows in groups:
        if all(run.values.get(name, value) == value for name, value in settings.items()):
            return settings, rows
    groups.append(({}, {}))
    return groups[-1]


def half_interval(values: Sequence[float]) -> float:
    """Compute half of Student's 95 % interval of a mean; 0 for one value."""
    if len(values) < 2:
        return 0.0
    return STUDENT_T[min(len(values) - 1, len(STUDENT_T)) - 1] * stdev(values) / len(values) ** 0.5

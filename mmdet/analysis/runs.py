"""The JSON files that units of the proof table leave: one row of the table, trained with one seed."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.analysis.error_split import ErrorSplit, ScoreCalibration

FORMAT = 1
TITLES = {'plain': 'plain', 'cls': '+KDcls', 'loc': '+loc', 'loc_kdloc': '+loc+KDloc', 'all': 'all'}
METRICS = ('AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l', 'AR_1', 'AR_10', 'AR_100', 'AR_s', 'AR_m', 'AR_l')
ABSENT = -1  # a metric of objects that the set does not hold
THRESHOLDS = tuple(f'{percent / 100:.2f}' for percent in range(50, 100, 5))
TEACHER = ('crops', 'top1', 'confidence', 'error', 'entropy', 'near_one_hot', 'temperature')
KEYS: dict[str, type | tuple[type, ...]] = {
    'row': str, 'seed': int, 'data': str, 'config': str, 'options': dict, 'train_images': int,
    'val_images': int, 'iterations': int, 'batch_size': int, 'teacher': (dict, type(None)), 'command': str,
    'commit': str, 'device': str, 'torch': str,
}  # fmt: skip
NUMBERS = {
    'metrics': METRICS,
    'ap_per_iou': THRESHOLDS,
    'errors': ErrorSplit._fields,
    'calibration': ScoreCalibration._fields,
    'student': ('parameters', 'gmacs', 'latency_ms'),
    'training': ('images_per_second', 'seconds', 'memory_mb'),
}
SETTINGS = ('data', 'config', 'options', 'iterations', 'batch_size', 'train_images', 'val_images')


class Unit(NamedTuple):
    """One row with one seed."""

    file: Path
    content: dict[str, Any]  # of its JSON file


Seeds = dict[int, Unit]  # seed -> unit of one row


class Section(NamedTuple):
    """Units of equal settings, which alone may be compared."""

    settings: dict[str, Any]  # SETTINGS -> value
    rows: dict[str, Seeds]  # in the order of the table


def read_units(folders: Sequence[Path]) -> list[Unit]:
    """Read all units, in the order of their names.

    Raises:
        FileNotFoundError: No such folder, or no unit in all of them.
        ValueError: A file that is not a unit; names the file and what is wrong with it.
    """
    files: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f'no folder {folder}; give --out-dir of tools/analysis/run_rows.py')
        files |= {file.resolve(): file for file in sorted(folder.glob('*.json'))}
    if not files:
        names = ', '.join(map(str, folders))
        raise FileNotFoundError(
            f'no *.json in {names}: no unit of tools/analysis/run_rows.py is finished there'
        )
    return [Unit(file, _read_unit(file)) for file in files.values()]


def _read_unit(file: Path) -> dict[str, Any]:
    remedy = '\n  Only files of tools/analysis/run_rows.py may lie there: move it, or run its unit again.'
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f'{file} is not a JSON file: {error}.{remedy}') from error
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        found = content.get('format') if isinstance(content, dict) else type(content).__name__
        raise ValueError(f'{file} is no unit: it needs "format": {FORMAT}, found {found!r}.{remedy}')
    for key, kind in KEYS.items():
        if key not in content or not isinstance(content[key], kind):
            raise ValueError(f'{file} is no unit: {key} is {content.get(key, "missing")!r}.{remedy}')
    numbers = {**NUMBERS, **({'teacher': TEACHER} if content['teacher'] else {})}
    for part, names in numbers.items():
        for name in names:
            value = content[part].get(name) if isinstance(content.get(part), dict) else None
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f'{file} is no unit: {part}.{name} is {value!r}, not a number.{remedy}')
    return content


def split_sections(units: Sequence[Unit]) -> list[Section]:
    """Put units of equal settings together, rows in the order of the paper.

    Raises:
        ValueError: Two units of one row and seed, or teachers of several architectures in one row.
    """
    sections: dict[str, Section] = {}
    for unit in sorted(units, key=lambda unit: (_place(unit.content['row']), unit.content['seed'])):
        settings = {name: unit.content[name] for name in SETTINGS}
        section = sections.setdefault(json.dumps(settings, sort_keys=True), Section(settings, {}))
        seeds = section.rows.setdefault(unit.content['row'], {})
        other = seeds.setdefault(unit.content['seed'], unit)
        if other is not unit:
            raise ValueError(
                f'{other.file} and {unit.file} are the same row and seed with the same settings: compare '
                'their folders apart'
            )
        first = next(iter(seeds.values()))
        if teacher_of(first) != teacher_of(unit):
            raise ValueError(
                f'{first.file} has the teacher {teacher_of(first)}, {unit.file} {teacher_of(unit)}: '
                'compare their folders apart'
            )
    return [sections[key] for key in sorted(sections)]


def _place(row: str) -> tuple[int, str]:
    return (list(TITLES).index(row) if row in TITLES else len(TITLES), row)


def teacher_of(unit: Unit) -> str:
    """The architecture of its teacher, 'none' without one."""
    return str((unit.content['teacher'] or {}).get('arch', 'none'))

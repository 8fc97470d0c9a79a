"""Compare rows over seeds: tables of means and spreads, differences to plain training, pictures."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from mmdet.analysis.judge import ERRORS_NOTE, FOREGROUND_IOU, KINDS, METRICS, MIN_SCORE, THRESHOLDS
from mmdet.analysis.markdown import table, write_page
from mmdet.analysis.plots import plot_differences, plot_rows
from mmdet.analysis.runs import LATER_SETTINGS, Rows, Run, group_runs, read_runs

PERCENT, NUMBER = (100, '.1f'), (1, '.3f')
# title, head of a column -> (key, factor, format), note
TABLES: tuple[tuple[str, dict[str, tuple[str, float, str]], str], ...] = (
    (
        'Metrics',
        {name: (f'metrics.{name}', *PERCENT) for name in METRICS},
        'Percent. A row with one seed has no spread: how far chance moves it is not known.',
    ),
    ('AP by IoU threshold', {name: (f'ap_per_iou.{name}', *PERCENT) for name in THRESHOLDS}, 'Percent.'),
    (
        'Errors',
        {name.replace('_', ' '): (f'errors.{name}', *PERCENT) for name in ('ap50', *KINDS)},
        ERRORS_NOTE,
    ),
    (
        'Calibration',
        {
            'detections': ('calibration.detections', 1, '.0f'),
            'mean score, %': ('calibration.confidence', *PERCENT),
            'right, %': ('calibration.precision', *PERCENT),
            'calibration error': ('calibration.error', *NUMBER),
        },
        f"""Detections with a score of at least {MIN_SCORE}, right at IoU {FOREGROUND_IOU}. The expected
calibration error is the mean of |share of right ones - mean score| over bins of the score.""",
    ),
    (
        'Teachers',
        {
            'top-1, %': ('teacher.top1', *PERCENT),
            'confidence, %': ('teacher.confidence', *PERCENT),
            'calibration error': ('teacher.error', *NUMBER),
            'entropy, nats': ('teacher.entropy', *NUMBER),
            'near one-hot, %': ('teacher.near_one_hot', *PERCENT),
            'temperature': ('teacher.temperature', 1, '.2f'),
        },
        'On the crops of the validation objects.',
    ),
    (
        'Size and speed',
        {
            'parameters, M': ('student.parameters', 1e-6, '.2f'),
            'GMACs': ('student.gmacs', 1, '.2f'),
            'ms an image': ('student.ms_per_image', 1, '.1f'),
            'training images/s': ('training.images_per_second', 1, '.1f'),
            'training, s': ('training.seconds', 1, '.0f'),
            'memory, MB': ('training.memory_mb', 1, '.0f'),
        },
        """An image takes the network, NMS and waiting for data, in batches of the test. Compare times only
between runs on one device (see the runs below).""",
    ),
)
COMPARED = (*METRICS[:6], 'AR_100')
DIFFERENCE_NOTE = """Row minus plain with the same seed, percent points; in brackets how many of the pairs of
runs are better than plain. No significance is claimed for so few pairs. The spread says how far apart equal
runs with other seeds lie; a mean difference within it may be chance. The picture shows every pair, the mean
and its 95 % interval (Student's t; none of a single pair): where it holds 0, the runs do not tell which row
is better."""


def compare_folders(folders: Sequence[Path], out_dir: Path) -> str:
    """Compare all runs in some folders; write comparison.md, .html, .csv (one line per run) and pictures.

    Returns:
        The text of comparison.md.

    Raises:
        FileNotFoundError: No run in all of them.
        ValueError: A file that is not a run, or runs that cannot be compared.
    """
    runs = read_runs(folders)
    groups = group_runs(runs)
    out_dir.mkdir(parents=True, exist_ok=True)
    lines = [{**run.values, 'file': run.file, 'options': json.dumps(run.values['options'])} for run in runs]
    with (out_dir / 'comparison.csv').open('w', newline='') as out:
        writer = csv.DictWriter(out, list(dict.fromkeys(name for line in lines for name in line)))
        writer.writeheader()
        writer.writerows(lines)
    note = 'Numbers of different settings are in sections of their own and must not be compared.'
    parts = ['# Comparison', note] if len(groups) > 1 else ['# Comparison']
    for number, (settings, rows) in enumerate(groups, start=1):
        pictures = draw(rows, out_dir, number)
        options = ' '.join(f'{key}={value}' for key, value in sorted(settings['options'].items()))
        precision = ', in mixed precision' if settings.get('amp') else ''
        files = [settings[name] for name in LATER_SETTINGS[1:] if name in settings]
        content = f' Annotations: `{" ".join(files)}`.' if files else ''
        parts += [
            f"""## {settings['data']}, `{settings['config']}`

{settings['train_images']} training and {settings['val_images']} validation images, trained for
{settings['iterations']} iterations of {settings['batch_size']} images{precision}.
Options: `{options or 'none'}`.{content}
All numbers: mean ± sample standard deviation (n - 1) over the seeds.""",
            *(f'![{file.stem}]({file.name})' for file in pictures),
            *section_parts(rows),
        ]
    text = '\n\n'.join(parts) + '\n'
    write_page(out_dir / 'comparison.md', text)
    return text


def section_parts(rows: Rows) -> list[str]:
    """Lay out the tables of comparable rows in Markdown."""
    plain = rows.get('plain')
    parts = []
    if plain is not None:
        lines = [
            (row, *(_difference_cell(numbers(seeds, f'metrics.{name}', 100, plain)) for name in COMPARED))
            for row, seeds in rows.items()
            if row != 'plain'
        ]
        parts += ['### Difference to plain', table(('row', *COMPARED), lines), DIFFERENCE_NOTE]
    for title, columns, note in TABLES:
        lines = [
            (row, ', '.join(map(str, seeds)), *(_mean_cell(seeds, *column) for column in columns.values()))
            for row, seeds in rows.items()
        ]
        parts += [f'### {title}', table(('row', 'seeds', *columns), lines, '---:'), note]
    names = ('commit', 'torch', 'device', 'teacher.arch')
    runs = [run for seeds in rows.values() for run in seeds.values()]
    lines = [(run.file.name, *(run.values.get(name, '-') for name in names)) for run in runs]
    commands = dict.fromkeys(run.values['command'] for run in runs)
    return [*parts, '### Runs', table(('file', *names), lines), *(f'    {command}' for command in commands)]


def numbers(
    seeds: Mapping[int, Run], key: str, factor: float = 1, plain: Mapping[int, Run] | None = None
) -> list[float]:
    """Collect one number of all runs of a row, or its differences to plain for the seeds that both have.

    None of a run that has no such number, because the set holds no such object or the row no teacher.
    """
    values = _measured(seeds, key)
    if plain is not None:
        others = _measured(plain, key)
        values = {seed: value - others[seed] for seed, value in values.items() if seed in others}
    return [factor * value for value in values.values()]


def _measured(seeds: Mapping[int, Run], key: str) -> dict[int, float]:
    found = {seed: run.values.get(key, -1) for seed, run in seeds.items()}
    return {seed: value for seed, value in found.items() if value != -1}


def mean_and_spread(values: Sequence[float], form: str = '.1f') -> str:
    """Format mean ± sample standard deviation; without spread for one value, a dash for none."""
    if not values:
        return '-'
    spread = f' ± {stdev(values):{form.lstrip("+")}}' if len(values) > 1 else ''
    return f'{fmean(values):{form}}{spread}'


def _mean_cell(seeds: Mapping[int, Run], key: str, factor: float, form: str) -> str:
    return mean_and_spread(numbers(seeds, key, factor), form)


def _difference_cell(values: Sequence[float]) -> str:
    better = f' ({sum(value > 0 for value in values)}/{len(values)})' if values else ''
    return mean_and_spread(values, '+.1f') + better


def draw(rows: Rows, out_dir: Path, number: int) -> list[Path]:
    """Draw the pictures of comparable rows; returns their files."""
    plain = rows.get('plain')
    gain = 'AP' if plain is None else 'AP, row minus plain'
    pictures = []
    for file, part, names, label, base in (
        ('ap', 'metrics', ('AP', 'AP50', 'AP75'), 'AP, %', None),
        ('ap_per_iou', 'ap_per_iou', THRESHOLDS, f'{gain}, percent points', plain),
        ('errors', 'errors', tuple(KINDS), 'AP50 to gain, percent points', None),
    ):
        values = {
            row: {name: numbers(seeds, f'{part}.{name}', 100, base) for name in names}
            for row, seeds in rows.items()
        }
        pictures.append(plot_rows(values, label, out_dir / f'{number}_{file}.svg'))
    if plain is None or len(rows) == 1:
        return pictures
    others = {row: seeds for row, seeds in rows.items() if row != 'plain'}
    differences = {
        name: {row: numbers(seeds, f'metrics.{name}', 100, plain) for row, seeds in others.items()}
        for name in ('AP', 'AP50')
    }
    out = out_dir / f'{number}_differences.svg'
    return [plot_differences(differences, 'row minus plain, percent points', out), *pictures]

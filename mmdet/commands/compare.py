"""Compare the finished units of the proof table: metrics over seeds, errors, calibration, size and speed.

Reads every *.json that tools/analysis/run_rows.py has left in the folders, and nothing else. Writes
comparison.md, comparison.csv (one line per unit) and pictures.

python tools/analysis/compare.py work_dirs/rows
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mmdet.analysis.error_split import BACKGROUND_IOU, FOREGROUND_IOU, LEAST_SCORE, ErrorSplit
from mmdet.analysis.markdown import table
from mmdet.analysis.plots import plot_errors, plot_lines, plot_seeds
from mmdet.analysis.runs import (
    ABSENT,
    METRICS,
    THRESHOLDS,
    TITLES,
    Section,
    Seeds,
    Unit,
    read_units,
    split_sections,
    teacher_of,
)

COMPARED = (*METRICS[:6], 'AR_100')
ERRORS = ErrorSplit._fields[1:]
RIGHT = '---:'  # where numbers stand in their column


def values_of(seeds: Seeds, part: str, name: str, scale: float = 1) -> list[float]:
    """One number of all runs of a row; none where the set holds no such object."""
    values = [unit.content[part][name] for unit in seeds.values()]
    return [scale * value for value in values if part != 'metrics' or value != ABSENT]


def differences(seeds: Seeds, plain: Seeds, part: str, name: str) -> dict[int, float]:
    """Seed -> row minus plain in percent points, for the seeds that both have."""
    pairs = {
        seed: (seeds[seed].content[part][name], plain[seed].content[part][name])
        for seed in seeds
        if seed in plain
    }
    return {seed: 100 * (one - other) for seed, (one, other) in pairs.items() if ABSENT not in (one, other)}


def mean_and_spread(values: Sequence[float], form: str = '.1f') -> str:
    """The mean ± sample standard deviation; without spread for one value, a dash for none."""
    if not values:
        return '-'
    mean = f'{fmean(values):{form}}'
    return mean if len(values) == 1 else f'{mean} ± {stdev(values):{form.lstrip("+")}}'


def mean_only(values: Sequence[float], form: str = '.1f') -> str:
    """The mean, a dash for none."""
    return f'{fmean(values):{form}}' if values else '-'


def row_table(section: Section, head: Sequence[str], cells: Callable[[Seeds], Sequence[object]]) -> str:
    """A table with one line per row of the section."""
    lines = [(TITLES.get(row, row), *cells(seeds)) for row, seeds in section.rows.items()]
    return table(('row', *head), lines, RIGHT)


def metric_tables(section: Section) -> str:
    """COCO's numbers of every row, and its differences to plain."""
    metrics = row_table(
        section,
        ('seeds', *METRICS),
        lambda seeds: (
            ', '.join(map(str, seeds)),
            *(mean_and_spread(values_of(seeds, 'metrics', name, 100)) for name in METRICS),
        ),
    )
    runs = {len(seeds) for seeds in section.rows.values()}
    spread = 'Mean ± sample standard deviation (n - 1) over the seeds, in percent.'
    if 1 in runs:
        spread += ' A row with one seed has no spread: how far chance moves it is not known.'
    return f'### Metrics\n\n{metrics}\n\n{spread}\n\n{_difference_part(section)}'


def _difference_part(section: Section) -> str:
    plain = section.rows.get('plain')
    others = {row: seeds for row, seeds in section.rows.items() if row != 'plain'}
    if plain is None or not others:
        return 'No difference to plain: ' + (
            'there is no plain row.' if plain is None else 'there is no other row.'
        )
    lines, sentences = [], []
    for row, seeds in others.items():
        found = {name: list(differences(seeds, plain, 'metrics', name).values()) for name in COMPARED}
        lines.append((TITLES.get(row, row), *(_difference_cell(values) for values in found.values())))
        sentences.append(f'- {TITLES.get(row, row)}: {_difference_sentence(found["AP"])}')
    pairs = max(len(seeds.keys() & plain.keys()) for seeds in others.values())
    return f"""### Difference to plain

{table(('row', *COMPARED), lines)}

Row minus plain with the same seed, percent points: mean ± sample standard deviation of the differences, and
how many of the pairs of runs are better than plain.

{chr(10).join(sentences)}

No significance is claimed: no number rests on more than {_number(pairs, 'pair')} of runs. The spread says how
far apart equal runs with other seeds lie; a mean difference well within it may be chance."""


def _difference_cell(values: Sequence[float]) -> str:
    if not values:
        return '-'
    return f'{mean_and_spread(values, "+.1f")} ({sum(value > 0 for value in values)}/{len(values)})'


def _difference_sentence(values: Sequence[float]) -> str:
    """What the AP of a row says, and what it does not."""
    if not values:
        return 'no seed in common with plain.'
    better = f'better in {sum(value > 0 for value in values)} of {_number(len(values), "pair")}'
    text = f'AP {mean_and_spread(values, "+.1f")}, {better}'
    if len(values) == 1:
        return f'{text}; one pair cannot tell a gain from chance.'
    if abs(fmean(values)) <= stdev(values):
        return f'{text}; the mean lies within one standard deviation of no difference.'
    return f'{text}.'


def _number(count: int, name: str) -> str:
    return f'{count} {name}' if count == 1 else f'{count} {name}s'


def threshold_table(section: Section) -> str:
    """AP at every IoU threshold."""
    lines = row_table(
        section,
        THRESHOLDS,
        lambda seeds: [mean_only(values_of(seeds, 'ap_per_iou', name, 100)) for name in THRESHOLDS],
    )
    return f'### AP by IoU threshold\n\n{lines}\n\nMeans over the seeds, in percent.'


def error_table(section: Section) -> str:
    """The split after TIDE."""
    lines = row_table(
        section,
        ('AP50', *(name.replace('_', ' ') for name in ERRORS)),
        lambda seeds: [mean_only(values_of(seeds, 'errors', name, 100)) for name in ErrorSplit._fields],
    )
    return f"""### Errors

{lines}

Percent points of AP50 that would be gained if the errors of that kind alone were corrected, means over the
seeds: the larger, the more that kind costs (TIDE, arXiv 2008.08115; an object is hit at IoU {FOREGROUND_IOU},
background below {BACKGROUND_IOU}).

cls: right box, wrong class · loc: right class, wrong box · both: both wrong · duplicate: of an object that is
found already · background: of nothing · missed: an object that is neither found nor nearly found.
False positive removes all wrong detections at once, false negative leaves out all objects that are not found;
the kinds do not add up to them."""


def calibration_tables(section: Section) -> str:
    """Whether scores are deserved, of the students and of their teachers."""

    def student(seeds: Seeds) -> Iterator[str]:
        yield mean_only(values_of(seeds, 'calibration', 'detections'), '.0f')
        for name in ('confidence', 'precision'):
            yield mean_only(values_of(seeds, 'calibration', name, 100))
        yield mean_and_spread(values_of(seeds, 'calibration', 'error'), '.3f')

    def teacher(seeds: Seeds) -> Iterator[str]:
        units = next(iter(seeds.values()))
        yield teacher_of(units)
        for name, scale, form in (
            ('top1', 100, '.1f'), ('confidence', 100, '.1f'), ('error', 1, '.3f'), ('entropy', 1, '.3f'),
            ('near_one_hot', 100, '.1f'), ('temperature', 1, '.2f'),
        ):  # fmt: skip
            yield mean_only(values_of(seeds, 'teacher', name, scale), form)

    head = ('detections', 'mean score, %', 'right, %', 'calibration error')
    text = f"""### Calibration

{row_table(section, head, lambda seeds: list(student(seeds)))}

Detections with a score of at least {LEAST_SCORE}, right at IoU {FOREGROUND_IOU}. The expected
calibration error is the mean of |share of right ones - mean score| over bins of the score."""
    taught = {
        row: seeds
        for row, seeds in section.rows.items()
        if all(unit.content['teacher'] for unit in seeds.values())
    }
    if not taught:
        return f'{text}\n\nNo row has a teacher.'
    head = (
        'teacher',
        'top-1, %',
        'confidence, %',
        'calibration error',
        'entropy, nats',
        'near one-hot, %',
        'temperature',
    )
    lines = row_table(Section(section.settings, taught), head, lambda seeds: list(teacher(seeds)))
    return f'{text}\n\n{lines}\n\nThe teachers on the crops of the validation objects, means over the seeds.'


def speed_table(section: Section) -> str:
    """Size of the students, speed and memory."""
    columns = (
        ('student', 'parameters', 1e-6, '.2f', 'parameters, M'),
        ('student', 'gmacs', 1, '.2f', 'GMACs'),
        ('student', 'latency_ms', 1, '.1f', 'latency, ms'),
        ('training', 'images_per_second', 1, '.1f', 'training images/s'),
        ('training', 'seconds', 1, '.0f', 'training, s'),
        ('training', 'memory_mb', 1, '.0f', 'memory, MB'),
    )
    lines = row_table(
        section,
        [column[-1] for column in columns],
        lambda seeds: [
            mean_only(values_of(seeds, part, name, scale), form) for part, name, scale, form, _ in columns
        ],
    )
    devices = {unit.content['device'] for seeds in section.rows.values() for unit in seeds.values()}
    where = (
        f'All on {devices.pop()}.'
        if len(devices) == 1
        else ('The units ran on several devices (see the runs below): their times must not be compared.')
    )
    return (
        f'### Size and speed\n\n{lines}\n\nMeans over the seeds. The latency is that of one image, network '
        f'and post-processing. {where}'
    )


def run_part(section: Section) -> str:
    """Where every number comes from."""
    units = [unit for seeds in section.rows.values() for unit in seeds.values()]
    names = ('seed', 'commit', 'torch', 'device')
    lines = [
        (
            TITLES.get(unit.content['row'], unit.content['row']),
            *(unit.content[name] for name in names),
            unit.file.name,
        )
        for unit in units
    ]
    commands = dict.fromkeys(unit.content['command'] for unit in units)
    text = '\n'.join(f'    {command}' for command in commands)
    return f'### Runs\n\n{table(("row", *names, "file"), lines, align="---")}\n\n{text}'


def section_text(section: Section, pictures: Mapping[str, Path]) -> str:
    """The Markdown of one section."""
    settings = section.settings
    options = ' '.join(f'{key}={value}' for key, value in settings['options'].items()) or 'none'
    head = f"""## {settings['data']}, `{settings['config']}`

{settings['train_images']} training and {settings['val_images']} validation images, trained for
{settings['iterations']} iterations of {settings['batch_size']} images. Options: `{options}`."""
    parts = [
        metric_tables(section), threshold_table(section), error_table(section), calibration_tables(section),
        speed_table(section), run_part(section),
    ]  # fmt: skip
    shown = '\n\n'.join(f'![{name}]({file.name})' for name, file in pictures.items())
    return '\n\n'.join([head, shown, *parts])


def draw(section: Section, out_dir: Path, number: int) -> dict[str, Path]:
    """Draw the pictures of a section; returns their names and files."""
    rows = {TITLES.get(row, row): seeds for row, seeds in section.rows.items()}
    found = {
        title: {seed: 100 * unit.content['metrics']['AP'] for seed, unit in seeds.items()}
        for title, seeds in rows.items()
    }
    pictures = {'AP of every run': plot_seeds(found, 'AP, %', out_dir / f'{number}_ap.png')}
    lines, label = {}, 'AP, row minus plain, percent points'
    plain = rows.get('plain', {})
    for title, seeds in rows.items():
        if seeds.keys() & plain.keys():
            found_at = (differences(seeds, plain, 'ap_per_iou', name).values() for name in THRESHOLDS)
            lines[title] = [fmean(values) for values in found_at]
    if not lines.keys() - {'plain'}:
        label = 'AP, %'
        lines = {
            title: [fmean(values_of(seeds, 'ap_per_iou', name, 100)) for name in THRESHOLDS]
            for title, seeds in rows.items()
        }
    pictures['AP by IoU threshold'] = plot_lines(
        lines, THRESHOLDS, label, out_dir / f'{number}_ap_per_iou.png'
    )
    bars = {
        title: {name: fmean(values_of(seeds, 'errors', name, 100)) for name in ERRORS}
        for title, seeds in rows.items()
    }
    pictures['errors'] = plot_errors(bars, 'AP50 to gain, percent points', out_dir / f'{number}_errors.png')
    return pictures


def flat(content: Mapping[str, Any], before: str = '') -> Iterator[tuple[str, Any]]:
    """Nested keys with dots; options stay together, as JSON, and what is null is left out."""
    for key, value in content.items():
        if key == 'options':
            yield key, json.dumps(value)
        elif isinstance(value, Mapping):
            yield from flat(value, f'{before}{key}.')
        elif value is not None:
            yield before + key, value


def write_csv(units: Sequence[Unit], file: Path) -> None:
    """One line per unit, the numbers as they are in its JSON."""
    lines = [{'file': str(unit.file), **dict(flat(unit.content))} for unit in units]
    names = list(dict.fromkeys(name for line in lines for name in line))
    with file.open('w', newline='') as out:
        writer = csv.DictWriter(out, names, restval='')
        writer.writeheader()
        writer.writerows(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the comparison and say where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folders', nargs='+', type=Path, metavar='DIR', help='--out-dir of run_rows.py')
    parser.add_argument('--out-dir', type=Path, help='default: comparison/ in the first folder')
    args = parser.parse_args(argv)
    out_dir = args.out_dir or args.folders[0] / 'comparison'
    units = read_units(args.folders)
    sections = split_sections(units)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_csv(units, out_dir / 'comparison.csv')
    texts = [
        section_text(section, draw(section, out_dir, number))
        for number, section in enumerate(sections, start=1)
    ]
    note = 'Numbers of different settings stand in sections of their own and must not be compared.\n\n'
    text = '# Comparison\n\n' + (note if len(sections) > 1 else '') + '\n\n'.join(texts) + '\n'
    (out_dir / 'comparison.md').write_text(text)
    print(
        f'{_number(len(units), "unit")} in {_number(len(sections), "section")}: {out_dir / "comparison.md"}'
    )

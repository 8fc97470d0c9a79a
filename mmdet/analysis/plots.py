"""Pictures of a comparison: rows of a table, each run with several seeds."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet.visualization.curves import COLORS, GRAY, INK

SUMS = ('false_positive', 'false_negative')  # not kinds of their own: they get a panel of their own


def plot_seeds(rows: Mapping[str, Mapping[int, float]], label: str, out: Path) -> Path:
    """Draw a dot for every run, and the mean of each row as a line with its value.

    Args:
        rows: Title of a row -> seed -> value. A seed has its color in all rows.
        label: What the values are, with their unit.
        out: Picture to write.
    """
    seeds = sorted({seed for values in rows.values() for seed in values})
    offsets = dict(zip(seeds, np.linspace(-0.2, 0.2, len(seeds)) if len(seeds) > 1 else [0.0], strict=True))
    figure, axes = _figure(1.6 + 1.2 * len(rows))
    for seed, color in zip(seeds, cycle(COLORS), strict=False):
        places = [place for place, values in enumerate(rows.values()) if seed in values]
        heights = [values[seed] for values in rows.values() if seed in values]
        axes.scatter(
            [place + offsets[seed] for place in places],
            heights,
            s=34,
            color=color,
            label=f'seed {seed}',
            zorder=3,
        )
    for place, values in enumerate(rows.values()):
        mean = float(np.mean(list(values.values())))
        axes.hlines(mean, place - 0.32, place + 0.32, color=INK, linewidth=2, zorder=2)
        axes.annotate(f'{mean:.1f}', (place + 0.34, mean), color=INK, fontsize=10, ha='left', va='center')
    axes.set_xticks(range(len(rows)), list(rows))
    axes.set_xlim(-0.6, len(rows) - 0.2)
    axes.margins(y=0.15)
    _finish(axes, 'every run, and the mean of each row (axis not from 0)', label)
    return _save(figure, out)


def plot_lines(rows: Mapping[str, Sequence[float]], thresholds: Sequence[str], label: str, out: Path) -> Path:
    """Draw one line per row over the IoU thresholds.

    Args:
        rows: Title of a row -> a value per threshold.
        thresholds: Their names.
        label: What the values are, with their unit.
        out: Picture to write.
    """
    figure, axes = _figure(7.5)
    for (title, values), color in zip(rows.items(), cycle(COLORS), strict=False):
        axes.plot(
            range(len(values)), values, color=color, marker='o', markersize=4, linewidth=1.8, label=title
        )
    axes.set_xticks(range(len(thresholds)), list(thresholds))
    axes.set_xlabel('IoU threshold', color=INK)
    _finish(axes, 'means over the seeds, by IoU threshold', label)
    return _save(figure, out)


def plot_errors(rows: Mapping[str, Mapping[str, float]], label: str, out: Path) -> Path:
    """Draw bars side by side, one per row, for every kind of error.

    Args:
        rows: Title of a row -> kind of error -> value; the kinds of `SUMS` stand in a panel of their own.
        label: What the values are, with their unit.
        out: Picture to write.
    """
    names = [name for values in list(rows.values())[:1] for name in values]
    panels = [name for name in names if name not in SUMS], [name for name in names if name in SUMS]
    figure = Figure(figsize=(11, 4.4), dpi=120, layout='constrained')
    width = 0.8 / max(len(rows), 1)
    for axes, kinds, title in zip(
        figure.subplots(1, 2, width_ratios=(3, 1.3)),
        panels,
        ('errors of one kind', 'errors of all kinds'),
        strict=True,
    ):
        for number, ((row, values), color) in enumerate(zip(rows.items(), cycle(COLORS), strict=False)):
            places = np.arange(len(kinds)) + (number - (len(rows) - 1) / 2) * width
            axes.bar(places, [values[kind] for kind in kinds], 0.92 * width, color=color, label=row, zorder=2)
        axes.set_xticks(range(len(kinds)), [kind.replace('_', ' ') for kind in kinds])
        _finish(axes, title, label, legend=kinds is panels[0])
    return _save(figure, out)


def _figure(width: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(max(width, 5), 4.4), dpi=120, layout='constrained')
    return figure, figure.subplots()


def _finish(axes: Axes, title: str, label: str, legend: bool = True) -> None:
    axes.set_title(title, loc='left', color=INK, fontsize=11)
    axes.set_ylabel(label, color=INK)
    axes.grid(axis='y', color=GRAY, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    if legend:
        axes.legend(frameon=True, edgecolor='none', framealpha=0.9, fontsize=9)


def _save(figure: Figure, out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out

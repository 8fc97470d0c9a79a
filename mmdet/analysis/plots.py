"""Draw the pictures of the reports: rows over seeds, reliability, boxes, curves of classes, confusion.

S places along x · K classes
"""

import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmdet.analysis.calibration import Reliability, calibration_error
from mmdet.analysis.runs import half_interval
from mmdet.visualization.curves import COLORS, INK, style_axes

MANY_CELLS = 24  # a side of a confusion matrix; above it the cells hold no numbers


def plot_rows(rows: Mapping[str, Mapping[str, Sequence[float]]], label: str, out: Path) -> Path:
    """Draw a dot for every run and a line at the mean, for each row and each of several numbers.

    rows: title of a row -> name of a number -> values, one per run · label: what they are, with their unit
    """
    names = list(next(iter(rows.values())))
    width = 0.8 / len(rows)
    inches = min(max(5.0, len(names) * (0.4 + 0.25 * len(rows))), 12.0)
    figure = Figure(figsize=(inches, 4.4), dpi=120, layout='constrained')
    axes = figure.subplots()
    for number, ((title, numbers), color) in enumerate(zip(rows.items(), cycle(COLORS), strict=False)):
        places = np.arange(len(names)) + (number - (len(rows) - 1) / 2) * width
        runs = [len(numbers[name]) for name in names]
        values = [value for name in names for value in numbers[name]]
        axes.scatter(np.repeat(places, runs), values, s=12, color=color, alpha=0.7, zorder=3)
        means = [fmean(numbers[name]) if numbers[name] else np.nan for name in names]
        axes.hlines(means, places - 0.4 * width, places + 0.4 * width, color=color, linewidth=3, label=title)
    axes.set_xticks(range(len(names)), [name.replace('_', ' ') for name in names])
    return _save(figure, out, {axes: 'every run, and the mean of each row (axis not from 0)'}, label)


def plot_differences(differences: Mapping[str, Mapping[str, Sequence[float]]], label: str, out: Path) -> Path:
    """Draw paired differences: a dot for every pair, and the mean with its 95 % interval, for each row.

    differences: name of a number -> title of a row -> values, one per pair · label: as in `plot_rows`
    """
    titles = list(next(iter(differences.values())))
    figure = Figure(figsize=(3.4 * len(differences), 1.4 + 0.45 * len(titles)), layout='constrained')
    grid = figure.subplots(1, len(differences), sharey=True, squeeze=False)[0]
    for axes, rows in zip(grid, differences.values(), strict=True):
        axes.axvline(0, color=INK, linewidth=1)
        colors = cycle(COLORS[1:])  # the first is that of plain
        for place, (values, color) in enumerate(zip(rows.values(), colors, strict=False)):
            axes.scatter(values, [place] * len(values), s=12, color=color, alpha=0.6, zorder=2)
            if values:
                style = {'color': color, 'fmt': 'D', 'markersize': 6, 'capsize': 4, 'zorder': 3}
                axes.errorbar(fmean(values), place, xerr=half_interval(values), **style)
        axes.set_yticks(range(len(titles)), map(_escape, titles))
        axes.set(ylim=(len(titles) - 0.5, -0.5), xlabel=label)
    return _save(figure, out, dict(zip(grid, differences, strict=True)), '')


def plot_class_curves(
    x: NDArray[Any],
    classes: Mapping[str, NDArray[Any]],
    whole: NDArray[Any],
    out: Path,
    labels: tuple[str, str, str],
    mark: float | None = None,
) -> Path:
    """Draw a curve for each class, gray where there are many, and one for all of them together.

    Args:
        x: (S,) in [0, 1].
        classes: Name -> (S,) in [0, 1]; NaN is left out.
        whole: (S,), of all.
        out: Picture to write.
        labels: Of `whole`, x and y.
        mark: Where on x to draw a line.
    """
    figure = Figure(figsize=(5, 4), layout='constrained')
    axes = figure.subplots()
    few = len(classes) <= len(COLORS)
    if len(classes) > 1:
        for (name, y), color in zip(classes.items(), cycle(COLORS), strict=False):
            style = {'color': color, 'label': _escape(name)} if few else {'color': COLORS[5], 'alpha': 0.45}
            axes.plot(x, y, linewidth=1.2, **style)
    axes.plot(x, whole, color=INK, linewidth=2.6, label=labels[0])
    if mark is not None:
        axes.axvline(mark, color=INK, linewidth=1, linestyle='--')
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=labels[1])
    return _save(figure, out, {axes: ''}, labels[2])


def plot_confusion(counts: NDArray[np.int64], names: Sequence[str], out: Path) -> Path:
    """Draw a confusion matrix; the shade is the share of the row, the number the count.

    counts (K + 1, K + 1): rows true, columns found, the last of both nothing · K names
    """
    labels = [*map(_escape, names), 'nothing']
    few = len(labels) <= MANY_CELLS
    side = 1.6 + (0.42 if few else 0.16) * len(labels)
    figure = Figure(figsize=(side, side), layout='constrained')
    axes = figure.subplots()
    share = np.sqrt(counts / counts.sum(1, keepdims=True).clip(1))  # the root shows rare confusions, too
    shades = LinearSegmentedColormap.from_list('', [f'{COLORS[0]}00', COLORS[0]])  # from transparent
    axes.imshow(share, cmap=shades, vmin=0, vmax=1, interpolation='none')
    for row, column in np.argwhere(counts) if few else ():
        color = '#fefefe' if share[row, column] > 0.75 else INK  # not pure white, which follows the page
        axes.text(column, row, str(counts[row, column]), ha='center', va='center', fontsize=8, color=color)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0, grid_alpha=0, labelsize=9 if few else 8.5)
    axes.spines[:].set_visible(False)
    axes.set_xlabel('found as')
    return _save(figure, out, {axes: ''}, 'object is')


def plot_reliability(panels: Mapping[str, Reliability], out: Path) -> Path:
    """Draw reliability diagrams beside each other, below each the number of answers in every bin.

    A bar is as high as the share of right answers in its bin; on the diagonal certainty is deserved. Below
    it (hatched gap) the classifier is over-confident. Under each title is the calibration error.
    """
    figure = Figure(figsize=(5.2 * len(panels), 5.6), dpi=110, layout='constrained')
    grid = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=(3, 1))
    titles = {}
    for (title, found), (top, bottom) in zip(panels.items(), grid.T, strict=True):
        answers, confidence, accuracy = (column.numpy() for column in found)
        middle = (np.arange(len(answers)) + 0.5) / len(answers)
        style: dict[str, Any] = {'width': 0.92 / len(answers), 'zorder': 2}
        gap = np.where(answers > 0, confidence - accuracy, 0)
        top.bar(middle, accuracy, color=COLORS[0], label='right', **style)
        top.bar(
            middle, gap, bottom=accuracy, color='none', edgecolor=COLORS[1], hatch='///',
            label='from there to the mean confidence', **style,
        )  # fmt: skip
        top.plot([0, 1], [0, 1], color=INK, linewidth=1.2, linestyle='--', zorder=3)
        top.set_ylim(0, 1)
        bottom.bar(middle, answers, color=COLORS[5], **style)
        bottom.set(xlim=(0, 1), xlabel='confidence (probability of the answer)', ylabel='crops')
        titles[top] = f'{title}\ncalibration error {calibration_error(found):.3f}'
    return _save(figure, out, titles, 'share of right answers')


def plot_boxes(sides: Mapping[str, NDArray[np.float32]], anchors: NDArray[np.float32], out: Path) -> Path:
    """Draw the width and height of boxes, and of anchors where there are any.

    sides: split -> (B, 2) width and height in pixels of the network input · anchors (A, 2) likewise
    """
    figure = Figure(figsize=(6.4, 6), dpi=120, layout='constrained')
    axes = figure.subplots()
    for (split, found), color in zip(sides.items(), COLORS, strict=False):
        label = f'{split}, {len(found)} boxes'
        axes.scatter(found[:, 0], found[:, 1], s=6, alpha=0.35, color=color, label=label, zorder=2)
    if len(anchors):
        axes.scatter(anchors[:, 0], anchors[:, 1], s=40, marker='+', color=INK, label='anchors', zorder=3)
    axes.set(xscale='log', yscale='log', xlabel='width, pixels of the network input')
    return _save(figure, out, {axes: 'sizes of boxes and anchors'}, 'height')


def _escape(name: str) -> str:
    """Keep matplotlib from taking text between dollars for a formula."""
    return name.replace('$', r'\$')


def _save(figure: Figure, out: Path, titles: Mapping[Axes, str], label: str) -> Path:
    """Style all axes, write titles and labels to those of `titles`, and write the picture."""
    for axes in figure.axes:
        style_axes(axes, titles.get(axes, ''))
    for axes in titles:
        axes.set_ylabel(label, color=INK)
    out.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), mpl.rc_context({'svg.fonttype': 'none'}):  # text stays text
        warnings.filterwarnings('ignore', 'Glyph')  # of other scripts: who shows an SVG has the letters
        figure.savefig(out)
    return out

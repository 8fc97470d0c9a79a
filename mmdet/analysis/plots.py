"""Draw the pictures of the reports: a comparison of rows over seeds, and reliability diagrams."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmdet.analysis.calibration import Reliability, calibration_error
from mmdet.visualization.curves import COLORS, INK, style_axes


def plot_rows(rows: Mapping[str, Mapping[str, Sequence[float]]], label: str, out: Path) -> Path:
    """Draw a dot for every run and a line at the mean, for each row and each of several numbers.

    Args:
        rows: Title of a row -> name of a number -> values, one per run.
        label: What the values are, with their unit.
        out: Picture to write.
    """
    names = list(next(iter(rows.values())))
    width = 0.8 / len(rows)
    figure = Figure(
        figsize=(min(max(5.0, len(names) * (0.4 + 0.25 * len(rows))), 12.0), 4.4),
        dpi=120,
        layout='constrained',
    )
    axes = figure.subplots()
    for number, ((title, numbers), color) in enumerate(zip(rows.items(), cycle(COLORS), strict=False)):
        places = np.arange(len(names)) + (number - (len(rows) - 1) / 2) * width
        runs = [len(numbers[name]) for name in names]
        values = [value for name in names for value in numbers[name]]
        axes.scatter(np.repeat(places, runs), values, s=12, color=color, alpha=0.7, zorder=3)
        means = np.array(
            [sum(numbers[name]) / len(numbers[name]) if numbers[name] else np.nan for name in names]
        )
        axes.hlines(means, places - 0.4 * width, places + 0.4 * width, color=color, linewidth=3, label=title)
    axes.set_xticks(range(len(names)), [name.replace('_', ' ') for name in names])
    return _save(figure, out, {axes: 'every run, and the mean of each row (axis not from 0)'}, label)


def plot_reliability(panels: Mapping[str, Reliability], out: Path) -> Path:
    """Draw reliability diagrams beside each other, below each the number of answers in every bin.

    A bar is as high as the share of right answers in its bin; on the diagonal certainty is deserved. Below
    it (hatched gap) the classifier is over-confident.

    Args:
        panels: Title -> bins; the calibration error is written under the title.
        out: Picture to write.
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

    Args:
        sides: Split -> (B, 2) width and height in pixels of the network input.
        anchors: (A, 2) likewise.
        out: Picture to write.
    """
    figure = Figure(figsize=(6.4, 6), dpi=120, layout='constrained')
    axes = figure.subplots()
    for (split, found), color in zip(sides.items(), COLORS, strict=False):
        axes.scatter(
            found[:, 0],
            found[:, 1],
            s=6,
            alpha=0.35,
            color=color,
            label=f'{split}, {len(found)} boxes',
            zorder=2,
        )
    if len(anchors):
        axes.scatter(anchors[:, 0], anchors[:, 1], s=40, marker='+', color=INK, label='anchors', zorder=3)
    axes.set(xscale='log', yscale='log', xlabel='width, pixels of the network input')
    return _save(figure, out, {axes: 'sizes of boxes and anchors'}, 'height')


def _save(figure: Figure, out: Path, titles: Mapping[Axes, str], label: str) -> Path:
    """Style all axes, write titles and labels to those of `titles`, and write the picture."""
    for axes in figure.axes:
        style_axes(axes, titles.get(axes, ''))
    for axes in titles:
        axes.set_ylabel(label, color=INK)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out

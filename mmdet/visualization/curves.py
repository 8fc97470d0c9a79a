"""Plot learning curves from the scalars that a run has logged."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Curve = tuple[list[float], list[float]]  # steps, values

SCORES = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'top1', 'class_mean')  # last parts of their names
COLORS = ('#1f5fa8', '#d9622b', '#2f8f5b', '#a23b8f', '#8a6d1f', '#5b5b5b', '#c23b3b', '#3aa6b9')
INK, GRAY = '#333333', '#dddddd'
FEW = 30  # points, which are marked


def plot_curves(files: Sequence[Path], out: Path) -> None:
    """Plot the losses, the learning rate and the scores of a run.

    Args:
        files: `<work dir>/<time>/vis_data/scalars.json` of all starts of the run, in order.
        out: Picture to write; its suffix chooses the format.
    """
    curves = dict(sorted(read_curves(files).items()))
    last_parts = {name: name.rsplit('/', 1)[-1] for name in curves}
    losses = {name: curve for name, curve in curves.items() if 'loss' in last_parts[name]}
    percent = {name: 100 * np.array(curves[name][1]) for name in curves if last_parts[name] in SCORES}
    scores = {
        f'{name} (best {np.fmax.reduce(values):.1f})': (curves[name][0], values)
        for name, values in percent.items()
    }

    figure = Figure(figsize=(10, 8), dpi=120, layout='constrained')
    above, middle, below = figure.subplots(3, sharex=True, height_ratios=(3, 2, 1))
    for color, (steps, values) in zip(cycle(COLORS), losses.values(), strict=False):
        above.plot(steps, values, color=color, alpha=0.25, linewidth=1)
    _draw(above, 'losses', {name: (steps, _smooth(values)) for name, (steps, values) in losses.items()})
    found = np.concatenate([[], *(values for _, values in losses.values())])
    if len(found) and (found > 0).all():
        above.set_yscale('log')
    _draw(middle, 'evaluation, %', scores)
    middle.set_ylim(0, min(max(1.1 * middle.get_ylim()[1], 1), 100))
    _draw(below, 'learning rate', {name: curves[name] for name in ('lr',) if name in curves})
    below.ticklabel_format(axis='y', style='sci', scilimits=(-2, 3))
    below.set(xlim=(0, None), ylim=(0, None), xlabel='step')
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def read_lines(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read what the starts of a run have logged, one JSON object a line.

    Lines that are cut short, as the last one of a killed start, are skipped. What an earlier start has logged
    from the first step of a later one on does not count; so a training that was started anew in the same
    folder stands alone.
    """
    lines: list[dict[str, Any]] = []
    for file in files:
        found = []
        for text in file.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(text))
        first = next((_step(line) for line in found if _is_training(line)), math.inf)
        kept = (i for i, line in enumerate(lines) if _is_training(line) and _step(line) >= first)
        lines = lines[: next(kept, len(lines))] + found
    return lines


def _is_training(line: Mapping[str, Any]) -> bool:
    return 'lr' in line or 'loss' in line


def _step(line: Mapping[str, Any], default: float = math.inf) -> float:
    return float(line.get('step', line.get('iter', default)))


def read_curves(files: Sequence[Path]) -> dict[str, Curve]:
    """Read every scalar of a run as (steps, values); see `read_lines`.

    A line of an evaluation may count epochs; it is placed at the last training step before it. Where a step
    is repeated, the later value counts.
    """
    values: dict[str, dict[float, float]] = {}
    last = 0.0
    for entry in read_lines(files):
        step = _step(entry, last)
        if _is_training(entry):
            last = step
        elif not any(name.startswith('grad_norm/') for name in entry):  # between two lines of the log
            step = last or step
        for name, value in entry.items():
            if isinstance(value, (int, float)) and name not in ('step', 'iter', 'epoch'):
                values.setdefault(name, {})[step] = float(value)
    return {
        name: (sorted(points), [points[step] for step in sorted(points)]) for name, points in values.items()
    }


def _draw(axes: Axes, title: str, curves: Mapping[str, tuple[Sequence[float], Any]]) -> None:
    """Draw curves over the steps, their names beside them."""
    for color, (name, (steps, values)) in zip(cycle(COLORS), curves.items(), strict=False):
        width, marker = 2.4 if name == 'loss' else 1.6, 'o' if len(steps) < FEW else None
        axes.plot(steps, values, color=color, linewidth=width, label=name, marker=marker, markersize=4)
    style_axes(axes, title)
    if legend := axes.get_legend():
        legend.set(loc='upper left', bbox_to_anchor=(1, 1))


def style_axes(axes: Axes, title: str = '') -> None:
    """Give axes a grid, a title, and a legend where something has a label."""
    axes.grid(color=GRAY, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.set_title(title, loc='left', color=INK, fontsize=11)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=True, edgecolor='none', framealpha=0.9, fontsize=9)


def _smooth(logged: list[float]) -> np.ndarray:
    """Average over the neighbors on both sides, so that it does not lag; what is not finite is left out."""
    values, kernel = np.array(logged), np.ones(len(logged) // 40 * 2 + 1)
    finite = np.isfinite(values)
    total, count = (np.convolve(part, kernel, 'same') for part in (np.where(finite, values, 0), finite))
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)

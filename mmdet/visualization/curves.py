"""Learning curves from the scalars that a run has logged."""

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


def plot_curves(scalars_json: Path | Sequence[Path], out: Path) -> Path:
    """Draw the losses, the learning rate and the scores of a run.

    Args:
        scalars_json: What MMEngine writes to `<work dir>/<time>/vis_data/scalars.json`; of a resumed run
            those of all its starts, in order.
        out: Picture to write; its suffix chooses the format. Its folder is made when missing.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: No such scalars file.
    """
    curves = read_curves(scalars_json)
    losses = {name: curve for name, curve in curves.items() if 'loss' in name.rsplit('/', 1)[-1]}
    scores = {name: curve for name, curve in curves.items() if name.rsplit('/', 1)[-1] in SCORES}
    rates = {name: curve for name, curve in curves.items() if name == 'lr'}

    figure = Figure(figsize=(11, 5.2), dpi=120, layout='constrained')
    grid = figure.add_gridspec(2, 2, width_ratios=(1.35, 1), height_ratios=(1.6, 1))
    _draw_losses(figure.add_subplot(grid[:, 0]), losses)
    _draw_scores(figure.add_subplot(grid[0, 1]), scores)
    _draw_rate(figure.add_subplot(grid[1, 1]), rates)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def read_lines(files: Sequence[Path]) -> list[Mapping[str, Any]]:
    """What the starts of a run have logged, one JSON object a line.

    Lines that are cut short, as the last one of a killed start, are passed over. What an earlier start has
    logged from the first step of a later one on does not count; so a training that was started anew in the
    same folder stands alone.
    """
    lines: list[Mapping[str, Any]] = []
    for file in files:
        found = [line for text in file.read_text().splitlines() if (line := _line(text)) is not None]
        first = next((_step(line) for line in found if _is_training(line)), math.inf)
        kept = (i for i, line in enumerate(lines) if _is_training(line) and _step(line) >= first)
        lines = lines[: next(kept, len(lines))] + found
    return lines


def _line(text: str) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, Mapping) else None


def _is_training(line: Mapping[str, Any]) -> bool:
    return 'lr' in line or 'loss' in line


def _step(line: Mapping[str, Any]) -> float:
    return float(line.get('step', line.get('iter', math.inf)))


def read_curves(scalars_json: Path | Sequence[Path]) -> dict[str, Curve]:
    """Read every scalar of a run as (steps, values); see `read_lines`.

    A line of an evaluation may count epochs; it is placed at the last training step before it. Where a step
    is repeated, the later value counts.
    """
    files = [scalars_json] if isinstance(scalars_json, Path) else scalars_json
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f'no scalars file {file}; a run writes it to <work dir>/<time>/vis_data/')
    values: dict[str, dict[float, float]] = {}
    last = 0.0
    for entry in read_lines(files):
        if _is_training(entry):
            last = step = float(entry.get('step', entry.get('iter', last)))
        elif any(name.startswith('grad_norm/') for name in entry):  # measured between two lines of the log
            step = float(entry['step'])
        else:
            step = last or float(entry.get('step', 0))
        for name, value in entry.items():
            if isinstance(value, (int, float)) and name not in ('step', 'iter', 'epoch'):
                values.setdefault(name, {})[step] = float(value)
    return {
        name: (sorted(points), [points[step] for step in sorted(points)]) for name, points in values.items()
    }


def _draw_losses(axes: Axes, losses: Mapping[str, Curve]) -> None:
    """The sum on top of its parts; each as logged, faint, and smoothed."""
    names = sorted(losses, key=lambda name: (name != 'loss', name))
    for color, name in zip(cycle(COLORS), names, strict=False):
        steps, values = losses[name]
        width, marker = 2.2 if name == 'loss' else 1.5, _marker(steps)
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=1)
        axes.plot(steps, _smooth(values), color=color, linewidth=width, label=name, marker=marker)
    found = np.concatenate([values for _, values in losses.values()]) if losses else np.zeros(0)
    found = found[np.isfinite(found)]
    if len(found) and found.min() > 0 and found.max() > 20 * found.min():
        axes.set_yscale('log')
    _finish(axes, 'losses', 'step', bool(losses))


def _marker(steps: list[float]) -> str | None:
    """A dot where there are too few points for a line."""
    return 'o' if len(steps) < 3 else None


def _draw_scores(axes: Axes, scores: Mapping[str, Curve]) -> None:
    """Scores in percent, the best value of each beside its name."""
    for color, (name, (steps, values)) in zip(COLORS, sorted(scores.items()), strict=False):
        percent = 100 * np.array(values)
        label = f'{name} (best {np.nanmax(percent):.1f})' if np.isfinite(percent).any() else name
        axes.plot(steps, percent, color=color, linewidth=1.8, marker='o', markersize=4, label=label)
    axes.set_ylim(0, max(1.5 * axes.get_ylim()[1], 1))  # room for the names
    axes.set_xlim(left=0)
    _finish(axes, 'evaluation, %', '', bool(scores))


def _draw_rate(axes: Axes, rates: Mapping[str, Curve]) -> None:
    for steps, values in rates.values():
        axes.plot(steps, values, color=COLORS[0], linewidth=1.8, marker=_marker(steps))
    axes.ticklabel_format(axis='y', style='sci', scilimits=(-2, 3))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    _finish(axes, 'learning rate', 'step', bool(rates))


def _smooth(values: list[float]) -> list[float]:
    """A mean over the neighbors on both sides, so that it does not lag; what is not finite is left out."""
    reach = len(values) // 40
    windows = (np.array(values[max(i - reach, 0) : i + reach + 1]) for i in range(len(values)))
    finite = (window[np.isfinite(window)] for window in windows)
    return [float(window.mean()) if len(window) else np.nan for window in finite]


def _finish(axes: Axes, title: str, label: str, has_curves: bool) -> None:
    axes.set_title(title, loc='left', color=INK, fontsize=11)
    axes.set_xlabel(label, color=INK)
    axes.grid(color=GRAY, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    if not has_curves:
        axes.text(
            0.5, 0.5, 'nothing logged', transform=axes.transAxes, ha='center', va='center', color='#888888'
        )
    elif axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=True, edgecolor='none', framealpha=0.9, fontsize=9)

"""The reliability diagram: how often answers of a certainty are right."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmdet.analysis.calibration import Reliability, calibration_error
from mmdet.visualization.curves import COLORS, GRAY, INK


def plot_reliability(panels: dict[str, Reliability], out: Path) -> Path:
    """Draw one diagram per entry beside each other, below each the number of answers in every bin.

    A bar is as high as the share of right answers in its bin; on the diagonal certainty is deserved. Below
    it (hatched gap) the classifier is over-confident.

    Args:
        panels: Title -> bins; the calibration error is written under the title.
        out: Picture to write.
    """
    figure = Figure(figsize=(5.2 * len(panels), 5.6), dpi=110, layout='constrained')
    axes = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=(3, 1))
    for (title, found), (top, bottom) in zip(panels.items(), axes.T, strict=True):
        bins = len(found.answers)
        middle = (np.arange(bins) + 0.5) / bins
        filled = found.answers.numpy() > 0
        accuracy, confidence = (value.numpy()[filled] for value in (found.accuracy, found.confidence))
        style = {'width': 0.92 / bins, 'zorder': 2}
        top.bar(middle[filled], accuracy, color=COLORS[0], label='right', **style)
        top.bar(
            middle[filled], confidence - accuracy, bottom=accuracy, color='none', edgecolor=COLORS[1],
            hatch='///', label='from there to the mean confidence', **style,
        )  # fmt: skip
        top.plot([0, 1], [0, 1], color=INK, linewidth=1.2, linestyle='--', zorder=3)
        top.set(ylim=(0, 1), ylabel='share of right answers')
        error = f'calibration error {calibration_error(found):.3f}'
        top.set_title(f'{title}\n{error}', loc='left', color=INK, fontsize=11)
        top.legend(loc='upper left', edgecolor='none', fontsize=9)
        bottom.bar(middle, found.answers.numpy(), color=COLORS[5], **style)
        bottom.set(xlim=(0, 1), xlabel='confidence (probability of the answer)', ylabel='crops')
        for one in (top, bottom):
            one.grid(color=GRAY, linewidth=0.7, zorder=0)
            one.spines[['top', 'right']].set_visible(False)
    figure.savefig(out)
    return out

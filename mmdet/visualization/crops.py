"""What the teacher sees: crops with their labels and the teacher's answers.

M crops · S crop side · K classes
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from mmdet.visualization.canvas import (
    INK,
    PAPER,
    Color,
    Picture,
    fit_text,
    line_height,
    text_width,
    tile,
    write_text,
)

RIGHT: Color = (60, 140, 30)
WRONG: Color = (40, 40, 210)
BAR: Color = (225, 200, 160)
QUIET: Color = (110, 110, 110)
ANSWERS = 3
TEXT_SIZE = 12
LEAST_SIDE = 128  # pixels at which a crop is shown


def draw_crops(
    crops: Tensor,
    labels: Any,
    classes: Sequence[str],
    probabilities: Tensor | None = None,
    columns: int = 8,
    titles: Sequence[str] | None = None,
) -> Picture:
    """Lay out crops on a sheet, each above its label and the three classes that the teacher finds likeliest.

    The label is green where the likeliest class is right and red where it is wrong. The last line is the
    entropy of the answer in nats.

    Args:
        crops: (M, 3, S, S), RGB, 0..255, float or uint8.
        labels: (M,) in [0, K); -1 where the class is not known.
        classes: K names.
        probabilities: (M, K), or None without a teacher.
        columns: Crops beside each other.
        titles: (M,) shown in place of the label's name.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    names = [int(label) for label in labels]
    if len(names) != len(crops) or (probabilities is not None and len(probabilities) != len(crops)):
        raise ValueError(f'{len(crops)} crops, but {len(names)} labels or another number of probabilities')
    if not len(crops):
        empty = np.full((3 * line_height(TEXT_SIZE), 2 * LEAST_SIDE, 3), PAPER, np.uint8)
        write_text(empty, 'no objects', 8, line_height(TEXT_SIZE), TEXT_SIZE)
        return empty
    answers = [None] * len(names) if probabilities is None else list(probabilities.detach().float().cpu())
    titles = titles or [classes[label] if label >= 0 else 'object' for label in names]
    cells = [
        _draw_cell(crop, title, label, classes, answer)
        for crop, title, label, answer in zip(crops.detach().cpu(), titles, names, answers, strict=True)
    ]
    return tile(cells, columns, gap=10)


def _draw_cell(
    crop: Tensor, title: str, label: int, classes: Sequence[str], answer: Tensor | None
) -> Picture:
    """One crop (3, S, S) over its caption; answer (K,) probabilities."""
    pixels = crop.float().clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    picture = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    scale = -(-LEAST_SIDE // picture.shape[0])  # whole, so that the pixels stay what they are
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    width, line = picture.shape[1], line_height(TEXT_SIZE)
    answers = 0 if answer is None else min(ANSWERS, len(answer))
    lines = 1 + (0 if answer is None else answers + 1)
    caption = np.full((line * lines + 6, width, 3), PAPER, np.uint8)
    color = INK
    if answer is not None:
        if label >= 0:
            color = RIGHT if int(answer.argmax()) == label else WRONG
        values, order = answer.topk(answers)
        for row, (value, index) in enumerate(zip(values.tolist(), order.tolist(), strict=True), start=1):
            top = row * line + 5
            share = f'{value:.2f}'
            room = width - text_width(share, TEXT_SIZE) - 8
            caption[top + 1 : top + line - 1, : round(room * min(max(value, 0.0), 1.0))] = BAR
            write_text(caption, *_placed(classes[index], room - 4, 4, top))
            write_text(caption, share, width - text_width(share, TEXT_SIZE) - 3, top, TEXT_SIZE)
        entropy = f'entropy {float(torch.special.entr(answer).sum()):.2f}'
        write_text(caption, *_placed(entropy, width - 8, 4, (answers + 1) * line + 5), QUIET)
    write_text(caption, *_placed(title, width - 8, 4, 2), color)
    cv2.rectangle(picture, (0, 0), (width - 1, picture.shape[0] - 1), color, 2)
    return np.concatenate([picture, caption])


def _placed(text: str, width: int, x: int, y: int) -> tuple[str, int, int, int]:
    """Arguments of `write_text` for a text that fits into `width` pixels."""
    text, size = fit_text(text, width, TEXT_SIZE)
    return text, x, y + (line_height(TEXT_SIZE) - line_height(size)) // 2, size

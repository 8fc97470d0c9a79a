"""Draw crops with their labels and the teacher's answers.

M crops · S crop side · K classes
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from mmdet.visualization.canvas import INK, Color, Picture, line_height, text_width, tile, write_text

RIGHT: Color = (60, 140, 30)
WRONG: Color = (40, 40, 210)
BAR: Color = (225, 200, 160)
QUIET: Color = (110, 110, 110)
ANSWERS, COLUMNS = 3, 8
TEXT_SIZE = 12
MIN_SIDE = 128  # pixels at which a crop is shown


def draw_crops(
    crops: Tensor, labels: Tensor, classes: Sequence[str], probabilities: Tensor, titles: Sequence[str]
) -> Picture:
    """Lay out crops on a canvas, each above its title and the three classes that the teacher finds likeliest.

    The title is green where the likeliest class is right and red where it is wrong. The last line is the
    entropy of the answer in nats.

    Args:
        crops: (M, 3, S, S), RGB, 0..255, float; M > 0.
        labels: (M,) in [0, K).
        classes: K names.
        probabilities: (M, K), of the teacher.
        titles: M lines, mostly the names of the labels.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    cells = [
        _draw_cell(crop, title, label, classes, answer)
        for crop, title, label, answer in zip(
            crops.cpu(), titles, labels.tolist(), probabilities.cpu(), strict=True
        )
    ]
    return tile(cells, COLUMNS, gap=10)


def _draw_cell(crop: Tensor, title: str, label: int, classes: Sequence[str], answer: Tensor) -> Picture:
    """Draw one crop (3, S, S) over its caption; answer (K,) probabilities."""
    pixels = crop.clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    scale = -(-MIN_SIDE // pixels.shape[0])  # whole, so that the pixels stay what they are
    picture = np.ascontiguousarray(pixels[..., ::-1].repeat(scale, 0).repeat(scale, 1))
    values, order = answer.topk(min(ANSWERS, len(answer)))
    color = RIGHT if int(order[0]) == label else WRONG
    lines: list[tuple[str, Color, float | None]] = [(title, color, None)]
    lines += [(classes[i], INK, share) for share, i in zip(values.tolist(), order.tolist(), strict=True)]
    lines += [(f'entropy {float(torch.special.entr(answer).sum()):.2f}', QUIET, None)]
    cv2.rectangle(picture, (0, 0), (picture.shape[1] - 1, picture.shape[0] - 1), color, 2)
    return np.concatenate([picture, _draw_caption(lines, picture.shape[1])])


def _draw_caption(lines: Sequence[tuple[str, Color, float | None]], width: int) -> Picture:
    """Write lines of text in their colors, each with its probability, if any, as bar and number."""
    line = line_height(TEXT_SIZE)
    caption = np.full((line * len(lines) + 6, width, 3), 255, np.uint8)
    for row, (text, color, share) in enumerate(lines):
        top, room = row * line + 4, width - 4
        if share is not None:
            room -= text_width('0.00', TEXT_SIZE) + 4
            caption[top + 1 : top + line - 1, : round(room * share)] = BAR
            write_text(caption, f'{share:.2f}', width - 3, top, TEXT_SIZE, anchor='ra')
        write_text(caption, text, 4, top, TEXT_SIZE, color, max_width=room - 4)
    return caption

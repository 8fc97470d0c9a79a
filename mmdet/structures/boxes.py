"""Box geometry.

Boxes are xyxy in pixels, the right and lower edge exclusive: the width is x2 - x1.
N images · G boxes of an image · A anchors
"""

import torch
from torch import Tensor

EPS = 1e-6  # smallest union, so that two empty boxes have IoU 0


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor) -> Tensor:
    """IoU of every box in `bboxes1` with every box in `bboxes2`.

    bboxes1 (..., G, 4) · bboxes2 (A, 4) or (..., A, 4)
    returns (..., G, A)

    Computed plane by plane: one (..., G, A) tensor per coordinate is an order of magnitude faster on a
    CPU than broadcasting (..., G, A, 2) corners.
    """
    x1, y1, x2, y2 = (plane.unsqueeze(-1) for plane in bboxes1.unbind(-1))  # (..., G, 1)
    left, top, right, bottom = bboxes2.unsqueeze(-3).unbind(-1)  # (..., 1, A)
    width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp_(min=0)
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp_(min=0)
    overlap = width.mul_(height)
    union = ((x2 - x1) * (y2 - y1) + (right - left) * (bottom - top)).sub_(overlap)
    return overlap.div_(union.clamp_(min=EPS))


def box_areas(bboxes: Tensor) -> Tensor:
    """Compute areas: (..., 4) -> (...)."""
    return (bboxes[..., 2] - bboxes[..., 0]) * (bboxes[..., 3] - bboxes[..., 1])


def clip_boxes(bboxes: Tensor, height: Tensor | float, width: Tensor | float) -> Tensor:
    """Clip boxes into images, all four sides.

    bboxes (..., 4) · height, width broadcast against (...)

    The gradient passes whole where a coordinate equals a bound. `clamp` passes none there (how many bounds
    are given and which version it is decide), and a box that touches the image border would stick to it.
    """
    sides = [torch.as_tensor(side, dtype=bboxes.dtype, device=bboxes.device) for side in (width, height) * 2]
    limits = torch.stack(sides, -1)
    bboxes = torch.where(bboxes < 0, 0, bboxes)
    return torch.where(bboxes > limits, limits, bboxes)

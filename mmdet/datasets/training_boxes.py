"""Select the boxes of an annotation file that can be trained on, and say what is wrong with the others.

M images and B annotations in the order of the file · given boxes xywh, kept ones xyxy, in pixels
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdet.datasets.coco_format import CocoFile

ROUNDING = 0.01  # pixels; so much of a box may lie outside without being called a fault
MIN_SIDE = 1 - 1e-6  # pixels, width and height; a side of exactly 1 may come out of x + w - x a bit shorter
REASONS = {  # what keeps a box from being trained on as it is
    'other_class': 'is of another class',
    'crowd': 'is a crowd (iscrowd 1)',
    'ignored': 'is marked to be ignored (ignore 1)',
    'not_finite': 'is not finite',
    'outside': 'lies outside',
    'too_small': 'is less than a pixel wide or high',
    'clipped': 'was clipped',
}
KINDS = ('fine', *REASONS)
FINE, OTHER_CLASS, CROWD, IGNORED, NOT_FINITE, OUTSIDE, TOO_SMALL, CLIPPED = range(len(KINDS))
FRACTIONS = (
    'They look like fractions of the image; COCO has pixels: multiply x and width by the width of the image, '
    'y and height by its height.'
)
CORNERS = (
    'They look like x1, y1, x2, y2; COCO has x, y, width, height: subtract x1 from x2 and y1 from y2, and '
    'write the differences in their places.'
)
NO_SIDES = (
    'Width or height is not above 0: does the tool export masks without boxes, or corners in another order?'
)
OTHER_SIZE = 'Were they drawn on images of another size?'
ALL_CROWDS = 'Some tools mark every mask in RLE as a crowd: set iscrowd to 0 where it is a single object.'


class Fault(NamedTuple):
    """A box that was dropped or clipped."""

    kind: str  # 'not_finite' | 'outside' | 'too_small': dropped; 'clipped': kept
    file: str
    img_id: int
    ann_id: int
    reason: str


class TrainingBoxes(NamedTuple):
    """The B boxes that can be trained on, grouped by image, and what was dropped."""

    bboxes: NDArray[np.float32]  # (B, 4) xyxy, right and lower edge exclusive
    labels: NDArray[np.int64]  # (B,) in [0, K)
    ann_ids: NDArray[np.int64]  # (B,)
    image_rows: NDArray[np.int64]  # (B,) in [0, M), ascending
    crowds: int  # regions that hold many objects; left out
    ignored: int  # objects with `ignore` 1; left out
    without_boxes: dict[str, int]  # why -> how many of the images have no box to train on
    faults: list[Fault]
    advice: str  # why no box is left, what is wrong with most, which photos come twice; '' where all is well


def select_boxes(coco: CocoFile, classes: Sequence[str]) -> TrainingBoxes:
    """Clip the boxes to their images; drop crowds, boxes of other classes and boxes without an area."""
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of.get(name, -1) for name in coco.category_ids])[coco.category_rows]
    rows = coco.image_rows
    bboxes, verdict = _clip_boxes(coco.bboxes, coco.sizes[rows])
    apart = [labels < 0, coco.crowd, coco.ignored]
    verdict = np.select(apart, (OTHER_CLASS, CROWD, IGNORED), verdict)
    faulty, good = verdict >= NOT_FINITE, (verdict == FINE) | (verdict == CLIPPED)
    kept = np.flatnonzero(good)
    kept = kept[np.argsort(rows[kept], kind='stable')]
    counts = np.bincount(verdict, minlength=len(KINDS)).tolist()
    advice = _advise(coco, verdict, counts) if counts[FINE] <= faulty.sum() else ''
    has_other, has_box, has_good = (
        np.bincount(rows[found], minlength=len(coco.img_ids)) > 0
        for found in ((verdict == CROWD) | (verdict == IGNORED), faulty | good, good)
    )
    without_boxes = {
        'empty': ~has_box & ~has_other,
        'crowds or ignored only': ~has_box & has_other,
        'all boxes dropped': has_box & ~has_good,
    }
    return TrainingBoxes(
        bboxes=bboxes[kept].astype(np.float32),
        labels=labels[kept],
        ann_ids=coco.ann_ids[kept],
        image_rows=rows[kept],
        crowds=counts[CROWD],
        ignored=counts[IGNORED],
        without_boxes={reason: int(images.sum()) for reason, images in without_boxes.items()},
        faults=[_fault(coco, row, verdict[row]) for row in np.flatnonzero(faulty).tolist()],
        advice=' '.join(filter(None, (advice, _advise_on_repeated(coco)))),
    )


def _clip_boxes(
    given: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Clip boxes to their images and say what is wrong with each.

    given xywh (B, 4) · sizes (h, w) (B, 2) · returns xyxy (B, 4) and a place in `KINDS` (B,)
    """
    limits = sizes[:, [1, 0, 1, 0]]
    with np.errstate(over='ignore', invalid='ignore'):  # of infinite sides; the verdict names them
        xyxy = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], 1)
    bboxes = np.clip(xyxy, 0, limits)
    small = (bboxes[:, 2:] - bboxes[:, :2] < MIN_SIDE).any(1)
    outside = (xyxy[:, 2:] <= 0).any(1) | (xyxy[:, :2] >= limits[:, :2]).any(1)
    moved = (np.abs(bboxes - xyxy) > ROUNDING).any(1)
    faults = [~np.isfinite(given).all(1), outside, small, moved]
    return bboxes, np.select(faults, (NOT_FINITE, OUTSIDE, TOO_SMALL, CLIPPED), FINE)


def _advise(coco: CocoFile, verdict: NDArray[np.int64], counts: Sequence[int]) -> str:
    """Say why no box is left, or that most are faulty; what they look like, and one of them.

    verdict (B,) places in `KINDS` · counts how many there are of each
    """
    guess, left = _looks_like(coco, verdict), counts[FINE] + counts[CLIPPED]
    if left and not guess:
        return ''
    said = ', '.join(f'{count} {kind}' for kind, count in zip(KINDS, counts, strict=True) if count)
    said = said or 'the list of annotations is empty'
    start = f'{coco.file}: {said if left else f"no image has a box of the classes asked for: {said}"}.'
    if not len(verdict):
        return start
    commonest = int(np.argmax([0, *counts[1:]]))
    example = _fault(coco, int(np.argmax(verdict == commonest)), commonest)
    return (
        f'{start} For example annotation {example.ann_id} of image {example.img_id}: '
        f'{example.reason}. {guess}'.rstrip()
    )


def _advise_on_repeated(coco: CocoFile) -> str:
    """Name a photo that the file lists under several ids; '' where none is."""
    names, counts = np.unique(coco.file_names, return_counts=True)
    repeated = names[counts > 1]
    if not len(repeated):
        return ''
    ids = coco.img_ids[coco.file_names == repeated[0]]
    return (
        f'{coco.file} lists {len(repeated)} photos more than once, such as {repeated[0].decode()} with the '
        f'ids {", ".join(map(str, ids))}: boxes of one entry are background for the others. Give each one id.'
    )


def _looks_like(coco: CocoFile, verdict: NDArray[np.int64]) -> str:
    """Guess in what other way most boxes are written; '' for no guess."""
    given, sizes = coco.bboxes, coco.sizes[coco.image_rows]
    x, y, width, height = given.T
    sided = (width > 0) & (height > 0)
    guesses = {
        ALL_CROWDS: verdict == CROWD,
        NO_SIDES: (verdict >= OUTSIDE) & ~sided,
        FRACTIONS: (verdict == TOO_SMALL) & sided & (given <= 1).all(1),
        CORNERS: (verdict >= NOT_FINITE) & (x < width) & (y < height) & (given[:, [3, 2]] <= sizes).all(1),
        OTHER_SIZE: verdict == OUTSIDE,
    }
    asked = np.count_nonzero(verdict != OTHER_CLASS)
    return next((guess for guess, found in guesses.items() if 2 * found.sum() > asked), '')


def _fault(coco: CocoFile, row: int, verdict: int) -> Fault:
    """Describe what is wrong with the box in a row of the file."""
    kind = KINDS[verdict]
    height, width = coco.sizes[coco.image_rows[row]]
    box = ', '.join(f'{side:g}' for side in coco.bboxes[row])
    return Fault(
        kind=kind,
        file=str(coco.file),
        img_id=int(coco.img_ids[coco.image_rows[row]]),
        ann_id=int(coco.ann_ids[row]),
        reason=f'bbox [{box}] {REASONS[kind]} (x, y, width, height; the image is {width} x {height})',
    )

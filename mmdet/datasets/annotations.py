"""COCO annotation files, read once, checked, and kept as flat arrays.

M images in the order of the file · B boxes that can be trained on, grouped by image
boxes xyxy in pixels of the annotated image, right and lower edge exclusive
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray

from mmdet.datasets.coco_format import (
    CHOOSE_OTHER,
    boxes_xywh,
    class_names,
    is_text,
    read_columns,
    unique_ids,
    whole_numbers,
)
from mmdet.structures import NO_IMAGE

NEEDED = {
    'images': ('id', 'file_name', 'width', 'height'),
    'categories': ('id', 'name'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox'),
}
OPTIONAL: dict[str, dict[str, Any]] = {'annotations': {'iscrowd': 0}}
ROUNDING = 0.01  # pixels; so much of a box may lie outside without being called a fault
SMALLEST = 1 - 1e-6  # pixels, width and height; a side of exactly 1 may come out of x + w - x a bit shorter


class Fault(NamedTuple):
    """A box that was dropped or clipped while the annotations were read."""

    kind: str  # 'not_finite' | 'outside' | 'too_small': dropped; 'clipped': kept
    file: str
    img_id: int
    ann_id: int
    reason: str


class Annotations(NamedTuple):
    """An annotation file as flat arrays: processes that are forked share them without a copy."""

    classes: tuple[str, ...]  # K names, label k is classes[k]
    category_ids: tuple[int, ...]  # K ids; -1 for a class that the file does not know
    img_ids: NDArray[np.int64]  # (M,)
    file_names: NDArray[np.bytes_]  # (M,) UTF-8
    sizes: NDArray[np.int64]  # (M, 2) (h, w)
    bboxes: NDArray[np.float32]  # (B, 4)
    labels: NDArray[np.int64]  # (B,) in [0, K)
    first: NDArray[np.int64]  # (M + 1,) boxes of image i are rows first[i] : first[i + 1]
    crowds: int  # regions that hold many objects; left out
    without_boxes: dict[str, int]  # why -> how many of the file's images have no box to train on
    faults: list[Fault]

    def chosen(self, rows: NDArray[np.int64]) -> 'Annotations':
        """The same with the images at `rows` alone; the boxes of the others must be none."""
        ends = np.append(self.first[rows], len(self.bboxes))
        return self._replace(
            img_ids=self.img_ids[rows], file_names=self.file_names[rows], sizes=self.sizes[rows], first=ends
        )


def read_annotations(file: Path, classes: Sequence[str] | None, boxes_needed: bool) -> Annotations:
    """Read and check a COCO annotation file.

    Args:
        file: JSON with images, categories and annotations.
        classes: Names in the order of their labels; boxes of other classes are passed over. None: all,
            ordered by category id.
        boxes_needed: Without it `annotations` may be absent, as in the files of COCO's test set.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not one in COCO's format, or contradicts itself.
    """
    table = read_columns(file, NEEDED, OPTIONAL, may_lack=() if boxes_needed else ('annotations',))
    table.setdefault('annotations', {key: [] for key in (*NEEDED['annotations'], *OPTIONAL['annotations'])})
    ids = {section: unique_ids(columns['id'], section, file) for section, columns in table.items()}
    sizes = np.stack([whole_numbers(table['images'][side], side, file) for side in ('height', 'width')], 1)
    _check_images(ids['images'], table['images']['file_name'], sizes, file)

    classes, category_ids = _classes(ids['categories'], table['categories']['name'], classes, file)
    annotations = table['annotations']
    category = _rows(ids['categories'], annotations['category_id'], 'category_id', ids['annotations'], file)
    image = _rows(ids['images'], annotations['image_id'], 'image_id', ids['annotations'], file)
    label_of_id = {category_id: label for label, category_id in enumerate(category_ids) if category_id >= 0}
    label_of_row = np.array([label_of_id.get(i, -1) for i in ids['categories'].tolist()])
    labels = label_of_row[category] if len(category) else np.zeros(0, np.int64)

    crowd = np.array([bool(value) for value in annotations['iscrowd']], bool)
    wanted = np.flatnonzero((labels >= 0) & ~crowd)
    given = boxes_xywh(annotations['bbox'], ids['annotations'], file)[wanted]
    bboxes, verdict = _judge(given, sizes[image[wanted]])
    faults = [
        Fault(
            kind=(kind := str(verdict[i])),
            file=str(file),
            img_id=int(ids['images'][image[wanted[i]]]),
            ann_id=int(ids['annotations'][wanted[i]]),
            reason=_reason(kind, given[i], sizes[image[wanted[i]]]),
        )
        for i in np.flatnonzero(verdict != '')
    ]
    kept = np.flatnonzero((verdict == '') | (verdict == 'clipped'))
    kept = kept[np.argsort(image[wanted[kept]], kind='stable')]
    counts = np.bincount(image[wanted[kept]], minlength=len(sizes))
    return Annotations(
        classes=classes,
        category_ids=category_ids,
        img_ids=ids['images'],
        file_names=np.array([name.encode() for name in table['images']['file_name']], np.bytes_),
        sizes=sizes,
        bboxes=bboxes[kept].astype(np.float32),
        labels=labels[wanted[kept]],
        first=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        crowds=int((crowd & (labels >= 0)).sum()),
        without_boxes=_count_without_boxes(
            counts,
            given=np.bincount(image[wanted], minlength=len(sizes)),
            crowds=np.bincount(image[crowd & (labels >= 0)], minlength=len(sizes)),
        ),
        faults=faults,
    )


def _check_images(ids: NDArray[np.int64], names: list[Any], sizes: NDArray[np.int64], file: Path) -> None:
    if not len(ids):
        raise ValueError(f'{file} lists no images. {CHOOSE_OTHER}')
    for img_id, name in zip(ids, names, strict=True):
        if not isinstance(name, str) or not name or _leaves_folder(name) or not is_text(name):
            raise ValueError(
                f'{file}: image {img_id} has the file_name {name!r}; it must be a path inside the image '
                "folder, without '..'. Write it relative to that folder, and set the folder with "
                '`--cfg-options train_img=... val_img=...`.'
            )
    if (ids == NO_IMAGE).any():
        raise ValueError(
            f'{file}: an image has the id {NO_IMAGE}, which stands for no image; give it another one, also '
            'in its annotations.'
        )
    small = np.flatnonzero((sizes < 1).any(1))
    if len(small):
        height, width = sizes[small[0]]
        raise ValueError(
            f'{file}: image {ids[small[0]]} ({names[small[0]]}) has width {width} and height {height}. '
            f'{CHOOSE_OTHER}'
        )


def _leaves_folder(name: str) -> bool:
    """Whether a file name is absolute or climbs; judged on the text, for both kinds of slashes."""
    return (
        name[0] in '/\\'
        or name[1:2] == ':'
        or '\0' in name
        or ('..' in name and '..' in re.split(r'[/\\]', name))
    )


def _classes(
    ids: NDArray[np.int64], names: list[Any], wanted: Sequence[str] | None, file: Path
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names in the order of their labels, and the category id of each."""
    id_of_name = class_names(ids, names, file)
    classes = tuple(id_of_name) if wanted is None else tuple(wanted)
    if isinstance(wanted, str) or len(set(classes)) < len(classes):
        raise ValueError(f"metainfo['classes'] must be a list of different names, but is {wanted!r}")
    if not id_of_name.keys() & set(classes):
        raise ValueError(
            f'{file}: no class in common. The file has {tuple(id_of_name)}, asked for was {classes}. '
            f'Take the names from the file, or another file. {CHOOSE_OTHER}'
        )
    if missing := [name for name in classes if name not in id_of_name]:
        print_log(f'{file} knows no class {", ".join(missing)}; nothing will be labeled so.', 'current')
    return classes, tuple(id_of_name.get(name, -1) for name in classes)


def _rows(
    ids: NDArray[np.int64], values: list[Any], key: str, ann_ids: NDArray[np.int64], file: Path
) -> NDArray[np.int64]:
    """Row of the image or category that each annotation refers to."""
    wanted = whole_numbers(values, key, file)
    order = np.argsort(ids)
    rows = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)] if len(ids) else wanted
    unknown = np.flatnonzero(ids[rows] != wanted) if len(ids) else np.arange(len(wanted))
    if len(unknown):
        section = 'images' if key == 'image_id' else 'categories'
        raise ValueError(
            f"{file}: annotation {ann_ids[unknown[0]]} has {key} {wanted[unknown[0]]}, which '{section}' "
            f'does not list ({len(unknown)} such annotations). {CHOOSE_OTHER}'
        )
    return rows


def _judge(
    given: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Clip boxes to their images and say what is wrong with each.

    given xywh (B, 4) · sizes (h, w) (B, 2) · returns xyxy (B, 4) and the kind of fault or '' (B,)
    """
    limits = sizes[:, [1, 0, 1, 0]]
    with np.errstate(over='ignore', invalid='ignore'):  # of infinite sides; the verdict names them
        xyxy = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], 1)
    bboxes = np.clip(xyxy, 0, limits)
    small = (bboxes[:, 2:] - bboxes[:, :2] < SMALLEST).any(1)
    outside = (xyxy[:, 2:] <= 0).any(1) | (xyxy[:, :2] >= limits[:, :2]).any(1)
    verdict = np.select(
        [~np.isfinite(given).all(1), outside, small, (np.abs(bboxes - xyxy) > ROUNDING).any(1)],
        ['not_finite', 'outside', 'too_small', 'clipped'],
        '',
    )
    return bboxes, verdict


def _count_without_boxes(
    kept: NDArray[np.int64], given: NDArray[np.int64], crowds: NDArray[np.int64]
) -> dict[str, int]:
    """Why images have no box to train on; all arguments (M,): boxes kept, boxes given, crowds."""
    nothing = given + crowds == 0
    only_crowds = (given == 0) & (crowds > 0)
    all_dropped = (given > 0) & (kept == 0)
    reasons = {'empty': nothing, 'crowds only': only_crowds, 'all boxes dropped': all_dropped}
    return {reason: int(images.sum()) for reason, images in reasons.items()}


def _reason(kind: str, given: NDArray[np.float64], size: NDArray[np.int64]) -> str:
    what = {
        'not_finite': 'is not finite',
        'outside': 'lies outside',
        'too_small': 'is less than a pixel wide or high',
        'clipped': 'was clipped',
    }[kind]
    box = ', '.join(f'{side:g}' for side in given)
    return f'bbox [{box}] {what} (x, y, width, height; the image is {size[1]} x {size[0]})'

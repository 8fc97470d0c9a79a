"""Boxes to train on: which are dropped or clipped, and what is said where hardly any is left."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdet.datasets.coco_format import read_coco
from mmdet.datasets.training_boxes import ALL_CROWDS, CORNERS, FRACTIONS, NO_SIDES, OTHER_SIZE, select_boxes
from tests.unit.datasets.test_coco_format import VALID, make, write


@pytest.mark.parametrize(
    ('bbox', 'kind', 'left'),
    [
        ([float('nan'), 10, 20, 20], 'not_finite', None),
        ([10, None, 20, 20], 'not_finite', None),  # NaN in strict JSON
        ([10, 10, float('inf'), 20], 'not_finite', None),
        ([10, 10, 1e308, 1e308], 'clipped', [10, 10, 40, 30]),
        ([10, 10, 0.5, 20], 'too_small', None),
        ([10, 10, 20, 0], 'too_small', None),
        ([10, 10, -5, 20], 'too_small', None),
        ([39.5, 10, 20, 20], 'too_small', None),
        ([-30, 10, 20, 20], 'outside', None),
        ([10, 30, 20, 20], 'outside', None),
        ([40, 10, 20, 20], 'outside', None),
        ([1e308, 1e308, 1e308, 1e308], 'outside', None),
        ([-10, 10, 30, 20], 'clipped', [0, 10, 20, 30]),
        ([-5, -5, 500, 500], 'clipped', [0, 0, 40, 30]),
        ([30, 20, 10.005, 10.009], None, [30, 20, 40, 30]),  # rounding is no fault
        ([10.1, 8.3, 1, 1], None, [10.1, 8.3, 11.1, 9.3]),
        ([0, 0, 40, 30], None, [0, 0, 40, 30]),
    ],
)
def test_faulty_boxes_are_dropped_or_clipped_and_listed(
    tmp_path: Path, bbox: list[float], kind: str | None, left: list[float] | None
) -> None:
    file = write(tmp_path / 'some.json', make([(('annotations', 0, 'bbox'), bbox)]))
    boxes = select_boxes(read_coco(file), ('cat',))
    assert boxes.bboxes.tolist() == ([] if left is None else [pytest.approx(left)])
    assert [fault.kind for fault in boxes.faults] == ([] if kind is None else [kind])
    for fault in boxes.faults:
        assert (fault.file, fault.img_id, fault.ann_id) == (str(file), 7, 1)
        assert 'image is 40 x 30' in fault.reason
    reason = 'empty' if left else 'all boxes dropped'
    assert boxes.without_boxes[reason] == 1 and boxes.crowds == 0
    assert select_boxes(read_coco(file), ('dog',)).crowds == 1


def test_ignored_boxes_are_not_trained_on(tmp_path: Path) -> None:
    file = write(tmp_path / 'some.json', make([(('annotations', 1, 'ignore'), 1)]))
    boxes = select_boxes(read_coco(file), ('cat', 'dog'))
    assert (boxes.labels.tolist(), boxes.crowds, boxes.ignored) == ([0], 1, 1)
    assert boxes.without_boxes == {'empty': 0, 'crowds or ignored only': 1, 'all boxes dropped': 0}
    assert boxes.advice == ''


def boxes_of(tmp_path: Path, bboxes: list[Any], classes: tuple[str, ...] = ('cat',), **keys: Any) -> Any:
    """Boxes of cats in an image of 640 x 480, with further keys."""
    image = {'id': 7, 'file_name': 'a.jpg', 'width': 640, 'height': 480}
    annotations = [
        {'id': number, 'image_id': 7, 'category_id': 3, 'bbox': bbox, **keys}
        for number, bbox in enumerate(bboxes, start=50)
    ]
    content = VALID | {'images': [image], 'annotations': annotations}
    return select_boxes(read_coco(write(tmp_path / 'some.json', content)), classes)


GOOD = [100, 120, 90, 70]
SMALL = 'is less than a pixel wide or high (x, y, width, height; the image is 640 x 480).'
LEFT_NONE = 'no image has a box of the classes asked for: '


@pytest.mark.parametrize(
    ('bboxes', 'keys', 'words'),
    [
        (
            [[0.1, 0.2, 0.5, 0.25], [0.5, 0, 0.4, 1]],
            {},
            ('2 too_small', f'annotation 50 of image 7: bbox [0.1, 0.2, 0.5, 0.25] {SMALL}', FRACTIONS),
        ),
        ([GOOD, [1, 2, 0, 3]], {'iscrowd': 1}, ('2 crowd. For', 'is a crowd (iscrowd 1)', ALL_CROWDS)),
        ([GOOD], {'ignore': 1}, ('1 ignored.', 'annotation 50 of image 7', 'the image is 640 x 480).')),
        ([GOOD], {'category_id': 1}, ('1 other_class.', 'is of another class', 'the image is 640 x 480).')),
        (
            [[None, 1, 2, 3], [700, 2, 9, 9], [900, 3, 9, 9]],
            {},
            ('1 not_finite, 2 outside.', 'annotation 51', OTHER_SIZE),
        ),
        (
            [[5, 5, 0, 0]],
            {},
            (f'1 too_small. For example annotation 50 of image 7: bbox [5, 5, 0, 0] {SMALL}', NO_SIDES),
        ),
        ([[0, 0, 0, 0], [30, 30, -9, 9], [*GOOD[:2], 0, 9]], {}, ('1 outside, 2 too_small.', NO_SIDES)),
        ([[10, 10, 0.5, 9]], {}, ('1 too_small.', SMALL)),
        ([], {}, ('the list of annotations is empty.',)),
    ],
)
def test_why_no_box_is_left(tmp_path: Path, bboxes: Any, keys: Any, words: tuple[str, ...]) -> None:
    advice = boxes_of(tmp_path, bboxes, **keys).advice
    assert advice.startswith(f'{tmp_path}/some.json: {LEFT_NONE}')
    assert all(word in advice for word in words), advice
    assert advice.endswith(words[-1])


def test_photos_that_are_listed_twice_are_told(tmp_path: Path) -> None:
    edits = [(('images', 1, 'file_name'), 'a.jpg'), (('images', 1, 'width'), 40)]
    boxes = select_boxes(read_coco(write(tmp_path / 'some.json', make(edits))), ('cat', 'dog'))
    assert len(boxes.labels) == 2
    assert 'some.json lists 1 photos more than once, such as a.jpg with the ids 7, 9' in boxes.advice


def test_corners_are_told_although_boxes_are_left(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = [[*rng.uniform(200, 300, 2), *rng.uniform((450, 320), (640, 480))] for _ in range(20)]
    boxes = boxes_of(tmp_path, corners)
    assert len(boxes.labels) == 20
    assert '20 clipped. For example annotation 50' in boxes.advice
    assert boxes.advice.endswith(CORNERS) and LEFT_NONE not in boxes.advice
    right = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in corners]
    assert boxes_of(tmp_path, right).advice == ''
    assert boxes_of(tmp_path, [*right, [600, 400, 90, 90], [5, 5, 0, 0]]).advice == ''

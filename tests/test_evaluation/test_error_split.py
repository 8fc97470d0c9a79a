"""The error split after TIDE on cases worked out by hand, and AP50 against pycocotools."""

import contextlib
import io
from typing import Any

import pytest
from pycocotools.coco import COCO

from mmdet.evaluation import ErrorSplit, error_split
from mmdet.evaluation.coco_metric import evaluate_boxes

CAT, DOG, EMU = 3, 7, 20
IDS = (EMU, CAT, DOG)  # by label
HERE = (0, 0, 100, 100)
FAR = (500, 500, 100, 100)
MOVED = (60, 0, 100, 100)  # IoU 0.25 with HERE
NONE = dict.fromkeys(ErrorSplit._fields, 0.0)


def truth(*objects: tuple[int, int, tuple[float, ...]], crowds: tuple = (), images: int = 2) -> COCO:
    """Annotations: (image, category, box xywh) each."""
    coco = COCO()
    rows = [(*one, 0) for one in objects] + [(*one, 1) for one in crowds]
    coco.dataset = {
        'images': [{'id': number} for number in range(1, images + 1)],
        'categories': [{'id': category, 'name': str(category)} for category in IDS],
        'annotations': [
            {'id': number, 'image_id': image, 'category_id': category, 'bbox': list(box),
             'area': box[2] * box[3], 'iscrowd': crowd}
            for number, (image, category, box, crowd) in enumerate(rows, start=1)
        ],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def found(image: int, category: int, box: tuple[float, ...], score: float) -> dict[str, Any]:
    return {'image_id': image, 'category_id': category, 'bbox': list(box), 'score': score}


def split(coco: COCO, *records: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in error_split(coco, records, IDS)._asdict().items()}


def pycocotools_ap50(coco: COCO, records: list[dict[str, Any]]) -> float:
    return float(evaluate_boxes(coco, records, IDS).stats[1])


def expect(result: dict[str, float], **values: float) -> None:
    assert result == pytest.approx({**NONE, **values}, abs=1e-9)


ONE_CAT = (1, CAT, HERE)
RIGHT = found(1, CAT, HERE, 0.5)


@pytest.mark.parametrize(
    'kind, wrong',
    [
        ('background', found(1, CAT, FAR, 0.9)),
        ('background', found(2, CAT, HERE, 0.9)),  # an image without objects
        ('duplicate', found(1, CAT, HERE, 0.9)),
        ('loc', found(1, CAT, MOVED, 0.9)),
    ],
    ids=['background', 'empty image', 'duplicate', 'loc of a found object'],
)
def test_a_false_positive_above_a_right_one(kind: str, wrong: dict[str, Any]) -> None:
    """Precision is 1/2 at every recall; without the error it is 1. The higher of two equal boxes is right."""
    records = [wrong, RIGHT] if kind != 'duplicate' else [wrong, RIGHT, found(2, CAT, HERE, 0.95)]
    result = split(truth(ONE_CAT), *records)
    if kind == 'duplicate':  # lies below the right one: it costs nothing, the background error does
        expect(result, ap50=0.5, background=0.5, false_positive=0.5)
    else:
        expect(result, ap50=0.5, false_positive=0.5, **{kind: 0.5})


def test_nothing_wrong_and_nothing_found() -> None:
    expect(split(truth(ONE_CAT), RIGHT), ap50=1)
    expect(split(truth(ONE_CAT)), missed=1, false_negative=1)
    assert split(truth(), RIGHT) == {**NONE, 'ap50': -1}
    assert split(truth(images=0)) == {**NONE, 'ap50': -1}


def test_a_wrong_box() -> None:
    """The object is claimed, so it is not missed; without the detection nothing is left to be right."""
    expect(split(truth(ONE_CAT), found(1, CAT, MOVED, 0.9)), loc=1)


def test_a_wrong_class() -> None:
    """The dog becomes a cat: recall of the cats 1, precision of the dogs 1 instead of 1/2."""
    coco = truth(ONE_CAT, (2, DOG, HERE))
    records = found(1, DOG, HERE, 0.9), found(2, DOG, HERE, 0.5)
    expect(split(coco, *records), ap50=0.25, cls=0.75, false_positive=0.25, false_negative=0.5)

"""What is right at which score: cases worked out by hand, and recall against pycocotools."""

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet.analysis.judge import SCORES, Judged, confusion_matrix, curves, judge, numbers, rank_photos
from mmdet.evaluation.coco_eval import as_records, mean_precision
from tests.unit.analysis.test_error_split import CAT, DOG, EMU, FAR, HERE, IDS, detections, drawn, truth

NAN = float('nan')


def judged(coco: COCO, found: list[Any]) -> Judged:
    metric: Any = SimpleNamespace(coco=coco, category_ids=IDS)
    return judge(metric, as_records(detections(found)))


def at(score: float) -> int:
    return int(np.argmin(np.abs(SCORES - score)))


def test_three_boxes() -> None:
    """Right, false, right, right: precision 1 up to recall 1/3 (34 of 101 recalls), then 3/4."""
    objects = [(1, CAT, HERE), (1, CAT, FAR), (2, CAT, HERE)]
    found = [(1, CAT, HERE, 0.9), (2, CAT, FAR, 0.8), (2, CAT, HERE, 0.6), (1, CAT, FAR, 0.3)]
    one = judged(truth(objects), found)
    assert mean_precision(one.scores.precision[0, :, IDS.index(CAT)]) == pytest.approx((34 + 67 * 0.75) / 101)
    cats = curves(one, [CAT])
    for score, precision, recall, f1 in (
        (0.2, 3 / 4, 1, 6 / 7),
        (0.5, 2 / 3, 2 / 3, 2 / 3),
        (0.7, 1 / 2, 1 / 3, 2 / 5),
        (0.85, 1, 1 / 3, 1 / 2),
    ):
        expected = {'precision': precision, 'recall': recall, 'f1': f1}
        assert cats.at(at(score)) == pytest.approx(expected)
    assert cats.at(at(0.95)) == {'precision': None, 'recall': 0, 'f1': 0}
    assert SCORES[cats.best()] == pytest.approx(0.3)
    dogs = curves(one, [DOG])  # neither an object nor a detection
    assert dogs.best() is None
    assert dogs.at(at(0.5)) == dict.fromkeys(('precision', 'recall', 'f1'))
    assert rank_photos(one, 0.5) == [(1, 1, 0), (2, 0, 1)]
    assert rank_photos(one, 0.85) == [(1, 1, 0), (2, 1, 0)]


def test_confusion_in_the_order_of_the_labels() -> None:
    """Labels are emu, cat, dog; a cat is taken for a dog, an emu is missed, a cat is seen in nothing."""
    objects = [(1, CAT, HERE), (2, DOG, HERE), (2, EMU, FAR)]
    crowd = (2, CAT, (700, 0, 50, 50))
    found = [
        (1, DOG, HERE, 0.9), (1, CAT, FAR, 0.7), (1, CAT, HERE, 0.1), (2, DOG, HERE, 0.8),
        (2, CAT, (710, 0, 20, 20), 0.9),  # in the crowd: neither right nor wrong
    ]  # fmt: skip
    one = judged(truth(objects, [crowd]), found)
    assert confusion_matrix(one, 0.5).tolist() == [
        [0, 0, 0, 1],
        [0, 0, 1, 0],
        [0, 0, 1, 0],
        [0, 1, 0, 0],
    ]
    assert rank_photos(one, 0.5) == [(1, 1, 2), (2, 1, 0)]
    assert curves(one, IDS).at(at(0.5)) == pytest.approx({'precision': 1 / 3, 'recall': 1 / 3, 'f1': 1 / 3})


def test_nothing_found_and_nan() -> None:
    one = judged(truth([(1, CAT, HERE)]), [(1, CAT, (NAN, 0, 1, 1), 0.9), (1, CAT, HERE, NAN)])
    assert curves(one, IDS).best() is None
    assert confusion_matrix(one, 0.5)[1].tolist() == [0, 0, 0, 1]
    assert rank_photos(one, 0.5) == [(1, 1, 0)]
    assert numbers(one)['errors']['missed'] == 1


@pytest.mark.parametrize('crowds', [0, 0.3])
def test_recall_of_each_class_is_that_of_pycocotools(crowds: float) -> None:
    coco, found = drawn(1, crowds)
    one = judged(coco, found)
    records = [record for record in as_records(detections(found)) if record['image_id'] in coco.imgs]
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCOeval(coco, coco.loadRes(records), 'bbox')
        theirs.evaluate()
        theirs.accumulate()
    recall = dict(zip(theirs.params.catIds, theirs.eval['recall'][0, :, 0, -1], strict=True))
    for category in IDS:
        assert curves(one, [category]).recall[0] == pytest.approx(recall[category])

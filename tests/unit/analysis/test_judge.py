"""Which detections are right, by hand; AP50 and recall against pycocotools, the errors against TIDE."""

import contextlib
import io
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet.analysis.judge import (
    KINDS,
    SCORES,
    Judged,
    confusion_matrix,
    curves,
    error_split,
    judge,
    match_detections,
    numbers,
    rank_photos,
    score_calibration,
)
from mmdet.evaluation.coco_eval import (
    CocoDetections,
    as_records,
    from_records,
    mean_precision,
    score_with_pycocotools,
)

CAT, DOG, EMU = 3, 7, 20
IDS = (EMU, CAT, DOG)  # by label
HERE = (0, 0, 100, 100)
FAR = (500, 500, 100, 100)
MOVED = (60, 0, 100, 100)  # IoU 0.25 with HERE
NOTHING = {'ap50': 0.0, **dict.fromkeys(KINDS, 0.0)}
Found = tuple[int, int, tuple[float, ...], float]  # image, category, box xywh, score


def truth(objects: Sequence[Any], crowds: Sequence[Any] = (), images: int = 2) -> COCO:
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


def detections(found: list[Found]) -> CocoDetections:
    names = ('image_id', 'category_id', 'bbox', 'score')
    return from_records([dict(zip(names, one, strict=True)) for one in found])


def split(coco: COCO, found: list[Found]) -> dict[str, float]:
    return error_split(coco, match_detections(coco, detections(found), IDS)[0], IDS)


CATS = [(1, CAT, HERE)]
CATS_AND_DOGS = [(1, CAT, HERE), (2, DOG, HERE)]
RIGHT = (1, CAT, HERE, 0.5)
AT_BACK = (0, 0, 100, 90)
SOME = 51 / 101  # of the recalls
DUPLICATE = (51 + 50 * 2 / 3) / 101
CASES: dict[str, tuple[list, list, dict[str, float]]] = {
    'a false positive above a right one: precision 1/2 at every recall': (
        CATS, [(1, CAT, FAR, 0.9), RIGHT], {'ap50': 0.5, 'background': 0.5, 'false_positive': 0.5},
    ),
    'one in an image without objects': (
        CATS, [(2, CAT, HERE, 0.9), RIGHT], {'ap50': 0.5, 'background': 0.5, 'false_positive': 0.5},
    ),
    'a wrong box of an object that is found': (
        CATS, [(1, CAT, MOVED, 0.9), RIGHT], {'ap50': 0.5, 'loc': 0.5, 'false_positive': 0.5},
    ),
    'a wrong box claims its object, which is not missed': (CATS, [(1, CAT, MOVED, 0.9)], {'loc': 1}),
    'a duplicate between two right ones: precision 1 at 51 recalls, 2/3 at 50': (
        [*CATS, (2, CAT, HERE)], [RIGHT, (1, CAT, AT_BACK, 0.4), (2, CAT, HERE, 0.3)],
        {'ap50': DUPLICATE, 'duplicate': 1 - DUPLICATE, 'false_positive': 1 - DUPLICATE},
    ),
    'a duplicate with a score below all right ones costs nothing': (
        [*CATS, (2, CAT, HERE)], [RIGHT, (2, CAT, HERE, 0.3), (1, CAT, AT_BACK, 0.2)], {'ap50': 1},
    ),
    'nothing wrong': (CATS, [RIGHT], {'ap50': 1}),
    'nothing found': (CATS, [], {'missed': 1, 'false_negative': 1}),
    'no objects': ([], [RIGHT], {'ap50': -1}),
    'a missed object among found ones: 51 of 101 recalls are reached': (
        [*CATS, (2, CAT, HERE)], [RIGHT], {'ap50': SOME, 'missed': 1 - SOME, 'false_negative': 1 - SOME},
    ),
    'a wrong class: cats become whole, the precision of the dogs 1 in place of 1/2': (
        CATS_AND_DOGS, [(1, DOG, HERE, 0.9), (2, DOG, HERE, 0.5)],
        {'ap50': 0.25, 'cls': 0.75, 'false_positive': 0.25},
    ),
    'a wrong box of the wrong class': (
        CATS_AND_DOGS, [(1, DOG, MOVED, 0.9), RIGHT, (2, DOG, HERE, 0.5)],
        {'ap50': 0.75, 'both': 0.25, 'false_positive': 0.25},
    ),
    'a cat off its object is a wrong box although it lies on a dog': (
        [*CATS, (1, DOG, MOVED)], [(1, CAT, MOVED, 0.9), RIGHT, (1, DOG, MOVED, 0.5)],
        {'ap50': 0.75, 'loc': 0.25, 'false_positive': 0.25},
    ),
    'IoU 0.1 with an object of another class, 20 of 200, is background': (
        [(1, CAT, (0, 0, 110, 10)), (2, DOG, HERE)],
        [(1, DOG, (90, 0, 110, 10), 0.9), (1, CAT, (0, 0, 110, 10), 0.5), (2, DOG, HERE, 0.5)],
        {'ap50': 0.75, 'background': 0.25, 'false_positive': 0.25},
    ),
    'a class of which nothing is detected keeps AP 0': (CATS_AND_DOGS, [RIGHT], {'ap50': 0.5}),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_cases_worked_out_by_hand(case: str) -> None:
    objects, found, expected = CASES[case]
    assert split(truth(objects), found) == pytest.approx({**NOTHING, **expected}, abs=1e-9)


def drawn(seed: int, crowds: float, ties: bool = False) -> tuple[COCO, list[Found]]:
    """A set with errors of all kinds, on images without objects, too; with `ties` scores are equal."""
    rng = np.random.default_rng(seed)
    objects, found = 40, 150
    bboxes = rng.uniform((0, 0, 10, 10), 60, (objects, 4))
    images, labels = rng.integers(1, 13, objects), rng.choice(IDS, objects)
    gt = list(zip(images.tolist(), labels.tolist(), bboxes.tolist(), strict=True))
    first = int(crowds * objects)
    near = rng.integers(0, objects, found)
    moved = np.abs(bboxes[near] + rng.normal(0, rng.choice([1, 5, 15], (found, 1)), (found, 4)))
    at = np.where(rng.random(found) < 0.9, images[near], rng.integers(1, 14, found))
    named = np.where(rng.random(found) < 0.7, labels[near], rng.choice(IDS, found))
    scores = rng.random(found).round(1 if ties else 9)
    columns = (column.tolist() for column in (at, named, moved, scores))
    return truth(gt[first:], gt[:first], images=13), list(zip(*columns, strict=True))


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('crowds', [0, 0.3, 1])
def test_ap50_is_that_of_pycocotools(crowds: float, ties: bool) -> None:
    coco, found = drawn(1, crowds, ties)
    theirs = score_with_pycocotools(coco, detections(found), IDS).stats[1]
    assert split(coco, found)['ap50'] == pytest.approx(float(theirs), abs=1e-12)


@pytest.mark.parametrize(
    ('crowds', 'split_percent', 'calibration'),
    [
        (0, [32.1114, 2.981, 19.0803, 1.3809, 1.3382, 6.497, 2.6021, 53.0371, 5.5145],
         [141, 0.507604, 0.22695, 0.300877]),
        (0.3, [24.0928, 2.1668, 14.8723, 5.2816, 1.1057, 7.3956, 0.0, 66.0062, 2.7446],
         [113, 0.495895, 0.20354, 0.323112]),
    ],
)  # fmt: skip
def test_numbers_of_an_implementation_in_numpy(
    crowds: float, split_percent: list[float], calibration: list[float]
) -> None:
    """This toolbox's own, which tidecv 1.0.1 confirmed and hotcoco replaced (commit 1470f05)."""
    coco, found = drawn(1, crowds)
    assert 100 * np.array(list(split(coco, found).values())) == pytest.approx(split_percent, abs=1e-4)
    counted, right = match_detections(coco, detections(found), IDS)
    numbers = score_calibration(counted.scores, right)
    assert list(numbers.values()) == pytest.approx(calibration, abs=1e-6)


def test_a_hundred_detections_of_a_class_count() -> None:
    coco = truth([*CATS, (1, DOG, HERE)])
    found = [*[(1, CAT, FAR, 0.9)] * 100, RIGHT, (1, DOG, HERE, 0.1)]
    assert split(coco, found)['ap50'] == pytest.approx(0.5)
    assert split(coco, found[1:])['ap50'] == pytest.approx(0.5 + 0.5 / 100)


def test_calibration_of_scores() -> None:
    """Two at 0.9, one right; one at 0.3, right; one in a crowd, one too low: (2 x |0.5 - 0.9| + 0.7) / 3."""
    coco = truth(CATS_AND_DOGS, crowds=[(2, CAT, FAR)])
    found = [(1, CAT, HERE, 0.9), (1, CAT, HERE, 0.9), (2, DOG, HERE, 0.3), (2, CAT, FAR, 0.8),
             (2, EMU, FAR, 0.04)]  # fmt: skip
    counted, right = match_detections(coco, detections(found), IDS)
    expected = {'detections': 3, 'confidence': 0.7, 'precision': 2 / 3, 'error': 0.5}
    assert score_calibration(counted.scores, right) == pytest.approx(expected)
    assert set(score_calibration(np.zeros(0), np.zeros(0, bool)).values()) == {0}


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

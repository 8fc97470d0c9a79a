"""hotcoco against pycocotools, bit for bit, on sets that are hard for an evaluator."""

import contextlib
import copy
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet.datasets.coco_format import read_coco
from mmdet.evaluation import coco_eval
from mmdet.evaluation.coco_eval import (
    CocoDetections,
    as_records,
    evaluate_boxes,
    from_records,
    mean_precision,
    score_with_hotcoco,
    score_with_pycocotools,
    to_pycocotools,
)

EDGES = (0, 1, 31, 32, 33, 64, 95, 96, 97, 200)  # sides; 32 and 96 bound COCO's ranges of areas
AREAS = (0, 1024, math.nextafter(1024, 0), 9216, math.nextafter(9216, 1e9), 1e10, 1e10 + 1, 50)
ID_KINDS = {  # step, start
    'small': (1, 0),
    'zero and negative': (1, -20),
    'far apart': (2**52 // 50, 0),
    'equal as floats': (1, 2**60),
}
FEATURES = (
    'crowds',
    'only crowds',
    'score ties',
    'one score',
    'whole pixels',
    'area boundaries',
    'own areas',
    'more than 100',
    'shuffled',
)
NO_FEATURES: frozenset[str] = frozenset()


def index(**dataset: Any) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def draw(
    seed: int, features: frozenset[str] = NO_FEATURES, images: int = 9, ids: str = 'small'
) -> tuple[COCO, CocoDetections, list[int]]:
    """A set, detections and the categories in the order of the labels, some of them without objects."""
    rng = np.random.default_rng(seed)
    step, start = ID_KINDS[ids]
    img_ids = [int(one) * step + start for one in rng.permutation(40)[:images]]
    categories = [int(one) * step + start for one in rng.permutation(40)[: rng.integers(1, 6)]]
    with_objects = categories[: max(1, len(categories) - int(rng.integers(2)))]
    annotations: list[dict[str, Any]] = []
    records = []
    for img_id in img_ids:
        objects = []
        for _ in range(rng.integers(0, 9) * (rng.random() < 0.8)):
            sides = rng.choice(EDGES, 2) if 'area boundaries' in features else rng.uniform(1, 180, 2)
            box = np.concatenate([rng.uniform(0, 150, 2), sides])
            box = box.round() if 'whole pixels' in features else box
            objects.append((box, int(rng.choice(with_objects))))
            crowd = 'only crowds' in features or ('crowds' in features and rng.random() < 0.3)
            area = float(rng.choice(AREAS)) if 'own areas' in features else box[2] * box[3]
            annotations.append(
                {'id': len(annotations) + 1, 'image_id': img_id, 'category_id': objects[-1][1],
                 'bbox': box.tolist(), 'area': float(area), 'iscrowd': int(crowd)}
            )  # fmt: skip
        many = 'more than 100' in features and rng.random() < 0.4
        for _ in range(rng.integers(150, 300) if many else rng.integers(0, 25) * (rng.random() < 0.8)):
            sides = rng.choice(EDGES, 2) if 'area boundaries' in features else rng.uniform(0, 180, 2)
            box, category = np.concatenate([rng.uniform(0, 150, 2), sides]), int(rng.choice(categories))
            if objects and rng.random() < 0.8:
                near, likely = objects[rng.integers(len(objects))]
                box = near + rng.normal(0, rng.choice([0, 1, 5, 15]), 4)
                box[2:] = abs(box[2:])
                category = likely if many or rng.random() < 0.8 else category
            box = box.round() if 'whole pixels' in features else box
            score = 0.5 if 'one score' in features else float(np.float32(rng.random()))
            score = round(score, 1) if 'score ties' in features else score
            records.append(
                {'image_id': img_id, 'category_id': category, 'bbox': box.tolist(), 'score': score}
            )
    if 'shuffled' in features:
        rng.shuffle(records)
    coco = index(
        images=[{'id': img_id} for img_id in img_ids],
        categories=[{'id': category, 'name': str(category)} for category in categories],
        annotations=annotations,
    )
    return coco, from_records(records), categories


def plain_pycocotools(coco: COCO, detections: CocoDetections) -> tuple[np.ndarray, np.ndarray]:
    """The 12 numbers and the table of precisions (T, R, K), the classes ordered by id."""
    truth = index(**copy.deepcopy(coco.dataset))
    rows = [
        {'id': number, 'image_id': image, 'category_id': category, 'bbox': bbox, 'score': score,
         'area': bbox[2] * bbox[3], 'iscrowd': 0}
        for number, (image, category, bbox, score) in enumerate(
            zip(*(column.tolist() for column in detections), strict=True), start=1
        )
    ]  # fmt: skip
    found = index(images=truth.dataset['images'], categories=truth.dataset['categories'], annotations=rows)
    evaluation = COCOeval(truth, found, 'bbox')
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, evaluation.eval['precision'][:, :, :, 0, 2]


def check(coco: COCO, detections: CocoDetections, categories: list[int]) -> None:
    """Every bit of what `score_with_hotcoco` returns is that of pycocotools."""
    stats, precision = plain_pycocotools(coco, detections)
    found = score_with_hotcoco(coco, detections, categories)
    np.testing.assert_array_equal(found.stats, stats)
    by_id = np.argsort(categories)
    np.testing.assert_array_equal(found.precision[:, :, by_id], precision)
    for column, category in enumerate(by_id):  # the table of the classes
        expected = precision[:, :, column][precision[:, :, column] > -1]
        assert mean_precision(found.precision[:, :, category]) == (expected.mean() if expected.size else -1)


@pytest.fixture
def native() -> None:
    pytest.importorskip('hotcoco')


@pytest.mark.usefixtures('native')
@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('feature', [*FEATURES, 'none'])
def test_each_difficulty_alone(feature: str) -> None:
    for seed in range(3):
        check(*draw(seed, frozenset([feature])))


@pytest.mark.usefixtures('native')
@given(
    st.integers(0, 10**6),
    st.frozensets(st.sampled_from(FEATURES)),
    st.integers(0, 9),
    st.sampled_from([*ID_KINDS]),
)
@settings(max_examples=30, deadline=None)
def test_all_difficulties_together(seed: int, features: frozenset[str], images: int, ids: str) -> None:
    check(*draw(seed, features, images, ids))


@pytest.mark.usefixtures('native')
@pytest.mark.parametrize('ids', ID_KINDS)
def test_nothing_detected_and_nothing_there(ids: str) -> None:
    coco, detections, categories = draw(0, ids=ids)
    nothing = from_records([])
    check(coco, nothing, categories)
    assert score_with_hotcoco(coco, nothing, categories).stats[0] == 0
    blank = index(**coco.dataset | {'annotations': []})
    check(blank, detections, categories)
    check(blank, nothing, categories)
    assert (score_with_hotcoco(blank, detections, categories).stats == -1).all()
    empty = index(**coco.dataset | {'annotations': [], 'images': []})
    check(empty, nothing, categories)


@pytest.mark.usefixtures('native')
def test_the_order_of_equal_scores_matters_and_is_kept() -> None:
    """Else the sets with ties would prove nothing."""
    coco, detections, categories = draw(3, frozenset(['one score', 'more than 100']))
    backwards = CocoDetections(*(column[::-1] for column in detections))
    for one in (detections, backwards):
        check(coco, one, categories)
    first, last = (score_with_hotcoco(coco, one, categories).stats for one in (detections, backwards))
    assert first[0] != last[0]


@pytest.mark.usefixtures('native')
def test_infinite_boxes_and_scores() -> None:
    coco, detections, categories = draw(1)
    detections.bboxes[::7, 2] = np.inf
    detections.scores[::5] = np.inf
    detections.scores[1::5] = -np.inf
    check(coco, detections, categories)


@pytest.mark.usefixtures('native')
def test_images_and_categories_that_do_not_count() -> None:
    """A class less: its objects and detections are passed over, and so are those of unknown images."""
    coco, detections, categories = draw(7)
    coco.dataset['annotations'].append({**coco.dataset['annotations'][0], 'id': 10**6, 'image_id': 999})
    detections.image_ids[::9] = 999
    detections.category_ids[1::9] = 998
    asked = categories[:0:-1]
    expected = score_with_pycocotools(coco, detections, asked)
    found = score_with_hotcoco(coco, detections, asked)
    np.testing.assert_array_equal(found.stats, expected.stats)
    np.testing.assert_array_equal(found.precision, expected.precision)
    assert found.precision.shape == (10, 101, len(categories) - 1)


@pytest.mark.parametrize('installed', [True, False])
def test_a_hand_made_case(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right ant at IoU 0.75, above it a wrong one; no bee. Classes come in the order asked for."""
    if not installed:
        monkeypatch.setitem(sys.modules, 'hotcoco', None)
    coco = index(
        images=[{'id': 1}],
        categories=[{'id': 3, 'name': 'ant'}, {'id': 8, 'name': 'bee'}],
        annotations=[
            {'id': 1, 'image_id': 1, 'category_id': 3, 'bbox': [0, 0, 40, 40], 'area': 1600, 'iscrowd': 0}
        ],
    )
    boxes = np.array([[100, 100, 40, 40], [0, 0, 40, 30]], float)
    detections = CocoDetections(np.array([1, 1]), np.array([3, 3]), boxes, np.array([0.9, 0.8]))
    found = evaluate_boxes(coco, detections, [8, 3])
    ap, recall = 0.6 * 0.5, 0.6  # 6 of 10 thresholds
    right = [ap, 0.5, 0.5, -1, ap, -1, 0, recall, recall, -1, recall, -1]
    assert found.stats == pytest.approx(right)
    assert (found.precision[:, :, 0] == -1).all()
    assert mean_precision(found.precision[:, :, 0]) == -1
    assert mean_precision(found.precision[:, :, 1]) == pytest.approx(0.3)
    assert [mean_precision(row) for row in found.precision] == pytest.approx([0.5] * 6 + [0] * 4)


@pytest.mark.parametrize(
    ('reason', 'said'),
    [('NaN in bboxes', 'NaN'), ('NaN in scores', 'NaN'), ('no hotcoco', 'pip install hotcoco')],
)
def test_pycocotools_scores_where_hotcoco_cannot(
    monkeypatch: pytest.MonkeyPatch, log_lines: list[str], reason: str, said: str
) -> None:
    coco, detections, categories = draw(2, frozenset(['crowds', 'score ties']))
    if reason == 'no hotcoco':
        monkeypatch.setitem(sys.modules, 'hotcoco', None)
    else:
        getattr(detections, reason.rsplit(maxsplit=1)[-1])[3] = math.nan
    stats, precision = plain_pycocotools(coco, detections)
    found = evaluate_boxes(coco, detections, categories)
    np.testing.assert_array_equal(found.stats, stats)
    np.testing.assert_array_equal(found.precision[:, :, np.argsort(categories)], precision)
    assert 'pycocotools' in log_lines[-1] and said in log_lines[-1]


@pytest.mark.usefixtures('native')
def test_hotcoco_scores_where_it_is(monkeypatch: pytest.MonkeyPatch, log_lines: list[str]) -> None:
    coco, detections, categories = draw(2)
    expected = score_with_hotcoco(coco, detections, categories)
    monkeypatch.setattr(coco_eval, 'score_with_pycocotools', None)
    np.testing.assert_array_equal(evaluate_boxes(coco, detections, categories).stats, expected.stats)
    assert not log_lines


@pytest.mark.parametrize(('area', 'meant'), [(5, 5), (None, 12), (float('nan'), 12), (1e400, 12), (..., 12)])
def test_objects_are_numbered_from_1_and_have_an_area(tmp_path: Path, area: Any, meant: float) -> None:
    """That of the box where none is given; objects without a finite box are dropped."""
    one = {'id': 0, 'image_id': 7, 'category_id': 3, 'bbox': [1, 2, 3, 4]} | (
        {} if area is ... else {'area': area}
    )
    content = {
        'images': [{'id': 7, 'file_name': 'a.jpg', 'width': 9, 'height': 9}],
        'categories': [{'id': 3, 'name': 'cat'}],
        'annotations': [
            {**one, 'id': 4, 'bbox': [1, None, 3, 4]},
            one,
            {**one, 'id': 5, 'bbox': [0, 0, 1e100, 1e100]},
        ],
    }
    file = tmp_path / 'any.json'
    file.write_text(json.dumps(content))
    coco = to_pycocotools(read_coco(file))
    assert [(one['id'], one['bbox']) for one in coco.anns.values()] == [
        (1, [1, 2, 3, 4]),
        (2, [0, 0, 1e100, 1e100]),
    ]
    assert coco.anns[1]['area'] == meant
    found = from_records([{**one, 'score': 0.5} for one in coco.dataset['annotations']])
    check(coco, found, [3])


def test_records_hold_what_detections_hold() -> None:
    record = {'image_id': 7, 'bbox': [0.1, 2.0, 3.0, 4.5], 'score': 0.3, 'category_id': 2}
    detections = from_records([record])
    assert as_records(detections) == [record]
    assert detections.bboxes.shape == (1, 4)
    assert as_records(from_records([])) == [] and from_records([]).bboxes.shape == (0, 4)

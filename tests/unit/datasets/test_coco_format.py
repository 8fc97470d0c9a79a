"""Every reader of annotation files: what a file holds is read well, or refused with its name and a remedy."""

import gzip
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from mmdet.config import resolve as config
from mmdet.datasets import annotations, coco_format
from mmdet.evaluation import coco_eval
from tests.unit.datasets.test_annotations import VALID, changes, make, places, quiet

REMEDY = r'Choose another|Give every entry an id|Rename all but one|Write it relative to|give it another one'
READERS = {
    'training': lambda file: annotations.read_annotations(file, None, True),
    'evaluation': coco_eval.read_annotations,
    'classes': config.read_classes,
}
WHOLE = json.dumps(VALID)
VALUES = (
    *(..., None, True, '', '../x', 'cat', '\ud800', [], {}, [1, 2, 3], [1, 2, 3, 1e400], [1, 2, None, 4]),
    *(-1, 0, 0.5, 2**53, 10**400, float('nan'), float('inf')),
)
NO_ANNOTATIONS = {
    'empty': b'',
    'zeros': b'\0' * 100,
    'cut off': WHOLE.encode()[: WHOLE.index('cat')],
    'compressed': gzip.compress(WHOLE.encode()),
    'Latin-1': WHOLE.replace('"cat"', '"chât"').encode('latin-1'),
    'a list': b'[]',
    'a number': b'7',
    'null': b'null',
    'lists without end': b'[' * 100_000,
    'categories without end': b'{"categories": ' + b'[' * 100_000 + b']' * 100_000 + b'}',
    'an id of 5,000 digits': WHOLE.replace('"id": 3', '"id": ' + '9' * 5000).encode(),
    'another layout': json.dumps({f'{i}.jpg': {'regions': []} for i in range(2000)}).encode(),
}


def read(reader: str, file: Path) -> Any:
    """What a reader returns, or the message of its refusal, which must help."""
    try:
        return READERS[reader](file)
    except ValueError as error:
        message = str(error)
        assert str(file) in message
        assert re.search(REMEDY, message), message
        assert len(message) < 1000 + len(WHOLE)
        return message


def write(file: Path, content: Any) -> Path:
    file.write_text(json.dumps(content), encoding='utf-8')
    return file


@pytest.mark.parametrize('name', NO_ANNOTATIONS)
@pytest.mark.parametrize('reader', READERS)
def test_what_is_no_annotation_file_is_refused(tmp_path, reader, name):
    file = tmp_path / 'some.json'
    file.write_bytes(NO_ANNOTATIONS[name])
    assert isinstance(read(reader, file), str)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32'])
@pytest.mark.parametrize('reader', READERS)
def test_what_json_may_be_written_in(tmp_path, reader, encoding):
    (tmp_path / 'some.json').write_bytes(WHOLE.encode(encoding))
    assert not isinstance(read(reader, tmp_path / 'some.json'), str)


def agree(file: Path) -> bool:
    """Whether training takes a file; what it takes the others take in the same way."""
    training, evaluation, classes = (read(reader, file) for reader in READERS)
    if isinstance(training, str):
        return False
    assert classes == training.classes
    assert sorted(evaluation.imgs) == sorted(training.img_ids.tolist())
    ids = dict(zip(training.classes, training.category_ids, strict=True))
    assert ids == {category['name']: number for number, category in evaluation.cats.items()}
    kept = [one for one in evaluation.anns.values() if not one['iscrowd']]
    dropped = [fault for fault in training.faults if fault.kind in ('outside', 'too_small')]
    assert len(kept) == len(training.bboxes) + len(dropped)
    return True


def score(coco: Any) -> None:
    """The objects themselves as detections, by both libraries."""
    objects = [one for one in coco.dataset.get('annotations', []) if one['image_id'] in coco.imgs]
    columns = (
        np.array([one[key] for one in objects], np.float64).reshape(-1, *shape)
        for key, shape in (('image_id', ()), ('category_id', ()), ('bbox', (4,)), ('iscrowd', ()))
    )
    images, categories, bboxes, scores = columns
    found = coco_eval.CocoDetections(images.astype(np.int64), categories.astype(np.int64), bboxes, scores)
    if 'annotations' in coco.dataset and coco.cats:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of overflow in boxes of 1e300 pixels
            one = coco_eval.score_with_pycocotools(coco, found, sorted(coco.cats))
            other = coco_eval.evaluate_boxes(coco, found, sorted(coco.cats))
        assert np.array_equal(one.stats, other.stats)


def test_every_place_with_every_kind_of_value(tmp_path):
    """One edit at a time: nothing but a good value or a refusal that helps."""
    cases = [(place, value) for place in places(VALID) for value in VALUES]
    taken = sum(agree(write(tmp_path / 'any.json', make([case]))) for case in cases)
    assert agree(write(tmp_path / 'any.json', VALID))
    assert 0 < taken < len(cases)


@quiet
@given(edits=changes)
def test_any_content_is_taken_by_all_readers_alike_and_can_be_scored(tmp_path: Path, edits: Any) -> None:
    file = write(tmp_path / 'any.json', make(edits))
    agree(file)
    evaluation = read('evaluation', file)
    if not isinstance(evaluation, str):
        score(evaluation)


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize(
    ('edit', 'words'),
    [
        ((('categories', 1, 'id'), 3), "1 ids occur more than once in 'categories', the first is 3"),
        ((('categories', 1, 'name'), 'cat'), "the categories [3, 1] have the same name 'cat'"),
        ((('categories', 0, 'name'), '\ud800'), 'is not text'),
        ((('categories', 0, 'id'), None), "'id of categories' must be a whole number, but one is None"),
        ((('categories', 1), 7), "entry 1 of 'categories' has no 'id'"),
        ((('categories',), {}), "has no list 'categories'; its keys are ['annotations', 'categories',"),
    ],
)
def test_categories_that_are_refused(tmp_path, reader, edit, words):
    assert words in read(reader, write(tmp_path / 'any.json', make([edit])))


@pytest.mark.parametrize(
    ('edit', 'words'),
    [
        ((('images', 1, 'id'), 7), "1 ids occur more than once in 'images', the first is 7"),
        ((('images', 0), None), "entry 0 of 'images' has no 'id'"),
        ((('annotations',), None), "has no list 'annotations'"),
        ((('annotations', 2), []), "entry 2 of 'annotations' has no 'image_id'"),
        ((('annotations', 2, 'bbox'), [1, 2, 3]), 'annotation 5 has the bbox [1, 2, 3], not four numbers'),
        ((('annotations', 2, 'area'), 'big'), "annotation 5 has the area 'big', not a number"),
        (
            (('annotations', 1, 'category_id'), 'dog'),
            "'category_id' must be a whole number, but one is 'dog'",
        ),
    ],
)
def test_what_evaluation_refuses(tmp_path, edit, words):
    assert words in read('evaluation', write(tmp_path / 'any.json', make([edit])))


@pytest.mark.parametrize(('area', 'meant'), [(5, 5), (None, 12), (float('nan'), 12), (1e400, 12), (..., 12)])
def test_the_area_is_that_of_the_box_where_none_is_given(tmp_path, area, meant):
    one = {'id': 4, 'image_id': 7, 'category_id': 3, 'bbox': [1, 2, 3, 4]} | (
        {} if area is ... else {'area': area}
    )
    coco = coco_eval.read_annotations(write(tmp_path / 'any.json', {**VALID, 'annotations': [one]}))
    assert [one['area'] for one in coco.dataset['annotations']] == [meant]


def test_the_box_that_is_wrong_is_named(tmp_path):
    """Not one with null in it, which is a missing number."""
    boxes = [[1, None, 3, 4], [1, 2, 3]]
    with pytest.raises(ValueError, match=r'annotation 12 has the bbox \[1, 2, 3\]'):
        coco_format.boxes_xywh(boxes, [11, 12], tmp_path / 'any.json')


def test_a_file_without_objects_has_nothing_to_score(tmp_path):
    content = {key: VALID[key] for key in ('images', 'categories')}
    for more in ({}, {'info': float('nan')}):  # read by msgspec, and by the standard library
        assert (
            'annotations'
            not in coco_eval.read_annotations(write(tmp_path / 'a.json', content | more)).dataset
        )

"""Annotation files are read well, or refused with their name, the entry and a remedy."""

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdet.datasets.coco_format import CocoFile, match_classes, read_classes, read_coco
from mmdet.datasets.training_boxes import select_boxes
from mmdet.evaluation.coco_eval import to_pycocotools

VALID: dict[str, Any] = {
    'images': [
        {'id': 7, 'file_name': 'a.jpg', 'width': 40, 'height': 30},
        {'id': 9, 'file_name': 'x..y/c.jpg', 'width': 20.0, 'height': 50},
    ],
    'categories': [{'id': 3, 'name': 'cat'}, {'id': 1, 'name': 'dog'}],
    'annotations': [
        {'id': 1, 'image_id': 7, 'category_id': 3, 'bbox': [1.0, 2.0, 10.0, 12.5], 'iscrowd': 0},
        {'id': 2, 'image_id': 9, 'category_id': 1, 'bbox': [0, 0, 30, 9], 'segmentation': [[1.5, 2, 3, 4]]},
        {'id': 5, 'image_id': 9, 'category_id': 1, 'bbox': [3, 3, 4, 4], 'iscrowd': 1, 'area': 9},
    ],
}
WHOLE = json.dumps(VALID)
REMEDY = r'Choose another|have its own|Write it relative to|give it another one'
VALUES = (
    *(..., None, True, '', '../x', 'cat', '\ud800', [], {}, [1, 2, 3], [1, 2, 3, 1e400], [1, 2, None, 4]),
    *(-1, 0, 0.5, 2**53, 10**400, float('nan'), float('inf')),
)
numbers = st.one_of(
    st.integers(-5, 60),
    st.integers(),
    st.floats(),
    st.sampled_from([-1, 2**53, 2**63, 10**400, 1e308, 0.5, 640.0]),
)
words = st.one_of(
    st.text(max_size=6),
    st.sampled_from(['a.jpg', '../a.jpg', '/a.jpg', 'a/../b', 'C:a', 'a\0', '\ud800', '', 'cat', 'x\\..\\y']),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.sampled_from(['id', 'name', 'bbox', 'x']), inner)
    ),
    max_leaves=6,
)


def places(content: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside."""
    inside = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [here, *(path for key, item in inside for path in places(item, (*here, key)))]


def make(edits: list[tuple[tuple[Any, ...], Any]]) -> Any:
    """`VALID` with other values at some places, or, with `...`, without what is there."""
    content = {'whole': copy.deepcopy(VALID)}
    for path, value in edits:
        *outer, last = ('whole', *path)
        try:
            holder: Any = content
            for key in outer:
                holder = holder[key]
            holder[last] = value
            if value is ...:
                del holder[last]
        except (KeyError, IndexError, TypeError):  # an earlier edit took the place away
            continue
    return content.get('whole', [])


changes = st.lists(
    st.tuples(st.sampled_from(places(VALID)), st.one_of(st.just(...), values)), min_size=1, max_size=3
)


def write(file: Path, content: Any) -> Path:
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


def read(file: Path, boxes_needed: bool = True) -> CocoFile | str:
    """The annotations, which must be sound, or the message of the refusal, which must help."""
    try:
        coco = read_coco(file, boxes_needed)
    except ValueError as error:
        message = str(error)
        assert str(file) in message
        assert re.search(REMEDY, message), message
        assert len(message) < 1000 + len(WHOLE)
        return message
    check(coco)
    return coco


def check(coco: CocoFile) -> None:
    """What training and evaluation rely on."""
    images, objects = len(coco.img_ids), len(coco.ann_ids)
    assert images == len(coco.file_names) == len(coco.sizes) == len(set(coco.img_ids.tolist())) > 0
    assert (coco.sizes >= 1).all()
    for name in coco.file_names:
        assert not Path(name.decode()).is_absolute() and '..' not in Path(name.decode()).parts
    assert coco.bboxes.shape == (objects, 4) and len(coco.areas) == len(coco.crowd) == objects
    for rows, count in ((coco.image_rows, images), (coco.category_rows, len(coco.category_ids))):
        assert ((rows >= 0) & (rows < count)).all() and len(rows) == objects
    assert read_classes(coco.file) == match_classes(coco, None) == tuple(coco.category_ids)

    boxes = select_boxes(coco, [*coco.category_ids])
    assert len(boxes.bboxes) == len(boxes.labels) == len(boxes.image_rows)
    assert (np.diff(boxes.image_rows) >= 0).all()
    limits = coco.sizes[boxes.image_rows][:, [1, 0, 1, 0]].astype(np.float32)
    assert (boxes.bboxes >= 0).all() and (boxes.bboxes <= limits).all()
    assert (boxes.bboxes[:, 2:] > boxes.bboxes[:, :2]).all()
    assert (
        len(boxes.bboxes) + sum(fault.kind != 'clipped' for fault in boxes.faults)
        == (~(coco.crowd | coco.ignored)).sum()
    )

    scored = to_pycocotools(coco)
    assert sorted(scored.imgs) == sorted(coco.img_ids.tolist())
    assert {one['name']: key for key, one in scored.cats.items()} == coco.category_ids
    assert len(scored.anns) == np.isfinite(coco.bboxes).all(1).sum()


quiet = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quiet
@given(edits=changes, boxes_needed=st.booleans())
def test_any_content_is_read_well_or_refused_by_both_parsers(
    tmp_path: Path, edits: Any, boxes_needed: bool
) -> None:
    """msgspec, and the standard library where msgspec gives up."""

    def refuse(*_: Any, **__: Any) -> None:
        raise msgspec.DecodeError('switched off')

    file = write(tmp_path / 'any.json', make(edits))
    fast = read(file, boxes_needed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(msgspec.json, 'decode', refuse)
        slow = read(file, boxes_needed)
    assert type(fast) is type(slow)
    for one, other in zip(fast, slow, strict=True):
        assert (
            np.array_equal(one, other, equal_nan=one.dtype.kind == 'f')
            if isinstance(one, np.ndarray)
            else one == other
        )


@quiet
@given(at=st.integers(0, len(WHOLE)), bytes_there=st.binary(max_size=4), cut=st.booleans())
def test_any_damage_is_read_well_or_refused(tmp_path: Path, at: int, bytes_there: bytes, cut: bool) -> None:
    text = WHOLE.encode()
    read(
        write(
            tmp_path / 'any.json', text[:at] + bytes_there + (b'' if cut else text[at + len(bytes_there) :])
        )
    )


def test_every_place_with_every_kind_of_value(tmp_path: Path) -> None:
    """One edit at a time: nothing but a good value or a refusal that helps."""
    cases = [(place, value) for place in places(VALID) for value in VALUES]
    taken = sum(not isinstance(read(write(tmp_path / 'any.json', make([case]))), str) for case in cases)
    assert not isinstance(read(write(tmp_path / 'any.json', VALID)), str)
    assert 0 < taken < len(cases)


@pytest.mark.parametrize(
    'content',
    [
        *(
            b'',
            b'\0' * 100,
            b'images: []',
            WHOLE.encode()[: WHOLE.index('cat')],
            gzip.compress(WHOLE.encode(), mtime=0),
        ),
        *(WHOLE.replace('"cat"', '"chât"').encode('latin-1'), b'\xff\xfe', b'{"a": 1e', b'[' * 100_000),
        b'{"categories": ' + b'[' * 100_000 + b']' * 100_000 + b'}',
        WHOLE.replace('"id": 3', '"id": ' + '9' * 5000).encode(),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path / 'some.json', content)
    for reader in (read_coco, read_classes):
        with pytest.raises(ValueError, match=rf'{file} is not a JSON file.*: .*train_ann=') as error:
            reader(file)
        assert ('not a JSON file, but a gzip file' in str(error.value)) == content.startswith(b'\x1f\x8b')


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32'])
def test_what_json_may_be_written_in(tmp_path: Path, encoding: str) -> None:
    assert not isinstance(read(write(tmp_path / 'some.json', WHOLE.encode(encoding))), str)


NAMES = (
    *('../secret.jpg', 'a/../../b.jpg', '..', 'a/..', '..\\b.jpg', 'a\\..\\b.jpg', '', '\ud800.jpg'),
    *('/etc/passwd', '\\\\host\\b.jpg', 'C:\\b.jpg', 'c:b.jpg', 'a\0b.jpg'),
)
NO_BOXES = ([1, 2, 3], [1, 2, 3, 4, 5], [], 'box', None, {'x': 1}, [1, 2, 3, 'x'], [1, 2, 3, 10**400])
KEYS = [
    *(('images', key) for key in ('id', 'file_name', 'width', 'height')),
    *(('categories', key) for key in ('id', 'name')),
    *(('annotations', key) for key in ('id', 'image_id', 'category_id', 'bbox')),
]
REFUSED: list[tuple[tuple[Any, ...], Any, str]] = [
    *((('images', 0, 'file_name'), name, f'image 7 has the file_name {name!r}') for name in NAMES),
    *((('images', 0, 'file_name'), name, "'$.images[0].file_name' (id 7)") for name in (7, None, ['a.jpg'])),
    (('images', 0, 'id'), -1, 'id -1, which stands for no image'),
    *((('images', 0, 'id'), value, "Expected 'int'") for value in ('1', 1.5, None, [1], 2**64, 1e300)),
    *((('images', 0, 'width'), value, "'int' >= 1 - at '$.images[0].width' (id 7)") for value in (0, -64)),
    *((('images', 0, 'height'), value, "'$.images[0].height' (id 7)") for value in (None, '48', 48.5)),
    *((('annotations', 0, 'image_id'), value, f'annotation 1 has image_id {value}') for value in (99, -1)),
    (('annotations', 0, 'category_id'), 9, 'annotation 1 has category_id 9'),
    (('annotations', 1, 'category_id'), 'dog', "'$.annotations[1].category_id' (id 2)"),
    (('annotations', 2, 'area'), 'big', "'$.annotations[2].area' (id 5)"),
    *(
        (('annotations', 1, key), value, f"at '$.annotations[1].{key}' (id 2)")
        for key in ('iscrowd', 'ignore')
        for value in ('0', 'false', 2, -1, 0.5, [], {})
    ),
    *((('annotations', 1, 'bbox'), value, "at '$.annotations[1].bbox") for value in NO_BOXES),
    *(((section, 1, key), ..., f"required field '{key}' - at '$.{section}[1]'") for section, key in KEYS),
    *(((section,), ..., section) for section in VALID),
*(
        ((section, 1, 'id'), entries[0]['id'], f"1 ids occur more than once in '{section}', the first is")
        for section, entries in VALID.items()
    ),
    (('categories', 1, 'name'), 'cat', "1 names occur more than once in 'categories', the first is 'cat'"),
    (('categories', 0, 'name'), '\ud800', 'is not text'),
    (('categories', 1), 7, "at '$.categories[1]' (7)"),
    (('categories',), [], "the list 'categories' is empty"),
    (('categories',), {}, "'$.categories'; its keys are ['annotations', 'categories', 'images']. Other"),
    (('images',), [], 'lists no images'),
    *(((), value, "Expected 'object'") for value in (None, [], 7)),
    ((), {f'{i}.jpg': {} for i in range(2000)}, "required field 'categories'; its keys are ['0.jpg'"),
]  # fmt: skip


@pytest.mark.parametrize(('place', 'value', 'said'), REFUSED)
def test_what_refuses_a_whole_file(tmp_path: Path, place: tuple[Any, ...], value: Any, said: str) -> None:
    """The message names file and entry, and for categories it is the same where only these are read."""
    file = write(tmp_path / 'some.json', make([(place, value)]))
    message = read(file)
    assert isinstance(message, str) and said in message
    if place[:1] == ('categories',):
        with pytest.raises(ValueError, match='some') as error:
            read_classes(file)
        assert str(error.value) == message


@pytest.mark.parametrize('value', [0, 1, True, False, None, 1.0, 0.0])
@pytest.mark.parametrize('key', ['iscrowd', 'ignore'])
def test_what_is_true(tmp_path: Path, key: str, value: Any) -> None:
    """What else there is refuses the file, see above."""
    coco = read_coco(write(tmp_path / 'some.json', make([(('annotations', 0, key), value)])))
    flags = coco.crowd if key == 'iscrowd' else coco.ignored
    assert flags.tolist() == [bool(value), False, key == 'iscrowd']


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / 'instances.json', VALID)
    for name, near in (('other', ''), ('instance', f' Did you mean {tmp_path}/instances.json?')):
        with pytest.raises(FileNotFoundError, match='train_ann=') as error:
            read_coco(tmp_path / f'{name}.json')
        assert f'{name}.json: the annotation file is missing.{near} Set' in str(error.value)


@pytest.mark.parametrize('value', [..., None])
def test_only_training_needs_annotations(tmp_path: Path, value: Any) -> None:
    file = write(tmp_path / 'some.json', make([(('annotations',), value)]))
    assert "no list 'annotations'" in str(read(file))
    coco = read_coco(file, boxes_needed=False)
    check(coco)
    assert not coco.has_annotations and 'annotations' not in to_pycocotools(coco).dataset


def test_classes_are_read_without_the_rest(tmp_path: Path) -> None:
    categories = [{'id': 2, 'name': 'é]"categories'}, {'id': 1, 'name': 'a', 'keypoints': ['x']}]
    info = {'description': 'the "categories": ["none"] are below', 'categories': [1]}
    file = write(tmp_path / 'some.json', {'info': info, 'categories': categories, 'images': 7})
    assert read_classes(file) == ('a', 'é]"categories')


def test_labels_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr('mmdet.datasets.coco_format.print_log', lambda line, logger: lines.append(line))
    coco = read_coco(write(tmp_path / 'some.json', VALID))
    assert match_classes(coco, ['cat', 'cloud', 'dog']) == ('cat', 'cloud', 'dog')
    assert select_boxes(coco, ('cat', 'cloud', 'dog')).labels.tolist() == [0, 2]
    assert select_boxes(coco, ('dog', 'cloud')).labels.tolist() == [0]
    assert 'knows no class cloud' in lines[0] and len(lines) == 1
    with pytest.raises(ValueError, match=r"no class in common.*'dog', 'cat'.*'person'"):
        match_classes(coco, ('person',))
    for classes in ('cat', ('cat', 'cat')):
        with pytest.raises(ValueError, match='list of different names'):
            match_classes(coco, classes)

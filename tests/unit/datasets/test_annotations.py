"""Reading annotation files: whatever a file holds, it is read well or refused with its name."""

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdet.datasets.annotations import Annotations, read_annotations

VALID: dict[str, Any] = {
    'images': [
        {'id': 7, 'file_name': 'a.jpg', 'width': 40, 'height': 30},
        {'id': 9, 'file_name': 'b/c.jpg', 'width': 20, 'height': 50},
    ],
    'categories': [{'id': 3, 'name': 'cat'}, {'id': 1, 'name': 'dog'}],
    'annotations': [
        {'id': 1, 'image_id': 7, 'category_id': 3, 'bbox': [1.0, 2.0, 10.0, 12.5], 'iscrowd': 0},
        {'id': 2, 'image_id': 9, 'category_id': 1, 'bbox': [0, 0, 30, 9], 'segmentation': [[1.5, 2, 3, 4]]},
        {'id': 5, 'image_id': 9, 'category_id': 1, 'bbox': [3, 3, 4, 4], 'iscrowd': 1},
    ],
}
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


def changed(content: Any, path: tuple[Any, ...], change: Any) -> Any:
    """The content with another value at a place, or, with `...`, without what is there."""
    if not path:
        return [] if change is ... else change
    content = copy.deepcopy(content)
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    if change is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = change
    return content


changes = st.lists(
    st.tuples(st.sampled_from(places(VALID)), st.one_of(st.just(...), values)), min_size=1, max_size=3
)


def make(edits: list[tuple[tuple[Any, ...], Any]]) -> Any:
    """`VALID`, edited where the earlier edits have left the place there."""
    content: Any = VALID
    for path, change in edits:
        try:
            content = changed(content, path, change)
        except (KeyError, IndexError, TypeError):
            continue
    return content


def read(file: Path, boxes_needed: bool = True) -> Annotations | str:
    """The annotations, or the message of the error."""
    try:
        return read_annotations(file, None, boxes_needed)
    except ValueError as error:
        return str(error)


def check(found: Annotations) -> None:
    """What everything behind the reader relies on."""
    images, boxes = len(found.img_ids), len(found.bboxes)
    assert images == len(found.file_names) == len(found.sizes) == len(found.first) - 1 > 0
    assert found.first[0] == 0 and found.first[-1] == boxes == len(found.labels)
    assert (np.diff(found.first) >= 0).all() and (found.sizes >= 1).all()
    assert len(set(found.img_ids.tolist())) == images
    assert ((found.labels >= 0) & (found.labels < len(found.classes))).all()
    assert np.isfinite(found.bboxes).all()
    limits = np.repeat(found.sizes, np.diff(found.first), axis=0)[:, [1, 0, 1, 0]]
    assert (found.bboxes >= 0).all() and (found.bboxes <= limits.astype(np.float32)).all()
    assert (found.bboxes[:, 2:] > found.bboxes[:, :2]).all()
    for name in found.file_names:
        assert not Path(name.decode()).is_absolute() and '..' not in Path(name.decode()).parts


quiet = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quiet
@given(edits=changes, boxes_needed=st.booleans())
def test_any_content_is_read_well_or_refused_by_name(tmp_path: Path, edits: Any, boxes_needed: bool) -> None:
    file = tmp_path / 'any.json'
    file.write_text(json.dumps(make(edits)), encoding='utf-8')
    found = read(file, boxes_needed)
    if isinstance(found, str):
        assert str(file) in found
    else:
        check(found)


@quiet
@given(edits=changes, boxes_needed=st.booleans())
def test_both_parsers_tell_the_same(tmp_path: Path, edits: Any, boxes_needed: bool) -> None:
    """msgspec, and the standard library where msgspec gives up."""

    def refuse(*_: Any, **__: Any) -> None:
        raise msgspec.DecodeError('switched off')

    file = tmp_path / 'any.json'
    file.write_text(json.dumps(make(edits)), encoding='utf-8')
    fast = read(file, boxes_needed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(msgspec.json, 'decode', refuse)
        slow = read(file, boxes_needed)
    assert type(fast) is type(slow)
    for one, other in zip(fast, slow, strict=True):
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(json.dumps(VALID))), bytes_there=st.binary(max_size=4), cut=st.booleans())
def test_any_damage_is_read_well_or_refused_by_name(
    tmp_path: Path, at: int, bytes_there: bytes, cut: bool
) -> None:
    file, text = tmp_path / 'any.json', json.dumps(VALID).encode()
    file.write_bytes(text[:at] + bytes_there + (b'' if cut else text[at + len(bytes_there) :]))
    found = read(file)
    if isinstance(found, str):
        assert str(file) in found
    else:
        check(found)

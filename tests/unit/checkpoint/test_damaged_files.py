"""Damage to a checkpoint is noticed or changes nothing, whatever byte it hits."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from tests.unit.checkpoint.test_safety import WEIGHTS, write_zip

CONTENT = {'state_dict': WEIGHTS, 'meta': {'epoch': 3, 'cfg': 'a = 1'}, 'optimizer': {'state': {0: [1.5]}}}
CHANGES = st.one_of(
    st.tuples(
        st.just('flip'), st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=3)
    ),
    st.tuples(st.just('cut'), st.floats(0, 1)),
    st.tuples(st.just('zero'), st.tuples(st.floats(0, 1), st.integers(1, 600))),
    st.tuples(st.just('drop'), st.tuples(st.floats(0, 1), st.integers(1, 100))),
)
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def changed(raw: bytes, change: tuple[str, Any]) -> bytes:
    kind, how = change
    content = bytearray(raw)
    if kind == 'flip':
        for place, bits in how:
            content[int(place * (len(raw) - 1))] ^= bits
    elif kind == 'cut':
        del content[int(how * (len(raw) - 1)) :]
    else:
        start = int(how[0] * (len(raw) - 1))
        block = content[start : start + how[1]]
        content[start : start + how[1]] = bytes(len(block)) if kind == 'zero' else b''
    return bytes(content)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp('good') / 'a.pth'
    torch.save(CONTENT, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes()
    save_checkpoint(CONTENT, path)
    return {'zip': path.read_bytes(), 'old': old}


@pytest.mark.parametrize('kind', ['zip', 'old'])
@QUICK
@given(change=CHANGES)
def test_damage_is_noticed_or_changes_nothing(files, kind, tmp_path, change):
    """The format before torch 1.6 holds no checksums: there it only never ends otherwise."""
    file = tmp_path / 'a.pth'
    file.write_bytes(changed(files[kind], change))
    try:
        content = load_checkpoint(file)
    except ValueError as error:
        assert str(file) in str(error)
    else:
        assert kind == 'old' or equal(content, CONTENT)


def test_every_byte_counts(files, tmp_path):
    """torch compares nothing: it reads all that are inside a tensor as other weights."""
    file, raw = tmp_path / 'a.pth', files['zip']
    start = raw.index(WEIGHTS['fc.weight'].numpy().tobytes())
    noticed = 0
    for place in range(len(raw)):
        file.write_bytes(raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :])
        try:
            content = load_checkpoint(file)
        except ValueError:
            noticed += start <= place < start + 24
        else:
            assert equal(content, CONTENT), place
    assert noticed == 24


FRAGMENTS = (
    *(b'}', b']', b')', b'(', b'N', b'\x88', b'K\x01', b'K\x00', b'X\x01\x00\x00\x00a', b'\x85', b'\x86'),
    *(b'\x87', b't', b'R', b'b', b'Q', b's', b'u', b'a', b'e', b'q\x00', b'h\x00', b'ctorch\nFloatStorage\n'),
    *(b'ccollections\nOrderedDict\n', b'ctorch._utils\n_rebuild_tensor_v2\n', b'X\x07\x00\x00\x00storage'),
    *(b'X\x01\x00\x00\x000', b'ccollections\nCounter\n', b'ctorch\nSize\n', b'X\x09\x00\x00\x00_metadata'),
    *(
        b'0',
        b'2',
        b'1',
        b'\x81',
        b'\x93',
        b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK\x06tQ',
    ),
)


@QUICK
@given(body=st.lists(st.sampled_from(FRAGMENTS), max_size=40))
def test_pickles_of_random_instructions(tmp_path, body):
    """With true checksums: what is refused is refused as a ValueError."""
    file = tmp_path / 'a.pth'
    write_zip(file, {'data.pkl': b'\x80\x02' + b''.join(body) + b'.', 'data/0': bytes(24), 'version': b'3\n'})
    with pytest.raises(ValueError, match=r'a\.pth'):
        load_checkpoint(file)

"""Files that are damaged, no checkpoints, or hostile are refused by name, without any effect."""

import argparse
import collections
import gzip
import io
import json
import logging
import os
import pickle
import re
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mmdet.checkpoint import io as io_module
from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from tests.helpers.tiny_run import ROOT

WEIGHTS = {'fc.weight': torch.arange(6.0).reshape(2, 3), 'fc.bias': torch.ones(2)}
CONTENT = {'state_dict': WEIGHTS, 'meta': {'epoch': 3, 'cfg': 'a = 1'}, 'optimizer': {'state': {0: [1.5]}}}
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def saved(content: Any, new: bool = True) -> bytes:
    """What torch writes, as a zip file or in the format before torch 1.6."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=new)
    return stream.getvalue()


def zipped(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', compression) as archive:
        for name, content in records.items():
            archive.writestr(f'archive/{name}', content)
    return stream.getvalue()


def records_of(raw: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name.partition('/')[2]: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / 'a.pth'


@pytest.fixture
def before_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch is not even asked, what others allow in it changes nothing, and no large memory is allocated."""
    monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('torch.load was called'))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (1 << 28), limits[1]))
    with torch.serialization.safe_globals([getattr, bytearray, set]):  # MMEngine allows the first
        yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


# Code


class Call:
    """Is unpickled as a call, and can be called itself."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __call__(self) -> None: ...

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


def objects(marker: Path) -> dict[str, Any]:
    """What would write `marker`, take all memory, or at least be somebody's code."""
    touch, write = f'touch {marker}', f'open({str(marker)!r}, "w")'
    of_os = Call(__import__, 'os')
    return {
        'os.system': Call(os.system, touch),
        'subprocess': Call(subprocess.check_call, ['touch', str(marker)]),
        'eval': Call(eval, write),
        'exec': Call(exec, write),
        'open': Call(open, str(marker), 'w'),
        'a log file': Call(logging.FileHandler, str(marker)),
        'a method': Call(Path.touch, marker),
        'getattr': Call(getattr, of_os, 'system'),
        'a chain of getattr': Call(Call(getattr, of_os, 'system'), touch),
        'getattr of what is allowed': Call(Call(getattr, torch.Size, '__class__'), 'A', (), {}),
        'getattr of builtins': Call(Call(getattr, Call(__import__, 'builtins'), 'eval'), write),
        'torch.load': Call(torch.serialization.load, str(marker)),
        'a function of torch': Call(torch.hub.download_url_to_file, f'file://{__file__}', str(marker)),
        'bytearray': Call(bytearray, 1 << 40),
        'a tensor made by its size': Call(torch.Tensor, 1 << 40),
        'a tensor without storage': Call(torch.empty, 1 << 40),
        'a set': {1, 2},
        'a path': Path('/etc/passwd'),
        'code among the settings of a script': argparse.Namespace(lr=Call(os.system, touch)),
        'an object among them': argparse.Namespace(device=torch.device('cpu')),
        'a dict with a function': collections.defaultdict(list, a=[1]),
        'a NumPy number': np.float64(0.5),
        'a whole model': nn.Linear(2, 2),
    }


def by_hand(marker: Path) -> dict[str, bytes]:
    """Pickles that Python's pickler would not write."""
    touch = f'touch {marker}'.encode()
    short = b'\x8c' + bytes([len(touch)]) + touch
    deep, pairs = b'q\x00h\x00\x86' * 1000, b'\x80\x02ccollections\nOrderedDict\n]]('
    return {
        'protocol 0': b"cposix\nsystem\n(S'" + touch + b"'\ntR.",
        'INST': b"\x80\x02(S'" + touch + b"'\niposix\nsystem\n.",
        'OBJ': b"\x80\x02(cposix\nsystem\nS'" + touch + b"'\no.",
        'NEWOBJ': b"\x80\x02cposix\nsystem\nS'" + touch + b"'\n\x85\x81.",
        'STACK_GLOBAL': b'\x80\x04\x8c\x05posix\x8c\x06system\x93' + short + b'\x85R.',
        'dotted name': b'\x80\x04\x8c\x08builtins\x8c\x0dopen.__call__\x93' + short + b'\x85R.',
        'renamed by Python 2': b'\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.',
        'EXT1': b'\x80\x02\x82\x01)R.',
        'PERSID': b'\x80\x02Pmodule\n.',
        'a module as storage': b'\x80\x02(X\x06\x00\x00\x00modulecposix\nsystem\ntQ.',
        'attributes of a list': b'\x80\x02]}X\x01\x00\x00\x00aK\x01sb.',
        'methods of a dict': b'\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.',
        'settings that are no dict': b'\x80\x02cargparse\nNamespace\n)\x81])' + deep + b'ab.',
        'settings from arguments': b'\x80\x02cargparse\nNamespace\nX\x01\x00\x00\x00a\x85\x81.',
        'a call of a number': b'\x80\x02ctorch\nFloatStorage\n)R.',
        'a key of nested tuples': b'\x80\x02})' + deep + b'K\x01s.',
        'a pair with such a key': pairs + b')' + deep + b'K\x01ea\x85R.',
        'a count of such keys': b'\x80\x02ccollections\nCounter\n])' + deep + b'a\x85R.',
        'a storage of such a kind': b'\x80\x02(X\x07\x00\x00\x00storage)'
        + deep
        + b'X\x01\x00\x00\x000NK\x01tQ.',
        'a call of such a thing': b'\x80\x02)' + deep + b')R.',
        'a string of gigabytes': b'\x80\x02X\xff\xff\xff\xffabc',
        'BYTEARRAY8': b'\x80\x05\x96' + struct.pack('<Q', 1 << 40) + b'abc',
        'no end': b'\x80\x02}',
        'an empty stack': b'\x80\x02.',
    }


MAGIC = b''.join(pickle.dumps(part, 2) for part in (torch.serialization.MAGIC_NUMBER, 1001, {}))
PLACES: dict[str, Callable[[Any], Any]] = {
    'everything': lambda bad: bad,
    'a weight': lambda bad: {'state_dict': {**WEIGHTS, 'bad': bad}},
    'meta': lambda bad: {'state_dict': WEIGHTS, 'meta': {'cfg': bad}},
    'optimizer': lambda bad: {'state_dict': WEIGHTS, 'optimizer': {'state': {0: [bad]}}},
}


def hostile_files(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Every object at every place, in torch's two formats and as a bare pickle; and those made by hand."""
    for name, bad in objects(marker).items():
        for place, nest in PLACES.items():
            yield f'{name} in {place}, zip', saved(nest(bad))
            yield f'{name} in {place}, old', saved(nest(bad), new=False)
        yield f'{name}, bare', pickle.dumps(bad)
    for name, content in by_hand(marker).items():
        yield f'{name}, zip', zipped({'data.pkl': content, 'version': b'3\n'})
        yield f'{name}, old', MAGIC + content + pickle.dumps([], 2)
        yield f'{name}, bare', content


def test_objects_are_refused_wherever_they_stand(file, before_torch):
    marker = file.with_name('ran')
    files = dict(hostile_files(marker))
    marker.unlink(missing_ok=True)  # pickling may touch it, unpickling must not
    for name, content in files.items():
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r'a\.pth (holds Python objects \(|.* or no checkpoint: )'):
            load_checkpoint(file)
            pytest.fail(name)
    assert not marker.exists()


def test_nothing_else_reads_checkpoints():
    """A teacher, a run to resume, weights to start from: all come through this one call."""
    sources = [file for folder in ('mmdet', 'tools', 'benchmarks') for file in (ROOT / folder).rglob('*.py')]
    readers = [file for file in sources if re.search(r'\b(torch|pickle|numpy|np)\.load', file.read_text())]
    assert readers == [Path(io_module.__file__)]


def test_strings_are_neither_run_nor_imported_nor_opened(file, monkeypatch):
    marker, module = file.with_name('ran'), file.with_name('hostile_module.py')
    module.write_text(f'open({str(marker)!r}, "w")')
    monkeypatch.syspath_prepend(module.parent)
    code = f'import os\nos.system("touch {marker}")\n'
    meta = {
        **dict.fromkeys(('cfg', 'config', 'env_info'), code),
        **dict.fromkeys(('_base_', 'filename', 'work_dir'), str(module)),
        **dict.fromkeys(('type', '_target_'), 'os.system'),
        'custom_imports': {'imports': ['hostile_module'], 'allow_failed_imports': False},
        'hook_msgs': {'last_ckpt': 'file:///etc/passwd'},
        'dataset_meta': {'classes': ['__import__("hostile_module")', f'`touch {marker}`', '/etc/passwd']},
    }
    save_checkpoint({'state_dict': WEIGHTS, 'meta': meta}, file)
    load_checkpoint(file)  # imports what torch imports late
    events: list[tuple[str, Any]] = []
    active = {'open', 'import', 'exec', 'compile', 'os.system', 'subprocess.Popen', 'socket.connect'}
    sys.addaudithook(lambda event, args: events.append((event, args[0])) if event in active else None)
    assert load_checkpoint(file)['meta'] == meta
    active.clear()  # a hook cannot be removed
    assert events == [('open', str(file))]


# Sizes


def bombs() -> Iterator[tuple[str, bytes, str]]:
    """Name, content, what it is refused for."""
    raw, old = saved({'state_dict': WEIGHTS}), saved({'state_dict': WEIGHTS}, new=False)
    records = records_of(raw)
    shape, items, huge = b'K\x02K\x03\x86', b'K\x06tq', b'J\xff\xff\xff\x7f'
    for name, old_part, new_part, words in (
        ('items', items, huge + b'tq', 'record 0 should have 8,589,934,588 bytes'),
        ('negative items', items, b'J\xff\xff\xff\xfftq', 'is no storage'),
        ('text as shape', shape, b'X\x01\x00\x00\x00aK\x03\x86', 'more numbers than its record'),
        ('shape', shape, b'K\x02K\x04\x86', 'more numbers than its record'),
        ('huge shape', shape, huge * 2 + b'\x86', 'more numbers than its record'),
        ('negative shape', shape, b'J\xfe\xff\xff\xffJ\xfd\xff\xff\xff\x86', 'more numbers than its record'),
        ('many dimensions', shape, b'(' + b'K\x01' * 65 + b't', 'more numbers than its record'),
    ):
        yield name, zipped({**records, 'data.pkl': records['data.pkl'].replace(old_part, new_part)}), words
    for name, change, words in (
        ('no record', {'data/1': b''}, 'record 1 should have'),
        ('short record', {'data/0': bytes(20)}, 'record 0 should have'),
        ('two names', {'DATA/0': bytes(24)}, 'same name'),
    ):
        yield name, zipped({**records, **change}), words
    yield 'deflated', zipped({**records, 'data/0': bytes(24)}, zipfile.ZIP_DEFLATED), 'compressed'
    yield 'a thousandth', zipped({**records, 'data/0': bytes(1 << 22)}, zipfile.ZIP_DEFLATED), 'compressed'
    yield 'LZMA', zipped(records, zipfile.ZIP_LZMA), 'compressed'
    entry, claimed = raw.index(b'PK\x01\x02'), struct.pack('<II', 0xFFFFFFF0, 0xFFFFFFF0)
    yield 'list', raw[: entry + 20] + claimed + raw[entry + 28 :], 'records claim more bytes'
    yield 'appended', raw + b'\0', 'followed by other bytes'
    yield 'commented', raw[:-2] + b'\x03\x00abc', 'followed by other bytes'
    yield 'prefixed', raw[:4] + bytes(100) + raw[4:], 'not where its end says'
    yield 'two archives', raw + raw, 'not where its end says'
    yield 'zip64 end elsewhere', raw[:-34] + struct.pack('<Q', 5) + raw[-26:], 'not where its end says'
    repeated = saved({'state_dict': {'a': torch.zeros(1).expand(1 << 40)}})
    yield 'repeated', repeated, 'more numbers than its record'
    yield 'old items', old.replace(items[:2] + b'Nt', huge + b'Nt'), 'should end at byte'
    yield 'old shape', old.replace(shape, b'K\x02K\x04\x86'), 'more numbers than its record'
    end = old.rindex(b'\x80\x02]')
    first, second = (key.encode() for key in pickle.loads(old[end:]))
    yield 'old keys', old[:end] + old[end:].replace(second, first), 'should end at byte'
    yield 'old longer', old + b'\0', 'should end at byte'
    yield 'old shorter', old[:-1], 'should end at byte'


@pytest.mark.parametrize(('content', 'words'), [pytest.param(*rest, id=name) for name, *rest in bombs()])
def test_what_claims_more_than_it_holds_costs_no_memory(file, before_torch, content, words):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf'a\.pth \([\d,]+ bytes\) is damaged or no .*({words})'):
        load_checkpoint(file)


def test_torch_refuses_what_is_left_to_it(file):
    """Strides and offsets beyond the record, counts before the tensors of an old file."""
    records, old = records_of(saved(CONTENT)), saved(CONTENT, new=False)
    stride, offset = (b'K\x03K\x01\x86', b'K\x09K\x01\x86'), (b'QK\x00K\x02K\x03', b'QK\x01K\x02K\x03')
    made = [{**records, 'data.pkl': records['data.pkl'].replace(*change)} for change in (stride, offset)]
    old_count = old.replace(struct.pack('<q', 6), struct.pack('<q', 1 << 40))
    memo_of_gigabytes = zipped({'data.pkl': b'\x80\x02}r\xff\xff\xff\xff.', 'version': b'3\n'})
    for content in (old_count, *map(zipped, made), memo_of_gigabytes):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r'or no checkpoint: RuntimeError: .*storage|holds no weights'):
            load_checkpoint(file)


# Other formats


def other_formats() -> dict[str, tuple[bytes, str]]:
    """What people have renamed to .pth, and what the message calls it."""
    photo = np.zeros((8, 8, 3), np.uint8)
    tar, jit = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode='w') as archive:
        archive.add(__file__)
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), jit)
    header = json.dumps({'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}}).encode()
    return {
        'JPEG': (cv2.imencode('.jpg', photo)[1].tobytes(), 'a JPEG image'),
        'PNG': (cv2.imencode('.png', photo)[1].tobytes(), 'a PNG image'),
        'gzip': (gzip.compress(saved(CONTENT)), 'a gzip file, to be unpacked'),
        'tar': (tar.getvalue(), 'a tar archive'),
        'safetensors': (struct.pack('<Q', len(header)) + header + bytes(3), '(?i:incomplete)'),
        'safetensors without end': (struct.pack('<Q', 1 << 40) + header, '(?i:header ?too ?large)'),
        'page': (b'\n<!DOCTYPE html><html>404 Not Found</html>', 'a web page, perhaps of a download'),
        'git-lfs': (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', '`git lfs pull`'),
        'text': (b'not a checkpoint at all', 'it is text'),
        'JSON': (b'{"state_dict": {}}', 'it is text'),
        'NumPy': (b'\x93NUMPY\x01\x00' + bytes(100), 'an array of NumPy'),
        'empty': (b'', 'empty'),
        'zeros': (bytes(1000), 'begins with zeros'),
        'zip': (zipped({'readme.txt': b'hello'}), 'torch.save has not written'),
        'TorchScript': (jit.getvalue(), 'a TorchScript program'),
        'pickle': (pickle.dumps({'state_dict': {}}), 'a pickle that torch.save has not written'),
    }


@pytest.mark.filterwarnings('ignore:`torch.jit')
def test_other_formats_are_named(file, before_torch):
    for name, (content, words) in other_formats().items():
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf'a\.pth \(\d.*{words}.*again\.'):
            load_checkpoint(file)
            pytest.fail(name)


# Damage


def changed(raw: bytes, kind: str, place: float, size: int) -> bytes:
    """Flip some bits of one byte, or zero or drop some bytes."""
    start = int(place * (len(raw) - 1))
    block = raw[start : start + (1 if kind == 'flip' else size)]
    new = {'flip': bytes([block[0] ^ (size % 255 + 1)]), 'zero': bytes(len(block)), 'drop': b''}
    return raw[:start] + new[kind] + raw[start + len(block) :]


def flat(content: Any) -> str:
    """Equal texts: equal contents."""
    return json.dumps(content, default=lambda tensor: [str(tensor.dtype), tensor.tolist()])


@pytest.mark.parametrize('new', [True, False])
@QUICK
@given(st.sampled_from(['flip', 'zero', 'drop']), st.floats(0, 1), st.integers(1, 600) | st.just(1 << 20))
def test_damage_is_noticed_or_changes_nothing(file, new, kind, place, size):
    """The format before torch 1.6 holds no checksums: there it only never ends otherwise."""
    file.write_bytes(changed(saved(CONTENT, new), kind, place, size))
    try:
        content = load_checkpoint(file)
    except ValueError as error:
        assert str(file) in str(error)
    else:
        assert not new or flat(content) == flat(CONTENT)


@pytest.mark.parametrize('step', [37, pytest.param(1, marks=pytest.mark.long)])
def test_every_byte_of_a_tensor_counts(file, step):
    """torch compares nothing: it reads each flipped one as another weight. Of the others a sample."""
    raw = saved(CONTENT)
    start = raw.index(WEIGHTS['fc.weight'].numpy().tobytes())
    weights = range(start, start + 24)
    for place in {*weights, *range(0, len(raw), step)}:
        file.write_bytes(raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :])
        try:
            content = load_checkpoint(file)
        except ValueError:
            continue
        assert place not in weights and flat(content) == flat(CONTENT), place


FRAGMENTS = (
    *(b'}', b']', b')', b'(', b'N', b'\x88', b'K\x01', b'K\x00', b'X\x01\x00\x00\x00a', b'\x85', b'\x86'),
    *(b'\x87', b't', b'R', b'b', b'Q', b's', b'u', b'a', b'e', b'q\x00', b'h\x00', b'ctorch\nFloatStorage\n'),
    *(b'ccollections\nOrderedDict\n', b'ctorch._utils\n_rebuild_tensor_v2\n', b'X\x07\x00\x00\x00storage'),
    *(b'X\x01\x00\x00\x000', b'ccollections\nCounter\n', b'ctorch\nSize\n', b'X\x09\x00\x00\x00_metadata'),
    *(b'0', b'2', b'1', b'\x81', b'\x93'),
    b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK\x06tQ',
)


@QUICK
@given(body=st.lists(st.sampled_from(FRAGMENTS), max_size=40))
def test_pickles_of_random_instructions(file, body):
    """With true checksums: what is refused is refused as a ValueError."""
    records = {'data.pkl': b'\x80\x02' + b''.join(body) + b'.', 'data/0': bytes(24), 'version': b'3\n'}
    file.write_bytes(zipped(records))
    with pytest.raises(ValueError, match=r'a\.pth'):
        load_checkpoint(file)

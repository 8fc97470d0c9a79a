"""Files that are no checkpoints, or that want to be more: refused by name, without any effect."""

import argparse
import collections
import gzip
import io
import json
import logging
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mmdet.apis import init_detector
from mmdet.checkpoint import io as module
from mmdet.checkpoint.io import load_checkpoint, load_weights, outline_checkpoint, save_checkpoint
from mmdet.distillation import FrozenTeacher
from mmdet.distillation import teacher as teacher_module
from tests.helpers.tiny_run import (
    PLAIN,
    options_of,
)

WEIGHTS = {'fc.weight': torch.arange(6.0).reshape(2, 3), 'fc.bias': torch.ones(2)}
REFUSED = r'holds Python objects \(|is damaged or no checkpoint: |holds no weights'


class Call:
    """Is unpickled as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __call__(self) -> None:
        """What is called may itself be the result of a call."""

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
        'arguments of a program': argparse.Namespace(lr=0.1),
        'a dict with a function': collections.defaultdict(list, a=[1]),
        'a NumPy number': np.float64(0.5),
        'a whole model': nn.Linear(2, 2),
    }


def by_hand(marker: Path) -> dict[str, bytes]:
    """Pickles that Python's pickler would not write."""
    touch = f'touch {marker}'.encode()
    short = b'\x8c' + bytes([len(touch)]) + touch
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
        'a call of a number': b'\x80\x02ctorch\nFloatStorage\n)R.',
        'a key of nested tuples': b'\x80\x02})' + b'\x85' * 10_000 + b'K\x01s.',
        'a memo of gigabytes': b'\x80\x02}r\xff\xff\xff\xff.',
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


def write_zip(path: Path, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, content in records.items():
            archive.writestr(f'archive/{name}', content)


def write_all(folder: Path, marker: Path) -> list[Path]:
    """Every object at every place, in torch's two formats and as a bare pickle; and those made by hand."""
    files = []
    for name, bad in objects(marker).items():
        for place, nest in PLACES.items():
            stem = f'{name} in {place}'.replace(' ', '_')
            for kind, new in (('zip', True), ('old', False)):
                files.append(folder / f'{stem}_{kind}.pth')
                torch.save(nest(bad), files[-1], _use_new_zipfile_serialization=new)
        files.append(folder / f'{name.replace(" ", "_")}_bare.pth')
        files[-1].write_bytes(pickle.dumps(bad))
    for name, content in by_hand(marker).items():
        stem = name.replace(' ', '_')
        files += [folder / f'{stem}_{kind}.pth' for kind in ('hand', 'hand_old', 'hand_bare')]
        write_zip(files[-3], {'data.pkl': content, 'version': b'3\n'})
        files[-2].write_bytes(MAGIC + content + pickle.dumps([], 2))
        files[-1].write_bytes(content)
    return files


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch must not even be asked."""

    def load(*args: Any, **keywords: Any) -> None:
        raise AssertionError('torch.load was called')

    monkeypatch.setattr(module.torch, 'load', load)


@pytest.fixture
def traced() -> Any:
    """Memory that Python takes is counted; storages are never made here."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_objects_are_refused_wherever_they_stand(tmp_path, no_torch, traced, monkeypatch):
    """At three doors: a checkpoint, a checkpoint to resume, a teacher."""
    marker = tmp_path / 'ran'
    files = write_all(tmp_path, marker)
    marker.unlink(missing_ok=True)  # pickling may touch it, unpickling must not
    monkeypatch.setattr(teacher_module, 'build_classifier', lambda arch, num_classes: nn.Linear(3, 2))
    assert len(files) == 255
    tracemalloc.reset_peak()
    for file in files:
        for door in (load_checkpoint, outline_checkpoint, lambda file: FrozenTeacher('any', str(file), 2)):
            with pytest.raises(ValueError, match=REFUSED) as caught:
                door(file)
            message = str(caught.value)
            assert message.startswith(str(file)), message
            if 'Python objects' in message:
                assert f'python -m mmdet.checkpoint.io {file}' in message
                assert '--trust-checkpoint' in message
    assert tracemalloc.get_traced_memory()[1] < 100e6
    assert not marker.exists()


def test_the_allow_list_of_others_is_not_used(tmp_path):
    """What an imported package allows in torch (here as MMEngine does while it loads) is refused."""
    torch.save({'state_dict': WEIGHTS, 'x': Call(getattr, 'a', 'upper')}, tmp_path / 'a.pth')
    with torch.serialization.safe_globals([getattr]):
        assert torch.load(tmp_path / 'a.pth', weights_only=True)['x']() == 'A'
        with pytest.raises(ValueError, match=r'GLOBAL .*getattr'):
            load_checkpoint(tmp_path / 'a.pth')


# Strings are strings


@pytest.fixture
def watched() -> Any:
    """Files that are opened and programs that are run while the list is cleared and read."""
    events: list[tuple[str, str]] = []
    active = [True]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if active[0] and event in (
            'open',
            'exec',
            'compile',
            'os.system',
            'subprocess.Popen',
            'socket.connect',
        ):
            events.append((event, str(args[0])))

    sys.addaudithook(watch)  # cannot be removed
    yield events
    active[0] = False


def hostile_meta(folder: Path) -> dict[str, Any]:
    """Strings that a careless reader would run, import or open."""
    marker = folder / 'ran'
    (folder / 'hostile_module.py').write_text(f'open({str(marker)!r}, "w")')
    code = f'import os\nos.system("touch {marker}")\n'
    return {
        'cfg': code,
        'config': code,
        'custom_imports': {'imports': ['hostile_module'], 'allow_failed_imports': False},
        '_base_': str(folder / 'hostile_module.py'),
        'type': 'os.system',
        '_target_': 'hostile_module.run',
        'work_dir': '/etc/passwd',
        'filename': str(folder / 'hostile_module.py'),
        'hook_msgs': {'last_ckpt': 'file:///etc/passwd'},
        'env_info': f'{{{{ $(touch {marker}) }}}}',
        'dataset_meta': {'classes': ['__import__("hostile_module")', f'`touch {marker}`', '/etc/passwd']},
    }


def test_strings_are_neither_run_nor_imported_nor_opened(tmp_path, watched, monkeypatch):
    meta, file = hostile_meta(tmp_path), tmp_path / 'a.pth'
    monkeypatch.syspath_prepend(tmp_path)
    save_checkpoint({'state_dict': WEIGHTS, 'meta': meta}, file)
    load_checkpoint(file)
    watched.clear()
    assert load_checkpoint(file)['meta'] == meta
    assert watched == [('open', str(file))]
    watched.clear()
    assert outline_checkpoint(file)['meta'] == meta
    assert watched == [('open', str(file))]

    content = load_checkpoint(file)
    model = init_detector(PLAIN, None, 'cpu', options_of(**{'model__bbox_head__num_classes': 3}))
    save_checkpoint({**content, 'state_dict': model.state_dict()}, file)
    loaded = init_detector(PLAIN, file, 'cpu', options_of())
    assert loaded.dataset_meta['classes'] == tuple(meta['dataset_meta']['classes'])
    assert 'hostile_module' not in sys.modules
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    'meta', ['text', [1], {'dataset_meta': 'text'}, {'CLASSES': 3}, {'dataset_meta': {'classes': [1, 2]}}]
)
def test_meta_of_another_form(tmp_path, meta):
    torch.save({'state_dict': WEIGHTS, 'meta': meta}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'a\.pth: its '):
        load_checkpoint(tmp_path / 'a.pth')


# Sizes


def records_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name.partition('/')[2]: archive.read(name) for name in archive.namelist()}


def bombs(folder: Path) -> list[tuple[str, Path]]:
    """What each should be refused for, and the file."""
    good = folder / 'good.pth'
    torch.save({'state_dict': WEIGHTS}, good)
    records, raw = records_of(good), good.read_bytes()
    shape, items = b'K\x02K\x03\x86', b'K\x06tq'
    assert records['data.pkl'].count(shape) == records['data.pkl'].count(items) == 1
    huge = b'J\xff\xff\xff\x7f'

    def pickled(old: bytes, new: bytes) -> dict[str, bytes]:
        return {**records, 'data.pkl': records['data.pkl'].replace(old, new)}

    made = {
        ('compressed', 'deflated'): (records | {'data/0': bytes(24)}, zipfile.ZIP_DEFLATED),
        ('compressed', 'a_thousandth'): (records | {'data/0': bytes(1 << 22)}, zipfile.ZIP_DEFLATED),
        ('compressed', 'lzma'): (records, zipfile.ZIP_LZMA),
        ('record 0 should have 8,589,934,588 bytes', 'items'): (pickled(items, huge + b'tq'), 0),
        ('no size', 'negative_items'): (pickled(items, b'J\xff\xff\xff\xfftq'), 0),
        ('no size', 'text_as_shape'): (pickled(shape, b'X\x01\x00\x00\x00aK\x03\x86'), 0),
        ('more than its record', 'shape'): (pickled(shape, b'K\x02K\x04\x86'), 0),
        ('more than its record', 'huge_shape'): (pickled(shape, huge * 2 + b'\x86'), 0),
        ('no size', 'negative_shape'): (pickled(shape, b'J\xfe\xff\xff\xffJ\xfd\xff\xff\xff\x86'), 0),
        ('more than its record', 'offset'): (pickled(b'QK\x00' + shape, b'QK\x01' + shape), 0),
        ('more than its record', 'stride'): (pickled(b'K\x03K\x01\x86', b'K\x09K\x01\x86'), 0),
        ('record 1 should have', 'no_record'): ({k: v for k, v in records.items() if k != 'data/1'}, 0),
        ('record 0 should have', 'short_record'): ({**records, 'data/0': bytes(20)}, 0),
        ('same name', 'two_names'): ({**records, 'DATA/0': bytes(24)}, 0),
        ('not written', 'no_pickle'): ({'data/0': bytes(24)}, 0),
    }
    cases = []
    for (words, name), (content, compression) in made.items():
        cases.append((words, folder / f'{name}.pth'))
        write_zip(cases[-1][1], content, compression)

    def put(name: str, words: str, content: bytes) -> None:
        cases.append((words, folder / f'{name}.pth'))
        cases[-1][1].write_bytes(content)

    entry = raw.index(b'PK\x01\x02')
    claimed = struct.pack('<II', 0xFFFFFFF0, 0xFFFFFFF0)
    put('central', 'claim 4,294,967', raw[: entry + 20] + claimed + raw[entry + 28 :])
    put('appended', 'followed by other bytes', raw + b'\0')
    put('commented', 'followed by other bytes', raw[:-2] + b'\x03\x00abc')
    put('prefixed', 'not where its end says|not at the end', raw[:4] + bytes(100) + raw[4:])
    put('two_archives', 'not where its end says|not at the end', raw + raw)
    repeated = folder / 'repeated.pth'
    torch.save({'state_dict': {'a': torch.zeros(1).expand(1 << 40)}}, repeated)
    cases.append(('more than its record', repeated))
    torch.save({'state_dict': WEIGHTS}, good, _use_new_zipfile_serialization=False)
    old = good.read_bytes()
    put('old_items', 'should have', old.replace(items[:2] + b'Nt', huge + b'Nt'))
    put('old_shape', 'more than its record', old.replace(shape, b'K\x02K\x04\x86'))
    put('old_count', 'should have', old.replace(struct.pack('<q', 6), struct.pack('<q', 1 << 40)))
    put('old_longer', 'follow its last record', old + b'\0')
    put('old_shorter', 'ends within', old[:-1])
    return cases


def test_what_claims_more_than_it_holds_costs_no_memory(tmp_path, no_torch, traced):
    cases = bombs(tmp_path)
    assert len({path for _, path in cases}) == len(cases) == 26
    for words, path in cases:
        tracemalloc.reset_peak()
        with pytest.raises(ValueError, match=rf'{path.name} \([\d,]+ bytes\) is damaged or no .*({words})'):
            load_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6, path.name


def test_weights_of_another_kind_or_shape_are_refused():
    model = nn.Sequential(collections.OrderedDict(fc=nn.Linear(3, 2)))
    load_weights(model, {name: value.double() for name, value in WEIGHTS.items()}, 'x.pth')
    for wrong in (WEIGHTS['fc.weight'].long(), WEIGHTS['fc.weight'] > 2):
        with pytest.raises(ValueError, match=rf'x\.pth does not fit .*fc\.weight is {wrong.dtype}'):
            load_weights(model, {**WEIGHTS, 'fc.weight': wrong}, 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth does not fit (?s:.*)size mismatch'):
        load_weights(model, {**WEIGHTS, 'fc.weight': torch.zeros(3, 2)}, 'x.pth')


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), float('-inf')])
def test_weights_that_are_not_finite_are_told(tmp_path, bad, recwarn):
    save_checkpoint(WEIGHTS | {'large': torch.full((9,), 3e38)}, tmp_path / 'a.pth')
    load_checkpoint(tmp_path / 'a.pth')
    assert not recwarn.list
    save_checkpoint(WEIGHTS | {'fc.bias': torch.tensor([1.0, bad])}, tmp_path / 'a.pth')
    with pytest.warns(UserWarning, match=r'a\.pth: 1 of 2 tensors hold NaN or infinite .* is fc\.bias'):
        load_checkpoint(tmp_path / 'a.pth')


# Other formats


def other_formats() -> dict[str, tuple[bytes, str]]:
    """What people have renamed to .pth, and what the message calls it."""
    photo = np.zeros((8, 8, 3), np.uint8)
    tar, jit = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode='w') as archive:
        archive.add(__file__)
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), jit)
    header = json.dumps({'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}}).encode()
    saved, plain_zip = io.BytesIO(), io.BytesIO()
    torch.save({'state_dict': WEIGHTS}, saved)
    with zipfile.ZipFile(plain_zip, 'w') as archive:
        archive.writestr('readme.txt', 'hello')
    return {
        'JPEG': (cv2.imencode('.jpg', photo)[1].tobytes(), 'a JPEG image'),
        'PNG': (cv2.imencode('.png', photo)[1].tobytes(), 'a PNG image'),
        'gzip': (gzip.compress(saved.getvalue()), 'a gzip file, to be unpacked'),
        'tar': (tar.getvalue(), 'a tar archive'),
        'safetensors': (struct.pack('<Q', len(header)) + header + bytes(4), 'a safetensors file'),
        'page': (b'\n<!DOCTYPE html><html>404 Not Found</html>', 'a web page, perhaps of a download'),
        'git-lfs': (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', '`git lfs pull`'),
        'text': (b'not a checkpoint at all', 'it is text'),
        'JSON': (b'{"state_dict": {}}', 'it is text'),
        'NumPy': (b'\x93NUMPY\x01\x00' + bytes(100), 'of no known format'),
        'empty': (b'', 'empty'),
        'zeros': (bytes(1000), 'begins with zeros'),
        'zip': (plain_zip.getvalue(), 'torch.save has not written'),
        'TorchScript': (jit.getvalue(), 'a TorchScript program'),
        'pickle': (pickle.dumps({'state_dict': {}}), 'a pickle that torch.save has not written|breaks off'),
    }


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_other_formats_are_named(tmp_path, no_torch, monkeypatch, suffix):
    monkeypatch.setattr(teacher_module, 'build_classifier', lambda arch, num_classes: nn.Linear(3, 2))
    for name, (content, words) in other_formats().items():
        file = tmp_path / f'{name}{suffix}'
        file.write_bytes(content)
        for door in (load_checkpoint, lambda file: FrozenTeacher('any', str(file), 2)):
            with pytest.raises(ValueError, match=rf'{re.escape(file.name)} \(\d.*{words}.*again\.'):
                door(file)


def test_what_is_no_file(tmp_path):
    (tmp_path / 'folder').mkdir()
    with pytest.raises(ValueError, match=r'folder is a folder; give a checkpoint in it, .*latest\.pth'):
        load_checkpoint(tmp_path / 'folder')
    (tmp_path / 'loop').symlink_to('loop')
    (tmp_path / 'nowhere').symlink_to('gone.pth')
    os.mkfifo(tmp_path / 'pipe')
    for name, words in (
        ('loop', 'which links to loop'),
        ('nowhere', 'which links to gone.pth'),
        ('pipe', ''),
    ):
        with pytest.raises(FileNotFoundError, match=rf'checkpoint not found: .*{name}.*{words}'):
            load_checkpoint(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_file_that_may_not_be_read(tmp_path):
    save_checkpoint(WEIGHTS, tmp_path / 'a.pth')
    (tmp_path / 'a.pth').chmod(0)
    with pytest.raises(ValueError, match=r'a\.pth cannot be read: Permission denied'):
        load_checkpoint(tmp_path / 'a.pth')

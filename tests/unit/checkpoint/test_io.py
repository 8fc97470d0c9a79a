"""Checkpoint files: plain, whole, safe."""

import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmdet.checkpoint import io as module
from mmdet.checkpoint.io import (
    checkpoint_classes,
    load_checkpoint,
    load_weights,
    rewrite_trusted,
    save_checkpoint,
    to_serializable,
    update_symlink,
)

WEIGHTS = {'a.weight': torch.arange(6.0).reshape(2, 3)}


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_to_serializable_turns_what_it_can_and_refuses_the_rest():
    value = {
        't': (1, np.float32(2.5)),
        'p': Path('a/b'),
        'n': np.arange(2),
        3: None,
        'g': nn.Parameter(torch.ones(1)),
    }
    result = to_serializable(value)
    assert result['t'] == [1, 2.5]
    assert type(result['t'][1]) is float
    assert result['p'] == 'a/b'
    assert torch.equal(result['n'], torch.arange(2))
    assert type(result['g']) is torch.Tensor
    assert not result['g'].requires_grad
    with pytest.raises(TypeError, match=r"checkpoint\['x'\]\[1\] is a set"):
        to_serializable({'x': [1, {2}]})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    save_checkpoint({'state_dict': WEIGHTS}, path)

    def full_disk(content, file):
        file.write(b'half')
        raise OSError('No space left on device')

    monkeypatch.setattr(module.torch, 'save', full_disk)
    with pytest.raises(OSError, match='No space'):
        save_checkpoint({'state_dict': {}}, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ['a.pth']
    assert torch.equal(load_checkpoint(path)['state_dict']['a.weight'], WEIGHTS['a.weight'])


def test_the_file_appears_whole_and_synced(tmp_path, monkeypatch):
    path, order = tmp_path / 'a.pth', []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle):
        order.append(('sync', path.exists()))
        real_sync(handle)

    def replace(self, target):
        order.append(('replace', self.parent == path.parent))
        return real_replace(self, target)

    monkeypatch.setattr(os, 'fsync', sync)
    monkeypatch.setattr(Path, 'replace', replace)
    save_checkpoint({'state_dict': WEIGHTS}, path)
    assert order == [('sync', False), ('replace', True), ('sync', True)]
    assert path.stat().st_mode & 0o444 == 0o444


def test_a_link_is_replaced_in_one_step(tmp_path):
    for name in ('1.pth', '2.pth'):
        (tmp_path / name).write_text(name)
        update_symlink(tmp_path / 'latest.pth', tmp_path / name)
        assert (tmp_path / 'latest.pth').read_text() == name
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ['1.pth', '2.pth', 'latest.pth']


def test_copies_where_there_are_no_links(tmp_path, monkeypatch):
    def no_links(self, target):
        raise OSError('not supported')

    monkeypatch.setattr(Path, 'symlink_to', no_links)
    (tmp_path / '1.pth').write_text('one')
    update_symlink(tmp_path / 'latest.pth', tmp_path / '1.pth')
    assert (tmp_path / 'latest.pth').read_text() == 'one'


@pytest.mark.parametrize(
    'content',
    [
        {'state_dict': WEIGHTS, 'epoch': 3, 'arch': 'resnet50'},
        {
            'state_dict': {f'module.{name}': tensor for name, tensor in WEIGHTS.items()},
            'best_acc1': torch.ones(1),
        },
        WEIGHTS,
        {f'module.{name}': tensor for name, tensor in WEIGHTS.items()},
    ],
)
@pytest.mark.parametrize('old_format', [False, True])
def test_layouts(tmp_path, content, old_format):
    torch.save(content, tmp_path / 'a.pth.tar', _use_new_zipfile_serialization=not old_format)
    checkpoint = load_checkpoint(tmp_path / 'a.pth.tar')
    assert list(checkpoint['state_dict']) == ['a.weight']
    assert checkpoint['meta'] == {}


@pytest.mark.parametrize('nest', [lambda bad: {'state_dict': WEIGHTS, 'x': bad}, lambda bad: {'a': bad}])
@pytest.mark.parametrize('old_format', [False, True])
def test_hostile_files_are_refused(tmp_path, nest, old_format):
    torch.save(
        nest(Hostile(tmp_path / 'ran')), tmp_path / 'a.pth', _use_new_zipfile_serialization=not old_format
    )
    with pytest.raises(ValueError, match=r'a\.pth holds Python objects \(GLOBAL .*open\)'):
        load_checkpoint(tmp_path / 'a.pth')
    (tmp_path / 'b.pth').write_bytes(pickle.dumps(Hostile(tmp_path / 'ran')))
    with pytest.raises(ValueError, match=r'b\.pth'):
        load_checkpoint(tmp_path / 'b.pth')
    assert not (tmp_path / 'ran').exists()


def test_getattr_is_not_allowed(tmp_path):
    """With MMEngine's allow-list this file would reach any function."""

    class Reach:
        def __reduce__(self):
            return getattr, (WEIGHTS, 'clear')

    torch.save({'state_dict': WEIGHTS, 'x': Reach()}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'GLOBAL .*getattr'):
        load_checkpoint(tmp_path / 'a.pth')


def test_damaged_files(tmp_path):
    path = tmp_path / 'a.pth'
    with pytest.raises(FileNotFoundError, match=str(path)):
        load_checkpoint(path)
    save_checkpoint({'state_dict': WEIGHTS}, path)
    whole = path.read_bytes()
    for content in (b'', whole[: len(whole) // 2], b'not a checkpoint at all', b'<html>', bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'a\.pth \(\d+ bytes\) is damaged or no checkpoint'):
            load_checkpoint(path)
    for content in ({'meta': {}}, {'state_dict': {}}, [1, 2], {'state_dict': {'a': 1}}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r'a\.pth holds'):
            load_checkpoint(path)


def test_trusted_files_can_be_made_to_serializable(tmp_path):
    meta = {'dataset_meta': {'classes': ('cat', 'dog')}}
    torch.save({'state_dict': WEIGHTS, 'meta': meta, 'x': random.Random(1)}, tmp_path / 'a.pth')
    rewrite_trusted(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert checkpoint_classes(load_checkpoint(tmp_path / 'b.pth')) == ('cat', 'dog')


@pytest.mark.parametrize(
    ('meta', 'classes'),
    [
        ({'dataset_meta': {'classes': ['cat', 'dog']}}, ('cat', 'dog')),
        ({'CLASSES': ('cat', 'dog')}, ('cat', 'dog')),
        ({'dataset_meta': {'CLASSES': ('cat',)}}, ('cat',)),
        ({'CLASSES': 'cat'}, ('cat',)),
        ({}, None),
    ],
)
def test_classes_of_all_generations(meta, classes):
    assert checkpoint_classes({'meta': meta}) == classes


def test_what_does_not_fit_is_listed_shortly():
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)])
    state = {f'other.{i}': torch.zeros(1) for i in range(30)} | {'0.weight': torch.zeros(3, 2)}
    with pytest.raises(ValueError) as caught:
        load_weights(model, state, 'x.pth')
    message = str(caught.value)
    assert 'x.pth does not fit the Sequential' in message
    assert 'and 11 more' in message  # of 17 missing
    assert 'and 24 more' in message  # of 30 unexpected
    assert 'size mismatch for 0.weight' in message
    assert len(message) < 1000


def test_the_model_converts_older_names():
    def rename(module, state, prefix, *_):
        state['weight'] = state.pop('old_weight')

    model = nn.Linear(3, 2, bias=False)
    model.register_load_state_dict_pre_hook(rename)
    load_weights(model, {'old_weight': WEIGHTS['a.weight']}, 'x.pth')
    assert torch.equal(model.weight, WEIGHTS['a.weight'])

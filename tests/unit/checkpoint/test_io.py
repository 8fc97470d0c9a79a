"""Checkpoint files: plain values, written atomically, read safely; and what the tools make of them."""

import os
import pickletools
import shlex
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from mmdet.apis import init_detector
from mmdet.checkpoint.io import (
    atomic_write,
    checkpoint_classes,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    to_serializable,
    update_symlink,
)
from mmdet.cli import run_main
from mmdet.commands import publish_model
from mmdet.commands import test as test_tool
from tests.helpers.tiny_run import (
    CLASSES,
    PLAIN,
    as_arguments,
    be_quick,
    options_of,
    save_teacher,
    small_config,
    train,
    write_sets,
)
from tests.unit.checkpoint.test_safety import MAGIC, WEIGHTS, records_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / 'a.pth'


def test_to_serializable_turns_what_it_can_and_refuses_the_rest():
    value = {
        't': (1, np.float32(2.5)),
        'p': Path('a/b'),
        'n': np.arange(2),
        3: None,
        'g': nn.Parameter(torch.ones(1)),
        'r': torch.ones(1).expand(3),
    }
    result = to_serializable(value)
    assert result['t'] == [1, 2.5] and type(result['t'][1]) is float
    assert result['p'] == 'a/b' and result[3] is None
    assert torch.equal(result['n'], torch.arange(2))
    assert type(result['g']) is torch.Tensor and not result['g'].requires_grad
    assert result['r'].stride() == (1,)
    for bad, kind in (({2}, 'set'), (torch.__version__, 'TorchVersion')):
        with pytest.raises(TypeError, match=rf"checkpoint\['x'\]\[1\] is a {kind}"):
            to_serializable({'x': [1, bad]})


# Writing


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    save_checkpoint({'state_dict': WEIGHTS}, file)

    def full_disk(content, stream):
        stream.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full_disk)
    with pytest.raises(OSError, match=r'a\.pth cannot be written: No space left .* MB is free there.*--work'):
        save_checkpoint({'state_dict': {}}, file)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(file, lambda stream: exec('raise KeyboardInterrupt'))
    assert [entry.name for entry in file.parent.iterdir()] == ['a.pth']
    assert torch.equal(load_checkpoint(file)['state_dict']['fc.bias'], WEIGHTS['fc.bias'])


def test_the_file_appears_whole_and_synced(file, monkeypatch):
    order, sync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, 'fsync', lambda handle: (order.append(('sync', file.exists())), sync(handle)))
    monkeypatch.setattr(
        Path, 'replace', lambda new, to: (order.append(new.parent == to.parent), replace(new, to))
    )
    save_checkpoint({'state_dict': WEIGHTS}, file)
    assert order == [('sync', False), True, ('sync', True)]
    assert file.stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize('links', [True, False])
def test_a_link_is_replaced_in_one_step_and_a_copy_where_there_are_none(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(Path, 'symlink_to', lambda *_: Path('/no/links').readlink())
    for name in ('1.pth', '2.pth'):
        (tmp_path / name).write_text(name)
        update_symlink(tmp_path / 'latest.pth', tmp_path / name)
        assert (tmp_path / 'latest.pth').read_text() == name
        assert (tmp_path / 'latest.pth').is_symlink() == links
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ['1.pth', '2.pth', 'latest.pth']


# Reading


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('new_format', [True, False])
def test_layouts(file, prefix, new_format):
    state = OrderedDict((f'{prefix}{name}', tensor) for name, tensor in WEIGHTS.items())
    state._metadata = {'': {'version': 1}}
    for content in (state, {'state_dict': state, 'epoch': 3, 'best_acc1': torch.ones(1)}):
        torch.save(content, file, _use_new_zipfile_serialization=new_format)
        checkpoint = load_checkpoint(file)
        assert list(checkpoint['state_dict']) == list(WEIGHTS)
        assert checkpoint['meta'] == {}


MODEL = nn.Sequential(OrderedDict(fc=nn.Linear(3, 2)))
MODEL.load_state_dict(WEIGHTS)
AVERAGE = torch.optim.swa_utils.AveragedModel(nn.DataParallel(MODEL)).state_dict()  # and a count
SETTINGS = {'lr': 0.1, 'data_path': '/data', 'sizes': [1, 2], 'inner': Namespace(amp=True)}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in WEIGHTS.items()}


@pytest.mark.parametrize('new_format', [True, False])
@pytest.mark.parametrize(
    'content',
    [
        {'model': WEIGHTS, 'optimizer': {'state': {}, 'param_groups': []}, 'args': Namespace(**SETTINGS)},
        {'model': {'fc.bias': torch.zeros(2)}, 'model_ema': AVERAGE, 'args': Namespace()},
        {'net': WEIGHTS, 'acc': 91.5, 'epoch': 3},
        {'state_dict': prefixed('model.'), 'pytorch-lightning_version': '2.0', 'hyper_parameters': {'lr': 1}},
        *map(prefixed, ('_orig_mod.', 'model.', 'module._orig_mod.', 'module.model.module.')),
    ],
    ids=lambda content: str(list(content)),
)
@pytest.mark.filterwarnings('ignore:.*averaged weights are taken')
def test_weights_of_other_programs(file, content, new_format):
    """Of torchvision's reference scripts, Lightning, torch.compile, averages of several processes."""
    torch.save(content, file, _use_new_zipfile_serialization=new_format)
    checkpoint = load_checkpoint(file)
    assert list(checkpoint['state_dict']) == list(WEIGHTS)
    assert torch.equal(checkpoint['state_dict']['fc.bias'], WEIGHTS['fc.bias'])
    if 'optimizer' in content:
        assert checkpoint['args'] == SETTINGS | {'inner': {'amp': True}}
        assert not isinstance(checkpoint['args'], Namespace)


def test_names_that_a_model_has_itself_stay(file):
    for content in (
        {'state_dict': prefixed('model.'), 'meta': {}},  # of this toolbox
        {'a.model.fc.bias': torch.ones(1), 'model.fc.bias': torch.ones(1)},
    ):
        torch.save(content, file)
        assert 'model.fc.bias' in load_checkpoint(file)['state_dict']
    torch.save(prefixed('backbone._orig_mod.'), file)
    assert list(load_checkpoint(file)['state_dict']) == list(prefixed('backbone.'))


def test_averaged_weights_are_told(file):
    torch.save({'model': WEIGHTS, 'model_ema': AVERAGE}, file)
    with pytest.warns(UserWarning, match=r'a\.pth: the averaged weights are taken, model_ema'):
        load_checkpoint(file)


def test_safetensors(tmp_path):
    file = tmp_path / 'model.safetensors'
    safetensors.torch.save_file(prefixed('module.') | {'module.n': torch.ones(2, dtype=torch.bfloat16)}, file)
    state = load_checkpoint(file)['state_dict']
    assert torch.equal(state['fc.bias'], WEIGHTS['fc.bias']) and state['n'].dtype == torch.bfloat16
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r'model\.safetensors \(\d+ bytes\) is damaged'):
        load_checkpoint(file)


def test_the_advised_conversion_works(file, tmp_path, capsys):
    """Of a whole model, and of settings that hold other objects."""
    for content in ({'model': WEIGHTS, 'args': Namespace(out=tmp_path)}, {'model': MODEL}, MODEL):
        torch.save(content, file)
        with pytest.raises(ValueError, match='holds Python objects') as error:
            load_checkpoint(file)
        command = shlex.split(str(error.value).partition('its weights: ')[2].partition('\n')[0])
        with pytest.warns(UserWarning, match='code inside it runs'):
            publish_model.main(command[4:])
        written = capsys.readouterr().out.partition(': ')[0]
        assert list(load_checkpoint(written)['state_dict']) == list(WEIGHTS)


def test_pairs_as_python_2_wrote_them(file):
    """The oldest weights of torchvision: byte strings, OrderedDict([[name, tensor], ...])."""
    storage = b'(U\x07storagectorch\nFloatStorage\nU\x015U\x03cpuK\x01NtQ'
    tensor = b'ctorch._utils\n_rebuild_tensor\n(' + storage + b'K\x00K\x01\x85K\x01\x85tR'
    content = b'\x80\x02ccollections\nOrderedDict\n]](U\x01a' + tensor + b'ea\x85R.'
    file.write_bytes(MAGIC + content + b'\x80\x02]U\x015a.\x01' + bytes(7) + np.float32(7).tobytes())
    assert load_checkpoint(file)['state_dict'] == {'a': torch.tensor([7.0])}


def test_what_holds_no_weights(file):
    for content in ({'meta': {}}, {'state_dict': {}}, [1, 2], {'state_dict': {'a': 1}}, {1: torch.ones(1)}):
        torch.save(content, file)
        with pytest.raises(ValueError, match=r'a\.pth holds no weights'):
            load_checkpoint(file)
    torch.save({'student': WEIGHTS, 'critic': WEIGHTS, 'epoch': 1}, file)
    with pytest.raises(ValueError, match=r"\{'student': 'dict', 'critic': 'dict', 'epoch': 'int'\}"):
        load_checkpoint(file)
    for meta in ('text', [1], {'dataset_meta': 'a'}, {'CLASSES': 3}, {'dataset_meta': {'classes': [1]}}):
        torch.save({'state_dict': WEIGHTS, 'meta': meta}, file)
        with pytest.raises(ValueError, match=r'a\.pth: its "meta" is'):
            load_checkpoint(file)


def test_what_is_no_file(tmp_path):
    (tmp_path / 'epoch_3.pth').touch()
    for near, words in (
        ('"epoch_3.pth"', rf'Did you mean {tmp_path}/epoch_3\.pth\?'),
        ('epoch_3', rf'Did you mean {tmp_path}/epoch_3\.pth\?'),
        ('https://a.b/c.pth', r'https://a\.b/c\.pth is a URL, not a path'),
    ):
        with pytest.raises(FileNotFoundError, match=words):
            load_checkpoint(tmp_path / near)
    with pytest.raises(ValueError, match=r' is a folder; give a checkpoint in it: .*epoch_3\.pth'):
        load_checkpoint(tmp_path)
    (tmp_path / 'loop').symlink_to('loop')
    (tmp_path / 'nowhere').symlink_to('gone.pth')
    os.mkfifo(tmp_path / 'pipe')
    for name, link in (('loop', 'links to loop'), ('nowhere', 'links to gone.pth'), ('pipe', ''), ('x', '')):
        with pytest.raises(FileNotFoundError, match=rf'checkpoint not found: .*{name}.*{link}'):
            load_checkpoint(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_file_that_may_not_be_read(file):
    file.touch(0)
    with pytest.raises(ValueError, match=r'a\.pth cannot be read: Permission denied'):
        load_checkpoint(file)


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), float('-inf')])
def test_weights_that_are_not_finite_are_told(file, bad, recwarn):
    save_checkpoint(WEIGHTS | {'large': torch.full((9,), 3e38)}, file)
    load_checkpoint(file)
    assert not recwarn.list
    save_checkpoint(WEIGHTS | {'fc.bias': torch.tensor([1.0, bad])}, file)
    with pytest.warns(UserWarning, match=r'a\.pth: 1 of 2 tensors hold NaN or infinite .* is fc\.bias'):
        load_checkpoint(file)


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


# Weights of a model


def test_what_does_not_fit_is_listed_shortly():
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)])
    state = {f'other.{i}': torch.zeros(1) for i in range(30)} | {'0.weight': torch.zeros(3, 2)}
    with pytest.raises(ValueError, match=r'x\.pth does not fit the Sequential') as caught:
        load_weights(model, state, 'x.pth')
    message = str(caught.value)
    for words in ('and 11 more', 'and 24 more', 'size mismatch for 0.weight'):  # of 17 missing, 30 unexpected
        assert words in message
    assert len(message) < 1000


def test_weights_of_another_kind_are_refused():
    """Copying would turn integers into weights without a word; another precision is meant."""
    model = nn.Sequential(OrderedDict(fc=nn.Linear(3, 2)))
    load_weights(model, {name: value.double() for name, value in WEIGHTS.items()}, 'x.pth')
    for wrong in (WEIGHTS['fc.weight'].long(), WEIGHTS['fc.weight'] > 2):
        with pytest.raises(ValueError, match=rf'x\.pth does not fit .*fc\.weight is {wrong.dtype}'):
            load_weights(model, {**WEIGHTS, 'fc.weight': wrong}, 'x.pth')


def test_the_model_converts_older_names():
    model = nn.Linear(3, 2, bias=False)
    model.register_load_state_dict_pre_hook(lambda _, state, *__: state.update(weight=state.pop('old')))
    load_weights(model, {'old': WEIGHTS['fc.weight']}, 'x.pth')
    assert torch.equal(model.weight, WEIGHTS['fc.weight'])


# The tools


def test_a_file_with_objects_is_refused_rewritten_or_trusted(tiny_coco, tmp_path, monkeypatch, capsys):
    """By the test tool; the remedy is followed as it is printed."""
    be_quick(monkeypatch)
    root, options = (
        write_sets(tiny_coco, tmp_path / 'set', images=2),
        options_of(model__bbox_head__num_classes=3),
    )
    file = tmp_path / 'an old.pth'
    state = init_detector(PLAIN, None, 'cpu', options).state_dict()
    torch.save({'state_dict': state, 'meta': {'args': Namespace(out=tmp_path), 'CLASSES': CLASSES}}, file)
    arguments = [str(PLAIN), str(file), '--data-root', str(root), '--work-dir', str(tmp_path / 'test')]
    arguments += as_arguments(options)
    with pytest.raises(SystemExit):
        run_main(lambda: test_tool.main(arguments))
    said = capsys.readouterr().err
    assert said.startswith(f'error: {file} holds Python objects (GLOBAL pathlib.PosixPath)')
    assert '--trust-checkpoint' in said and 'Traceback' not in said and said.count('\n') == 4
    command = shlex.split(said.partition('its weights: ')[2].partition('\n')[0])
    assert command[:4] == ['python', '-m', 'mmdet', 'publish-model']
    with pytest.warns(UserWarning, match='code inside it runs'):
        publish_model.main(command[4:])
    written = capsys.readouterr().out.partition(': ')[0]
    assert checkpoint_classes(load_checkpoint(written)) == CLASSES
    with pytest.warns(UserWarning, match=r'an old\.pth is trusted: code inside it runs'):
        assert 'coco/bbox_mAP' in test_tool.main([*arguments, '--trust-checkpoint'])
    with pytest.warns(UserWarning, match='code inside it runs'):
        init_detector(PLAIN, file, 'cpu', options, trust_checkpoint=True)
    monkeypatch.delattr('argparse.Namespace')
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r'of an absent package: .*Namespace'):
        load_checkpoint(file, trust=True)


def test_our_own_files_hold_tensors_and_plain_values(tiny_coco, tmp_path, monkeypatch):
    """Of a distilled training with evaluation and EMA: the newest, the best."""
    be_quick(monkeypatch)
    root = write_sets(tiny_coco, tmp_path / 'set')
    teacher = save_teacher(tmp_path / 'model_best.pth.tar')
    train(small_config(root, tmp_path / 'run', teacher, custom_hooks=[{'type': 'EMAHook'}]))
    files = [path for path in (tmp_path / 'run').glob('*.pth') if not path.is_symlink()]
    assert {'best', 'epoch'} <= {path.name.split('_')[0] for path in files}
    for path in files:
        code = pickletools.genops(records_of(path.read_bytes())['data.pkl'])
        names = {name for opcode, name, _ in code if opcode.name == 'GLOBAL' and 'Storage' not in name}
        assert names == {'torch._utils _rebuild_tensor_v2', 'collections OrderedDict'}
        assert load_checkpoint(path)['meta']['input_size'] == [96, 96]

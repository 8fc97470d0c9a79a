"""Weights to share: whole, named by their checksum, and nothing of the machine that trained them."""

import hashlib
from pathlib import Path

import pytest
import torch

from mmdet.checkpoint.io import load_checkpoint
from mmdet.commands.publish_model import main
from mmdet.distillation.teacher import FrozenTeacher
from tests.helpers.tiny_run import CLASSES, save_teacher


def publish(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Run the command; return the file that it names."""
    main([str(source), str(out)])
    name, _, digest = capsys.readouterr().out.strip().partition(': ')
    data = Path(name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest.split()[-1]
    assert Path(name).stem == f'{out.stem}-{digest.split()[-1][:8]}' and out.suffix == Path(name).suffix
    return Path(name)


def test_a_detectors_weights_and_classes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the name of the checkpoint itself, which stays as it is."""
    of_set = {'classes': ['a'], 'category_ids': [7]}
    meta = {'cfg': "data_root = '/home/me/secret'", 'dataset_meta': of_set, 'input_size': [192, 160]}
    source = tmp_path / 'latest.pth'
    torch.save(
        {'meta': meta, 'state_dict': {'w': torch.ones(3)}, 'optimizer': {'x': torch.ones(999)}}, source
    )
    before = source.read_bytes()
    written = publish(source, source, capsys)
    assert source.read_bytes() == before
    assert b'secret' not in written.read_bytes()
    content = load_checkpoint(written)
    assert content['meta'] == {'dataset_meta': meta['dataset_meta'], 'input_size': [192, 160]}
    assert torch.equal(content.pop('state_dict')['w'], torch.ones(3)) and [*content] == ['meta']


def test_a_published_teacher_is_a_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_teacher(tmp_path / 'model_best.pth.tar')
    torch.save(
        torch.load(source) | {'crop_size': 32, 'mean': [1.0, 2.0, 3.0], 'std': [4.0, 5.0, 6.0]}, source
    )
    written = publish(source, tmp_path / 'new' / 'teacher.pth', capsys)
    ours, theirs = (FrozenTeacher('resnet18', str(file), len(CLASSES), CLASSES) for file in (written, source))
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    assert (ours.crop_size, ours.mean, ours.std) == (32, theirs.mean, theirs.std)

"""`--resume` without a file: the newest whole checkpoint, and what is said about the others."""

import shutil
from pathlib import Path

import pytest
import torch

from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from mmdet.engine import DetRunner
from mmdet.engine.state import choose_checkpoint
from tests.unit.engine.test_loops import train


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    """Filled once by a run of three epochs."""
    return tmp_path_factory.mktemp('filled') / 'run'


@pytest.fixture
def filled(toy_config, work_dir, tmp_path):
    """A copy of it: epoch_1.pth to epoch_3.pth, latest.pth -> epoch_3.pth."""
    if not work_dir.exists():
        train(toy_config(work_dir=str(work_dir), train_cfg={'type': 'TrainLoop', 'max_epochs': 3}))
    return shutil.copytree(work_dir, tmp_path / 'run', symlinks=True)


def flip(path: Path) -> None:
    """Another weight, by one bit; torch loads it."""
    raw = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)['state_dict']['layer.weight']
    raw[raw.index(weight.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b'')


def remove(path: Path) -> None:
    path.unlink()


def strip(path: Path) -> None:
    """Weights alone."""
    content = load_checkpoint(path)
    save_checkpoint({key: content[key] for key in ('meta', 'state_dict')}, path)


def uncounted(path: Path) -> None:
    content = load_checkpoint(path)
    save_checkpoint({**content, 'meta': {**content['meta'], 'iter': 'many'}}, path)


DAMAGES = {
    flip: 'Bad CRC-32',
    cut: 'cut off',
    empty: 'empty',
    remove: 'not found',
    strip: 'has no optimizer',
    uncounted: 'does not count iter',
}


def test_latest_is_taken_when_it_is_whole(filled):
    flip(filled / 'epoch_2.pth')  # not looked at
    assert choose_checkpoint(filled) == (filled / 'latest.pth', [])


@pytest.mark.parametrize('damage', DAMAGES)
def test_the_newest_whole_one_is_taken(filled, damage):
    damage(filled / 'epoch_3.pth')
    path, skipped = choose_checkpoint(filled)
    assert path == filled / 'epoch_2.pth'
    (reason,) = skipped
    assert reason.startswith(f'{filled}/latest.pth -> epoch_3.pth: ')
    assert DAMAGES[damage] in reason
    damage(filled / 'epoch_2.pth')
    path, skipped = choose_checkpoint(filled)
    assert path == filled / 'epoch_1.pth'
    assert len(skipped) == 2 - (damage is remove)


def test_the_newest_is_the_one_that_counts_most(filled):
    """By what the files say: names of two kinds, and of any number."""
    (filled / 'latest.pth').unlink()
    (filled / 'epoch_3.pth').rename(filled / 'iter_4.pth')
    (filled / 'epoch_1.pth').rename(filled / 'epoch_900.pth')
    (filled / 'best_toy_score_epoch_9.pth').write_bytes((filled / 'iter_4.pth').read_bytes())
    (filled / 'my_epoch_9.pth').write_bytes((filled / 'iter_4.pth').read_bytes())
    assert choose_checkpoint(filled) == (filled / 'iter_4.pth', [])
    shutil.copy(filled / 'epoch_2.pth', filled / 'latest.pth')  # where there are no links
    assert choose_checkpoint(filled).path == filled / 'latest.pth'


def test_links_that_lead_nowhere(filled):
    for target in ('gone.pth', 'latest.pth', '/etc'):
        (filled / 'latest.pth').unlink()
        (filled / 'latest.pth').symlink_to(target)
        path, (reason,) = choose_checkpoint(filled)
        assert path == filled / 'epoch_3.pth'
        assert reason.startswith(f'{filled}/latest.pth -> {target}: ')


def test_none_is_whole(filled, toy_config):
    for number, damage in enumerate((flip, cut, strip), start=1):
        damage(filled / f'epoch_{number}.pth')
    with pytest.raises(ValueError, match=r'no checkpoint in .* can be resumed:') as caught:
        DetRunner.from_cfg(toy_config(resume=True))
    for words in ('epoch_1.pth: (', 'epoch_2.pth: (', '-> epoch_3.pth: ', 'no optimizer', '--resume FILE'):
        assert words in str(caught.value)


def test_weights_alone_are_told_and_training_begins(tmp_path, toy_config):
    (tmp_path / 'run').mkdir()
    save_checkpoint({'a': torch.ones(1)}, tmp_path / 'run/best_toy_score_epoch_1.pth')
    path, (reason,) = choose_checkpoint(tmp_path / 'run')
    assert path is None
    assert reason.endswith('best_toy_score_epoch_1.pth: weights only')
    assert choose_checkpoint(tmp_path / 'none') == (None, [])


def test_a_damaged_end_is_repeated_to_the_same_bits(filled, toy_config):
    """And what a killed writer has left is ignored, then removed."""
    expected = load_checkpoint(filled / 'epoch_3.pth')['state_dict']
    flip(filled / 'epoch_3.pth')
    left = [filled / '.epoch_3.pth.x1y2z3.tmp', filled / '.latest.pth.77.tmp', filled / '.bad_data.json.tmp']
    left[0].write_bytes((filled / 'epoch_2.pth').read_bytes())
    left[1].symlink_to('epoch_9.pth')
    left[2].write_text('{')
    runner = train(toy_config(resume=True, train_cfg={'type': 'TrainLoop', 'max_epochs': 3}))
    (log,) = (filled / runner.timestamp).glob('*.log')
    text = log.read_text()
    assert 'skipped' in text
    assert 'latest.pth -> epoch_3.pth: (' in text
    assert 'Bad CRC-32' in text
    state = load_checkpoint(filled / 'latest.pth')['state_dict']
    assert runner.iter == 15
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not any(file.exists() or file.is_symlink() for file in left[:2])


def test_what_lies_in_the_work_dir_is_never_trusted(filled, toy_config):
    content = load_checkpoint(filled / 'epoch_3.pth')
    torch.save({**content, 'extra': Path('a')}, filled / 'epoch_3.pth')
    runner = DetRunner.from_cfg(toy_config(resume=True), trust_checkpoint=True)
    assert runner.cfg.load_from == str(filled / 'epoch_2.pth')
    assert not runner.trust_checkpoint
    named = toy_config(resume=True, load_from=str(filled / 'epoch_3.pth'))
    with pytest.raises(ValueError, match='--trust-checkpoint'):
        DetRunner.from_cfg(named)
    with pytest.warns(UserWarning, match='code inside it runs'):
        runner = DetRunner.from_cfg(named, trust_checkpoint=True)
        runner.train()
    assert runner.iter == 15


def test_strings_of_a_resumed_checkpoint_are_not_run(filled, toy_config, monkeypatch):
    marker = filled / 'ran'
    (filled / 'hostile_module.py').write_text(f'open({str(marker)!r}, "w")')
    monkeypatch.syspath_prepend(filled)
    content = load_checkpoint(filled / 'epoch_2.pth')
    code = f'open({str(marker)!r}, "w")\ncustom_imports = dict(imports=["hostile_module"])\n'
    strings = {
        'cfg': code,
        'config': code,
        'custom_imports': {'imports': ['hostile_module']},
        'type': 'os.system',
    }
    save_checkpoint({**content, 'meta': {**content['meta'], **strings}}, filled / 'epoch_3.pth')
    assert train(toy_config(resume=True)).iter == 10
    assert not marker.exists()

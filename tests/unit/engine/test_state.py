"""`--resume` without a file: the newest whole checkpoint, and what is said about the others."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from mmdet.engine import DetRunner
from mmdet.engine.state import choose_checkpoint
from tests.helpers.same import assert_same_checkpoints
from tests.helpers.tiny_run import train
from tests.unit.engine.conftest import make_toy_config

THREE = {'type': 'TrainLoop', 'max_epochs': 3}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of a run: epoch_1.pth to epoch_3.pth, latest.pth -> epoch_3.pth."""
    folder = tmp_path_factory.mktemp('whole') / 'run'
    train(make_toy_config(folder, train_cfg=THREE))
    return folder


@pytest.fixture
def filled(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / 'run', symlinks=True)


def flip(path: Path) -> None:
    """Another weight, by one bit; torch loads it."""
    raw = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)['state_dict']['layer.weight']
    raw[raw.index(weight.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(raw)


def change(path: Path, **entries) -> None:
    save_checkpoint({**load_checkpoint(path), **entries}, path)


DAMAGES = {
    'Bad CRC-32': flip,
    'cut off': lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    'empty': lambda path: path.write_bytes(b''),
    'not found': Path.unlink,
    'has no optimizer': lambda path: change(path, optimizer=None),
    'no count of iter': lambda path: change(path, meta={**load_checkpoint(path)['meta'], 'iter': 'many'}),
}


def test_a_schedule_of_another_length_is_told(tmp_path):
    for epochs in (2, 4):
        schedule = [{'type': 'CosineAnnealingLR', 'by_epoch': True, 'end': epochs}]
        limit = {'type': 'TrainLoop', 'max_epochs': epochs}
        train(make_toy_config(tmp_path / 'run', train_cfg=limit, param_scheduler=schedule, resume=True))
    logs = ''.join(file.read_text() for file in tmp_path.rglob('*.log'))
    assert logs.count('the schedule of the lr now ends at 4, in the checkpoint at 2') == 1


def rates_of(runner):
    """Learning rates of the groups of parameters: now, before schedules, and as each schedule knows them."""
    groups = runner.optim_wrapper.param_groups
    now = [[group[name] for group in groups] for name in ('lr', 'initial_lr')]
    return torch.tensor([*now, *(schedule.base_values for schedule in runner.param_schedulers)])


COSINE = [{'type': 'CosineAnnealingLR', 'by_epoch': False, 'end': 12}]
WARM_UP = make_toy_config(Path()).param_scheduler


@pytest.mark.parametrize('schedule', [WARM_UP, COSINE], ids=['warm-up', 'cosine'])
@pytest.mark.parametrize('mult', [1, 0.1])
@pytest.mark.parametrize('stop', [2, 7])  # inside the warm-up, behind a milestone
def test_a_changed_rate_is_taken(tmp_path, schedule, mult, stop):
    """And weight decay; all groups of parameters go on as if they had begun so."""

    def run(folder, iters, rate, decay, mult=1):
        wrapper = {
            'type': 'OptimWrapper',
            'optimizer': {'type': 'SGD', 'lr': rate, 'momentum': 0.9, 'weight_decay': decay},
            'paramwise_cfg': {'custom_keys': {'norm': {'lr_mult': mult}}} if mult != 1 else None,
        }
        limit = {'type': 'TrainLoop', 'max_iters': iters}
        keys = {'param_scheduler': schedule, 'optim_wrapper': wrapper, 'train_cfg': limit, 'resume': True}
        runner = train(make_toy_config(tmp_path / folder, **keys))
        (log,) = (tmp_path / folder / runner.timestamp).glob('*.log')
        return runner, [line for line in log.read_text().splitlines() if 'as the config says' in line]

    run('run', stop, 0.1, 0.0, mult)
    shutil.copytree(tmp_path / 'run', tmp_path / 'same', symlinks=True)
    changed, told = run('run', 9, 0.02, 0.5, mult)
    fresh, _ = run('fresh', 9, 0.02, 0.5, mult)
    torch.testing.assert_close(rates_of(changed), rates_of(fresh))
    assert {group['weight_decay'] for group in changed.optim_wrapper.param_groups} == {0.5}
    new, old = ('0.02', '0.1') if mult == 1 else ('0.02, 0.002', '0.1, 0.01')
    assert f'the lr is now {new} as the config says, in the checkpoint {old} (' in told[0]
    assert 'the weight_decay is now 0.5 as the config says, in the checkpoint 0 (' in told[1]
    assert len(told) == 2
    assert run('same', 9, 0.1, 0.0, mult)[1] == []


def test_a_changed_rate_is_taken_with_rates_that_follow_the_batch(tmp_path):
    """The same command goes on as it did, also from a checkpoint of a run that did not scale."""

    def rate(epochs, rate, batch_size, scaled=True):
        cfg = make_toy_config(tmp_path / 'run', resume=True, train_cfg={**THREE, 'max_epochs': epochs})
        cfg.optim_wrapper.optimizer.lr = rate
        cfg.train_dataloader.batch_size = batch_size
        cfg.auto_scale_lr = {'enable': scaled, 'base_batch_size': 20}
        return rates_of(train(cfg))[1, 0].item()

    assert rate(1, 0.1, 2, scaled=False) == pytest.approx(0.1)
    assert rate(2, 0.1, 5) == pytest.approx(0.25)
    assert rate(3, 0.1, 5) == pytest.approx(0.25)
    assert rate(4, 0.04, 5) == pytest.approx(0.01)
    assert rate(5, 0.04, 10) == pytest.approx(0.02)
    assert rate(6, 0.04, 10, scaled=False) == pytest.approx(0.04)
    logs = ''.join(file.read_text() for file in sorted(tmp_path.rglob('*.log')))
    told = re.findall(r'the lr is now (\S+) as the config says, in the checkpoint (\S+) ', logs)
    assert sorted(told) == [('0.01', '0.25'), ('0.04', '0.02')]


def test_latest_is_taken_when_it_is_whole(filled):
    flip(filled / 'epoch_2.pth')  # not looked at
    assert choose_checkpoint(filled) == (filled / 'latest.pth', [])


@pytest.mark.parametrize('reason', DAMAGES)
def test_the_newest_whole_one_is_taken(filled, reason):
    for number in (3, 2):
        DAMAGES[reason](filled / f'epoch_{number}.pth')
        path, skipped = choose_checkpoint(filled)
        assert path == filled / f'epoch_{number - 1}.pth'
        assert skipped[0].startswith(f'{filled}/latest.pth -> epoch_3.pth: ')
        assert all(reason in text for text in skipped)
    assert len(skipped) == 2 - (reason == 'not found')


def test_the_newest_is_the_one_that_counts_most(filled):
    """By what the files say: names of two kinds, and of any number."""
    (filled / 'latest.pth').unlink()
    (filled / 'epoch_3.pth').rename(filled / 'iter_4.pth')
    (filled / 'epoch_1.pth').rename(filled / 'epoch_900.pth')
    (filled / 'best_toy_score_epoch_9.pth').write_bytes((filled / 'iter_4.pth').read_bytes())
    (filled / 'my_epoch_9.pth').write_bytes((filled / 'iter_4.pth').read_bytes())
    assert choose_checkpoint(filled) == (filled / 'iter_4.pth', [])
    shutil.copy(filled / 'epoch_2.pth', filled / 'latest.pth')  # where there are no links
    assert choose_checkpoint(filled) == (filled / 'latest.pth', [])


def test_links_that_lead_nowhere(filled):
    for target in ('gone.pth', 'latest.pth', '/etc'):
        (filled / 'latest.pth').unlink()
        (filled / 'latest.pth').symlink_to(target)
        path, (reason,) = choose_checkpoint(filled)
        assert path == filled / 'epoch_3.pth'
        assert reason.startswith(f'{filled}/latest.pth -> {target}: ')


def test_none_is_whole(filled, toy_config):
    for number, reason in enumerate(('Bad CRC-32', 'cut off', 'has no optimizer'), start=1):
        DAMAGES[reason](filled / f'epoch_{number}.pth')
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


def test_a_damaged_end_is_repeated_to_the_same_bits(filled, whole, toy_config):
    """And what a killed writer has left is ignored, then removed."""
    flip(filled / 'epoch_3.pth')
    left = [filled / '.epoch_3.pth.x1y2z3.tmp', filled / '.latest.pth.77.tmp', filled / '.bad_data.json.tmp']
    left[0].write_bytes((filled / 'epoch_2.pth').read_bytes())
    left[1].symlink_to('epoch_9.pth')
    left[2].write_text('{')
    runner = train(toy_config(resume=True, train_cfg=THREE))
    (log,) = (filled / runner.timestamp).glob('*.log')
    assert 'latest.pth -> epoch_3.pth: (' in log.read_text()
    assert 'Bad CRC-32' in log.read_text()
    assert_same_checkpoints(whole, filled)
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


class Hostile:
    """Pickled, it is a call that makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


def test_a_resumed_checkpoint_runs_no_code(filled, toy_config, monkeypatch):
    """Neither what its strings say, nor pickled objects."""
    marker = filled / 'ran'
    (filled / 'hostile_module.py').write_text(f'open({str(marker)!r}, "w")')
    monkeypatch.syspath_prepend(filled)
    content = load_checkpoint(filled / 'epoch_2.pth')
    code = f'open({str(marker)!r}, "w")\ncustom_imports = dict(imports=["hostile_module"])\n'
    strings = {'cfg': code, 'config': code, 'custom_imports': {'imports': ['hostile_module']}}
    save_checkpoint({**content, 'meta': {**content['meta'], **strings}}, filled / 'epoch_3.pth')
    assert train(toy_config(resume=True)).iter == 10
    torch.save({**content, 'extra': Hostile(marker)}, filled / 'epoch_3.pth')
    with pytest.raises(ValueError, match='holds Python objects'):
        train(toy_config(resume=True, load_from=str(filled / 'epoch_3.pth')))
    assert not marker.exists()

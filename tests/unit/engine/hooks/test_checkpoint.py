"""Checkpoints on disk: which are there, and to which `latest.pth` points."""

from pathlib import Path

import pytest

from mmdet.checkpoint.io import load_checkpoint
from mmdet.engine import DetRunner
from tests.helpers.tiny_run import train


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


@pytest.fixture
def scored(with_evaluation, tmp_path):
    """Trains so many epochs as there are scores, in a resumed run one less; returns the best files."""

    def train_scored(scores, epochs, **keys):
        cfg = with_evaluation(scores, **keys)
        cfg.default_hooks.checkpoint.save_best = 'toy/score'
        cfg.train_cfg.max_epochs = epochs
        train(cfg)
        return sorted((tmp_path / 'run').glob('best_*'))

    return train_scored


@pytest.mark.parametrize(
    ('options', 'written'),
    [
        ({'interval': 2}, ['epoch_2.pth', 'epoch_3.pth']),
        ({'interval': 6, 'by_epoch': False}, ['epoch_3.pth', 'iter_12.pth', 'iter_6.pth']),
        ({'max_keep_ckpts': 1}, ['epoch_3.pth']),
    ],
)
def test_checkpoints_of_three_epochs(toy_config, tmp_path, monkeypatch, options, written):
    """A new file is whole before `latest.pth` points to it, and before an older one is removed."""
    on_disk = []
    save = DetRunner.save_checkpoint

    def watch(self, *args, **keywords):
        before = names(tmp_path / 'run')
        save(self, *args, **keywords)
        on_disk.append(set(before) - set(names(tmp_path / 'run')))

    monkeypatch.setattr(DetRunner, 'save_checkpoint', watch)
    cfg = toy_config()
    cfg.default_hooks.checkpoint.update(options)
    cfg.train_cfg.max_epochs = 3
    train(cfg)
    assert names(tmp_path / 'run') == [*written, 'latest.pth']
    assert not any(on_disk)
    assert (tmp_path / 'run/latest.pth').readlink() == Path('epoch_3.pth')
    meta = load_checkpoint(tmp_path / 'run/latest.pth')['meta']
    assert (meta['epoch'], meta['iter'], meta['batch_in_epoch'], meta['seed']) == (3, 15, 0, 0)
    assert meta['dataset_meta'] == {'classes': ['cat', 'dog']}
    assert "type='ToyModel'" in meta['cfg']
    assert not list((tmp_path / 'run').glob('.*'))  # no temporary file is left


def test_a_checkpoint_inside_an_epoch_counts_its_batches(toy_config, tmp_path):
    cfg = toy_config()
    cfg.default_hooks.checkpoint.update(interval=8, by_epoch=False)
    train(cfg)
    meta = load_checkpoint(tmp_path / 'run/iter_8.pth')['meta']
    assert (meta['epoch'], meta['iter'], meta['batch_in_epoch']) == (1, 8, 3)


def test_the_best_is_kept_also_over_a_resume(scored, tmp_path):
    """Weights and score alone; also when the last evaluation was cut off, or not finite."""
    assert scored([-1.0], 1) == []  # as COCO's numbers are where there is nothing to score
    assert [best.name for best in scored([0.2, 0.5, float('nan')], 3)] == ['best_toy_score_epoch_2.pth']
    (best,) = scored([float('inf'), 0.4, 0.6, 0.1], 6, resume=True)
    assert best.name == 'best_toy_score_epoch_5.pth'
    checkpoint = load_checkpoint(best)
    assert checkpoint['meta']['score'] == 0.6
    assert 'optimizer' not in checkpoint
    with pytest.raises(ValueError, match=r'cannot be resumed: it has no optimizer.*latest\.pth'):
        scored([], 7, resume=True, load_from=str(best))


def test_the_second_best_that_a_kill_has_left_goes_on_resume(scored):
    """It is damaged besides; files of other metrics stay."""
    (second,) = scored([0.2], 1)
    scored([0.2, 0.5], 2, resume=True)
    other = second.with_name('best_toy_score_50_epoch_1.pth')
    for file in (second, other):
        file.write_bytes(b'damaged')
    best = second.with_name('best_toy_score_epoch_2.pth')
    assert scored([0.5, 0.1], 3, resume=True) == [other, best]


def test_best_needs_a_metric_that_exists(with_evaluation):
    cfg = with_evaluation([0.1])
    cfg.default_hooks.checkpoint.save_best = 'coco/bbox_mAP'
    with pytest.raises(ValueError, match=r'coco/bbox_mAP, but there is only toy/score'):
        train(cfg)

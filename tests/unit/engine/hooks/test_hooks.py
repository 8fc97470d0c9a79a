"""Checkpoints on disk, the list of bad data, log lines, curves."""

import json
import sys
import types
from pathlib import Path

import pytest

from mmdet.checkpoint.io import load_checkpoint
from mmdet.engine import DetRunner
from mmdet.engine.hooks.bad_data import FAULT, gather_ids
from tests.helpers.tiny_run import train


def names(folder: Path):
    return sorted(path.name for path in folder.glob('*.pth'))


def test_latest_points_to_the_newest_whole_checkpoint(toy_config, tmp_path):
    cfg = toy_config()
    cfg.default_hooks.checkpoint.interval = 2
    cfg.train_cfg.max_epochs = 3
    train(cfg)
    assert names(tmp_path / 'run') == ['epoch_2.pth', 'epoch_3.pth', 'latest.pth']
    assert (tmp_path / 'run/latest.pth').readlink() == Path('epoch_3.pth')
    meta = load_checkpoint(tmp_path / 'run/latest.pth')['meta']
    assert (meta['epoch'], meta['iter'], meta['batch_in_epoch'], meta['seed']) == (3, 15, 0, 0)
    assert meta['dataset_meta'] == {'classes': ['cat', 'dog']}
    assert "type='ToyModel'" in meta['cfg']
    assert not list((tmp_path / 'run').glob('.*'))  # no temporary file is left


def test_checkpoints_by_iteration(toy_config, tmp_path):
    cfg = toy_config()
    cfg.default_hooks.checkpoint.update(interval=4, by_epoch=False)
    train(cfg)
    assert names(tmp_path / 'run') == ['epoch_2.pth', 'iter_4.pth', 'iter_8.pth', 'latest.pth']
    meta = load_checkpoint(tmp_path / 'run/iter_8.pth')['meta']
    assert (meta['epoch'], meta['batch_in_epoch']) == (1, 3)


def test_old_checkpoints_go_after_the_new_one_is_whole(toy_config, tmp_path, monkeypatch):
    on_disk = []
    save = DetRunner.save_checkpoint

    def watch(self, *args, **keywords):
        on_disk.append(names(tmp_path / 'run'))
        save(self, *args, **keywords)

    monkeypatch.setattr(DetRunner, 'save_checkpoint', watch)
    cfg = toy_config()
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    cfg.train_cfg.max_epochs = 3
    train(cfg)
    assert on_disk[1:] == [['epoch_1.pth', 'latest.pth'], ['epoch_2.pth', 'latest.pth']]
    assert names(tmp_path / 'run') == ['epoch_3.pth', 'latest.pth']


def test_the_best_is_kept_also_over_a_resume(with_evaluation, tmp_path):
    def config(scores, epochs, **keys):
        cfg = with_evaluation(scores, **keys)
        cfg.default_hooks.checkpoint.save_best = 'toy/score'
        cfg.train_cfg.max_epochs = epochs
        return cfg

    def best():
        return [name for name in names(tmp_path / 'run') if name.startswith('best')]

    train(config([0.2, 0.5, float('nan')], 3))
    assert best() == ['best_toy_score_epoch_2.pth']
    train(config([0.3, 0.4, 0.6, 0.1], 6, resume=True))  # the last evaluation may have been cut off
    assert best() == ['best_toy_score_epoch_5.pth']
    checkpoint = load_checkpoint(tmp_path / 'run' / best()[0])
    assert checkpoint['meta']['score'] == 0.6
    assert 'optimizer' not in checkpoint
    with pytest.raises(ValueError, match=r'cannot be resumed: it has no optimizer.*latest\.pth'):
        train(config([], 7, resume=True, load_from=str(tmp_path / 'run' / best()[0])))


def test_a_damaged_best_does_not_stop_a_resume(with_evaluation, tmp_path):
    def config(scores, epochs, **keys):
        cfg = with_evaluation(scores, **keys)
        cfg.default_hooks.checkpoint.save_best = 'toy/score'
        cfg.train_cfg.max_epochs = epochs
        return cfg

    train(config([0.5], 1))
    (best,) = (tmp_path / 'run').glob('best_*')
    best.write_bytes(best.read_bytes()[:-100])
    train(config([0.2, 0.3], 2, resume=True))
    assert load_checkpoint(tmp_path / 'run/best_toy_score_epoch_2.pth')['meta']['score'] == 0.3
    log = ''.join(file.read_text() for file in (tmp_path / 'run').rglob('*.log'))
    assert f'the best checkpoint so far is left out: {best}' in log


def test_of_two_best_files_the_better_stays_on_resume(with_evaluation, tmp_path):
    """As a kill before the removal of the second best leaves them; other metrics' files are not touched."""

    def config(scores, epochs, **keys):
        cfg = with_evaluation(scores, **keys)
        cfg.default_hooks.checkpoint.save_best = 'toy/score'
        cfg.train_cfg.max_epochs = epochs
        return cfg

    run = tmp_path / 'run'
    train(config([0.2], 1))
    (second,) = run.glob('best_*')
    kept = second.read_bytes()
    train(config([0.2, 0.5], 2, resume=True))
    second.write_bytes(kept)
    others = ['best_toy_score_50_epoch_1.pth', 'best_toy_score_mine.pth']
    for name in others:
        (run / name).write_bytes(kept)
    train(config([0.3, 0.1], 3, resume=True))
    assert {path.name for path in run.glob('best_*')} == {'best_toy_score_epoch_2.pth', *others}


def test_best_needs_a_metric_that_exists(with_evaluation):
    cfg = with_evaluation([0.1])
    cfg.default_hooks.checkpoint.save_best = 'coco/bbox_mAP'
    with pytest.raises(ValueError, match=r'coco/bbox_mAP, but there is only toy/score'):
        train(cfg)


def test_bad_data_are_listed(with_evaluation, tmp_path):
    cfg = with_evaluation([1, 1])
    fault = 'box too small', 'train.json', 3, 17, '0.2 px wide'
    cfg.train_dataloader.dataset.update(bad=[2, 5], faults=[fault])
    cfg.val_dataloader.dataset.update(bad=[1])
    train(cfg)
    report = json.loads((tmp_path / 'run/bad_data.json').read_text())
    assert report == {
        'annotations': [{'split': 'train', **dict(zip(FAULT, fault, strict=True))}],
        'images': [
            {'split': split, 'img_id': i, 'file': f'{i}.jpg', 'reason': 'truncated'}
            for split, i in (('train', 2), ('train', 5), ('val', 1))
        ],
    }


def test_bad_data_of_an_unfinished_epoch_and_of_its_continuation(toy_config, tmp_path):
    def config(bad, **keys):
        cfg = toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': 3, 'max_epochs': 1}, **keys)
        cfg.train_dataloader.sampler.shuffle = False
        cfg.train_dataloader.dataset.bad = bad
        return cfg

    def listed():
        images = json.loads((tmp_path / 'run/bad_data.json').read_text())['images']
        return [image['img_id'] for image in images]

    train(config([0, 1]))  # the whole first batch: an empty one takes its place
    assert listed() == [0, 1]
    cfg = config([7], resume=True)
    cfg.train_cfg.max_iters = 5
    train(cfg)
    assert listed() == [0, 1, 7]
    train(config([4]))
    assert listed() == [4]


def test_gathering_ids_in_one_process():
    assert gather_ids(set()) == set()
    assert gather_ids({7, 2**40}) == {7, 2**40}


def test_log_has_every_loss_speed_memory_and_the_last_step(toy_config, tmp_path):
    cfg = toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': 3})
    cfg.default_hooks.logger.interval = 2
    train(cfg)
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [line['step'] for line in lines] == [2, 3]
    wanted = {'loss', 'loss_cls', 'loss_bbox', 'lr', 'images/s', 'memory', 'time', 'data_time', 'epoch'}
    assert wanted <= lines[0].keys()
    assert lines[0]['images/s'] > 0
    assert 10 < lines[0]['memory'] < 100_000


def test_curves_are_drawn_at_the_end(toy_config, tmp_path, monkeypatch):
    calls = []
    module = types.ModuleType('mmdet.visualization.curves')
    module.plot_curves = lambda scalars, out: calls.append((scalars, out)) or out
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cfg = toy_config()
    cfg.default_hooks.curves = {'type': 'CurvesHook'}
    train(cfg)
    (((scalars,), out),) = calls
    assert scalars.is_file()
    assert out == tmp_path / 'run/curves.png'

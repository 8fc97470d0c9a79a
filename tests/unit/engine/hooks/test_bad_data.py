"""The list of bad data."""

import json

import pytest

from mmdet.datasets import Fault
from tests.helpers.forked import Fate, finish, launched, said, start, train_config
from tests.helpers.tiny_run import train

FOUND = 'box too small', 'train.json', 3, 17, '0.2 px wide'


@pytest.fixture
def listed(tmp_path):
    def read(key):
        return json.loads((tmp_path / 'run/bad_data.json').read_text())[key]

    return read


def test_annotations_and_images_of_both_splits(with_evaluation, listed):
    cfg = with_evaluation([1, 1])
    cfg.train_dataloader.dataset.update(bad=[2, 5], faults=[FOUND])
    cfg.val_dataloader.dataset.update(bad=[1])
    train(cfg)
    assert listed('annotations') == [{'split': 'train', **Fault(*FOUND)._asdict()}]
    assert listed('images') == [
        {'split': split, 'img_id': i, 'file': f'{i}.jpg', 'reason': 'truncated'}
        for split, i in (('train', 2), ('train', 5), ('val', 1))
    ]


@pytest.mark.parametrize(('bad', 'iters'), [(range(6), None), (range(10), 2), ([0, 1], 1)])
def test_a_mostly_blank_epoch_is_an_error(toy_config, listed, bad, iters):
    """Five batches of two images, or as many as there is time for."""
    cfg = toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': iters, 'max_epochs': 2})
    cfg.train_dataloader.sampler.shuffle = False
    cfg.train_dataloader.dataset.bad = list(bad)
    with pytest.raises(ValueError, match=r'of [512] batches .* as 0\.jpg: truncated\. .*bad_data\.json'):
        train(cfg)
    assert {image['img_id'] for image in listed('images')} <= set(bad)


@pytest.mark.parametrize(('more', 'status'), [([], 0), ([1, 3], 1)])
def test_blank_batches_of_all_processes_are_counted_together(toy_config, tmp_path, more, status):
    """Process 0 can use none of its files, and each has three batches; both processes end alike."""
    cfg = toy_config(train_cfg={'type': 'TrainLoop', 'max_epochs': 1}, launcher='pytorch')
    cfg.train_dataloader.sampler.shuffle = False
    cfg.train_dataloader.dataset.bad = [0, 2, 4, 6, 8, *more]
    fates = [Fate(tmp_path / 'run', environment=environment) for environment in launched(2)]
    processes = [start(train_config, cfg, fate=fate) for fate in fates]
    assert [finish(process) for process in processes] == [status] * 2, said(fates[0])
    assert said(fates[0]).count('error: 4 of 6 batches of this epoch hold no image') == 2 * status


def test_an_unfinished_epoch_and_its_continuation(toy_config, listed):
    """The whole first batch is bad: an empty one takes its place. A new run begins a new list."""
    for bad, iters, resume, expected in (
        ([0, 1], 3, False, [0, 1]),
        ([7], 5, True, [0, 1, 7]),
        ([4], 3, False, [4]),
    ):
        cfg = toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': iters, 'max_epochs': 1}, resume=resume)
        cfg.train_dataloader.sampler.shuffle = False
        cfg.train_dataloader.dataset.update(bad=bad, faults=[FOUND])
        train(cfg)
        assert [image['img_id'] for image in listed('images')] == expected
        assert len(listed('annotations')) == 1

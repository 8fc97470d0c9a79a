"""Keys that set all that belongs together."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from mmdet.config.resolve import merge_config
from mmdet.config.schedule import apply_short_keys
from mmdet.models.task_modules import SSDAnchorGenerator

ROOT = Path(__file__).parents[3]


def applied(config: str, **keys: Any) -> Config:
    cfg = merge_config(ROOT / f'configs/{config}.py', keys)
    apply_short_keys(cfg)
    assert not cfg.keys() & keys.keys()
    return cfg


def rates(cfg: Config, epochs: int, epoch_length: int = 10) -> list[float]:
    """The learning rate of every iteration."""
    weight = torch.nn.Parameter(torch.zeros(1))
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=cfg.optim_wrapper.optimizer.lr))
    schedules = [
        PARAM_SCHEDULERS.build(one, default_args={'optimizer': wrapper, 'epoch_length': epoch_length})
        for one in cfg.param_scheduler
    ]
    found = []
    for step in range(1, epochs * epoch_length + 1):
        found.append(wrapper.get_lr()['lr'][0])
        for schedule in schedules:
            if not schedule.by_epoch or step % epoch_length == 0:
                schedule.step()
    return found


@pytest.mark.parametrize(
    ('config', 'keys', 'limits', 'warm_up', 'main'),
    [
        ('ssd/ssd300', {'epochs': 12}, (12, None), 500, {'end': 12, 'milestones': [8, 11], 'by_epoch': True}),
        ('ssd/ssd300', {'epochs': 1}, (1, None), 500, {'end': 1, 'milestones': [], 'by_epoch': True}),
        (
            'ssd/ssd300', {'iters': 2400}, (None, 2400), 240,
            {'end': 2400, 'milestones': [1600, 2200], 'by_epoch': False},
        ),
        ('ssdlite/ssdlite_mobilenet_v3_large', {'epochs': 6}, (6, None), 500, {'end': 6, 'begin': 0}),
        (
            'ssd/ssd_tiny', {'epochs': 7}, (7, None), 50,
            {'begin': 0, 'end': 7, 'by_epoch': True, 'convert_to_iter_based': True},
        ),
        ('ssd/ssd_tiny', {'iters': 70}, (None, 70), 7, {'begin': 7, 'end': 70, 'by_epoch': False}),
        ('ssd/ssd_tiny', {'iters': 7000}, (None, 7000), 50, {'begin': 50, 'end': 7000}),
    ],
)  # fmt: skip
def test_how_long_to_train(config, keys, limits, warm_up, main):
    cfg = applied(config, **keys)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.max_iters) == limits
    first, second = cfg.param_scheduler
    assert first.end == warm_up and not first.by_epoch
    assert main.items() <= second.to_dict().items()


@pytest.mark.filterwarnings('ignore:Detected call')
@pytest.mark.parametrize('keys', [{'epochs': 20}, {'iters': 200}])
def test_the_rate_rises_and_falls_to_its_end(keys):
    found = rates(applied('ssd/ssd_tiny', **keys), epochs=20)
    assert 2e-3 < max(found) <= 3e-3
    assert found[0] == pytest.approx(3e-4) and found[-1] < 2e-5


def test_the_batch_takes_the_rate_along_unless_that_is_given():
    cfg = applied('retinanet/retinanet_r50_fpn', batch_size=4)
    loader = cfg.train_dataloader
    assert (loader.batch_size, loader.sampler.group_size, cfg.auto_scale_lr.enable) == (4, 32, True)
    cfg = applied('ssd/ssd300', batch_size=16, lr=1e-3)
    assert (cfg.optim_wrapper.optimizer.lr, cfg.auto_scale_lr.enable) == (1e-3, False)
    cfg = applied('ssd/ssd_tiny', lr=3e-4)
    assert cfg.param_scheduler[1].eta_min == pytest.approx(1e-6)


def test_one_size_for_all_pipelines_and_the_anchors():
    cfg = applied('ssd/ssd300', input_size=512)
    for split in ('train', 'val', 'test'):
        (resize,) = (one for one in cfg[f'{split}_dataloader'].dataset.pipeline if one.type == 'Resize')
        assert resize.scale == (512, 512)
    generator = SSDAnchorGenerator(
        **{k: v for k, v in cfg.model.bbox_head.anchor_generator.items() if k != 'type'}
    )
    boxes = generator([(64, 64), (32, 32), (16, 16), (8, 8), (6, 6), (4, 4)], torch.device('cpu')).boxes
    assert ((boxes[-1, :2] + boxes[-1, 2:]) / 2).tolist() == [448, 448]  # of the last of 4 x 4 cells
    assert generator.base_anchors[1][0].tolist() == [-38.0, -38.0, 38.0, 38.0]  # 15 % of 512


def test_sizes_in_pixels_are_scaled_unless_they_are_made_for_this_input():
    cfg = applied('ssd/ssd_tiny', input_size=(192, 96))
    generator = cfg.model.bbox_head.anchor_generator
    assert generator.min_sizes == [22.6, 42.4, 67.9, 99.0]
    assert (generator.strides, generator.input_size) == (None, (192, 96))
    key = 'model.bbox_head.anchor_generator'
    cfg = applied(
        'ssd/ssd_tiny',
        input_size=[192, 192],
        **{f'{key}.input_size': 192, f'{key}.min_sizes': [9, 18, 36, 72]},
    )
    assert cfg.model.bbox_head.anchor_generator.min_sizes == [9, 18, 36, 72]
    assert (
        applied('ssd/ssd_tiny', input_size=96).model == merge_config(ROOT / 'configs/ssd/ssd_tiny.py').model
    )
    assert applied(
        'retinanet/retinanet_r50_fpn', input_size=(800, 480)
    ).model.bbox_head.anchor_generator.strides


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        ({'epochs': 3, 'iters': 3}, 'leave one out'),
        ({'epochs': 0}, 'epochs is a whole number from 1 on; got 0'),
        ({'batch_size': 'all'}, "batch_size is a whole number from 1 on; got 'all'"),
        ({'lr': 'fast'}, "lr is a number above 0; got 'fast'"),
        ({'input_size': (3, 4, 5)}, r'input_size is W or \(W, H\)'),
        ({'train_cfg': None, 'epochs': 3}, 'no train_cfg: epochs would change nothing'),
    ],
)
def test_what_is_no_value_is_told(keys, message):
    with pytest.raises(ValueError, match=message):
        applied('ssd/ssd300', **keys)

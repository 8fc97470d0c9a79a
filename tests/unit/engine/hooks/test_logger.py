"""Log lines."""

import json

from tests.helpers.tiny_run import train


def test_every_loss_speed_and_the_last_step(toy_config, tmp_path):
    cfg = toy_config(train_cfg={'type': 'TrainLoop', 'max_iters': 3})
    cfg.default_hooks.logger.interval = 2
    train(cfg)
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [line['step'] for line in lines] == [2, 3]
    wanted = {'loss', 'loss_cls', 'loss_bbox', 'lr', 'images/s', 'time', 'data_time', 'epoch'}
    assert wanted <= lines[0].keys()
    assert lines[0]['images/s'] > 0

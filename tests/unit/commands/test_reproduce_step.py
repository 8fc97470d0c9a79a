"""tools/misc/reproduce_step.py, as its user calls it after a training has stopped."""

import subprocess
import sys

import pytest
import torch
from mmengine.hooks import Hook

from mmdet.checkpoint.io import save_checkpoint
from mmdet.commands import reproduce_step
from mmdet.engine import DetRunner
from tests.helpers.tiny_run import PLAIN, ROOT, be_quick, small_config, without_evaluation, write_sets


class PlantOverflow(Hook):
    """Before the second step: weights of one layer so large that the next overflows."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            with torch.no_grad():
                runner.model.neck.extra_layers[0][0].conv.weight.fill_(1e38)


def test_the_step_comes_out_as_in_training(tiny_coco, tmp_path, monkeypatch):
    be_quick(monkeypatch)
    root = write_sets(tiny_coco, tmp_path / 'set')
    runner = DetRunner.from_cfg(without_evaluation(small_config(root, tmp_path / 'run')))
    runner.register_hook(PlantOverflow())
    with pytest.raises(FloatingPointError) as stop:
        runner.train()
    assert 'train/' in str(stop.value)
    dump = tmp_path / 'run/not_finite_iter_2.pth'
    config = next((tmp_path / 'run').glob('*.py'))  # the resolved one
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/misc/reproduce_step.py'), str(config), str(dump)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith('iteration 2 (epoch 1, batch 2) of process 0')
    losses = [line for line in lines if '(in training' in line]
    assert [line.split(':')[0] for line in losses] == ['loss', 'loss_cls', 'loss_bbox']
    for line in losses:
        now, then = line.split(': ')[1].rstrip(')').split(' (in training ')
        assert now == then
    assert 'nan' in losses[0]
    assert lines[-1].startswith('first not finite: neck.extra_layers.0.0')
    assert lines[-1].endswith('whose input was finite')


def test_another_file_is_refused(tmp_path):
    save_checkpoint({'state_dict': {'weight': torch.zeros(1)}}, tmp_path / 'epoch_1.pth')
    with pytest.raises(ValueError, match=r'epoch_1\.pth is not what training keeps of a step'):
        reproduce_step.main([str(PLAIN), str(tmp_path / 'epoch_1.pth')])

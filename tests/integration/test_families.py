"""Every family trains, distilled, in two processes: one forked pair for all of them."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.config import Config

from mmdet.checkpoint.io import load_checkpoint
from mmdet.cli import run_main
from tests.helpers.forked import Fate, finish, launched, said, start
from tests.helpers.same import scalars_of
from tests.helpers.students import FAMILIES, run_config
from tests.helpers.tiny_run import save_teacher, train, without_evaluation, write_sets


def train_all(configs: Sequence[Config]) -> None:
    """Train one after another, among the same processes."""
    run_main(lambda: [train(cfg) for cfg in configs])


def test_two_distilled_iterations_on_two_processes(tiny_coco: Callable[..., Path], tmp_path: Path) -> None:
    root = write_sets(tiny_coco, tmp_path / 'set', images=12)
    teacher = save_teacher(tmp_path / 'teacher.pth')
    configs = []
    for name in FAMILIES:
        cfg = without_evaluation(run_config(name, root, teacher, tmp_path / name, train_cfg__max_iters=2))
        cfg.launcher = 'pytorch'
        configs.append(cfg)
    fates = [Fate(tmp_path / 'pair', environment=environment) for environment in launched(2)]
    started = [start(train_all, configs, fate=fate) for fate in fates]
    assert [finish(process, timeout=300) for process in started] == [0, 0], said(fates[0])
    for name in FAMILIES:
        lines = scalars_of(tmp_path / name)
        assert [step for step, _ in lines] == [1, 2]
        for line in lines.values():
            losses = {key: value for key, value in line.items() if 'loss' in key}
            assert losses.keys() >= {'loss', 'loss_cls', 'loss_bbox', 'loss_kd_cls', 'loss_kd_loc'}
            assert all(math.isfinite(value) for value in losses.values())
        state = load_checkpoint(tmp_path / name / 'latest.pth')['state_dict']
        assert not any('teacher' in key or 'distiller' in key for key in state)

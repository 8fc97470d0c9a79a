"""Every family trains, distilled, in two processes, one forked pair for all; the analysis tools take it."""

import json
import math
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmdet.analysis import rows
from mmdet.checkpoint.io import load_checkpoint
from mmdet.cli import run_main
from mmdet.commands import compare, report, run_rows
from mmdet.commands import teacher as browse_teacher
from mmdet.config.resolve import load_config
from tests.helpers.forked import Fate, finish, launched, said, start
from tests.helpers.same import scalars_of
from tests.helpers.students import FAMILIES, options_of, run_config
from tests.helpers.tiny_run import (
    NUMBER,
    ROOT,
    SHORT,
    SPLITS,
    as_arguments,
    be_quick,
    save_teacher,
    train,
    without_evaluation,
    write_sets,
)


def train_all(configs: Sequence[Config]) -> None:
    """Train one after another, among the same processes."""
    run_main(lambda: [train(cfg) for cfg in configs])


def test_three_distilled_iterations_on_two_processes(tiny_coco: Callable[..., Path], tmp_path: Path) -> None:
    root = write_sets(tiny_coco, tmp_path / 'set', images=12)
    teacher = save_teacher(tmp_path / 'teacher.pth')
    configs = []
    for name in FAMILIES:
        cfg = without_evaluation(run_config(name, root, teacher, tmp_path / name))
        cfg.launcher = 'pytorch'
        configs.append(cfg)
    fates = [Fate(tmp_path / 'pair', environment=environment) for environment in launched(2)]
    started = [start(train_all, configs, fate=fate) for fate in fates]
    assert [finish(process, timeout=300) for process in started] == [0, 0], said(fates[0])
    for name in FAMILIES:
        lines = scalars_of(tmp_path / name)
        assert [step for step, _ in lines] == [1, 2, 3]
        for line in lines.values():
            losses = {key: value for key, value in line.items() if 'loss' in key}
            assert losses.keys() >= {'loss', 'loss_cls', 'loss_bbox', 'loss_kd_cls', 'loss_kd_loc'}
            assert all(math.isfinite(value) for value in losses.values())
        state = load_checkpoint(tmp_path / name / 'latest.pth')['state_dict']
        assert not any('teacher' in key or 'distiller' in key for key in state)


def test_ssdlite_whose_last_map_is_one_pixel(
    tiny_coco: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norm needs two images: no epoch ends with one; an error says where there is no second one."""
    be_quick(monkeypatch)
    root = write_sets(tiny_coco, tmp_path / 'set', images=3)
    options = {**SPLITS, **SHORT, 'model.backbone.weights': None, 'train_cfg.max_iters': 2}

    def config(**more: Any) -> Config:
        name = {'experiment_name': f'one_pixel_{next(NUMBER)}', 'train_dataloader.sampler.times': 1}
        cfg = load_config(
            ROOT / 'configs/ssdlite/ssdlite_mobilenet_v3_large.py', {**options, **name, **more}, root
        )
        cfg.work_dir, cfg.log_level = str(tmp_path / 'run'), 'WARNING'
        return without_evaluation(cfg)

    assert train(config()).train_loop.epoch_length == 2
    with pytest.raises(ValueError, match=r'needs two: raise the images per process, --batch-size'):
        train(config(**{'train_dataloader.batch_size': 1}))
    (root / 'train/2.jpg').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'mend the files .*2\.jpg\), or raise'):
        train(config(**{'train_dataloader.dataset.on_bad_image': 'skip'}))


@pytest.mark.long
@pytest.mark.parametrize('name', FAMILIES)
def test_rows_comparison_report_and_sheet(
    name: str, tiny_coco: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_tool(command: Sequence[str], log: Path, processes: int = 1) -> None:
        import_module(f'mmdet.commands.{command[2]}').main(command[3:])

    be_quick(monkeypatch)
    monkeypatch.setattr(rows, 'run_tool', run_tool)
    root = write_sets(tiny_coco, tmp_path / 'set')
    teacher = save_teacher(tmp_path / 'teacher.pth')
    options = {**SPLITS, **SHORT, **options_of(name, teacher), 'input_size': FAMILIES[name].scale}
    typed = [str(ROOT / 'configs_dev' / FAMILIES[name].config), '--data-root', str(root)]
    typed += as_arguments({**options, 'train_cfg.max_iters': 1})
    run_rows.main([*typed, '--rows', 'all', '--seeds', '0', '--out-dir', str(tmp_path / 'rows')])
    found = json.loads((tmp_path / 'rows/all_seed0.json').read_text())
    assert {'loss_kd_cls', 'loss_kd_loc'} < found['losses'].keys()
    assert found['student']['gmacs'] > 0
    compare.main([str(tmp_path / 'rows')])
    assert '| all |' in (tmp_path / 'rows/comparison/comparison.md').read_text()
    report.main([*typed, '--out-dir', str(tmp_path / 'report')])
    student = ['--checkpoint', str(tmp_path / 'rows/work/all_seed0/latest.pth')]
    browse_teacher.main([*typed, *student, '--out', str(tmp_path / 'sheet.png')])
    assert (tmp_path / 'sheet.png').exists()

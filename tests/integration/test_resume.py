"""A training that is stopped and resumed is the training that was not: bit for bit.

On the CPU; where there is a GPU, on that in deterministic mode.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdet.checkpoint.io import load_checkpoint
from tests.helpers.forked import Fate, finish, launched, said, start, train_config
from tests.helpers.same import assert_same_checkpoints, scalars_of
from tests.helpers.tiny_run import (
    be_quick,
    save_teacher,
    small_config,
    train,
    without_evaluation,
    write_sets,
)

EVERY = {
    'default_hooks__checkpoint__by_epoch': False,
    'default_hooks__checkpoint__interval': 1,
    'train_cfg__max_iters': 4,
    'train_cfg__val_interval': 1,
    'randomness__deterministic': torch.cuda.is_available(),
}
AVERAGED = [
    {'type': 'EMAHook', 'momentum': 0.3},
    {'type': 'EarlyStoppingHook', 'monitor': 'coco/bbox_mAP', 'min_delta': 2},
]
CASES: dict[str, tuple[float, bool, dict[str, Any]]] = {  # step that is the last one, distilled, options
    'inside an epoch, in bfloat16, with workers': (
        2,
        True,
        {
            'train_cfg__val_interval': 100,
            'train_dataloader__num_workers': 2,
            'optim_wrapper__type': 'AmpOptimWrapper',
            'optim_wrapper__dtype': 'bfloat16',
        },
    ),
    'at the end of an epoch, before its evaluation': (
        3.5,
        True,
        {'default_hooks__checkpoint__by_epoch': True, 'custom_hooks': AVERAGED},
    ),
    'in float16, as the scale falls': (
        2,
        False,
        {
            'optim_wrapper__type': 'AmpOptimWrapper',
            'optim_wrapper__dtype': 'float16',
            'optim_wrapper__loss_scale': 2.0**30,
        },
    ),
    'with gradients summed over batches': (
        5,
        False,
        {'optim_wrapper__accumulative_counts': 2, 'train_cfg__max_iters': 6},
    ),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    be_quick(monkeypatch)
    for name in ('deterministic', 'benchmark'):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    yield
    torch.use_deterministic_algorithms(False)


def assert_same_runs(one: Path, other: Path) -> None:
    """Every checkpoint, and every line of the log."""
    assert_same_checkpoints(one, other)
    whole, parts = scalars_of(one), scalars_of(other)
    assert [key for key in whole if whole[key] != parts.get(key)] == []


@pytest.mark.parametrize('case', CASES)
def test_a_resumed_run_is_the_whole_one(tiny_coco, tmp_path, case):
    """Every file and every line of the log: weights, optimizer, schedules, averages, scale, generators."""
    step, distilled, options = CASES[case]
    root = write_sets(tiny_coco, tmp_path / 'set')  # three steps an epoch
    teacher = save_teacher(tmp_path / 'teacher.pth') if distilled else None
    stop = {'type': 'SnapshotHook', 'step': step, 'into': str(tmp_path / 'parts')}

    def config(folder: str, *hooks: dict[str, Any]) -> Any:
        given = {**EVERY, **options, 'custom_hooks': [*options.get('custom_hooks', []), *hooks]}
        return small_config(root, tmp_path / folder, teacher, **given)

    train(config('whole', stop))
    torch.rand(7)  # another process would have other random numbers by now
    cfg = config('parts')
    cfg.resume = True
    runner = train(cfg)
    assert runner.iter == runner.max_iters
    assert_same_runs(tmp_path / 'whole', tmp_path / 'parts')
    steps = {number for number, is_training in scalars_of(tmp_path / 'parts') if is_training}
    assert steps == set(range(1, runner.iter + 1))
    if 'float16, as' in case:
        scales = [load_checkpoint(tmp_path / f'parts/iter_{n}.pth')['optimizer'] for n in (2, 4)]
        assert 2.0**30 > scales[0]['loss_scaler']['scale'] >= scales[1]['loss_scaler']['scale']
    if 'gradients' in case:  # checkpoints wait for a step of the optimizer
        names = sorted(file.name for file in (tmp_path / 'parts').glob('iter_*.pth'))
        assert names == [f'iter_{number}.pth' for number in (2, 3, 5, 6)]


class Runs:
    """Runs of five steps on twelve images, two a process and step."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder

    def run(self, name: str, processes: int, stop: int = 0, into: str = 'none', **options: Any) -> None:
        """Train in `folder/name`, or go on there; after step `stop` copy it `into` another one."""
        work_dir = self.folder / name
        snapshot = {
            'type': 'SnapshotHook',
            'step': stop,
            'into': str(self.folder / into),
            'notes': str(self.folder / f'{name}.ids'),
        }
        given = {**EVERY, 'train_cfg__max_iters': 5, 'custom_hooks': [snapshot], **options}
        cfg = without_evaluation(small_config(self.root, work_dir, **given))
        cfg.resume = work_dir.is_dir()
        cfg.launcher = 'pytorch' if processes > 1 else 'none'
        fates = [Fate(work_dir, environment=environment) for environment in launched(processes)]
        started = [start(train_config, cfg, fate=fate) for fate in fates]
        assert [finish(process) for process in started] == [0] * processes, said(fates[0])

    def ids(self, name: str, steps: range) -> list[int]:
        """Ids of the images of some steps, in all processes."""
        lines = [line for file in self.folder.glob(f'{name}.ids.*') for line in file.read_text().splitlines()]
        return [int(img_id) for step, *ids in map(str.split, lines) if int(step) in steps for img_id in ids]

    def rate(self, name: str, step: int) -> float:
        """The learning rate of a step."""
        return float(scalars_of(self.folder / name)[step, True]['lr'])


@pytest.fixture
def runs(tiny_coco, tmp_path):
    write_sets(tiny_coco, tmp_path / 'set', images=12)
    return Runs(tmp_path / 'set', tmp_path)


def test_two_processes_go_on_as_two_and_as_one(runs, tmp_path):
    """As two to the same bits, each with its own random numbers; as one with the images that are left."""
    options = {'optim_wrapper__accumulative_counts': 2}
    runs.run('whole', 2, stop=2, into='parts', **options)
    shutil.copytree(tmp_path / 'parts', tmp_path / 'alone', symlinks=True)
    runs.run('parts', 2, **options)
    assert_same_runs(tmp_path / 'whole', tmp_path / 'parts')
    assert len(load_checkpoint(tmp_path / 'whole/iter_2.pth')['rng']) == 2

    runs.run('alone', 1)
    assert 'start anew' in (tmp_path / 'alone.out').read_text()
    images = runs.ids('whole', range(1, 3)) + runs.ids('alone', range(3, 5))
    assert sorted(images) == list(range(1, 13))
    assert runs.rate('alone', 3) == pytest.approx(runs.rate('whole', 3))


@pytest.mark.long
def test_one_process_goes_on_as_two(runs, tmp_path):
    """In the middle of what is a step of two: no image comes twice but to round up the last step."""
    runs.run('whole', 1, stop=1, into='parts')
    shutil.copytree(tmp_path / 'parts', tmp_path / 'scaled', symlinks=True)
    runs.run('parts', 2)
    assert 'goes on at the same image' in (tmp_path / 'parts.out').read_text()
    rest = runs.ids('parts', range(2, 5))
    assert len(rest) == 10
    assert sorted(runs.ids('whole', range(1, 2)) + rest) == list(range(1, 13))
    assert runs.rate('parts', 3) == pytest.approx(runs.rate('whole', 3))

    runs.run('scaled', 2, auto_scale_lr={'enable': True, 'base_batch_size': 64})
    for step in (3, 5):
        assert runs.rate('scaled', step) == pytest.approx(2 * runs.rate('whole', step), rel=1e-3)

"""A training that is stopped and resumed is the training that was not: bit for bit.

On the CPU; where there is a GPU, on that in deterministic mode.
"""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmdet.checkpoint.io import load_checkpoint
from tests.helpers.forked import Fate, finish, launched, said, start, start_server, train_config
from tests.helpers.tiny_run import be_quick, save_teacher, small_config, train, write_sets

CLOCK = ('time', 'data_time', 'memory', 'images/s', 'eta')  # of a process, never the same twice
EVERY = {
    'default_hooks__checkpoint__by_epoch': False,
    'train_cfg__max_iters': 8,
    'train_cfg__val_interval': 1,
    'randomness__deterministic': torch.cuda.is_available(),
}
AVERAGED = [
    {'type': 'EMAHook', 'momentum': 0.3},
    {'type': 'EarlyStoppingHook', 'monitor': 'coco/bbox_mAP', 'min_delta': 2},
]
CASES: dict[str, tuple[float, bool, dict[str, Any]]] = {  # step that is the last one, distilled, options
    'inside an epoch, in bfloat16, with workers': (
        4,
        True,
        {
            'train_dataloader__num_workers': 2,
            'optim_wrapper__type': 'AmpOptimWrapper',
            'optim_wrapper__dtype': 'bfloat16',
        },
    ),
    'at the end of an epoch, before its evaluation': (
        6.5,
        True,
        {'default_hooks__checkpoint__by_epoch': True, 'custom_hooks': AVERAGED},
    ),
    'in float16, as the scale falls': (
        4,
        False,
        {
            'optim_wrapper__type': 'AmpOptimWrapper',
            'optim_wrapper__dtype': 'float16',
            'optim_wrapper__loss_scale': 2.0**30,
        },
    ),
    'with gradients summed over batches': (5, False, {'optim_wrapper__accumulative_counts': 2}),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    be_quick(monkeypatch)
    for name in ('deterministic', 'benchmark'):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp('teacher') / 'model_best.pth.tar')


def numbers_of(value: Any, place: str = '') -> dict[str, Any]:
    """All that a checkpoint holds, by its place; without what the clock and the machine say."""
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    else:
        return {place: value}
    found: dict[str, Any] = {}
    for key, item in inside:
        if place == '.log' and any(str(key) == f'train/{name}' for name in CLOCK):
            continue
        if place == '.meta' and key in ('time', 'cfg'):
            continue
        found |= numbers_of(item, f'{place}.{key}')
    return found


def same(one: Any, other: Any) -> bool:
    """Bit for bit; the norm of gradients that overflow is NaN in both."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and np.array_equal(
            one.numpy(), other.numpy(), one.is_floating_point()
        )
    return bool(one == other) or (math.isnan(one) and math.isnan(other))


def assert_same_files(one: Path, other: Path) -> None:
    """The same checkpoints, of the same content."""
    names = sorted(file.name for file in one.glob('*.pth'))
    assert names == sorted(file.name for file in other.glob('*.pth'))
    for name in names:
        left, right = (numbers_of(load_checkpoint(folder / name)) for folder in (one, other))
        assert left.keys() == right.keys()
        wrong = [place for place, value in left.items() if not same(value, right[place])]
        assert wrong == [], name


def scalars_of(work_dir: Path) -> dict[tuple[int, bool], dict[str, Any]]:
    """What all runs in a folder have logged of each step, training and evaluation; later ones count."""
    lines: dict[tuple[int, bool], dict[str, Any]] = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json'), key=lambda file: file.stat().st_mtime_ns):
        for text in file.read_text().splitlines():
            line = json.loads(text)
            if not any(name.startswith('grad_norm/') for name in line):
                kept = {name: value for name, value in line.items() if name not in CLOCK}
                lines[line['step'], 'loss' in line] = kept
    return lines


@pytest.mark.parametrize('case', CASES)
def test_a_resumed_run_is_the_whole_one(tiny_coco, tmp_path, teacher, case):
    """Every file and every line of the log: weights, optimizer, schedules, averages, scale, generators."""
    step, distilled, options = CASES[case]
    root = write_sets(tiny_coco, tmp_path / 'set')  # three steps an epoch
    stop = {'type': 'SnapshotHook', 'step': step, 'into': str(tmp_path / 'parts')}
    hooks = options.get('custom_hooks', [])
    keywords = {'default_hooks__checkpoint__interval': 1, **EVERY, **options}

    def config(folder: str, *further: dict[str, Any]) -> Any:
        given = {**keywords, 'custom_hooks': [*hooks, *further]}
        return small_config(root, tmp_path / folder, teacher if distilled else None, **given)

    train(config('whole', stop))
    torch.rand(7)
    cfg = config('parts')
    cfg.resume = True
    runner = train(cfg)
    assert runner.iter == runner.max_iters
    assert_same_files(tmp_path / 'whole', tmp_path / 'parts')
    whole, parts = (scalars_of(tmp_path / folder) for folder in ('whole', 'parts'))
    assert [key for key in whole if whole[key] != parts.get(key)] == []
    assert {number for number, is_training in parts if is_training} == set(range(1, runner.iter + 1))
    if case.startswith('in float16'):
        first, last = (load_checkpoint(tmp_path / f'parts/iter_{n}.pth')['optimizer'] for n in (4, 7))
        assert first['loss_scaler']['scale'] < 2.0**30
        assert last['loss_scaler']['scale'] <= first['loss_scaler']['scale']
    if 'gradients' in case:  # three batches an epoch
        names = {file.name for file in (tmp_path / 'parts').glob('iter_*.pth')}
        assert names == {f'iter_{number}.pth' for number in (2, 3, 5, 6, 8)}


class Runs:
    """Runs of five steps on twelve images, two a process and step."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        start_server()

    def run(self, name: str, processes: int, stop: int = 0, into: str = 'none', **options: Any) -> None:
        """Train in `folder/name`, or go on there; after step `stop` copy it `into` another one."""
        work_dir = self.folder / name
        snapshot = {
            'type': 'SnapshotHook',
            'step': stop,
            'into': str(self.folder / into),
            'notes': str(self.folder / f'{name}.ids'),
        }
        every = {**EVERY, 'default_hooks__checkpoint__interval': 1, 'train_cfg__max_iters': 5}
        given = {**every, 'custom_hooks': [snapshot], **options}
        cfg = small_config(self.root, work_dir, **given)
        cfg.resume = work_dir.is_dir()
        cfg.launcher = 'pytorch' if processes > 1 else 'none'
        fates = [Fate(work_dir, environment=environment) for environment in launched(processes)]
        started = [start(train_config, cfg, fate=fate) for fate in fates]
        assert [finish(process) for process in started] == [0] * processes, said(fates[0])

    def ids(self, name: str, steps: range) -> list[int]:
        """Ids of the images of some steps, in all processes."""
        found = []
        for file in self.folder.glob(f'{name}.ids.*'):
            for line in file.read_text().splitlines():
                step, *ids = map(int, line.split())
                found += ids if step in steps else []
        return sorted(found)

    def rate(self, name: str, step: int) -> float:
        """The learning rate of a step."""
        return float(scalars_of(self.folder / name)[step, True]['lr'])


@pytest.fixture
def runs(tiny_coco, tmp_path):
    write_sets(tiny_coco, tmp_path / 'set', images=12)
    return Runs(tmp_path / 'set', tmp_path)


def test_two_processes_go_on_as_two(runs, tmp_path):
    """Each with its own random numbers; gradients of two batches; evaluated with one's statistics."""
    options = {'optim_wrapper__accumulative_counts': 2}
    runs.run('whole', 2, stop=2, into='parts', **options)
    shutil.copytree(tmp_path / 'parts', tmp_path / 'alone', symlinks=True)
    runs.run('parts', 2, **options)
    assert_same_files(tmp_path / 'whole', tmp_path / 'parts')
    whole, parts = (scalars_of(tmp_path / folder) for folder in ('whole', 'parts'))
    assert [key for key in whole if whole[key] != parts.get(key)] == []
    one, other = load_checkpoint(tmp_path / 'whole/iter_2.pth')['rng']
    assert len(numbers_of(one)) == len(numbers_of(other)) > 1

    runs.run('alone', 1)
    assert 'start anew' in (tmp_path / 'alone.out').read_text()
    first, rest = runs.ids('whole', range(1, 3)), runs.ids('alone', range(3, 5))
    assert sorted(first + rest) == list(range(1, 13))
    assert runs.rate('alone', 3) == pytest.approx(runs.rate('whole', 3))


@pytest.mark.long
def test_one_process_goes_on_as_two(runs, tmp_path):
    """In the middle of what is a step of two: no image comes twice but to round up the last step."""
    runs.run('whole', 1, stop=1, into='parts')
    shutil.copytree(tmp_path / 'parts', tmp_path / 'scaled', symlinks=True)
    runs.run('parts', 2)
    assert 'goes on at the same image' in (tmp_path / 'parts.out').read_text()
    first, rest = runs.ids('whole', range(1, 2)), runs.ids('parts', range(2, 5))
    assert len(rest) == 10
    assert sorted(first + rest) == list(range(1, 13))
    assert runs.rate('parts', 3) == pytest.approx(runs.rate('whole', 3))

    auto = {'auto_scale_lr': {'enable': True, 'base_batch_size': 64}}
    runs.run('scaled', 2, **auto)
    assert runs.rate('scaled', 3) == pytest.approx(2 * runs.rate('whole', 3))
    assert runs.rate('scaled', 5) == pytest.approx(2 * runs.rate('whole', 5), rel=1e-3)

"""Short real trainings: the invariants of distillation, and what a run leaves behind."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from mmdet.checkpoint.io import load_checkpoint
from mmdet.commands import test as test_tool
from mmdet.commands import train as train_tool
from mmdet.engine import DetRunner
from mmdet.registry import HOOKS, MODELS
from tests.helpers.forked import Fate, finish, launched, said, start, train_as_typed
from tests.helpers.same import differences, flatten
from tests.helpers.tiny_run import (
    DISTILLED,
    PLAIN,
    as_arguments,
    be_quick,
    options_of,
    save_teacher,
    small_config,
    train,
    without_evaluation,
    write_sets,
)

WEIGHTS_0 = {'model__distiller__kd_cls__loss_weight': 0.0, 'model__distiller__kd_loc__loss_weight': 0.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp('teacher') / 'model_best.pth.tar')


def steps_of(work_dir: Path) -> list[dict[str, float]]:
    """What the JSON log says about each training step."""
    (file,) = work_dir.rglob('scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line for line in lines if 'loss' in line]


def losses_of(work_dir: Path) -> set[str]:
    """Names of the losses in the JSON log; all of them are finite, in each of the three steps."""
    steps = steps_of(work_dir)
    assert len(steps) == 3
    names = {name for name in steps[0] if 'loss' in name}
    assert all(math.isfinite(step[name]) for step in steps for name in names)
    assert not any('nan' in str(step).lower() for step in steps)
    return names


def test_weights_0_equal_plain_training_bit_for_bit(tiny_coco, tmp_path, teacher):
    root = write_sets(tiny_coco, tmp_path / 'set')
    initial = {'plain': None, 'distilled': teacher}
    for name, file in initial.items():
        options = {} if file is None else WEIGHTS_0
        train(without_evaluation(small_config(root, tmp_path / name, file, **options)))
    plain, distilled = (load_checkpoint(tmp_path / name / 'latest.pth') for name in initial)
    for part in ('state_dict', 'optimizer', 'rng'):
        assert differences(plain[part], distilled[part]) == []
    assert losses_of(tmp_path / 'distilled') == losses_of(tmp_path / 'plain') | {'loss_kd_cls', 'loss_kd_loc'}


def test_the_teacher_stays_out_of_all_that_is_trained_and_saved(tiny_coco, tmp_path, teacher):
    """With EMA, accumulated and clipped gradients, and evaluation; then tested with the plain config."""
    root = write_sets(tiny_coco, tmp_path / 'set', images=8, empty=1)
    options = {
        'custom_hooks': [{'type': 'EMAHook'}],
        'optim_wrapper__accumulative_counts': 2,
        'optim_wrapper__clip_grad__max_norm': 1.0,
    }
    runner = DetRunner.from_cfg(small_config(root, tmp_path / 'run', teacher, **options))
    model = runner.model
    held = model.distiller.teacher
    before = {name: value.clone() for name, value in held.network.state_dict().items()}
    runner.train()

    assert differences(dict(held.network.state_dict()), before) == []
    assert not any(module.training for module in held.modules())
    assert all(value.grad is None and not value.requires_grad for value in held.parameters())
    ema = next(hook.ema_model for hook in runner.hooks if type(hook).__name__ == 'EMAHook')
    of_teacher = {value.data_ptr() for value in held.network.state_dict().values() if value.numel() > 1}
    for state in (model.state_dict(), ema.module.state_dict()):
        assert not any('teacher' in name or 'distiller' in name or 'fc' in name for name in state)
        assert not of_teacher & {value.data_ptr() for value in state.values()}
    optimized = runner.optim_wrapper.optimizer.param_groups
    assert not of_teacher & {value.data_ptr() for group in optimized for value in group['params']}
    assert ema.module.distiller.teacher is held  # shared and not copied

    plain = MODELS.build(small_config(root, tmp_path / 'plain').model)
    checkpoint = load_checkpoint(tmp_path / 'run/latest.pth')
    assert checkpoint['state_dict'].keys() == plain.state_dict().keys()
    assert not any('teacher' in name or 'distiller' in name for name in flatten(checkpoint))
    assert len(checkpoint['optimizer']['state']) <= len(list(plain.parameters()))
    arguments = [str(PLAIN), str(tmp_path / 'run/latest.pth'), '--eval', 'bbox', '--data-root', str(root)]
    arguments += ['--work-dir', str(tmp_path / 'test'), *as_arguments(options_of())]
    numbers = test_tool.main(arguments)
    assert 'coco/bbox_mAP' in numbers
    assert losses_of(tmp_path / 'run') == {'loss', 'loss_cls', 'loss_bbox', 'loss_kd_cls', 'loss_kd_loc'}
    assert all(step['grad_norm'] > 1 for step in steps_of(tmp_path / 'run') if 'grad_norm' in step)


@pytest.mark.parametrize(
    ('switched', 'absent'), [('kd_cls', {'loss_kd_cls'}), ('kd_loc', {'loss_kd_loc'}), (None, set())]
)
def test_losses_by_name_and_images_without_objects(tiny_coco, tmp_path, teacher, switched, absent):
    """Batches of two: one with objects, one where an image has none, one without any object."""
    root = write_sets(tiny_coco, tmp_path / 'set', empty=3)
    options = {
        'train_dataloader__sampler__shuffle': False,
        'train_dataloader__dataset__filter_empty_gt': False,
    }
    if switched is not None:
        options[f'model__distiller__{switched}'] = None
    runner = train(without_evaluation(small_config(root, tmp_path / 'run', teacher, **options)))
    names = {'loss', 'loss_cls', 'loss_bbox', 'loss_kd_cls', 'loss_kd_loc'} - absent
    assert losses_of(tmp_path / 'run') == names
    first, second, third = steps_of(tmp_path / 'run')
    of_objects = names - {'loss', 'loss_cls'}
    recent = {name: 3 * third[name] - 2 * second[name] for name in of_objects}  # the log is a running mean
    assert all(first[name] > 0 for name in of_objects)
    assert recent == pytest.approx(dict.fromkeys(of_objects, 0.0), abs=1e-4)
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())


def test_amp_on_the_cpu_through_the_tool(tiny_coco, tmp_path, teacher):
    root = write_sets(tiny_coco, tmp_path / 'set')
    dtypes = []

    class Watch(Hook):
        def before_train(self, runner: DetRunner) -> None:
            head, distiller = runner.model.bbox_head.cls_convs[0], runner.model.distiller
            head.register_forward_hook(lambda *call: dtypes.append(call[-1].dtype))
            distiller.kd_cls.register_forward_hook(lambda *call: dtypes.append(call[1][0].dtype))

    HOOKS.register_module(name='WatchDtypes', module=Watch, force=True)
    monitor = {'type': 'DistillationMonitorHook', 'interval': 1}
    options = options_of(
        teacher, custom_hooks=[{'type': 'WatchDtypes'}], default_hooks__distillation_monitor=monitor
    )
    arguments = ['--work-dir', str(tmp_path / 'run'), '--amp', '--no-validate', '--seed', '1']
    train_tool.main([str(DISTILLED), '--data-root', str(root), *arguments, *as_arguments(options)])
    assert losses_of(tmp_path / 'run') >= {'loss_kd_cls', 'loss_kd_loc'}
    (scalars,) = tmp_path.rglob('scalars.json')
    assert scalars.read_text().count('grad_norm/loss_kd_cls/cls_logits') == 3
    assert set(dtypes) == {torch.bfloat16, torch.float32}  # of the head, of what reaches the loss
    assert load_checkpoint(tmp_path / 'run/latest.pth')['meta']['seed'] == 1


def test_two_processes_one_of_which_never_sees_an_object(tiny_coco, tmp_path, teacher):
    """The same weights in both; one measures gradients. By a launcher: tests/unit/commands/test_train.py."""
    root = write_sets(tiny_coco, tmp_path / 'set', images=12, empty=6)
    file = root / 'annotations/train.json'
    content = json.loads(file.read_text())
    first, last = content['images'][:6], content['images'][6:]
    content['images'] = [image for pair in zip(first, last, strict=True) for image in pair]
    file.write_text(json.dumps(content))
    config = tmp_path / 'two.py'
    config.write_text(
        f"_base_ = {str(DISTILLED)!r}\ncustom_imports = dict(imports=['tests.helpers.disturb'])\n"
    )
    options = options_of(
        teacher,
        train_dataloader__sampler__shuffle=False,
        train_dataloader__dataset__filter_empty_gt=False,
        custom_hooks=[{'type': 'WeightsHook'}, {'type': 'ObjectsHook'}],
        default_hooks__distillation_monitor={'type': 'DistillationMonitorHook', 'interval': 1},
    )
    typed = [str(config), '--data-root', str(root), '--work-dir', str(tmp_path / 'run')]
    typed += ['--launcher', 'pytorch', *as_arguments(options)]
    fates = [Fate(tmp_path / 'run', environment=environment) for environment in launched(2)]
    processes = [start(train_as_typed, typed, fate=fate) for fate in fates]
    assert [finish(process) for process in processes] == [0, 0], said(fates[0])
    printed = said(fates[0])  # by both
    seen = dict(re.findall(r'<(\d) sees ([\d ]+) objects>', printed))
    assert min(map(int, seen['0'].split())) > 0
    assert seen['1'] == '0 0 0 0 0 0'
    (_, one), (_, other) = re.findall(r'<(\d) ends with (\w+)', printed)
    assert one == other
    assert losses_of(tmp_path / 'run') >= {'loss_kd_cls', 'loss_kd_loc'}
    assert 'coco/bbox_mAP' in printed
    assert printed.count('gradient norms in iteration 2') == 1  # the main process measures

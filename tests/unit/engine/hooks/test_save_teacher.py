"""The file of a teacher in training."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from mmdet.engine.hooks import SaveTeacherHook

CLASSES = ('dark', 'bright')
TEACHER = SimpleNamespace(
    teacher_file=lambda epoch, metrics: {'state_dict': {'weight': torch.ones(1)}, 'metrics': metrics}
)


class Log(list):
    """Stands for a logger."""

    def info(self, line: str) -> None:
        self.append(line)

    warning = info


def runner_of(dataset: Any) -> SimpleNamespace:
    sampler = SimpleNamespace(times_shown=torch.ones(2, dtype=torch.int64).numpy())
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset, sampler=sampler))
    return SimpleNamespace(rank=0, train_loop=loop, logger=Log(), epoch=1)


def labels_of(*labels: int) -> SimpleNamespace:
    return SimpleNamespace(
        metainfo={'classes': CLASSES},
        objects=lambda: (torch.tensor(labels, dtype=torch.int64).numpy(), None),
        class_table=lambda shown: f'the table of {shown.tolist()}',
    )


def test_classes_without_objects_are_named_when_training_begins(tmp_path: Path) -> None:
    runner = runner_of(labels_of(0, 0))
    SaveTeacherHook(str(tmp_path / 'best.pth.tar')).before_train(runner)
    table, warning = runner.logger
    assert table == 'the table of [1, 1]'
    assert 'bright' in warning and 'dark' not in warning
    runner = runner_of(labels_of(0, 1))
    SaveTeacherHook(str(tmp_path / 'best.pth.tar')).before_train(runner)
    assert len(runner.logger) == 1


def resume(hook: SaveTeacherHook, runner: SimpleNamespace) -> SaveTeacherHook:
    """Go on from a checkpoint of this moment."""
    checkpoint: dict[str, Any] = {}
    hook.before_save_checkpoint(runner, checkpoint)
    resumed = SaveTeacherHook(hook.file)
    runner._resume = True
    resumed.after_load_checkpoint(runner, checkpoint)
    resumed.before_train(runner)
    return resumed


def test_a_resumed_training_keeps_the_better_file(tmp_path: Path) -> None:
    first = SaveTeacherHook(str(tmp_path / 'best.pth.tar'))
    runner = runner_of(labels_of(0, 1))
    runner.model = TEACHER
    first.after_val_epoch(runner, {'crops/top1': 0.8})
    resumed = resume(first, runner)
    for accuracy, best in [(0.7, 0.8), (0.9, 0.9)]:
        resumed.after_val_epoch(runner, {'crops/top1': accuracy})
        assert torch.load(resumed.file, weights_only=True)['metrics'] == {'top1': best}
    assert len(list(tmp_path.iterdir())) == 1
    Path(resumed.file).unlink()
    again = resume(resumed, runner)
    again.after_val_epoch(runner, {'crops/top1': 0.5})
    assert Path(again.file).is_file()


def test_a_training_resumed_before_its_first_write_keeps_the_file_of_an_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / 'best.pth.tar'
    file.write_bytes(b'of an earlier training')
    runner = runner_of(labels_of(0, 1))
    runner.model = TEACHER
    resume(SaveTeacherHook(str(file)), runner).after_val_epoch(runner, {'crops/top1': 0.1})
    assert (tmp_path / 'earlier_1_best.pth.tar').read_bytes() == b'of an earlier training'
    assert torch.load(file, weights_only=True)['metrics'] == {'top1': 0.1}


def test_a_new_training_keeps_the_file_of_an_earlier_one(tmp_path: Path) -> None:
    """Until its own first write, and only then."""
    file = tmp_path / 'best.pth.tar'
    for training in range(3):
        runner = runner_of(labels_of(0, 1))
        runner.model = TEACHER
        hook = SaveTeacherHook(str(file))
        hook.before_train(runner)
        before = file.read_bytes() if training else b''
        for accuracy in (0.7 - 0.2 * training, 0.8 - 0.2 * training):
            assert not training or file.is_file()
            hook.after_val_epoch(runner, {'crops/top1': accuracy})
        kept = tmp_path / f'earlier_{training}_best.pth.tar'
        told = [line for line in runner.logger if 'earlier' in line]
        assert told == ([f'{file} of an earlier training is kept as {kept}'] if training else [])
        assert not training or kept.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize('order', [(EMAHook, SaveTeacherHook), (SaveTeacherHook, EMAHook)])
def test_the_averaged_weights_are_written_in_any_order_of_the_hooks(
    tmp_path: Path, order: tuple[type, type]
) -> None:
    """EMAHook lends the model its weights for the evaluation; a config that is dumped sorts its keys."""
    network = torch.nn.Linear(1, 1, bias=False)
    network.teacher_file = lambda epoch, metrics: {'state_dict': network.state_dict(), 'metrics': metrics}
    runner = runner_of(labels_of(0, 1))
    runner.model, runner._hooks = network, []
    files = {EMAHook: {}, SaveTeacherHook: {'file': str(tmp_path / 'best.pth.tar')}}
    for kind in order:
        Runner.register_hook(runner, kind(**files[kind]))
    averages = next(hook for hook in runner._hooks if isinstance(hook, EMAHook))
    averages.before_run(runner)
    averaged = network.weight.detach().clone()
    network.weight.data += 1
    for hook in runner._hooks:
        hook.before_val_epoch(runner)
    for hook in runner._hooks:
        hook.after_val_epoch(runner, {'crops/top1': 0.8})
    assert torch.equal(torch.load(tmp_path / 'best.pth.tar')['state_dict']['weight'], averaged)
    assert torch.equal(network.weight, averaged + 1)

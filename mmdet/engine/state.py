"""Save and resume the state of a training."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.dist import all_gather, get_rank, get_world_size
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmdet.checkpoint.io import load_checkpoint
from mmdet.checkpoint.rng import get_rng_state, set_rng_state

NUMBERED = re.compile(r'(epoch|iter)_\d+\.pth')  # best_*.pth holds weights only
PARTS = {'optimizer': Mapping, 'param_schedulers': list, 'rng': list}  # what resuming needs beside weights
COUNTS = ('epoch', 'iter', 'batch_in_epoch', 'samples_per_step', 'seed')
# What a schedule has done so far; what it is going to do is in the config, which may train for longer now.
SCHEDULE_PROGRESS = ('base_values', 'last_step', '_global_step', '_last_value', 'best', 'num_bad_epochs')


class Choice(NamedTuple):
    """A checkpoint, and why others were not taken."""

    path: Path | None  # None: the run has not written any
    skipped: list[str]  # file and reason


def choose_checkpoint(work_dir: str | Path) -> Choice:
    """Find the newest whole checkpoint of a run: `latest.pth`, or else the furthest by its own counts.

    Each file is read to its end and compared with its checksums. A run that was killed between writing a
    checkpoint and pointing `latest.pth` to it goes on from the one before, to the same result.

    Raises:
        ValueError: There are checkpoints and none can be resumed; lists them.
    """
    folder = Path(work_dir)
    latest = folder / 'latest.pth'
    skipped: list[str] = []
    if (latest.exists() or latest.is_symlink()) and _read_counts(latest, skipped):
        return Choice(latest, skipped)
    linked = latest.readlink().name if latest.is_symlink() else None
    others = [file for file in folder.glob('*.pth') if NUMBERED.fullmatch(file.name) and file.name != linked]
    found = [(counts, file) for file in sorted(others) if (counts := _read_counts(file, skipped))]
    if found:
        return Choice(max(found)[1], skipped)
    if skipped:
        raise ValueError(
            f'no checkpoint in {folder} can be resumed:\n  '
            + '\n  '.join(skipped)
            + '\n  Move them away to train from the beginning, or name another one: --resume FILE'
        )
    return Choice(None, [f'{file}: weights only' for file in sorted(folder.glob('best_*.pth'))])


def _read_counts(path: Path, skipped: list[str]) -> tuple[int, int] | None:
    """Read iterations and epochs of a checkpoint; None when it cannot be resumed, and why is appended."""
    try:
        checkpoint = load_checkpoint(path)
        check_resumable(checkpoint, path)
    except (OSError, ValueError) as error:
        target = f'{path} -> {path.readlink()}' if path.is_symlink() else str(path)
        skipped.append(f'{target}: {str(error).splitlines()[0].removeprefix(f"{path} ")}')
        return None
    return checkpoint['meta']['iter'], checkpoint['meta']['epoch']


def check_resumable(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Make sure that a checkpoint holds what a run needs to go on.

    Raises:
        ValueError: It holds weights only, or counts that are none.
    """
    missing = [key for key, kind in PARTS.items() if not isinstance(checkpoint.get(key), kind)]
    if missing:
        raise ValueError(
            f'{path} cannot be resumed: it has no {", ".join(missing)}. Resume from latest.pth of its run, '
            f'or start a new training from its weights: --cfg-options load_from={path}'
        )
    meta = checkpoint['meta']
    wrong = [name for name in COUNTS if type(meta.get(name)) is not int or meta[name] < 0]
    if wrong or meta['samples_per_step'] == 0:
        raise ValueError(
            f'{path} cannot be resumed: its meta does not count {", ".join(wrong) or "samples_per_step"}'
        )


def unwrap_model(model: nn.Module) -> Any:
    """Take a model out of its wrapper for several processes, where it has one."""
    return model.module if is_model_wrapper(model) else model


def progress_of(loop: Any, epoch: int, iteration: int) -> dict[str, int]:
    """Count what a training loop has done once so many epochs and iterations are complete.

    Args:
        loop: A `TrainLoop`, whose counts may lack the iteration or the epoch that is just ending.
        epoch: Complete epochs.
        iteration: Complete iterations.

    Returns:
        Entries of a checkpoint's `meta`.
    """
    batches = iteration - loop.iter
    inside = epoch == loop.epoch
    return {
        'epoch': epoch,
        'iter': iteration,
        'batch_in_epoch': loop.batch + batches if inside else 0,
        'samples_in_epoch': loop.samples + batches * loop.samples_per_step if inside else 0,
        'samples_per_step': loop.samples_per_step,
    }


def training_state(optim_wrapper: OptimWrapper, schedules: Sequence[Any]) -> dict[str, Any]:
    """Collect what resuming needs beside weights and counts; every process must call it.

    Returns:
        Entries of a checkpoint: the optimizer (and the scale of float16), the progress of the schedules, and
        of every process the state of its random number generators. Gradients that are summed over several
        batches are no part of it: checkpoints are written after a step of the optimizer.
    """
    gathered = {name: all_gather(state) for name, state in get_rng_state().items()}
    return {
        'optimizer': optim_wrapper.state_dict(),
        'rng': [dict(zip(gathered, states, strict=True)) for states in zip(*gathered.values(), strict=True)],
        'param_schedulers': [
            {key: value for key, value in schedule.state_dict().items() if key in SCHEDULE_PROGRESS}
            for schedule in schedules
        ],
    }


def restore_training(
    checkpoint: Mapping[str, Any],
    loop: Any,
    optim_wrapper: OptimWrapper,
    schedules: Sequence[Any],
    scale_lr: bool = False,
) -> list[str]:
    """Set a training to the state that `training_state` and `progress_of` have described.

    Args:
        checkpoint: One that `check_resumable` accepts.
        loop: A `TrainLoop`.
        optim_wrapper: Built for the model, whose weights are loaded already.
        schedules: Of the learning rate and the like, in the order of the config.
        scale_lr: Whether learning rates follow the number of images in a step, where that has changed.

    Returns:
        Sentences that tell what makes the run differ from one that was never stopped.
    """
    notes = []
    optim_wrapper.load_state_dict(checkpoint['optimizer'])
    for schedule, state in zip(schedules, checkpoint['param_schedulers'], strict=True):
        schedule.load_state_dict(state)
    meta = checkpoint['meta']
    earlier = meta['samples_per_step']
    samples = meta.get('samples_in_epoch', meta['batch_in_epoch'] * earlier)  # older ones count batches alone
    loop.set_progress(meta['epoch'], meta['iter'], samples)
    if earlier != loop.samples_per_step:
        factor = loop.samples_per_step / earlier if scale_lr else 1
        _scale_rates(optim_wrapper, schedules, factor)
        notes.append(
            f'the checkpoint counts steps of {earlier} images, this run has {loop.samples_per_step} '
            '(batch size x processes): it goes on at the same image, not bit for bit, with the '
            f"checkpoint's learning rate x {factor:g}"
            + ('' if factor != 1 else ' (--auto-scale-lr scales it with the images of a step)')
        )
    if checkpoint.get('gradients'):  # saved by earlier versions
        notes.append('the gradients in the checkpoint, summed for a step still to come, are left out')
    states: list[dict[str, Tensor]] = checkpoint['rng']
    if len(states) == get_world_size():
        set_rng_state(states[get_rank()])
    else:
        notes.append(f'the checkpoint is one of {len(states)} processes: random numbers start anew')
    return notes


def _scale_rates(optim_wrapper: OptimWrapper, schedules: Sequence[Any], factor: float) -> None:
    """Multiply the learning rates that a checkpoint has restored, and what schedules make them from."""
    for group in optim_wrapper.param_groups:
        group.update({name: factor * group[name] for name in ('lr', 'initial_lr') if name in group})
    for schedule in schedules:
        if schedule.param_name == 'lr':
            schedule.base_values = [value * factor for value in schedule.base_values]

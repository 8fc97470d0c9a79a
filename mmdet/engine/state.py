"""Save and resume the state of a training."""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather, get_rank, get_world_size
from mmengine.model import is_model_wrapper
from mmengine.optim import LinearParamScheduler, OptimWrapper
from torch import Tensor, nn

from mmdet.checkpoint.io import load_checkpoint
from mmdet.checkpoint.pretrained import BACKBONE, load_fitting, report_fit
from mmdet.checkpoint.rng import get_rng_state, set_rng_state

NUMBERED = re.compile(r'(epoch|iter)_\d+\.pth')  # best_*.pth holds weights only
PARTS = {'optimizer': Mapping, 'param_schedulers': list, 'rng': list}  # what resuming needs beside weights
COUNTS = {'epoch': 0, 'iter': 0, 'batch_in_epoch': 0, 'samples_per_step': 1, 'seed': 0}  # in its meta; least
# What a schedule has done so far; what it is going to do is in the config, which may train for longer now.
SCHEDULE_PROGRESS = ('base_values', 'last_step', '_global_step', '_last_value', 'best', 'num_bad_epochs')


def choose_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Find the newest whole checkpoint of a run: `latest.pth`, or else the furthest by its own counts.

    Each file is read to its end and compared with its checksums. A run that was killed between writing a
    checkpoint and pointing `latest.pth` to it goes on from the one before, to the same result.

    Returns:
        The file, None when the run has not written any, and why others were not taken: file and reason.

    Raises:
        ValueError: There are checkpoints and none can be resumed; lists them.
    """
    folder = Path(work_dir)
    latest = folder / 'latest.pth'
    linked = latest.readlink().name if latest.is_symlink() else None
    names = sorted(file.name for file in folder.glob('*.pth') if NUMBERED.fullmatch(file.name))
    files = [folder / name for name in names if name != linked]
    found, skipped = [], []
    for file in [latest, *files] if os.path.lexists(latest) else files:
        try:
            meta = check_resumable(load_checkpoint(file), file)
        except (OSError, ValueError) as error:
            target = f'{file} -> {file.readlink()}' if file.is_symlink() else str(file)
            skipped.append(f'{target}: {str(error).splitlines()[0].removeprefix(f"{file} ")}')
        else:
            if file == latest:
                return latest, skipped
            found.append((meta['iter'], meta['epoch'], file))
    if found:
        return max(found)[-1], skipped
    if skipped:
        raise ValueError(
            f'no checkpoint in {folder} can be resumed:\n  '
            + '\n  '.join(skipped)
            + '\n  Move them away to train from the beginning, or name another one: --resume FILE'
        )
    return None, [f'{file}: weights only' for file in sorted(folder.glob('best_*.pth'))]


def check_resumable(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Make sure that a checkpoint holds what a run needs to go on; return its `meta`.

    Raises:
        ValueError: It holds weights only, or counts that are none.
    """
    meta: dict[str, Any] = checkpoint['meta']
    missing = [key for key, kind in PARTS.items() if not isinstance(checkpoint.get(key), kind)]
    for name, least in COUNTS.items():
        if type(meta.get(name)) is not int or meta[name] < least:
            missing.append(f'count of {name}')
    if missing:
        raise ValueError(
            f'{path} cannot be resumed: it has no {", no ".join(missing)}. Resume from latest.pth of its '
            f'run, or start a new training from its weights: --cfg-options load_from={path}'
        )
    return meta


def unwrap_model(model: nn.Module) -> Any:
    """Take a model out of its wrapper for several processes, where it has one."""
    return model.module if is_model_wrapper(model) else model


def start_from(
    model: nn.Module, checkpoint: dict[str, Any], file: str, init_weights: Callable[[], None]
) -> None:
    """Load what fits a model; a backbone that does not fit whole starts from its own weights.

    Args:
        model: Not wrapped.
        checkpoint: As `load_checkpoint` returns it; its weights become those of the model, for the hooks.
        file: Its name.
        init_weights: Loads the backbone's own.

    Raises:
        ValueError: Nothing fits.
    """
    advice = 'leave load_from out, or give a checkpoint of a network like this one'
    missing = load_fitting(model, checkpoint['state_dict'], file, advice)
    if any(name.startswith(BACKBONE) for name in missing):
        init_weights()
        load_fitting(model, checkpoint['state_dict'], file, advice)
    report_fit(model, missing, file, filled=(BACKBONE,))
    checkpoint['state_dict'] = model.state_dict()


def warm_up_notes(schedules: Sequence[Any], steps: int) -> list[str]:
    """Warn of a warm-up that a training of so many iterations does not get over."""
    return [
        f'the training has {steps} iterations, its warm-up {schedule.end}: shorten it by --cfg-options '
        f'param_scheduler.{place}.end={max(steps // 10, 2)}'
        for place, schedule in enumerate(schedules)
        if isinstance(schedule, LinearParamScheduler) and not schedule.by_epoch and schedule.end > steps
    ]


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
            {key: value for key, value in schedule.state_dict().items() if key in (*SCHEDULE_PROGRESS, 'end')}
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
    configured = [dict(group) for group in optim_wrapper.param_groups]
    optim_wrapper.load_state_dict(checkpoint['optimizer'])
    notes = _restore_schedules(schedules, checkpoint['param_schedulers'])
    new_rates = _take_configured(optim_wrapper, schedules, configured, 'lr', scale_lr)
    notes += new_rates + _take_configured(optim_wrapper, schedules, configured, 'weight_decay')
    meta = checkpoint['meta']
    earlier = meta['samples_per_step']
    samples = meta.get('samples_in_epoch', meta['batch_in_epoch'] * earlier)  # older ones count batches alone
    loop.set_progress(meta['epoch'], meta['iter'], samples)
    if earlier != loop.samples_per_step:
        factor = loop.samples_per_step / earlier if scale_lr and not new_rates else 1
        _scale_rates(optim_wrapper, schedules, factor)
        rate = f"checkpoint's learning rate x {factor:g}"
        if factor == 1 and not new_rates:
            rate += ' (--auto-scale-lr scales it with the images of a step)'
        notes.append(
            f'the checkpoint counts steps of {earlier} images, this run has {loop.samples_per_step} '
            '(batch size x processes): it goes on at the same image, not bit for bit, with the '
            + ("config's learning rate" if new_rates else rate)
        )
    states: list[dict[str, Tensor]] = checkpoint['rng']
    if len(states) == get_world_size():
        set_rng_state(states[get_rank()])
    else:
        notes.append(f'the checkpoint is one of {len(states)} processes: random numbers start anew')
    return notes


def _restore_schedules(schedules: Sequence[Any], states: Sequence[dict[str, Any]]) -> list[str]:
    """Set schedules to the states of a checkpoint; return sentences about those of another length."""
    notes = []
    for schedule, state in zip(schedules, states, strict=True):
        if (end := state.pop('end', schedule.end)) != schedule.end:
            notes.append(
                f'the schedule of the {schedule.param_name} now ends at {schedule.end}, in the checkpoint at '
                f'{end}: it goes on from the value that it had there. To begin it anew, leave --resume out: '
                '--cfg-options load_from=FILE starts from the weights'
            )
        schedule.load_state_dict(state)
    return notes


def note_rates(optim_wrapper: OptimWrapper) -> None:
    """Write into each group of parameters the learning rate of the config, before it is scaled.

    Checkpoints hold it: so a resumed run that scales its rates knows whether the config has changed.
    """
    for group in optim_wrapper.param_groups:
        group['config_lr'] = group['lr']


def _take_configured(
    optim_wrapper: OptimWrapper,
    schedules: Sequence[Any],
    configured: Sequence[dict[str, Any]],
    name: str,
    scaled: bool = False,
) -> list[str]:
    """Take a setting from the config where the config has changed; what schedules made of it stays a factor.

    Args:
        optim_wrapper: With the groups of the checkpoint.
        schedules: Theirs, too.
        configured: The groups as the config makes them.
        name: 'lr' or 'weight_decay'.
        scaled: Whether this run scales learning rates; the run of the checkpoint need not have.

    Returns:
        A sentence where it has changed.
    """
    pairs = list(zip(optim_wrapper.param_groups, configured, strict=True))
    if not all(name in group for pair in pairs for group in pair):
        return []
    before, now = ([_base_value(group, name) for group in groups] for groups in zip(*pairs, strict=True))
    same = all(map(math.isclose, before, now))
    if scaled and not same:
        said = [group.get('config_lr', rate) for (group, _), rate in zip(pairs, before, strict=True)]
        same = all(map(math.isclose, said, [group['config_lr'] for group in configured]))
    keys = [f'{prefix}_{name}' for prefix in ['config', *['initial', 'max', 'min'] * (not same)]]
    for (group, wanted), base, rebased in zip(pairs, before, now, strict=True):
        if not same:
            group[name] = group[name] * rebased / base if base else rebased
        group.update({key: wanted[key] for key in keys if key in wanted})
    if same:
        return []
    for schedule in schedules:
        if schedule.param_name == name:
            schedule.base_values = list(now)
    new, old = (', '.join(dict.fromkeys(f'{value:g}' for value in values)) for values in (now, before))
    return [f'the {name} is now {new} as the config says, in the checkpoint {old} (before schedules)']


def _base_value(group: Mapping[str, Any], name: str) -> float:
    """Get a setting of a group of parameters as it was before schedules."""
    return float(group.get(f'initial_{name}', group[name]))


def _scale_rates(optim_wrapper: OptimWrapper, schedules: Sequence[Any], factor: float) -> None:
    """Multiply the learning rates that a checkpoint has restored, and what schedules make them from."""
    for group in optim_wrapper.param_groups:
        group.update({name: factor * group[name] for name in ('lr', 'initial_lr') if name in group})
    for schedule in schedules:
        if schedule.param_name == 'lr':
            schedule.base_values = [value * factor for value in schedule.base_values]

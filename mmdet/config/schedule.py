"""Apply keys that set all that belongs together: `epochs` or `iters`, `batch_size`, `lr`, `input_size`.

They are keys of the top level of a config; tools/train.py has options of the same names.
"""

import math
from collections.abc import Sequence
from typing import Any

from mmdet.config.check import SHORT_KEYS, find_dicts

WARM_UP = 10  # with `iters` a warm-up takes at most one of so many parts of the training


def apply_short_keys(cfg: Any) -> None:
    """Write `SHORT_KEYS` of a merged config to the places that they stand for, and remove them.

    Raises:
        ValueError: A value that is none, `epochs` and `iters` together, or nothing that a key could change.
    """
    given = {key: value for key in SHORT_KEYS if (value := cfg.pop(key, None)) is not None}
    if given.keys() - {'input_size'} and cfg.get('train_cfg') is None:
        raise ValueError(f'the config has no train_cfg: {", ".join(given)} would change nothing')
    if 'epochs' in given and 'iters' in given:
        raise ValueError('epochs and iters both say how long to train: leave one out')
    for key in given.keys() - {'lr', 'input_size'}:
        if not isinstance(given[key], int) or given[key] < 1:
            raise ValueError(f'{key} is a whole number from 1 on; got {given[key]!r}')
    if 'epochs' in given or 'iters' in given:
        _set_length(cfg, given.get('epochs') or given['iters'], by_epoch='epochs' in given)
    if 'batch_size' in given:
        _set_batch_size(cfg.train_dataloader, given['batch_size'])
        if cfg.get('auto_scale_lr'):
            cfg.auto_scale_lr.enable = True
    if 'lr' in given:
        _set_rate(cfg, given['lr'])
    if 'input_size' in given:
        _set_input_size(cfg, given['input_size'])


def input_size(cfg: Any) -> list[int] | None:
    """Get the (w, h) that images are resized to for testing; None where nothing resizes them."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    scales = [list(part['scale']) for _, part in find_dicts(loader, 'loader') if part.get('type') == 'Resize']
    return scales[-1] if scales else None


def explain_input_size(cfg: Any, trained: Any, source: str) -> str:
    """Say what to type where a checkpoint was trained for another input size than a config's; '' elsewhere.

    Args:
        cfg: Merged config, `SHORT_KEYS` applied.
        trained: What its meta says, [w, h]; something else where it says nothing.
        source: Its name.
    """
    own = input_size(cfg)
    if not isinstance(trained, list) or own in (None, trained):
        return ''
    return (
        f'{source} was trained for an input of {trained[0]} x {trained[1]} pixels, this config resizes to '
        f'{own[0]} x {own[1]}: --cfg-options input_size={trained[0]},{trained[1]}'
    )


def _schedules(cfg: Any) -> list[Any]:
    found = cfg.get('param_scheduler') or []
    return [found] if isinstance(found, dict) else list(found)


def _set_length(cfg: Any, length: int, by_epoch: bool) -> None:
    """Train for so many epochs or iterations, and stretch the schedules of the learning rate with it.

    What ends with the training is stretched. A warm-up counts iterations and keeps them; where the training
    is given in iterations it takes at most a tenth.
    """
    train = cfg.train_cfg
    before, was_by_epoch = train.get('max_epochs') or train.get('max_iters'), bool(train.get('max_epochs'))
    train.max_epochs, train.max_iters = (length, None) if by_epoch else (None, length)
    for schedule in _schedules(cfg):
        counts_epochs, end = schedule.get('by_epoch', True), schedule.get('end', before)
        if not counts_epochs and (was_by_epoch or end < before):
            schedule.end = end if by_epoch else min(end, max(length // WARM_UP, 2))
            continue
        # begins behind a warm-up, which counts iterations; with epochs both begin together
        begin = schedule.get('begin', 0) if counts_epochs == by_epoch else 0
        schedule.begin = begin * length // before if by_epoch else min(begin, length // WARM_UP)
        schedule.end, schedule.by_epoch = max(end * length // before, 1), by_epoch
        for key in schedule.keys() & {'T_max', 'step_size'}:
            schedule[key] = max(schedule[key] * length // before, 1)
        if 'milestones' in schedule:
            stretched = {milestone * length // before for milestone in schedule.milestones}
            schedule.milestones = sorted(stretched - {0})
        if not by_epoch:
            schedule.pop('convert_to_iter_based', None)
        elif not counts_epochs:
            schedule.convert_to_iter_based = True


def _set_batch_size(loader: Any, size: int) -> None:
    """Set the images of a step and process; runs of photos of one shape keep as many steps."""
    before = loader.batch_size
    loader.batch_size = size
    if loader.sampler.get('group_size', 1) > 1:
        loader.sampler.group_size = max(loader.sampler.group_size // before, 1) * size


def _set_rate(cfg: Any, rate: Any) -> None:
    """Set the learning rate, as it is: not scaled with the batch; what schedules end with goes along."""
    if not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
        raise ValueError(f'lr is a number above 0; got {rate!r}')
    optimizer = cfg.optim_wrapper.optimizer
    for schedule in _schedules(cfg):
        if schedule.get('eta_min'):
            schedule.eta_min *= rate / optimizer.lr
    optimizer.lr = rate
    if cfg.get('auto_scale_lr'):
        cfg.auto_scale_lr.enable = False


def _set_input_size(cfg: Any, given: Any) -> None:
    """Resize to (w, h) in all pipelines; the anchors of an SSD follow.

    Sizes of anchors in pixels are scaled, unless the generator's `input_size` says that they are made for
    this one.
    """
    size = tuple(given) if isinstance(given, Sequence) else (given, given)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f'input_size is W or (W, H), whole numbers of pixels; got {given!r}')
    loaders = [cfg.get(f'{split}_dataloader') for split in ('train', 'val', 'test')]
    parts = [part for _, part in find_dicts(loaders, 'loaders')]
    resizes = [part for part in parts if part.get('type') == 'Resize']
    if not resizes:
        raise ValueError('input_size: the pipelines of this config have no Resize')
    before = tuple(resizes[0]['scale'])
    for part in resizes:
        part['scale'] = size
    for _, part in find_dicts(cfg.get('model'), 'model'):
        if part.get('type') == 'SSDAnchorGenerator' and size != before:
            own = part.get('input_size') or before
            own = tuple(own) if isinstance(own, Sequence) else (own, own)
            part['strides'], part['input_size'] = None, size
            if not part.get('basesize_ratio_range'):
                factor = math.sqrt(math.prod(size) / math.prod(own))
                for key in ('min_sizes', 'max_sizes'):
                    part[key] = [round(side * factor, 1) for side in part[key]]

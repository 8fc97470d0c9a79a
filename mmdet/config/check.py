"""Check the keys and types of a config before anything is built from it."""

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmdet import registry

DATA_DEFAULTS: dict[str, str | None] = {  # the keys of the data, see `mmdet.config.resolve`
    'data_root': 'data/coco2017/',
    'train_ann': 'annotations/instances_train2017.json',
    'train_img': 'train2017/',
    'val_ann': 'annotations/instances_val2017.json',
    'val_img': 'val2017/',
    'test_ann': None,  # None: the validation split
    'test_img': None,
}
# Each stands for all that belongs together, see `mmdet.config.schedule`.
SHORT_KEYS = ('epochs', 'iters', 'batch_size', 'lr', 'input_size')
# What is read from the top level of a config: by `resolve`, by the constructor of the runner, by its methods.
READ_KEYS = {
    *DATA_DEFAULTS,
    *(name for name in inspect.signature(Runner.__init__).parameters if name not in ('self', 'cfg')),
    *('model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'compile', 'activation_checkpointing'),
    *('channels_last', 'row', 'classes', *SHORT_KEYS),
}
# What nothing reads any more, KEY, TYPE or TYPE.KEY: one word is the new name, dotted where it moves into a
# part, under which the old one keeps working with a hint; a sentence says what to do.
REPLACED = {
    'DistillationAlarmHook': 'DistillationMonitorHook',
    'DistillationMonitorHook.dwarf_ratio': 'max_grad_ratio',
    'DistillationMonitorHook.feeble_ratio': 'It is gone: the scalars grad_norm/... show a weak loss.',
    'TrainLoop.max_skipped': 'It is gone: a loss that is not finite stops training.',
    'CheckpointHook.rule': 'It is gone: greater is better.',
    'SSDHead.neg_pos_ratio': 'cls_loss.neg_pos_ratio',
    'SSDHead.smoothl1_beta': 'bbox_loss.beta',
    'L1Loss': 'Use SmoothL1Loss with beta=0.',
    'AnchorGenerator.octave_base_scale': 'Use scales, numbers: [4 * 2 ** (step / 3) for step in range(3)].',
    # keys of MMDetection 2.x
    'data': 'Use train_dataloader, val_dataloader and test_dataloader.',
    'optimizer': 'Use optim_wrapper.optimizer.',
    'optimizer_config': 'Use optim_wrapper.clip_grad.',
    'lr_config': 'Use param_scheduler.',
    'runner': 'Use train_cfg.',
    'evaluation': 'Use val_evaluator, and train_cfg.val_interval.',
    'checkpoint_config': 'Use default_hooks.checkpoint.',
    'log_config': 'Use default_hooks.logger.',
}
MMENGINE_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
LOADER_KEYS = {'dataset', 'sampler', 'collate_fn', *inspect.signature(DataLoader).parameters}
UNTYPED = {  # dicts that are read key by key
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'env_cfg.dist_cfg': {'backend', 'timeout'},
    'randomness': {'seed', 'diff_rank_seed', 'deterministic'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
    **{f'{split}_dataloader': LOADER_KEYS for split in ('train', 'val', 'test')},
}
KINDS = {  # key that is nearest around a type -> registry whose names are suggested
    'model': 'model',
    'pipeline': 'transform',
    'default_hooks': 'hook',
    'optimizer': 'optimizer',
    'param_scheduler': 'parameter scheduler',
    'vis_backends': 'vis_backend',
}
TAKEN_OUT = {'type', '_scope_', 'priority', 'constructor', 'paramwise_cfg'}  # before a constructor is called
SPELLING = 0.8  # similarity from which a variable at the top of a config file is taken for a misspelled key


class ConfigError(ValueError):
    """Raised for a value of a config that torch, MMEngine or a constructor refuses."""


@contextmanager
def config_context(part: str) -> Iterator[None]:
    """Add to an error which part of the config it is about: torch and MMEngine name no key.

    Raises:
        ConfigError: With the text of the error. An OSError, which names its file, passes.
    """
    try:
        yield
    except (ConfigError, OSError):  # the innermost context says most
        raise
    except Exception as error:
        text = str(error.args[0] if len(error.args) == 1 else error).strip() or type(error).__name__
        place = f'This is said of {part} in the config (--cfg-options changes it).'
        raise ConfigError(f'{text}\n  {place}') from error


def check_keys(cfg: Config, overrides: Iterable[str] = ()) -> None:
    """Refuse keys that nothing would read, and types that nobody has registered.

    At the top level a config file may hold variables of its own: there only a name like that of a key, or one
    of `REPLACED`, is refused. A part whose constructor takes any keyword is not checked.

    Args:
        cfg: Merged with the command line.
        overrides: Keys that the command line has set, `'model.backbone.weights'`. They cannot be variables.

    Raises:
        TypeError: Names the config file, the place, and the nearest known name.
    """
    file = cfg.filename or 'the config'
    overrides = set(overrides)
    typed = {key.partition('.')[0] for key in overrides}
    for key in cfg:
        advice = _advice(key, READ_KEYS, key, shown=0, cutoff=0.6 if key in typed else SPELLING)
        if key not in READ_KEYS and (advice or key in typed):
            own = 'A variable of a config file is changed there, and needs a name unlike that of a key.'
            raise TypeError(f'{file}: nothing reads the key {key}.{advice} {own}')
    for place, part in find_dicts(cfg.to_dict()):
        _check_part(file, place, part, cfg, overrides)


def _check_part(file: str, place: str, part: dict[str, Any], cfg: Config, overrides: set[str]) -> None:
    known, owner = UNTYPED.get(place), place
    if place.rpartition('.')[0] == 'default_hooks' and 'type' not in part:
        hooks = {name for name, hook in cfg.default_hooks.items() if hook is None or 'type' in hook}
        raise TypeError(f'{file}: {place} has no type.{_advice(place.partition(".")[2], hooks)}')
    if 'type' in part and place != 'optim_wrapper.clip_grad':  # whose type is a word
        owner = part['type']
        builder = find_type(owner) if isinstance(owner, str) else owner
        if builder is None:
            raise TypeError(
                f'{file}: {place}.type={owner} is not known.{_advice(owner, _names(place), owner, shown=0)} '
                'Modules of your own are imported by custom_imports=dict(imports=[...]).'
            )
        known = _keywords(builder)
        _check_numbers(file, place, part, builder)
    wrong = sorted(part.keys() - known - TAKEN_OUT) if known is not None else []
    if wrong:
        advice = _advice(wrong[0], known or (), f'{owner}.{wrong[0]}')
        inherited = f'{place}.type' in overrides and f'{place}.{wrong[0]}' not in overrides
        if inherited and not re.search(r'\.\d', place):  # in a list `_delete_` does nothing
            advice += f' To drop the keys of the former type: "{place}=dict(_delete_=True,type=\'{owner}\')"'
        raise TypeError(f'{file}: {owner} does not know {place}.{wrong[0]}.{advice}')


def _check_numbers(file: str, place: str, part: dict[str, Any], builder: Any) -> None:
    """Refuse text where the default of a constructor is a number and no text is taken: torch names no key."""
    for name, parameter in inspect.signature(builder).parameters.items():
        number = isinstance(parameter.default, (int, float)) and not isinstance(parameter.default, bool)
        both = re.search(r'\b(str|Any|Literal)\b', str(parameter.annotation))
        if number and not both and isinstance(part.get(name), str):
            raise TypeError(f'{file}: {place}.{name}={part[name]!r} has to be a number')


def find_dicts(value: Any, place: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the dicts inside a config that somebody reads, each with its dotted place."""
    if isinstance(value, dict):
        if place:
            yield place, value
        inside = [(key, item) for key, item in value.items() if place or key in READ_KEYS]
    else:
        inside = list(enumerate(value)) if isinstance(value, (list, tuple)) else []
    for key, item in inside:
        yield from find_dicts(item, f'{place}.{key}' if place else str(key))


def _registries() -> list[Registry]:
    return [
        value
        for module in (registry, registry.root)
        for value in vars(module).values()
        if isinstance(value, Registry)
    ]


def find_type(name: str) -> Any:
    """Find a registered type by its name; None where it is not known."""
    registries = _registries()
    for one in registries:
        one.import_from_location()
    holding = [one for one in registries if name in one.module_dict]  # others would search the whole sys.path
    return next((found for one in holding or registries if (found := one.get(name)) is not None), None)


def _names(place: str) -> set[str]:
    """List the types that can stand at a place of a config."""
    kind = next((KINDS[key] for key in reversed(place.split('.')) if key in KINDS), None)
    return {name for one in _registries() if kind in (None, one.name) for name in one.module_dict}


def constructor_keys(kind: Any) -> set[str]:
    """List the keywords of a registered type; none where it is not known, or takes any."""
    builder = find_type(kind) if isinstance(kind, str) else None
    return (builder and _keywords(builder)) or set()


def _keywords(builder: Any) -> set[str] | None:
    """List the keywords of a constructor; None: it takes any."""
    parameters = inspect.signature(builder).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return None
    return set(parameters)


def _advice(name: str, known: Iterable[str], replaced: str = '', shown: int = 12, cutoff: float = 0.6) -> str:
    """Suggest what to write in the place of a name, after a space; '' where nothing is near."""
    if replaced in REPLACED:
        return f' {REPLACED[replaced]}'
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=cutoff)
    names = sorted(known)[:shown]
    return (f' Did you mean {near[0]}?' if near else '') + (f' Known: {", ".join(names)}.' if names else '')

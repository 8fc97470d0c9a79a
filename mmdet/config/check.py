"""Finding misspelled keys and types of a config before anything is built."""

import difflib
import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from torch.utils.data import DataLoader

from mmdet import registry
from mmdet.config.resolve import MMDETECTION2_KEYS, READ_KEYS

MMENGINE_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
LOADER_KEYS = {'dataset', 'sampler', 'collate_fn', *inspect.signature(DataLoader).parameters}
UNTYPED = {  # dicts that are read key by key
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'env_cfg.dist_cfg': {'backend', 'timeout'},
    'randomness': {'seed', 'diff_rank_seed', 'deterministic'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'train_dataloader': LOADER_KEYS,
    'val_dataloader': LOADER_KEYS,
    'test_dataloader': LOADER_KEYS,
}
TAKEN_OUT = {
    'type',
    '_scope_',
    'priority',
    'constructor',
    'paramwise_cfg',
}  # before the rest goes to a constructor
SPELLING = 0.8  # similarity from which a variable at the top of a config file is taken for a misspelled key


@contextmanager
def config_context(part: str) -> Iterator[None]:
    """Let an error in here say, where `mmdet.cli.run_main` tells it, which part of the config it is of.

    torch and MMEngine name no key when they refuse a value.
    """
    try:
        yield
    except Exception as error:
        if not hasattr(error, 'config_part'):  # the innermost says most
            error.config_part = part  # type: ignore[attr-defined]
        raise


def check_keys(cfg: Config) -> Config:
    """Refuse what nothing would read, and types that nobody has registered; returns `cfg`.

    At the top level a config file may hold variables of its own: there only a name like that of a key, or one
    that MMDetection 2.x read, is refused. A part whose constructor takes any keyword is not checked.

    Raises:
        KeyError: Unknown type.
        TypeError: Unknown key. Both name the config file, the place, and the nearest known name.
    """
    file = cfg.filename or 'the config'
    for key in cfg:
        near = difflib.get_close_matches(key, READ_KEYS, n=1, cutoff=SPELLING)
        near = [MMDETECTION2_KEYS[key]] if key in MMDETECTION2_KEYS else near
        if key not in READ_KEYS and near:
            raise TypeError(
                f'{file}: nothing reads the key {key}. Is {near[0]} meant? A variable of your own needs '
                'another name.'
            )
    for key, hook in (cfg.get('default_hooks') or {}).items():
        if 'type' not in (hook or {'type': None}):
            known = {name for name, other in cfg.default_hooks.items() if other is None or 'type' in other}
            raise TypeError(f'{file}: default_hooks.{key} has no type.{_advice(key, known)}')
    for place, part in _dicts(cfg.to_dict()):
        if place == 'optim_wrapper.clip_grad':  # its type is a word
            continue
        if 'type' in part:
            name = part['type']
            builder = _find(name) if isinstance(name, str) else name
            if builder is None:
                raise KeyError(
                    f'{file}: {place}.type={name} is not known.{_advice(name, _names(), shown=0)} '
                    'Modules of your own are imported by custom_imports=dict(imports=[...]).'
                )
            known, owner = _keywords(builder), name
        else:
            known, owner = UNTYPED.get(place), place
        wrong = sorted(part.keys() - known - TAKEN_OUT) if known is not None else []
        if wrong:
            raise TypeError(
                f'{file}: {owner} does not know {place}.{wrong[0]}.{_advice(wrong[0], known or ())}'
            )
    return cfg


def _dicts(value: Any, place: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dict that a reader of configs looks into, and its dotted place."""
    if isinstance(value, dict):
        if place:
            yield place, value
        inside = [(key, item) for key, item in value.items() if place or key in READ_KEYS]
    else:
        inside = list(enumerate(value)) if isinstance(value, (list, tuple)) else []
    for key, item in inside:
        yield from _dicts(item, f'{place}.{key}' if place else str(key))


def _registries() -> list[Registry]:
    children = [value for value in vars(registry).values() if isinstance(value, Registry)]
    return children + [value for value in vars(registry.root).values() if isinstance(value, Registry)]


def _find(name: str) -> Any:
    return next((found for one in _registries() if (found := one.get(name)) is not None), None)


def _names() -> set[str]:
    return {name for one in _registries() for name in one.module_dict}


def _keywords(builder: Any) -> set[str] | None:
    """What it can be called with; None: anything."""
    parameters = inspect.signature(builder).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return None
    return set(parameters)


def _advice(name: str, known: Iterable[str], shown: int = 12) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    names = sorted(known)[:shown]
    return (f' Did you mean {near[0]}?' if near else '') + (f' Known: {", ".join(names)}.' if names else '')

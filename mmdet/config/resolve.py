"""Read, merge and resolve config files, before anything is built.

A config is changed in one place only, `resolve`. The top-level keys of the data (`data_root`, `train_ann`,
`train_img`, `val_ann`, `val_img`, `test_ann`, `test_img`, `classes`) may come from a `_base_` file, a child
file, `--cfg-options` or `--data-root`; `resolve` copies their final values to every place that needs them,
as it does with `row` and the keys of mmdet/config/schedule.py.
"""

import copy
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import Any

from mmengine.config import Config

from mmdet.config.check import DATA_DEFAULTS, REPLACED, check_keys, constructor_keys, find_dicts
from mmdet.config.classes import check_chosen, check_classes, choice, chosen_classes
from mmdet.config.rows import apply_row
from mmdet.config.schedule import apply_short_keys
from mmdet.datasets.coco_format import read_classes
from mmdet.files import find_config, suggest

OLD_KEYS = {'data', 'optimizer_config', 'lr_config', 'checkpoint_config', 'log_config', 'kt_config'}
LARGE_PIXEL_WEIGHT = 1.0  # times the std of the images; the published student's is 0.15

COCO_CLASSES = 80  # as configs say before the data do
DATA_KEYS = ('data_root', 'ann_file', 'data_prefix')  # of a data set, which `resolve` writes


def load_config(
    path: str | Path,
    cfg_options: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
    for_training: bool = True,
) -> Config:
    """Read a config file as every command uses it: merged with the command line and resolved.

    Arguments as `merge_config` and `resolve` take them.
    """
    return resolve(merge_config(path, cfg_options, data_root), for_training)


def merge_config(
    path: str | Path, cfg_options: Mapping[str, Any] | None = None, data_root: str | Path | None = None
) -> Config:
    """Read a config file with its `_base_` files and merge the command line into it.

    Args:
        path: The config file, or the name of one that comes with the toolbox: 'ssd/ssd300.py'.
        cfg_options: Overrides, `{'model.backbone.weights': None}`.
        data_root: Folder of the data set; stronger than `data_root` in the file and in `cfg_options`.

    Raises:
        FileNotFoundError: There is no such config file.
        TypeError: A key that nothing reads, see `check_keys`.
        ValueError: The file cannot be read, or an override does not fit into it.
    """
    file = find_config(path)
    if file is None:
        advice = suggest(path) or ' `distill-det configs` lists those that come with the toolbox.'
        raise FileNotFoundError(f'config file not found: {path}.{advice}')
    if file.suffix in ('.pth', '.tar'):
        raise ValueError(f'{path} is a checkpoint: the config comes first, then the checkpoint')
    try:
        cfg = Config.fromfile(str(file))
    except (SyntaxError, OSError) as error:
        told = f'{path}, or a _base_ file of it, cannot be read: {error}'
        raise ValueError(
            _explain_old_config(path, re.findall(r'^\w+', file.read_text(errors='replace'), re.M)) or told
        ) from error
    if told := _explain_old_config(path, cfg):
        raise ValueError(told)
    merge_options(cfg, cfg_options or {})
    if data_root is not None:
        cfg.data_root = str(data_root)
    return cfg


def merge_options(cfg: Config, cfg_options: Mapping[str, Any]) -> None:
    """Merge overrides into a config, and check the whole; raises as `merge_config`."""
    for key, value in cfg_options.items():
        _override(cfg, key, value)
    _rename(cfg)
    _name_hooks(cfg)
    _spell_out_backends(cfg)
    check_keys(cfg, cfg_options)
    _explain_pixel_weight(cfg)


def _explain_old_config(path: str | Path, keys: Iterable[str]) -> str:
    """Say what to type where the keys of a config are those of MMDetection 2.x; '' where they are not."""
    old = sorted(OLD_KEYS.intersection(keys))
    if len(old) < 2 and 'kt_config' not in old:  # one stray key is explained by `check_keys`
        return ''
    return (
        f'{path} is a config of MMDetection 2.x{" (DICOD)" if "kt_config" in old else ""}: it has the keys '
        f'{", ".join(old)}. Translate it: python tools/misc/convert_config.py {path} NEW.py'
    )


def _override(cfg: Config, key: str, value: Any) -> None:
    """Merge `--cfg-options KEY=VALUE` into a config."""
    first, *rest = key.split('.')
    numbers = map(str, range(len(cfg.get('custom_hooks') or ())))
    if first == 'custom_hooks' and rest and rest[0] not in numbers:
        names = ', '.join(cfg.get('default_hooks') or {})
        place = f'default_hooks.NAME.{".".join(rest[1:])}'
        raise ValueError(f'--cfg-options {key}=...: hooks have names: {place}, NAME one of {names}')
    if path := re.match(rf'(\w+)_(dataloader\.dataset|evaluator)\.({"|".join(DATA_KEYS)})\b', key):
        raise ValueError(f'--cfg-options {key}=... would be overwritten: {_path_keys(path[1])}')
    try:
        cfg.merge_from_dict({key: value})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f'--cfg-options {key}=... does not fit into {cfg.filename}: {error.args[0]}'
        ) from error


def _rename(cfg: Config) -> None:
    """Give types and keys of earlier versions their new names, with a hint, see `REPLACED`."""
    for _, part in find_dicts(dict(cfg.items())):
        for key in ['type', *part]:
            old = str(part.get('type')) if key == 'type' else f'{part.get("type")}.{key}'
            new = REPLACED.get(old, '')
            *outer, name = new.split('.')
            if all(map(str.isidentifier, [*outer, name])):
                print(f'note: {old} is now {new}', file=sys.stderr)
                target = reduce(lambda inner, name: inner.setdefault(name, {}), outer, part)
                target['type' if key == 'type' else name] = new if key == 'type' else part.pop(key)


def _name_hooks(cfg: Config) -> None:
    """Give hooks that an older config lists in `custom_hooks` their places in `default_hooks`."""
    hooks = cfg.get('default_hooks') or {}
    names = {hook['type']: name for name, hook in hooks.items() if hook and 'type' in hook}
    listed = cfg.get('custom_hooks') or []
    for hook in [hook for hook in listed if hook['type'] in names]:
        listed.remove(hook)
        hooks[names[hook['type']]] = hook
        place = f'default_hooks.{names[hook["type"]]}'
        print(f'note: {hook["type"]} in custom_hooks is now {place}', file=sys.stderr)


def _spell_out_backends(cfg: Config) -> None:
    """Write `visualizer.vis_backends=[WandbVisBackend]` out as a list of dicts."""
    if backends := (cfg.get('visualizer') or {}).get('vis_backends'):
        given = backends if isinstance(backends, (list, tuple)) else [backends]
        cfg.visualizer.vis_backends = [{'type': one} if isinstance(one, str) else one for one in given]


def _explain_pixel_weight(cfg: Config) -> None:
    """Hint at a weight of the pixel level that was probably chosen in its former unit, the std."""
    model = cfg.get('model') or {}
    kd_loc = (model.get('distiller') or {}).get('kd_loc') or {}
    levels, given = list(kd_loc.get('levels') or ()), kd_loc.get('loss_weight', 0)
    if 'pixels' not in levels:
        return
    weights = [given] * len(levels) if isinstance(given, (int, float)) else list(given)
    place, std = levels.index('pixels'), fmean((model.get('data_preprocessor') or {}).get('std') or [1])
    if std != 1 and weights[place] * std > LARGE_PIXEL_WEIGHT:
        kept = [f'{w / std if i == place else w:g}' for i, w in enumerate(weights)]
        print(
            f'note: kd_loc now measures the level pixels in gray levels: {std:g} times what it was for this '
            'student. To keep the effect of a weight chosen before: '
            f'model.distiller.kd_loc.loss_weight=({",".join(kept)})',
            file=sys.stderr,
        )


class CachedConfig(Config):
    """Caches `pretty_text`: layout takes 0.5 s and MMEngine asks six times."""

    @classmethod
    def of(cls, cfg: Config) -> 'CachedConfig':
        """Make a deep copy of another config."""
        own = cls.__new__(cls)
        own.__dict__.update(copy.deepcopy(cfg.__dict__))
        return own

    @property
    def pretty_text(self) -> str:
        """Format the config as MMEngine does, anew after a change."""
        content = repr(self.to_dict())
        known, text = self.__dict__.get('_laid_out', (None, ''))
        if known != content:
            text = super().pretty_text
            self.__dict__['_laid_out'] = content, text
        return text


def resolve(cfg: Config, for_training: bool = True) -> Config:
    """Write the data's paths and class names wherever the config needs them; changes `cfg` and returns it.

    Data sets get `data_root`, `ann_file`, `data_prefix` and `metainfo`, metrics `ann_file` and `classes`. In
    the model every key `num_classes`, `classes` and `ann_file` is set that a part has or its constructor
    takes, also in heads and in the teacher: configs may leave them out.
    Resolving twice changes nothing.

    Class names are those of the key `classes`, in its order, or else all of the training annotations, ordered
    by category id. For testing these may be absent; then they come from the annotations that are tested on.

    Args:
        cfg: Merged config.
        for_training: Whether training annotations must be there.

    Raises:
        FileNotFoundError: No annotations; says what to type.
        ValueError: Annotations without usable categories, or splits with different classes: both lists; or
            classes that are chosen by another key than `classes`.
    """
    apply_row(cfg)
    apply_short_keys(cfg)
    _refuse_other_paths(cfg)
    _place_paths(cfg)
    classes = _read_split_classes(cfg, for_training)
    _refuse_other_classes(cfg, classes)
    set_classes(cfg, classes)
    return cfg


def run_seed(cfg: Config) -> int:
    """Get the seed of a run from its config; 0 where it says none."""
    return int(dict(cfg.get('randomness') or {}).get('seed') or 0)


def set_classes(cfg: Config, classes: Sequence[str]) -> None:
    """Set the class names in data sets, metrics and every part of the model that has a key for them."""
    classes = tuple(classes)
    for split in ('train', 'val', 'test'):
        dataset = _dataset(cfg, split)
        if dataset is not None:
            dataset['metainfo'] = {**(dataset.get('metainfo') or {}), 'classes': classes}
        for metric in annotation_metrics(cfg, split):
            metric['classes'] = classes
    for _, part in find_dicts(cfg.get('model'), 'model'):
        keys = {*part, *constructor_keys(part.get('type'))}
        if 'num_classes' in keys:
            part['num_classes'] = len(classes)
        if 'classes' in keys:
            part['classes'] = classes


def _path_keys(split: str) -> str:
    return f'paths of the data are keys of the top level, data_root, {split}_ann and {split}_img'


def _refuse_other_paths(cfg: Config) -> None:
    """Refuse the keys by which MMDetection names the files of a data set: they would be overwritten.

    Raises:
        ValueError: Names the key, and those to use.
    """
    for split in ('train', 'val', 'test'):
        dataset = _dataset(cfg, split) or {}
        if 'classes' in (dataset.get('metainfo') or {}):
            continue  # what `resolve` has written for other data, recorded in a work dir
        for key in DATA_KEYS:
            if dataset.get(key):
                place = f'{split}_dataloader.dataset.{key}={dataset[key]!r}'
                raise ValueError(f'{cfg.filename}: {place} would be overwritten: {_path_keys(split)}')


def _place_paths(cfg: Config) -> None:
    for key, default in DATA_DEFAULTS.items():
        if cfg.get(key) is None:
            cfg[key] = default
        if not isinstance(cfg[key], (str, os.PathLike, type(None))):
            raise TypeError(f'{key} is a path; {cfg[key]!r} is not. Put quotes around it: {key} = "..."')
    if str(cfg.data_root).startswith('~'):  # a shell leaves it alone in `data_root=~/coco`
        cfg.data_root = str(Path(cfg.data_root).expanduser())
    for key in ('test_dataloader', 'test_evaluator'):  # a config may say `test_dataloader = val_dataloader`
        if cfg.get(key) is not None:
            cfg[key] = copy.deepcopy(cfg[key])
    for split in ('train', 'val', 'test'):
        dataset = _dataset(cfg, split)
        if dataset is not None:
            dataset['data_root'] = cfg.data_root
            dataset['ann_file'] = _value(cfg, split, 'ann')
            dataset['data_prefix'] = {**(dataset.get('data_prefix') or {}), 'img': _value(cfg, split, 'img')}
        for metric in annotation_metrics(cfg, split):
            metric['ann_file'] = str(_annotations(cfg, split))
    for _, part in find_dicts(cfg.get('model'), 'model'):
        if 'ann_file' in {*part, *constructor_keys(part.get('type'))}:  # of a StoredTeacher
            part['ann_file'] = str(_annotations(cfg, 'train'))


def _value(cfg: Config, split: str, kind: str) -> str:
    """Read `cfg.train_ann` and its like; the test split is by default the validation split."""
    value = cfg[f'{split}_{kind}']
    return str(cfg[f'val_{kind}'] if value is None else value)


def _annotations(cfg: Config, split: str) -> Path:
    return Path(cfg.data_root, _value(cfg, split, 'ann'))


def _dataset(cfg: Config, split: str) -> dict[str, Any] | None:
    loader = cfg.get(f'{split}_dataloader')
    return None if loader is None else loader.get('dataset')


def annotation_metrics(cfg: Config, split: str) -> list[dict[str, Any]]:
    """List the metrics of a split that read annotations."""
    evaluator = cfg.get(f'{split}_evaluator') or []
    metrics = [evaluator] if isinstance(evaluator, dict) else list(evaluator)
    return [metric for metric in metrics if metric.get('type') == 'CocoMetric' or 'ann_file' in metric]


def _read_split_classes(cfg: Config, for_training: bool) -> tuple[str, ...]:
    """Read the class names of the data: those of the key `classes`, or all, the same in every split."""
    used = ['train', 'val'] if for_training else ['train', 'test']
    files = [
        _annotations(cfg, split) for split in used if split == 'train' or _dataset(cfg, split) is not None
    ]
    if not for_training and not files[0].is_file():
        files = files[1:] or files
    if not files[0].exists():
        raise FileNotFoundError(
            f'annotations not found: {files[0].absolute()}.{suggest(files[0])}\n'
            f'  Say where the data set is: --data-root FOLDER, or edit the line "data_root = ..." in '
            f'{cfg.filename or "the config"}.\n'
            '  If its files have other names: --cfg-options train_ann=annotations/train.json train_img=train/'
            ' val_ann=annotations/val.json val_img=val/ (relative to the folder).'
        )
    classes = read_classes(files[0])
    there = [file for file in files[1:] if file.is_file()]  # its data set reports another
    if (chosen := chosen_classes(cfg)) is not None:
        for file in [files[0], *there]:
            check_chosen(chosen, read_classes(file), file)
        return chosen
    for other in there:
        # ids may be numbered differently: labels go by name
        check_classes(classes, str(files[0]), read_classes(other), str(other), ordered=False)
    return classes


def _refuse_other_classes(cfg: Config, classes: Sequence[str]) -> None:
    """Refuse the keys by which MMDetection chooses classes, where they say something else.

    Raises:
        ValueError: Names the key, and the one to use.
    """
    splits = ('train', 'val', 'test')
    if any('classes' in metric for split in splits for metric in annotation_metrics(cfg, split)):
        return  # what `resolve` has written for other data, recorded in a work dir
    found = [
        (f'{split}_dataloader.dataset.metainfo.classes', dataset['metainfo']['classes'])
        for split in splits
        if (dataset := _dataset(cfg, split)) and 'classes' in (dataset.get('metainfo') or {})
    ]
    wrong = [(place, names) for place, names in found if tuple(names) != tuple(classes)]
    wrong += [
        (f'{place}.num_classes', part['num_classes'])
        for place, part in find_dicts(cfg.get('model'), 'model')
        if part.get('num_classes', COCO_CLASSES) not in (COCO_CLASSES, len(classes))
    ]
    if wrong:
        place, value = wrong[0]
        raise ValueError(
            f'{place}={value!r} differs from the {len(classes)} classes of the data: {", ".join(classes)}\n'
            '  Leave it out. One key at the top level chooses classes and their order, for data, model and '
            f'metric: {choice(classes[:2])}'
        )

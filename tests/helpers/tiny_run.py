"""Small real runs: a set of generated photos, a narrow SSD, a teacher of random weights."""

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmdet.classifiers import build_classifier
from mmdet.config.resolve import load_config, merge_config
from mmdet.engine import DetRunner
from mmdet.registry import MODELS

ROOT = Path(__file__).parents[2]
PLAIN = ROOT / 'configs/ssd/ssd_tiny.py'
DISTILLED = ROOT / 'configs_dev/ssd/ssd_tiny_cls_loc.py'
CLASSES = ('brick', 'leaf', 'pond')  # of tests/conftest.py's tiny_coco
CHANNELS = (32, 64, 32, 32)
SPLITS = {
    'train_ann': 'annotations/train.json',
    'train_img': 'train/',
    'val_ann': 'annotations/val.json',
    'val_img': 'val/',
}
NARROW = {
    'model.backbone.width': 1 / 16,
    'model.neck.in_channels': CHANNELS[:2],
    'model.neck.out_channels': CHANNELS,
    'model.bbox_head.in_channels': CHANNELS,
}
SHORT = {
    'train_cfg.max_iters': 3,
    'train_cfg.val_interval': 1000,  # the end alone is evaluated
    'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0,
    'val_dataloader.num_workers': 0,
    'test_dataloader.num_workers': 0,
    'default_hooks.logger.interval': 1,
    'default_hooks.curves': None,
    'default_hooks.distillation_monitor': None,
}
NUMBER = itertools.count()


def be_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait for the disk, and configs recorded as text that nobody laid out: that takes longer than the
    steps."""
    monkeypatch.setattr('os.fsync', lambda file: None)
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **style: (text, True))


def write_sets(tiny_coco: Callable[..., Path], root: Path, **keywords: Any) -> Path:
    """`root/train` as the keywords of `tiny_coco` say, and `root/val`: three images, one of them empty."""
    tiny_coco(root=root, split='train', **{'images': 6, **keywords})
    return tiny_coco(root=root, split='val', images=3, empty=1)


def save_teacher(file: Path, arch: str = 'resnet18', classes: tuple[str, ...] = CLASSES) -> Path:
    """A teacher's file: random weights and the names of its classes."""
    torch.save({'state_dict': random_weights(arch, len(classes)), 'classes': list(classes)}, file)
    torch.manual_seed(3)  # also where the weights are there already
    return file


def save_detector(file: Path, **meta: Any) -> Path:
    """Random weights of `PLAIN` for the classes in `meta`, of the data set: it finds something everywhere."""
    cfg = merge_config(PLAIN, {'model.bbox_head.num_classes': len(meta['classes'])})
    torch.manual_seed(0)
    state = MODELS.build(cfg.model).state_dict()
    torch.save({'meta': {'dataset_meta': meta}, 'state_dict': state}, file)
    return file


@cache
def random_weights(arch: str, num_classes: int) -> dict[str, torch.Tensor]:
    """The state dict of an untrained classifier, always the same one."""
    torch.manual_seed(3)
    return build_classifier(arch, num_classes).state_dict()


def options_of(teacher: Path | None = None, **options: Any) -> dict[str, Any]:
    """Overrides that make `PLAIN`, with a teacher `DISTILLED`, small; `__` in a keyword stands for a dot."""
    given = {key.replace('__', '.'): value for key, value in options.items()}
    of_teacher = {} if teacher is None else {'model.distiller.teacher.checkpoint': str(teacher)}
    name = {'experiment_name': f'tiny_run_{next(NUMBER)}'}  # MMEngine names logs by the second
    return {**SPLITS, **NARROW, **SHORT, **of_teacher, **name, **given}


def as_arguments(options: dict[str, Any]) -> list[str]:
    """`options_of` as a user types them."""
    return ['--cfg-options', *(f'{key}={value}' for key, value in options.items())]


def small_config(root: Path, work_dir: Path, teacher: Path | None = None, **options: Any) -> Config:
    """The resolved config of a short run on `root`, distilled when there is a teacher; see `options_of`."""
    cfg = load_config(PLAIN if teacher is None else DISTILLED, options_of(teacher, **options), root)
    cfg.work_dir = str(work_dir)
    cfg.log_level = 'WARNING'
    return cfg


def without_evaluation(cfg: Config) -> Config:
    """The same, evaluating nothing."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.save_best = None
    return cfg


def train(cfg: Config) -> DetRunner:
    """Run it to its end."""
    runner = DetRunner.from_cfg(cfg)
    runner.train()
    return runner

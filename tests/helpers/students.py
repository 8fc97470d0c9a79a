"""Every distilled family, small: a few channels, random weights, a ResNet18 as teacher.

FAMILIES is what the tests of all families are parametrized over; a new family adds its line.
"""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config

from mmdet.config.resolve import load_config, merge_config, set_classes
from mmdet.datasets.collate import collate_detection
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from tests.helpers.tiny_run import CLASSES, NARROW, NUMBER, ROOT, SHORT, SPLITS

BACKBONE = {
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': (8, 16, 32, 64),
    'model.neck.out_channels': 16,
}


class Family(NamedTuple):
    """A distilled config, and what makes it small."""

    config: str
    options: dict[str, Any]
    scale: tuple[int, int]  # of the photos, (w, h)


FAMILIES = {
    'ssd': Family('ssd/ssd_tiny_cls_loc.py', NARROW, (96, 96)),
    'ssdlite': Family(
        'ssdlite/ssdlite_efficientnet_lite0_small_cls_loc.py',
        {
            'model.backbone.weights': None,
            'model.backbone.frozen_levels': 0,
            'model.distiller.kd_loc.levels': ('pixels', 'stem'),
        },
        (160, 160),
    ),
    'retinanet': Family(
        'retinanet/retinanet_qr50_fpn_cls_loc.py',
        {
            **BACKBONE,
            'model.bbox_head.in_channels': 16,
            'model.bbox_head.feat_channels': 16,
            'model.bbox_head.stacked_convs': 1,
        },
        (128, 96),
    ),
    'fcos': Family(
        'fcos/fcos_r50_fpn_cls_loc.py',
        {
            **BACKBONE,
            'model.backbone.weights': None,
            'model.backbone.frozen_stages': -1,
            'model.backbone.norm_eval': False,
            'model.bbox_head.in_channels': 16,
            'model.bbox_head.feat_channels': 16,
            'model.bbox_head.stacked_convs': 1,
            'model.bbox_head.group_norm': 4,
        },
        (128, 96),
    ),
    'faster_rcnn': Family(
        'faster_rcnn/faster_rcnn_qr50_fpn_cls_loc.py',
        {
            **BACKBONE,
            'model.rpn_head.in_channels': 16,
            'model.rpn_head.feat_channels': 16,
            'model.roi_head.in_channels': 16,
            'model.roi_head.fc_channels': 32,
            'model.roi_head.assigner.num': 64,
        },
        (128, 96),
    ),
}


def options_of(name: str, teacher: Path, **options: Any) -> dict[str, Any]:
    """Overrides that make a family's distilled config small; `__` in a keyword stands for a dot."""
    of_teacher = {'arch': 'resnet18', 'checkpoint': str(teacher)}
    return {
        **FAMILIES[name].options,
        'model.distiller.crop_size': 32,
        **{f'model.distiller.teacher.{key}': value for key, value in of_teacher.items()},
        **{key.replace('__', '.'): value for key, value in options.items()},
    }


def model_config(name: str, teacher: Path, **options: Any) -> dict[str, Any]:
    """The model of a small distilled config, without data."""
    cfg = merge_config(ROOT / 'configs_dev' / FAMILIES[name].config, options_of(name, teacher, **options))
    set_classes(cfg, CLASSES)
    return cfg.model.to_dict()


def run_config(name: str, root: Path, teacher: Path, work_dir: Path, **options: Any) -> Config:
    """The resolved config of a short distilled run on `root`."""
    short = {**SPLITS, **SHORT, 'experiment_name': f'{name}_{next(NUMBER)}'}
    file = ROOT / 'configs_dev' / FAMILIES[name].config
    cfg = load_config(file, {**short, **options_of(name, teacher, **options)}, root)
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform.type == 'Resize':
            transform.scale = FAMILIES[name].scale
    cfg.work_dir, cfg.log_level = str(work_dir), 'WARNING'
    return cfg


def build(model: dict[str, Any], seed: int = 0) -> BaseDetector:
    """A student as it starts, the same each time."""
    torch.manual_seed(seed)
    return MODELS.build(copy.deepcopy(model))


def make_batch(size: tuple[int, int], counts: tuple[int, ...] = (3, 0, 2)) -> dict[str, Any]:
    """Images of at most `size` (w, h) with so many objects each; the first is smaller than the batch."""
    rng = torch.Generator().manual_seed(1)
    samples = []
    for i, count in enumerate(counts):
        height, width = size[1] - 16 * (i == 0), size[0] - 16 * (i == 0)
        corner = torch.rand(count, 2, generator=rng) * 0.5
        sides = 0.2 + 0.3 * torch.rand(count, 2, generator=rng)
        bboxes = torch.cat([corner, corner + sides], 1) * torch.tensor([width, height] * 2)
        samples.append(
            {
                'img': torch.randint(0, 256, (3, height, width), generator=rng, dtype=torch.uint8),
                'bboxes': bboxes,
                'labels': torch.randint(0, len(CLASSES), (count,), generator=rng),
                'ann_ids': torch.arange(count) + 10 * i,
                'img_id': i,
                'ori_shape': (2 * height, 2 * width),
                'img_shape': (height, width),
            }
        )
    return collate_detection(samples, pad_size_divisor=size[1])

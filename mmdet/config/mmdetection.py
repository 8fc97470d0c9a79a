"""Translate the keys of MMDetection 2.x, and of DICOD, into those of this toolbox.

A translation starts from a config of ours and changes what the old one says otherwise; what that does not say
is the default of MMDetection in both.
"""

import copy
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from mmdet.config.check import find_dicts, find_type
from mmdet.config.resolve import merge_config
from mmdet.files import CONFIGS_ROOT

Values = dict[str, Any]

BASES = {  # by the type of the head; those that are distilled end with _cls_loc, in configs_dev
    'SSDHead': ('ssd/ssd300_coco', 'ssd/ssd512_coco'),
    'RetinaHead': ('retinanet/retinanet_r50_fpn',),
    'RoIHead': ('faster_rcnn/faster_rcnn_r50_fpn',),
}
# What is translated of the top level, or listed; other words are variables.
KEYS = (
    *('model', 'data', 'optimizer', 'optimizer_config', 'evaluation', 'checkpoint_config', 'log_config'),
    *('seed', 'load_from', 'fp16', 'momentum_config', 'custom_imports'),
)
PLACES = {  # in an old config -> in ours; the first that fits counts, whole or as the beginning of a place
    'data.samples_per_gpu': 'train_dataloader.batch_size',
    'data.train.times': 'train_dataloader.sampler.times',
    'data.train.oversample_thr': 'train_dataloader.sampler.repeat_thr',
    'optimizer_config.grad_clip': 'optim_wrapper.clip_grad',
    'optimizer': 'optim_wrapper.optimizer',
    'evaluation.interval': 'train_cfg.val_interval',
    'evaluation.save_best': 'default_hooks.checkpoint.save_best',
    'checkpoint_config': 'default_hooks.checkpoint',
    'log_config.interval': 'default_hooks.logger.interval',
    'seed': 'randomness.seed',
    'model.train_cfg.rpn.assigner': 'model.rpn_head.assigner.assigner',
    'model.train_cfg.rpn.sampler': 'model.rpn_head.assigner',
    'model.train_cfg.rpn_proposal': 'model.rpn_head.train_postprocess',
    'model.train_cfg.rcnn.assigner.min_pos_iou': 'unused',  # says nothing without match_low_quality
    'model.train_cfg.rcnn.assigner': 'model.roi_head.assigner.assigner',
    'model.train_cfg.rcnn.sampler': 'model.roi_head.assigner',
    'model.train_cfg.assigner': 'model.bbox_head.assigner',
    'model.train_cfg.smoothl1_beta': 'model.bbox_head.bbox_loss.beta',
    'model.train_cfg.neg_pos_ratio': 'model.bbox_head.cls_loss.neg_pos_ratio',
    'model.test_cfg.rpn': 'model.rpn_head.postprocess',
    'model.test_cfg.rcnn': 'model.roi_head.postprocess',
    'model.test_cfg': 'model.bbox_head.postprocess',
    'model.backbone.l2_norm_scale': 'model.neck.l2_norm_scale',
    'model.backbone.init_cfg.checkpoint': 'model.backbone.weights',
    'model.pretrained': 'model.backbone.weights',
    'model.roi_head.bbox_roi_extractor.featmap_strides': 'model.roi_head.strides',
    'model.roi_head.bbox_roi_extractor.roi_layer.output_size': 'model.roi_head.roi_size',
    'model.roi_head.bbox_head.fc_out_channels': 'model.roi_head.fc_channels',
    'model.roi_head.bbox_head': 'model.roi_head',
}
NAMES = {  # last words of a place
    'loss_cls': 'cls_loss',
    'loss_bbox': 'bbox_loss',
    'nms.iou_threshold': 'iou_threshold',
    'nms.iou_thr': 'iou_threshold',
    'nms_thr': 'iou_threshold',
    'max_num': 'max_per_img',
}
WHOLE = ('loss_cls', 'loss_bbox', 'loss_kt_cls', 'optimizer', 'grad_clip', 'fp16')  # dicts that are one value
# What is always so here, or read from the data (...: whatever it says). Other values are listed as left out.
ALWAYS: dict[str, tuple[Any, ...]] = {
    'num_classes': (...,), 'nms_post': (...,), 'roi_feat_size': (...,), 'loss_kt_cls': (...,),
    'unused': (...,), 'test_mode': (...,), 'to_float32': (...,), 'with_bbox': (...,),
    'multiscale_mode': (...,), 'depth': (16,), 'metric': ('bbox', ['bbox']),
    'ignore_iof_thr': (-1,), 'allowed_border': (-1, 0), 'pos_weight': (-1,), 'neg_pos_ub': (-1,),
    'min_bbox_size': (0,), 'add_gt_as_proposals': (True, False), 'nms_across_levels': (False,),
    'clip_border': (True,), 'reg_class_agnostic': (False,), 'sampling_ratio': (0,), 'out_channels': (256,),
    'num_stages': (4,), 'out_indices': ([0, 1, 2, 3], [3, 4]), 'style': ('pytorch',), 'debug': (False,),
    'requires_grad': (True,), 'with_last_pool': (False,), 'ceil_mode': (True,), 'scale_major': (False,),
    'out_feature_indices': ([22, 34],), 'input_size': (300, 512),
    'type': (
        'SingleStageDetector', 'RetinaNet', 'FasterRCNN', 'SSDHead', 'StandardRoIHead', 'Shared2FCBBoxHead',
        'SingleRoIExtractor', 'RoIAlign', 'RandomSampler', 'Pretrained', 'BN', 'nms', 'CocoDataset',
        'RepeatDataset', 'ClassBalancedDataset', 'OptimizerHook',
    ),
}  # fmt: skip
WEIGHTS = {'torchvision://': 'imagenet', 'open-mmlab://vgg16_caffe': 'IMAGENET1K_FEATURES'}  # by their start
LOSSES = {  # type, and whether of sigmoids -> ours, with MMDetection's defaults
    ('L1Loss', False): {'type': 'SmoothL1Loss', 'beta': 0.0},
    ('SmoothL1Loss', False): {'type': 'SmoothL1Loss', 'beta': 1.0},
    ('CrossEntropyLoss', True): {'type': 'FocalLoss', 'gamma': 0.0, 'alpha': -1},
    ('FocalLoss', True): {'type': 'FocalLoss', 'gamma': 2.0, 'alpha': 0.25},
}
HOOKS = ('TextLoggerHook', 'NumClassCheckHook')  # do nothing that is not done here
STEP_NAMES = {'img_scale': 'scale', 'flip_ratio': 'prob'}
FORMATTING = ('DefaultFormatBundle', 'ImageToTensor', 'Collect', 'RandomFlip')  # no steps of an evaluation


def translate(old: Values, source: str) -> tuple[Path, Values, list[str]]:
    """Translate a config.

    Args:
        old: Merged with its `_base_` files.
        source: Its name, for messages.

    Returns:
        The nearest config of ours, the keys of a child of it, and what has no counterpart here.

    Raises:
        ValueError: It trains none of the detectors that can be translated.
    """
    model = old.get('model') or {}
    head = 'RoIHead' if 'roi_head' in model else _plain_type((model.get('bbox_head') or {}).get('type'))
    found = []
    for name in BASES.get(head, ()):
        ours = f'configs_dev/{name}_cls_loc.py' if old.get('kt_config') else f'configs/{name}.py'
        base = _plain(merge_config(CONFIGS_ROOT / ours).to_dict())
        new = copy.deepcopy(base)
        left_out = _apply(_plain(old), new)
        found.append((CONFIGS_ROOT / ours, _difference(new, base), left_out))
    if not found:
        raise ValueError(f'{source} trains {model.get("type")}; SSD, RetinaNet, Faster R-CNN are translated')
    return min(found, key=lambda one: len(repr(one[1:])))


def _plain(value: Any) -> Any:
    """Copy a value with lists in the place of tuples, so that values can be compared."""
    return json.loads(json.dumps(value, default=str))


def _plain_type(kind: Any) -> str:
    """Name the type of MMDetection that one of DICOD extends."""
    return str(kind).removesuffix('FeatLoc').removesuffix('ClsLoc')


def _apply(old: Values, new: Values) -> list[str]:
    """Change a config of ours to what an old one says; list what has no counterpart here."""
    left_out: list[str] = []
    for name in ('train_cfg', 'test_cfg'):  # of older configs, beside the model
        old['model'].setdefault(name, old.get(name) or {})
    for _, part in find_dicts(old['model'], 'model'):
        if 'octave_base_scale' in part:
            first, count = part.pop('octave_base_scale'), part.pop('scales_per_octave')
            part['scales'] = [first * 2 ** (step / count) for step in range(count)]
    _apply_data(old.get('data') or {}, str(old.get('data_root') or ''), new, left_out)
    _apply_schedule(old, new, left_out)
    if kt := old.get('kt_config'):
        _apply_distillation(kt, new['model'], left_out)
    hooks = [*(old.get('log_config') or {}).pop('hooks', ()), *(old.get('custom_hooks') or ())]
    left_out += [f'hook {hook["type"]}' for hook in hooks if hook['type'] not in HOOKS]
    for place, value in _leaves({key: old[key] for key in KEYS if key in old}):
        _move(place, value, new, left_out)
    return left_out


def _leaves(part: Values, place: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the values of a config with their places."""
    for key, value in part.items():
        if isinstance(value, dict) and key not in WHOLE:
            yield from _leaves(value, f'{place}{key}.')
        else:
            yield f'{place}{key}', value


def _move(place: str, value: Any, new: Values, left_out: list[str]) -> None:
    """Set a value of an old config in ours, or list it."""
    *outer, key = _new_place(place).split('.')
    part: Any = new
    for name in outer:
        part = part.get(name, {}) if isinstance(part, dict) else {}
    always = ALWAYS.get(key, ())
    if key == 'type':
        value, always = _plain_type(value), (*always, part.get('type'))
    elif key in {*part, *_defaults(part)} and ... not in always and (value is not None or key == 'weights'):
        _set(part, key, _new_value(key, value))
        return
    if value is not None and ... not in always and value not in always:
        left_out.append(f'{place}={value!r:.60}')


def _new_place(place: str) -> str:
    for old, new in PLACES.items():
        if f'{place}.'.startswith(f'{old}.'):
            place = new + place[len(old) :]
            break
    for old, new in NAMES.items():
        if f'.{place}'.endswith(f'.{old}'):
            return place.removesuffix(old) + new
    return place


def _new_value(key: str, value: Any) -> Any:
    """Translate the value of a key."""
    if key == 'save_best':
        return f'coco/{value}' if value.startswith('bbox') else value
    if not key.endswith('_loss'):
        return next((ours for start, ours in WEIGHTS.items() if str(value).startswith(start)), value)
    kind = value['type']
    ours = LOSSES.get((kind, value.get('use_sigmoid', kind == 'FocalLoss')), {'type': kind})
    weight = {} if value.get('loss_weight', 1.0) == 1 else {'loss_weight': value['loss_weight']}
    return ours | {key: value[key] for key in ours.keys() & value.keys() - {'type'}} | weight


def _defaults(part: Values) -> Values:
    """Read what a constructor takes, with the defaults."""
    builder = find_type(part['type']) if 'type' in part else None
    parameters = inspect.signature(builder).parameters.values() if builder else ()
    return {one.name: _plain(one.default) for one in parameters}


def _set(part: Values, key: str, value: Any) -> None:
    """Set a key of a part, unless its value, or the default of the constructor, is the same."""
    if value != part.get(key, _defaults(part).get(key)):
        part[key] = value


def _apply_data(data: Values, root: str, new: Values, left_out: list[str]) -> None:
    """Change workers, files and pipelines; the rest is moved key by key."""
    paths: dict[str, str] = {}
    workers = data.pop('workers_per_gpu', None)
    for split in ('train', 'val', 'test'):
        part, loader = data.get(split) or {}, new[f'{split}_dataloader']
        while 'dataset' in part:  # RepeatDataset, ClassBalancedDataset
            part.update(part.pop('dataset'))
        if split == 'train' and part:
            part.setdefault('times', 1)
        if workers is not None:
            loader['num_workers'] = workers
        if 'pipeline' in part:
            _apply_pipeline(part.pop('pipeline'), split, new, left_out)
        for old, kind in (('ann_file', 'ann'), ('img_prefix', 'img')):
            path = part.pop(old) if isinstance(part.get(old), str) else None
            if path and not (split == 'test' and path == paths.get(f'val_{kind}')):  # as it is by default
                paths[f'{split}_{kind}'] = path
    if paths:
        new['data_root'] = root if all(path.startswith(root) for path in paths.values()) else ''
        new |= {key: path.removeprefix(new['data_root']) for key, path in paths.items()}


def _apply_pipeline(old: list[Values], split: str, new: Values, left_out: list[str]) -> None:
    """Change the steps of a split, the normalization and the padding."""
    steps: list[Values] = []
    loader = new[f'{split}_dataloader']
    for step in _flat_steps(old):
        kind = step.pop('type')
        if kind == 'Normalize':
            step['bgr_to_rgb'] = step.pop('to_rgb', True)
            for key, value in step.items():
                _set(new['model']['data_preprocessor'], key, value)
        elif kind == 'Pad':
            loader['collate_fn']['pad_size_divisor'] = step.get('size_divisor', 1)
        elif find_type(kind) and (kind != 'RandomFlip' or split == 'train'):
            steps.append({'type': kind})
            known = _defaults(steps[-1])
            for key, value in step.items():
                name = STEP_NAMES.get(key, key)
                several = name == 'scale' and isinstance(value[0], list)
                if name in known:
                    steps[-1][name] = max(value) if several else value
                if several or (name not in known and key not in ALWAYS):
                    left_out.append(f'data.{split}.pipeline: {kind}.{key}={value!r:.60}')
        elif kind not in FORMATTING:
            left_out.append(f'data.{split}.pipeline: {kind}')
    if {'type': 'LoadAnnotations'} not in steps:
        steps.insert(1, {'type': 'LoadAnnotations'})
    steps.sort(key=lambda step: step['type'] == 'PhotoMetricDistortion')  # color comes last, on what is seen
    loader['dataset']['pipeline'] = [*steps, {'type': 'PackDetInputs'}]


def _flat_steps(old: list[Values]) -> Iterator[Values]:
    """Yield the steps of a pipeline; those inside MultiScaleFlipAug get its scale."""
    for step in old:
        scale = {'img_scale': step['img_scale']} if 'img_scale' in step and step['type'] != 'Resize' else {}
        for inner in step.get('transforms') or [step]:
            yield inner | scale if inner['type'] == 'Resize' else inner


def _apply_schedule(old: Values, new: Values, left_out: list[str]) -> None:
    """Change length and learning rate."""
    wrapper, loop = new['optim_wrapper'], new['train_cfg']
    optimizer = old.get('optimizer') or wrapper['optimizer']
    if 'paramwise_cfg' in optimizer:
        wrapper['paramwise_cfg'] = optimizer.pop('paramwise_cfg')
    runner = old.get('runner') or {'max_epochs': old.get('total_epochs')}
    limits = {key: value for key, value in runner.items() if key in ('max_epochs', 'max_iters') and value}
    if limits:
        new['train_cfg'] = loop = {'type': 'TrainLoop', **limits, 'val_interval': loop.get('val_interval', 1)}
    by_epoch = 'max_epochs' in loop
    for key in ('evaluation', 'checkpoint_config'):
        if not by_epoch and 'interval' in (old.get(key) or {}):
            left_out.append(f'{key}.interval={old[key].pop("interval")}: steps; epochs are counted here')
    rate = old.get('lr_config')
    if rate is None:
        return
    new['param_scheduler'] = []
    by_iter = by_epoch and rate.get('by_epoch') is False  # a schedule of steps in a training of epochs
    left_out += [
        f'lr_config.{key}={value!r}'
        for key, value in rate.items()
        if (key == 'warmup' and value not in (None, 'linear')) or (key == 'warmup_by_epoch' and value)
    ]
    if rate.get('warmup') == 'linear' and not rate.get('warmup_by_epoch'):
        warmup = {'start_factor': rate.get('warmup_ratio', 0.1), 'by_epoch': False, 'begin': 0}
        new['param_scheduler'].append({'type': 'LinearLR', **warmup, 'end': rate['warmup_iters']})
    end, step = loop['max_epochs' if by_epoch else 'max_iters'], rate.get('step')
    milestones = [*range(step, end, step)] if isinstance(step, int) else step
    lowest = rate.get('min_lr', rate.get('min_lr_ratio', 0) * optimizer['lr'])
    decays = {
        'step': {'type': 'MultiStepLR', 'milestones': milestones, 'gamma': rate.get('gamma', 0.1)},
        'CosineAnnealing': {'type': 'CosineAnnealingLR', 'eta_min': lowest},
    }
    if by_iter:
        left_out.append(f'lr_config.policy={rate["policy"]} by_epoch=False: epochs are counted here')
    elif rate['policy'] in decays:
        span = {'by_epoch': by_epoch, 'begin': 0, 'end': end}
        new['param_scheduler'].append({**decays[rate['policy']], **span})
    elif rate['policy'] != 'fixed':
        left_out.append(f'lr_config.policy={rate["policy"]}')


def _apply_distillation(kt: Values, model: Values, left_out: list[str]) -> None:
    """Change the distiller to what DICOD's kt_config says."""
    distiller = model['distiller']
    teacher, cls, loc = (kt.get(key) or {} for key in ('cfg_t', 'kt_cls', 'kt_loc'))
    distiller['crop_size'] = teacher.get('object_size', loc.get('object_size', 112))
    folder = 'ssd' if teacher.get('teacher_type') == 'ssd' else 'general'
    checkpoint = f'cls_teachers/{folder}/model_best.pth.tar'
    if teacher and (cls or loc.get('loc_t')):
        distiller['teacher'].update(arch=teacher['arch'], checkpoint=checkpoint)
    else:
        distiller['teacher'] = None
    sigmoid = bool(cls.get('use_sigmoid'))
    kind = 'SigmoidKDLoss' if sigmoid else 'SoftmaxKDLoss'
    weights = {'temperature': cls.get('T', 1.0), 'loss_weight': cls.get('loss_weight', 1.0)}
    distiller['kd_cls'] = {'type': kind, **weights} if cls else None
    if sigmoid and cls.get('ltype') != 'kl-bce':
        left_out.append("kt_config.kt_cls.ltype='kl-ce' of sigmoids: the paper has 'kl-bce', and so has this")
    if loc:
        layers = loc['layer'] if loc.get('loc_t') else [-1]
        names = ['pixels' if layer == -1 else f'layer{layer}' if layer else 'stem' for layer in layers]
        weight, std = loc['loss_weight'], fmean(model['data_preprocessor']['std'])
        # Here the pixels are compared in gray levels, in DICOD in std.
        given = [weight / std if name == 'pixels' else weight for name in names]
        distiller['kd_loc'] = {
            'type': 'CropL1Loss',
            'levels': names,
            'pool_sizes': [loc['gap_size'] * 2**row for row in range(len(names))],
            'loss_weight': weight if set(given) == {weight} else given,
        }
    else:
        distiller['kd_loc'] = None
    if kt.get('kt_feat'):
        left_out.append(f'kt_config.kt_feat={kt["kt_feat"]!r:.60}')


def _difference(new: Values, base: Values) -> Values:
    """Collect what a child of `base` must say to become `new`."""
    changes: Values = {}
    for key, value in new.items():
        before = base.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and before.keys() <= value.keys():
            changes |= {key: inner} if (inner := _difference(value, before)) else {}
        elif key not in base or value != before:
            replaced = isinstance(value, dict) and isinstance(before, dict)
            changes[key] = {'_delete_': True, **value} if replaced else value
    return changes

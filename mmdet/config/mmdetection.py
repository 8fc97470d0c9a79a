"""Translate the keys of MMDetection 2.x, and of DICOD, into those of this toolbox.

A translation starts from a config of ours and changes what the old one says otherwise.
"""

import copy
import inspect
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from mmdet.config.mmdetection_model import apply_model, plain_type, same, set_value, short
from mmdet.config.resolve import merge_config
from mmdet.files import CONFIGS_ROOT
from mmdet.registry import TRANSFORMS

Values = dict[str, Any]

BASES = {  # by the type of the head: what an old config does not say is the default of MMDetection in these
    'plain': {
        'SSDHead': ('configs/ssd/ssd300.py', 'configs/ssd/ssd512.py'),
        'RetinaHead': ('configs/retinanet/retinanet_r50_fpn.py',),
        'RoIHead': ('configs/faster_rcnn/faster_rcnn_r50_fpn.py',),
    },
    'distilled': {
        'SSDHead': ('configs_dev/ssd/ssd300_coco_cls_loc.py', 'configs_dev/ssd/ssd512_coco_cls_loc.py'),
        'RetinaHead': ('configs_dev/retinanet/retinanet_r50_fpn_cls_loc.py',),
        'RoIHead': ('configs_dev/faster_rcnn/faster_rcnn_r50_fpn_cls_loc.py',),
    },
}
STEPS = (
    *('LoadImageFromFile', 'LoadAnnotations', 'Expand', 'MinIoURandomCrop', 'Resize', 'RandomFlip'),
    'PhotoMetricDistortion',
)
STEP_NAMES = {'img_scale': 'scale', 'flip_ratio': 'prob'}
STEP_KEYS = ('to_float32', 'with_bbox', 'multiscale_mode')  # say nothing new
FORMATTING = ('Normalize', 'Pad', 'DefaultFormatBundle', 'ImageToTensor', 'Collect')  # are no steps here
LISTED = ('fp16', 'momentum_config', 'custom_imports')  # of the top level; other words are variables


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
    head = 'RoIHead' if 'roi_head' in model else plain_type((model.get('bbox_head') or {}).get('type'))
    found = []
    for name in BASES['distilled' if old.get('kt_config') else 'plain'].get(head, ()):
        base = merge_config(CONFIGS_ROOT / name).to_dict()
        new, left_out = _apply(old, base)
        found.append((CONFIGS_ROOT / name, _difference(new, base), left_out))
    if not found:
        raise ValueError(f'{source} trains {model.get("type")}; SSD, RetinaNet, Faster R-CNN are translated')
    return min(found, key=lambda one: len(repr(one[1:])))


def _apply(old: Values, base: Values) -> tuple[Values, list[str]]:
    """Change a copy of a config of ours to what an old one says; list what it cannot say."""
    new, old = copy.deepcopy(base), copy.deepcopy(old)
    left_out: list[str] = []
    _apply_data(old.pop('data', None) or {}, str(old.get('data_root') or ''), new, left_out)
    apply_model(old, new['model'], left_out)
    _apply_schedule(old, new, left_out)
    _apply_hooks(old, new, left_out)
    if kt := old.pop('kt_config', None):
        _apply_distillation(kt, new['model'], left_out)
    left_out += [f'{key}={short(old[key])}' for key in LISTED if old.get(key)]
    return new, left_out


def _apply_data(data: Values, root: str, new: Values, left_out: list[str]) -> None:
    """Change loaders, files and pipelines."""
    splits = {split: data.get(split) or {} for split in ('train', 'val', 'test')}
    times, threshold = 1, None
    while 'dataset' in splits['train']:  # RepeatDataset, ClassBalancedDataset
        wrapper = splits['train']
        times, threshold = wrapper.get('times', times), wrapper.get('oversample_thr', threshold)
        splits['train'] = wrapper['dataset']
    if splits['train']:
        sampler = new['train_dataloader']['sampler']
        sampler.update({'times': times} if times != sampler.get('times', 1) else {})
        sampler.update({'repeat_thr': threshold} if threshold else {})
    new['train_dataloader']['batch_size'] = data.get('samples_per_gpu', new['train_dataloader']['batch_size'])
    places = [
        (split, key, name) for split in splits for key, name in (('ann', 'ann_file'), ('img', 'img_prefix'))
    ]
    paths = {(split, key): splits[split][name] for split, key, name in places if name in splits[split]}
    if not all(isinstance(path, str) for path in paths.values()):
        left_out.append(f'data: lists of files ({short([*paths.values()])}); merge them into one')
    elif paths:
        root = root if all(path.startswith(root) for path in paths.values()) else ''
        new['data_root'] = root
        for (split, key), path in paths.items():
            if split != 'test' or path != paths.get(('val', key)):  # by default test on the validation split
                new[f'{split}_{key}'] = path.removeprefix(root)
    for split, part in splits.items():
        loader = new[f'{split}_dataloader']
        loader['num_workers'] = data.get('workers_per_gpu', loader['num_workers'])
        if part.get('classes') or part.get('type', 'CocoDataset') != 'CocoDataset':
            left_out.append(f"data.{split}: type and classes; the file is COCO's and has the classes")
        if 'pipeline' in part:
            _apply_pipeline(part['pipeline'], split, new, left_out)


def _apply_pipeline(old: list[Values], split: str, new: Values, left_out: list[str]) -> None:
    """Change the steps of a split, the normalization and the padding."""
    steps: list[Values] = []
    loader = new[f'{split}_dataloader']
    for step in _flat_steps(old):
        kind, arguments = step['type'], {key: value for key, value in step.items() if key != 'type'}
        if kind == 'Normalize':
            for key, name in (('mean', 'mean'), ('std', 'std'), ('to_rgb', 'bgr_to_rgb')):
                set_value(new['model']['data_preprocessor'], name, arguments.get(key, True))
        elif kind == 'Pad':
            loader['collate_fn']['pad_size_divisor'] = arguments.get('size_divisor', 1)
        elif kind in STEPS and not (kind == 'RandomFlip' and split != 'train'):
            steps.append({'type': kind})
            known = inspect.signature(TRANSFORMS.get(kind)).parameters
            for key, value in arguments.items():
                name = STEP_NAMES.get(key, key)
                several = name == 'scale' and isinstance(value[0], (list, tuple))
                if several or (name not in known and key not in STEP_KEYS):
                    left_out.append(f'data.{split}.pipeline: {kind}.{key}={short(value)}')
                if name in known:
                    steps[-1][name] = max(value) if several else value
        elif kind not in (*FORMATTING, 'RandomFlip'):
            left_out.append(f'data.{split}.pipeline: {kind}')
    if 'LoadAnnotations' not in [step['type'] for step in steps]:
        steps.insert(1, {'type': 'LoadAnnotations'})
    steps.sort(key=lambda step: step['type'] == 'PhotoMetricDistortion')  # color comes last, on what is seen
    steps.append({'type': 'PackDetInputs'})
    if not same(steps, loader['dataset']['pipeline']):
        loader['dataset']['pipeline'] = steps


def _flat_steps(old: list[Values]) -> Iterator[Values]:
    """Yield the steps of a pipeline; those inside MultiScaleFlipAug get its scale."""
    for step in old:
        scale = {'img_scale': step['img_scale']} if 'img_scale' in step and step['type'] != 'Resize' else {}
        for inner in step.get('transforms') or [step]:
            yield inner | scale if inner['type'] == 'Resize' else inner


def _apply_schedule(old: Values, new: Values, left_out: list[str]) -> None:
    """Change optimizer, learning rate and length."""
    wrapper, loop = new['optim_wrapper'], new['train_cfg']
    if optimizer := old.pop('optimizer', None):
        if 'paramwise_cfg' in optimizer:
            wrapper['paramwise_cfg'] = optimizer.pop('paramwise_cfg')
        wrapper['optimizer'] = optimizer
    clip = (old.pop('optimizer_config', None) or {}).get('grad_clip')
    if clip:
        wrapper['clip_grad'] = clip
    runner = old.pop('runner', None) or {'max_epochs': old.get('total_epochs')}
    limits = {key: value for key, value in runner.items() if key in ('max_epochs', 'max_iters') and value}
    if limits:
        new['train_cfg'] = loop = {'type': 'TrainLoop', **limits, 'val_interval': loop.get('val_interval', 1)}
    rate = old.pop('lr_config', None)
    if rate is None:
        return
    by_epoch = 'max_epochs' in loop
    end = loop['max_epochs' if by_epoch else 'max_iters']
    schedulers: list[Values] = []
    if rate.get('warmup') == 'linear':
        warmup = {'start_factor': rate.get('warmup_ratio', 0.1), 'by_epoch': False, 'begin': 0}
        schedulers.append({'type': 'LinearLR', **warmup, 'end': rate['warmup_iters']})
    span, step = {'by_epoch': by_epoch, 'begin': 0, 'end': end}, rate.get('step')
    if rate['policy'] == 'step':
        steps = [*range(step, end, step)] if isinstance(step, int) else step
        decay = {'milestones': steps, 'gamma': rate.get('gamma', 0.1)}
        schedulers.append({'type': 'MultiStepLR', **span, **decay})
    elif rate['policy'] == 'CosineAnnealing':
        lowest = rate.get('min_lr', rate.get('min_lr_ratio', 0) * wrapper['optimizer']['lr'])
        schedulers.append({'type': 'CosineAnnealingLR', **span, 'eta_min': lowest})
    elif rate['policy'] != 'fixed':
        left_out.append(f'lr_config.policy={rate["policy"]}')
    new['param_scheduler'] = schedulers


def _apply_hooks(old: Values, new: Values, left_out: list[str]) -> None:
    """Change evaluation, checkpoints, log and starting point."""
    evaluation = old.pop('evaluation', None) or {}
    saving = old.pop('checkpoint_config', None) or {}
    log = old.pop('log_config', None) or {}
    hooks = new['default_hooks']
    if 'max_iters' in new['train_cfg']:
        found = [part.pop('interval', None) for part in (evaluation, saving)]
        left_out.append(f'intervals in steps {found}: evaluations and checkpoints are counted in epochs')
    new['train_cfg']['val_interval'] = evaluation.pop('interval', new['train_cfg']['val_interval'])
    if best := evaluation.pop('save_best', None):
        hooks['checkpoint']['save_best'] = f'coco/{best}' if best.startswith('bbox') else best
    if evaluation.pop('metric', 'bbox') not in ('bbox', ['bbox']):
        left_out.append('evaluation.metric: bbox is measured')
    for key in ('interval', 'max_keep_ckpts'):
        if key in saving:
            hooks['checkpoint'][key] = saving[key]
    hooks['logger']['interval'] = log.get('interval', hooks['logger']['interval'])
    used = [hook['type'] for hook in [*log.get('hooks', ()), *(old.pop('custom_hooks', None) or ())]]
    left_out += [f'hook {kind}' for kind in used if kind not in ('TextLoggerHook', 'NumClassCheckHook')]
    left_out += [f'evaluation.{key}={value}' for key, value in evaluation.items()]
    new['load_from'] = old.pop('load_from', None) or new.get('load_from')
    if (seed := old.pop('seed', None)) is not None:
        new['randomness'] = {'seed': seed}


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
    if not loc:
        distiller['kd_loc'] = None
    else:
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
    if kt.get('kt_feat'):
        left_out.append(f'kt_config.kt_feat={short(kt["kt_feat"])}')


def _difference(new: Values, base: Values) -> Values:
    """Collect what a child of `base` must say to become `new`."""
    changes: Values = {}
    for key, value in new.items():
        before = base.get(key)
        if key in base and same(value, before):
            continue
        if not isinstance(value, dict) or not isinstance(before, dict):
            changes[key] = value
        elif before.keys() - value.keys():
            changes[key] = {'_delete_': True, **value}
        else:
            changes[key] = _difference(value, before)
    return changes

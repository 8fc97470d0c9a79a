"""Translate the model of a config of MMDetection 2.x into one of this toolbox."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmdet.registry import MODELS

Values = dict[str, Any]

PLACES = {  # part of the old model -> where it is in ours; the first that fits counts
    'train_cfg.rpn.assigner': 'rpn_head.assigner.assigner',
    'train_cfg.rpn.sampler': 'rpn_head.assigner',
    'train_cfg.rpn_proposal': 'rpn_head.train_postprocess',
    'train_cfg.rcnn.assigner.min_pos_iou': 'unused',  # says nothing without match_low_quality
    'train_cfg.rcnn.assigner': 'roi_head.assigner.assigner',
    'train_cfg.rcnn.sampler': 'roi_head.assigner',
    'train_cfg.assigner': 'bbox_head.assigner',
    'train_cfg.smoothl1_beta': 'bbox_head.bbox_loss.beta',
    'train_cfg.neg_pos_ratio': 'bbox_head.cls_loss.neg_pos_ratio',
    'test_cfg.rpn': 'rpn_head.postprocess',
    'test_cfg.rcnn': 'roi_head.postprocess',
    'test_cfg': 'bbox_head.postprocess',
    'backbone.l2_norm_scale': 'neck.l2_norm_scale',
    'backbone.init_cfg.checkpoint': 'backbone.weights',
    'pretrained': 'backbone.weights',
    'roi_head.bbox_roi_extractor.featmap_strides': 'roi_head.strides',
    'roi_head.bbox_roi_extractor.roi_layer.output_size': 'roi_head.roi_size',
    'roi_head.bbox_head.fc_out_channels': 'roi_head.fc_channels',
    'roi_head.bbox_head': 'roi_head',
}
NAMES = {  # last words of a place
    'loss_cls': 'cls_loss',
    'loss_bbox': 'bbox_loss',
    'nms.iou_threshold': 'iou_threshold',
    'nms.iou_thr': 'iou_threshold',
    'nms_thr': 'iou_threshold',
    'max_num': 'max_per_img',
}
# What is always so here, or read from the data (...: whatever it says). Other values are listed as left out.
ALWAYS: dict[str, tuple[Any, ...]] = {
    'num_classes': (...,), 'nms_post': (...,), 'roi_feat_size': (...,), 'loss_kt_cls': (...,),
    'unused': (...,), 'depth': (16,),
    'ignore_iof_thr': (-1,), 'allowed_border': (-1, 0), 'pos_weight': (-1,), 'neg_pos_ub': (-1,),
    'min_bbox_size': (0,), 'add_gt_as_proposals': (True, False), 'nms_across_levels': (False,),
    'clip_border': (True,), 'reg_class_agnostic': (False,), 'sampling_ratio': (0,), 'out_channels': (256,),
    'num_stages': (4,), 'out_indices': ((0, 1, 2, 3), (3, 4)), 'style': ('pytorch',), 'debug': (False,),
    'requires_grad': (True,), 'with_last_pool': (False,), 'ceil_mode': (True,), 'scale_major': (False,),
    'out_feature_indices': ((22, 34),), 'input_size': (300, 512),
    'type': (
        'SingleStageDetector', 'RetinaNet', 'FasterRCNN', 'SSDHead', 'StandardRoIHead', 'Shared2FCBBoxHead',
        'SingleRoIExtractor', 'RoIAlign', 'RandomSampler', 'Pretrained', 'BN', 'nms',
    ),
}  # fmt: skip
WEIGHTS = {'torchvision://': 'imagenet', 'open-mmlab://vgg16_caffe': 'IMAGENET1K_FEATURES'}


def apply_model(old: Values, model: Values, left_out: list[str]) -> None:
    """Change the parts of our `model` to what an old config says; append what has no counterpart here."""
    for name in ('train_cfg', 'test_cfg'):  # of older configs, beside the model
        old['model'].setdefault(name, old.get(name) or {})
    for place, value in _leaves(old['model']):
        *outer, key = _new_place(place).split('.')
        part: Any = model
        for name in outer:
            part = part.get(name) if isinstance(part, dict) else None
        known = isinstance(part, dict) and (key in part or key in _parameters(part))
        always = ALWAYS.get(key, ())
        if key.endswith('_loss') and isinstance(value, dict):
            set_value(part, key, _loss(value, place, left_out))
        elif key == 'weights':
            found = [new for start, new in WEIGHTS.items() if str(value).startswith(start)]
            set_value(part, key, found[0] if found else value)
        elif value is None:
            continue
        elif known and key != 'type' and ... not in always:
            set_value(part, key, value)
        elif key == 'type':
            if plain_type(value) not in (*always, part and part.get('type')):
                left_out.append(f'model.{place}={value}')
        elif ... not in always and not any(same(value, one) for one in always):
            left_out.append(f'model.{place}={short(value)}')


def _leaves(part: Values, place: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the values of a model with their places; a loss is one value."""
    part = dict(part)
    if 'octave_base_scale' in part:
        first, count = part.pop('octave_base_scale'), part.pop('scales_per_octave')
        part['scales'] = [first * 2 ** (step / count) for step in range(count)]
    for key, value in part.items():
        if isinstance(value, dict) and key not in ('loss_cls', 'loss_bbox', 'loss_kt_cls'):
            yield from _leaves(value, f'{place}{key}.')
        else:
            yield f'{place}{key}', value


def _new_place(place: str) -> str:
    for old, new in PLACES.items():
        if f'{place}.'.startswith(f'{old}.'):
            place = new + place[len(old) :]
            break
    for old, new in NAMES.items():
        if f'.{place}'.endswith(f'.{old}'):
            return place[: len(place) - len(old)] + new
    return place


def _loss(old: Values, place: str, left_out: list[str]) -> Values:
    """Translate a loss; its weight is 1 here."""
    kind = old['type']
    if old.get('loss_weight', 1.0) != 1:
        left_out.append(f'model.{place}.loss_weight={old["loss_weight"]}')
    if kind in ('L1Loss', 'SmoothL1Loss'):
        return {'type': 'SmoothL1Loss', 'beta': 0.0 if kind == 'L1Loss' else old.get('beta', 1.0)}
    if kind == 'CrossEntropyLoss' and old.get('use_sigmoid'):
        return {'type': 'FocalLoss', 'gamma': 0.0, 'alpha': -1}
    if kind == 'FocalLoss':
        return {'type': kind, 'gamma': old.get('gamma', 2.0), 'alpha': old.get('alpha', 0.25)}
    return {'type': kind}


def plain_type(kind: Any) -> str:
    """Name the type of MMDetection that one of DICOD extends."""
    return str(kind).removesuffix('FeatLoc').removesuffix('ClsLoc')


def _parameters(part: Values) -> Mapping[str, inspect.Parameter]:
    builder = MODELS.get(part['type']) if 'type' in part else None
    return inspect.signature(builder).parameters if builder else {}


def set_value(part: Values, key: str, value: Any) -> None:
    """Set a key of a part, unless its value, or the default of the constructor, is the same."""
    default = _parameters(part)[key].default if key in _parameters(part) else inspect.Parameter.empty
    if not same(value, part.get(key, default)):
        part[key] = value


def same(one: Any, other: Any) -> bool:
    """Compare values, lists and tuples alike."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def short(value: Any) -> str:
    """Cut the text of a value for a list."""
    text = repr(value)
    return text if len(text) < 60 else f'{text[:57]}...'

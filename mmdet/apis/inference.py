"""Detect from Python, by MMDetection's two names."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from mmdet.apis.results import DetectionResult, Picture, read_picture
from mmdet.checkpoint.io import checkpoint_classes, load_checkpoint, load_weights
from mmdet.config.classes import chosen_classes
from mmdet.config.resolve import merge_config, merge_options, set_classes
from mmdet.config.schedule import apply_short_keys, explain_input_size
from mmdet.datasets import build_collate
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS, TRANSFORMS


def init_detector(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    cfg_options: dict[str, Any] | None = None,
    trust_checkpoint: bool = False,
) -> BaseDetector:
    """Build a detector for inference, in eval mode. No data set and no teacher is needed.

    Args:
        config: Config file, or a Config.
        checkpoint: Its weights, and the class names; without one the weights are random.
        device: Where it runs; default: the first GPU, or the CPU where there is none.
        cfg_options: Overrides for the config, as `--cfg-options`.
        trust_checkpoint: Also read one that holds Python objects; this runs code from the file.

    Returns:
        The model. `model.dataset_meta` holds `classes`, the name of each label (its number when nobody says),
        and `category_ids`, its id in the training annotations (label + 1 when the checkpoint does not say).
    """
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
        merge_options(cfg, cfg_options or {})
    else:
        cfg = merge_config(config, cfg_options)
    apply_short_keys(cfg)  # input_size
    cfg.model.pop('distiller', None)
    file = None if checkpoint is None else load_checkpoint(checkpoint, trust_checkpoint)
    classes = (file and checkpoint_classes(file)) or chosen_classes(cfg)
    if classes is not None:
        set_classes(cfg, classes)
    model: BaseDetector = MODELS.build(cfg.model)
    if file is not None:
        if told := explain_input_size(cfg, file['meta'].get('input_size'), str(checkpoint)):
            warnings.warn(told, stacklevel=2)
        load_weights(model, file['state_dict'], str(checkpoint))
    names = classes or [str(label) for label in range(model.head.num_classes)]
    known = {} if file is None else file['meta'].get('dataset_meta') or {}
    category_ids = known.get('category_ids') or (None,)
    if None in category_ids:
        category_ids = range(1, len(names) + 1)
    model.dataset_meta = {'classes': tuple(names), 'category_ids': tuple(category_ids)}
    model.cfg = cfg
    return model.to(device or get_device()).eval()


@overload
def inference_detector(model: nn.Module, imgs: Picture, score_thr: float = 0.0) -> DetectionResult: ...
@overload
def inference_detector(
    model: nn.Module, imgs: Sequence[Picture], score_thr: float = 0.0
) -> list[DetectionResult]: ...
@torch.no_grad()
def inference_detector(
    model: Any, imgs: Picture | Sequence[Picture], score_thr: float = 0.0
) -> DetectionResult | list[DetectionResult]:
    """Detect on one image or on several, through the config's test pipeline.

    Args:
        model: From `init_detector`.
        imgs: One image or a list; a file, a PIL image, or uint8 (H, W, 3) BGR. Several are one batch.
        score_thr: Detections that score less are left out; those that the config's own threshold, for COCO's
            metric, leaves out are never there.

    Returns:
        A DetectionResult, or a list of them: boxes in pixels of the original image. The original's size is
        that of the image as it is shown, turned by its EXIF data.

    Raises:
        BadImageError: A file is missing or holds no image; names it.
        ValueError: An image that is not of 8 bits.
    """
    several = isinstance(imgs, Sequence) and not isinstance(imgs, str)
    pictures: Sequence[Any] = imgs if several else [imgs]  # type: ignore[assignment]
    if not pictures:
        return []
    loader = model.cfg.test_dataloader
    pipeline = [
        TRANSFORMS.build(step) for step in loader.dataset.pipeline if step['type'] != 'LoadAnnotations'
    ]
    samples = []
    for index, picture in enumerate(pictures):
        sample = {'img_id': index, 'img': read_picture(picture)}
        for transform in pipeline:
            sample = transform(sample)
        samples.append(sample)
    batch = build_collate(loader)(samples)
    results = []
    for found, picture in zip(model.test_step(batch), pictures, strict=True):
        result = DetectionResult(metainfo=found.metainfo | model.dataset_meta)
        result.pred_instances = found.pred_instances[found.pred_instances.scores >= score_thr]
        if isinstance(picture, (str, Path)):
            result.set_metainfo({'img_path': str(picture)})
        results.append(result)
    return results if several else results[0]

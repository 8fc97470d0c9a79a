"""Detect from Python, by MMDetection's two names."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from mmdet.checkpoint.io import checkpoint_classes, load_checkpoint, load_weights
from mmdet.config.resolve import merge_config, set_classes
from mmdet.datasets import collate_detection
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures import DetDataSample

Picture = str | Path | np.ndarray  # a file, or uint8 (H, W, 3) BGR as OpenCV reads it


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
        The model; `model.dataset_meta['classes']` are its class names (numbers when nobody says them).
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else merge_config(config, cfg_options)
    cfg.model.pop('distiller', None)
    file = None if checkpoint is None else load_checkpoint(checkpoint, trust_checkpoint)
    classes = None if file is None else checkpoint_classes(file)
    if classes is not None:
        set_classes(cfg, classes)
    model: BaseDetector = MODELS.build(cfg.model)
    if file is not None:
        load_weights(model, file['state_dict'], str(checkpoint))
    names = classes or [str(label) for label in range(model.head.num_classes)]
    model.dataset_meta = {'classes': tuple(names)}
    model.cfg = cfg
    return model.to(device or get_device()).eval()


@overload
def inference_detector(model: nn.Module, imgs: Picture) -> DetDataSample: ...
@overload
def inference_detector(model: nn.Module, imgs: Sequence[Picture]) -> list[DetDataSample]: ...
@torch.no_grad()
def inference_detector(model: Any, imgs: Picture | Sequence[Picture]) -> DetDataSample | list[DetDataSample]:
    """Detect on one image or on several, through the config's test pipeline.

    Args:
        model: From `init_detector`.
        imgs: One image or a list; a file, or uint8 (H, W, 3) BGR. Several are one batch.

    Returns:
        A DetDataSample, or a list of them: boxes in pixels of the original image. The original's size is that
        of the image as it is shown, turned by its EXIF data.

    Raises:
        BadImageError: A file is missing or holds no image.
    """
    several = isinstance(imgs, Sequence) and not isinstance(imgs, str)
    pictures: Sequence[Any] = imgs if several else [imgs]  # type: ignore[assignment]
    if not pictures:
        return []
    pipeline = [
        TRANSFORMS.build(step)
        for step in model.cfg.test_dataloader.dataset.pipeline
        if step['type'] != 'LoadAnnotations'
    ]
    samples = []
    for index, picture in enumerate(pictures):
        results = {'img_id': index} | _source(picture)
        for transform in pipeline:
            results = transform(results)
        samples.append(results)
    found: list[DetDataSample] = model.test_step(collate_detection(samples))
    for sample, picture in zip(found, pictures, strict=True):
        if not isinstance(picture, np.ndarray):
            sample.set_metainfo({'img_path': str(picture)})
    return found if several else found[0]


def _source(picture: Picture) -> dict[str, Any]:
    """Make what the first transform reads."""
    if not isinstance(picture, np.ndarray):
        return {'img_path': Path(picture)}
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(
            f'an image is uint8 (H, W, 3), BGR; this one is {picture.dtype} {picture.shape}. '
            'cv2.imread and cv2.cvtColor(img, cv2.COLOR_GRAY2BGR) give such images'
        )
    return {'img': picture}

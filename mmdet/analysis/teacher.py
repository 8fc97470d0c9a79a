"""What the teacher of a distilled config is shown, and what it answers.

N images · G objects of a batch · M crops · K classes · S crop side
Boxes are xyxy in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor
from torch.utils.data import DataLoader

from mmdet.checkpoint.io import checkpoint_classes, load_checkpoint, load_weights
from mmdet.config.resolve import check_classes, load_config
from mmdet.datasets import collate_detection
from mmdet.datasets.collate import init_worker
from mmdet.distillation import ClassifierDistiller, FrozenTeacher
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import GroundTruth, Normalization, PositiveSamples, bbox_overlaps, crop_boxes
from mmdet.visualization.canvas import Picture
from mmdet.visualization.crops import draw_crops


class TeacherOutputs(NamedTuple):
    """Crops as the teacher gets them, and what it answers."""

    crops: Tensor  # (M, 3, S, S) float32, RGB, 0..255: before the teacher's normalization
    logits: Tensor  # (M, K) float32


class Batch(NamedTuple):
    """One batch as the detector gets it."""

    images: Tensor  # (N, 3, H, W), normalized
    gt: GroundTruth
    bad_images: list[Any]  # BadImage of each file that was left out


def load_distilled_config(
    path: str,
    teacher: str | None = None,
    cfg_options: dict[str, Any] | None = None,
    data_root: str | None = None,
    split: str = 'val',
) -> Config:
    """The resolved config of a distilled student, with another teacher's file where one is given.

    Args:
        path: The config file.
        teacher: File in place of the one in the config.
        cfg_options: As `load_config` takes them.
        data_root: The same.
        split: 'train' or 'val': which annotations must be there.

    Raises:
        ValueError: The config has no `model.distiller.teacher`.
    """
    cfg = load_config(path, cfg_options, data_root, for_training=split == 'train')
    if not (cfg.model.get('distiller') or {}).get('teacher'):
        raise ValueError(
            f'{path} has no model.distiller.teacher: give the config of a distilled student, e.g. '
            'configs_dev/ssd/ssd300_coco_cls_loc.py'
        )
    if teacher is not None:
        cfg.model.distiller.teacher.checkpoint = teacher
    return cfg


def teacher_of(distiller: ClassifierDistiller) -> FrozenTeacher:
    """The teacher that `load_distilled_config` has made sure of."""
    assert distiller.teacher is not None
    return distiller.teacher


def read_batches(cfg: Config, split: str, preprocessor: Any, number: int | None = None) -> Iterator[Batch]:
    """Batches of a split as its loader makes them, each image once, in the order of the file.

    Args:
        cfg: Resolved.
        split: 'train' (augmented, the draws of a first pass) or 'val'.
        preprocessor: The model's.
        number: Read only so many images, spread over the set.
    """
    loader = cfg[f'{split}_dataloader']
    seed = dict(cfg.get('randomness') or {}).get('seed') or 0
    dataset = DATASETS.build({'seed': seed, **loader.dataset})
    chosen = min(number or len(dataset), len(dataset))
    order = np.linspace(0, len(dataset), chosen, endpoint=False).astype(int).tolist()
    collate = {key: value for key, value in loader.get('collate_fn', {}).items() if key != 'type'}
    batches = DataLoader(
        dataset,
        batch_size=loader.batch_size,
        sampler=[(index, index) for index in order],
        collate_fn=partial(collate_detection, **collate),
        num_workers=loader.get('num_workers', 0),
        worker_init_fn=init_worker,
    )
    for data in batches:
        ready = preprocessor(data)
        yield Batch(ready['inputs'], ready['gt'], data['bad_images'])


def build_distiller(cfg: Config, device: str | torch.device) -> tuple[ClassifierDistiller, Any]:
    """The distiller of a config and the preprocessor of its student, on a device."""
    distiller: ClassifierDistiller = MODELS.build(cfg.model.distiller)
    return distiller.to(device), MODELS.build(cfg.model.data_preprocessor).to(device)


@torch.no_grad()
def teacher_predict(
    distiller: ClassifierDistiller,
    images: Tensor,
    normalization: Normalization,
    bboxes: Tensor,
    image_index: Tensor,
) -> TeacherOutputs:
    """Cut boxes as the distiller does and ask its teacher.

    images (N, 3, H, W), normalized as `normalization` says · bboxes (M, 4) · image_index (M,) in [0, N)
    """
    crops = crop_boxes(images, bboxes, image_index, distiller.crop_size)  # (M, 3, S, S)
    logits = teacher_of(distiller).logits(crops, normalization)
    mean, std = (value[:, None, None] for value in normalization)
    return TeacherOutputs((crops * std + mean).clamp(0, 255), logits)


def answers_of_split(
    cfg: Config, split: str, distiller: ClassifierDistiller, preprocessor: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Ask the teacher about every object of a split: logits (M, K), labels (M,), areas (M,) on the CPU.

    Names the images that cannot be read.

    Raises:
        ValueError: There are no objects.
    """
    parts = []
    for batch in read_batches(cfg, split, preprocessor):
        for bad in batch.bad_images:
            print(f'left out: {bad.file}: {bad.reason}')
        gt = batch.gt
        found = teacher_predict(
            distiller, batch.images, preprocessor.normalization, gt.gt_bboxes, gt.gt_image
        )
        parts.append([value.cpu() for value in (found.logits, gt.gt_labels, box_areas(gt))])
    if not sum(len(labels) for _, labels, _ in parts):
        raise ValueError(f'the {split} images hold no objects; see {split}_ann in the config')
    logits, labels, areas = (torch.cat(values) for values in zip(*parts, strict=True))
    return logits, labels, areas


def box_areas(gt: GroundTruth) -> Tensor:
    """(G,) area of each object's box in square pixels of the original image."""
    width, height = (gt.gt_bboxes[:, 2:] - gt.gt_bboxes[:, :2]).unbind(1)
    scale = (gt.ori_shape / gt.img_shape).prod(1)  # (N,)
    return width * height * scale[gt.gt_image]


def teacher_sheet(
    cfg: Config, split: str = 'val', number: int = 48, checkpoint: str | Path | None = None
) -> Picture:
    """Draw objects of a split as the teacher gets them, with its answers.

    Args:
        cfg: From `load_distilled_config`.
        split: 'train' or 'val'.
        number: Objects at most, spread over the images, and these over the set.
        checkpoint: A student's weights. To the right of each object then stands the box that the student
            predicts for it, cut and judged in the same way: of the anchors that learn the object, the one
            that is most certain of its class. The rare object that no anchor learns is left out.

    Raises:
        ValueError: The images have no objects.
    """
    device = get_device()
    student = None if checkpoint is None else _load_student(cfg, checkpoint).to(device)
    distiller, preprocessor = (
        build_distiller(cfg, device) if student is None else (student.distiller, student.data_preprocessor)
    )
    classes = cfg[f'{split}_dataloader'].dataset.metainfo['classes']
    views = [
        _view(batch, classes, distiller, preprocessor.normalization, student)
        for batch in read_batches(cfg, split, preprocessor, number)
    ]
    crops, logits, labels = (torch.cat(parts) for parts in zip(*(view[:3] for view in views), strict=True))
    titles = [title for view in views for title in view.titles]
    side_by_side = 1 if student is None else 2
    objects = len(titles) // side_by_side
    if not objects:
        raise ValueError(f'the {split} images that were read hold no objects; see {split}_ann in the config')
    chosen = np.linspace(0, objects, min(number, objects), endpoint=False).astype(int).tolist()
    rows = [index * side_by_side + place for index in chosen for place in range(side_by_side)]
    return draw_crops(
        crops[rows], labels[rows], classes, logits[rows].softmax(1), titles=[titles[row] for row in rows]
    )


class _View(NamedTuple):
    """What the sheet shows of a batch: M crops, of each object the true one, then any predicted one."""

    crops: Tensor  # (M, 3, S, S)
    logits: Tensor  # (M, K)
    labels: Tensor  # (M,)
    titles: list[str]  # (M,)


def _load_student(cfg: Config, checkpoint: str | Path) -> Any:
    """The student of a distilled config, distiller included, with trained weights."""
    student = MODELS.build(cfg.model)
    file = load_checkpoint(checkpoint)
    names = checkpoint_classes(file)
    if names is not None:
        check_classes(cfg.val_dataloader.dataset.metainfo['classes'], 'the data', names, str(checkpoint))
    load_weights(student, file['state_dict'], str(checkpoint))
    return student.eval()


@torch.no_grad()
def _view(
    batch: Batch,
    classes: Sequence[str],
    distiller: ClassifierDistiller,
    normalization: Normalization,
    student: Any,
) -> _View:
    """What the sheet shows of one batch."""
    images, gt, _ = batch
    bboxes, image_index, labels = gt.gt_bboxes, gt.gt_image, gt.gt_labels
    titles = [classes[label] for label in labels.tolist()]
    if student is not None:
        outputs = student.raw_outputs(images)
        positives = student.head.positives(outputs, student.head.match(outputs.anchors, gt), gt)
        row = _most_certain(
            student.head.cls_loss.probabilities(positives.cls_logits[None])[0], positives
        )  # (R,)
        learned = positives.gt_index[row]  # (R,) objects
        truth, predicted = bboxes[learned], positives.bboxes[row]  # (R, 4) each
        overlaps = [
            float(bbox_overlaps(*pair)) for pair in zip(truth[:, None], predicted[:, None], strict=True)
        ]
        titles = [
            title
            for index, overlap in zip(learned.tolist(), overlaps, strict=True)
            for title in (titles[index], f'predicted, IoU {overlap:.2f}')
        ]
        bboxes = torch.stack([truth, predicted], 1).flatten(0, 1)  # (2 R, 4)
        image_index, labels = (values[learned].repeat_interleave(2) for values in (image_index, labels))
    answers = teacher_predict(distiller, images, normalization, bboxes, image_index)
    return _View(answers.crops, answers.logits, labels, titles)


def _most_certain(scores: Tensor, positives: PositiveSamples) -> Tensor:
    """Of each object that has positives the one with the best score for its class; objects in order.

    scores (P, K) -> (R,) rows of the positives
    """
    of_class = scores.gather(1, positives.gt_labels[positives.gt_index, None])[:, 0]  # (P,)
    best: dict[int, int] = {}
    for row in of_class.argsort().tolist():  # a better one replaces a worse one
        best[int(positives.gt_index[row])] = row
    return torch.tensor([best[index] for index in sorted(best)], dtype=torch.long, device=scores.device)

"""Run the teacher of a distilled config on the crops that its distiller cuts.

N images · G objects of a batch · M crops · K classes · S crop side
Boxes are xyxy in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor
from torch.utils.data import DataLoader

from mmdet.apis import init_detector
from mmdet.config.classes import check_classes
from mmdet.config.resolve import load_config, run_seed
from mmdet.datasets import build_collate
from mmdet.datasets.worker import init_worker
from mmdet.distillation import ClassifierDistiller, FrozenTeacher
from mmdet.models.detectors import BaseDetector
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import GroundTruth, Normalization, bbox_overlaps, crop_boxes
from mmdet.visualization.canvas import Picture
from mmdet.visualization.crops import draw_crops


class TeacherOutputs(NamedTuple):
    """Crops as the teacher gets them, and its logits."""

    crops: Tensor  # (M, 3, S, S) float32, RGB, 0..255: before the teacher's normalization
    logits: Tensor  # (M, K) float32


class Batch(NamedTuple):
    """One batch as the detector gets it."""

    images: Tensor  # (N, 3, H, W), normalized
    gt: GroundTruth
    bad_images: list[Any]  # BadImage of each file that was left out


def load_distilled_config(
    path: str, teacher: str | None, cfg_options: dict[str, Any], data_root: str | None, split: str
) -> Config:
    """Load the config of a distilled student, with another teacher's file where one is given.

    A `StoredTeacher` gives way to its network. Only for the split 'train' must training annotations be there.

    Raises:
        ValueError: The config has no `model.distiller.teacher`, or none that can be asked.
    """
    cfg = load_config(path, cfg_options, data_root, for_training=split == 'train')
    if not (cfg.model.get('distiller') or {}).get('teacher'):
        raise ValueError(
            f'{path} has no model.distiller.teacher: give the config of a distilled student, e.g. '
            'configs_dev/ssd/ssd300_coco_cls_loc.py'
        )
    cfg.model.distiller.teacher = teacher_network(cfg)
    if cfg.model.distiller.teacher is None:
        raise ValueError(f'{path} has stored answers alone: give a config with the teacher that gave them')
    if teacher is not None:
        cfg.model.distiller.teacher.checkpoint = teacher
    return cfg


def teacher_network(cfg: Config) -> Any:
    """Get the config of the teacher that answers, also where its answers are stored; None without one."""
    teacher = (cfg.model.get('distiller') or {}).get('teacher') or {}
    return teacher.get('network') if teacher.get('type') == 'StoredTeacher' else teacher or None


def read_batches(cfg: Config, split: str, preprocessor: Any, number: int | None = None) -> Iterator[Batch]:
    """Read batches of a split as its loader makes them, each image once, in the order of the file.

    Prints the images that cannot be read.

    Args:
        cfg: Resolved.
        split: 'train' (augmented, the draws of a first pass) or 'val'.
        preprocessor: The model's.
        number: Read only so many images, spread over the set.
    """
    loader = cfg[f'{split}_dataloader']
    dataset = DATASETS.build({'seed': run_seed(cfg), **loader.dataset})
    chosen = min(number or len(dataset), len(dataset))
    order = np.linspace(0, len(dataset), chosen, endpoint=False).astype(int).tolist()
    for batch in load_batches(loader, dataset, [(index, index) for index in order], preprocessor):
        for bad in batch.bad_images:
            print(f'left out: {bad.file}: {bad.reason}')
        yield batch


def load_batches(
    loader: Any, dataset: Any, draws: Sequence[tuple[int, int]], preprocessor: Any
) -> Iterator[Batch]:
    """Load batches as the `loader` of a config says, but in the order of `draws`, (index, draw)."""
    batches = DataLoader(
        dataset,
        batch_size=loader.batch_size,
        sampler=draws,
        collate_fn=build_collate(loader),
        num_workers=loader.get('num_workers', 0),
        worker_init_fn=init_worker,
    )
    for data in batches:
        ready = preprocessor(data)
        yield Batch(ready['inputs'], ready['gt'], data['bad_images'])


def build_distiller(cfg: Config) -> tuple[ClassifierDistiller, Any]:
    """Build the distiller of a config and the preprocessor of its student, on the GPU where there is one."""
    distiller: ClassifierDistiller = MODELS.build(cfg.model.distiller)
    return distiller.to(get_device()), MODELS.build(cfg.model.data_preprocessor).to(get_device())


@torch.no_grad()
def teacher_predict(
    distiller: ClassifierDistiller,
    images: Tensor,
    normalization: Normalization,
    bboxes: Tensor,
    image_index: Tensor,
) -> TeacherOutputs:
    """Cut boxes as the distiller does and run its teacher on the crops.

    images (N, 3, H, W), normalized as `normalization` says · bboxes (M, 4) · image_index (M,) in [0, N)
    """
    crops = crop_boxes(images, bboxes, image_index, distiller.crop_size)  # (M, 3, S, S)
    assert isinstance(distiller.teacher, FrozenTeacher)  # see `load_distilled_config`
    logits = distiller.teacher.logits(crops, normalization)
    mean, std = (value[:, None, None] for value in normalization)
    return TeacherOutputs((crops * std + mean).clamp(0, 255), logits)


def predict_split(
    cfg: Config, split: str, distiller: ClassifierDistiller, preprocessor: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the teacher on every object of a split: logits (M, K), labels (M,), areas (M,) on the CPU.

    Raises:
        ValueError: There are no objects.
    """
    parts = []
    for batch in read_batches(cfg, split, preprocessor):
        gt, normalization = batch.gt, preprocessor.normalization
        found = teacher_predict(distiller, batch.images, normalization, gt.gt_bboxes, gt.gt_image)
        parts.append([value.cpu() for value in (found.logits, gt.gt_labels, box_areas(gt))])
    logits, labels, areas = (torch.cat(values) for values in zip(*parts, strict=True))
    if not len(labels):
        raise ValueError(f'the {split} images hold no objects; see {split}_ann in the config')
    return logits, labels, areas


def box_areas(gt: GroundTruth) -> Tensor:
    """Compute the area (G,) of each object's box in square pixels of the original image."""
    width, height = (gt.gt_bboxes[:, 2:] - gt.gt_bboxes[:, :2]).unbind(1)
    scale = (gt.ori_shape / gt.img_shape).prod(1)  # (N,)
    return width * height * scale[gt.gt_image]


def teacher_sheet(cfg: Config, split: str, number: int, checkpoint: Path | None) -> Picture:
    """Draw objects of a split as the teacher gets them, with its answers.

    Args:
        cfg: From `load_distilled_config`.
        split: 'train' or 'val'.
        number: Objects at most, spread over the images, and these over the set.
        checkpoint: A student's weights. To the right of each object is then the box that the student
            predicts for it, cut and judged in the same way: of the anchors that learn the object, the one
            that is most certain of its class. The rare object that no anchor learns is left out.

    Raises:
        ValueError: The images have no objects.
    """
    distiller, preprocessor = build_distiller(cfg)
    classes = cfg[f'{split}_dataloader'].dataset.metainfo['classes']
    student = None
    if checkpoint is not None:
        student = init_detector(cfg, checkpoint)
        named = student.cfg.val_dataloader.dataset.metainfo['classes']  # by the checkpoint, if it names any
        check_classes(classes, 'the data', named, str(checkpoint))
    shown: list[tuple[Tensor, Tensor, Tensor, str]] = []  # crop, logits, label, title
    for batch in read_batches(cfg, split, preprocessor, number):
        bboxes, objects, titles = _boxes_to_show(batch, classes, student)
        labels, image_index = batch.gt.gt_labels[objects], batch.gt.gt_image[objects]
        found = teacher_predict(distiller, batch.images, preprocessor.normalization, bboxes, image_index)
        shown += zip(found.crops, found.logits, labels, titles, strict=True)
    if not shown:
        raise ValueError(f'the {split} images that were read hold no objects; see {split}_ann in the config')
    per_object = 1 if student is None else 2
    count = len(shown) // per_object
    chosen = np.linspace(0, count, min(number, count), endpoint=False).astype(int).tolist()
    tiles = [shown[index * per_object + place] for index in chosen for place in range(per_object)]
    crops, logits, truth = (torch.stack([tile[part] for tile in tiles]) for part in range(3))
    return draw_crops(crops, truth, classes, logits.softmax(1), [title for *_, title in tiles])


@torch.no_grad()
def _boxes_to_show(
    batch: Batch, classes: Sequence[str], student: BaseDetector | None
) -> tuple[Tensor, Tensor, list[str]]:
    """Choose the boxes of a batch: its objects, with a student each beside what is predicted for it.

    Returns:
        Boxes (M, 4), their objects (M,) as rows of the ground truth, and M titles.
    """
    gt = batch.gt
    titles = [classes[label] for label in gt.gt_labels.tolist()]
    if student is None:
        return gt.gt_bboxes, torch.arange(len(titles), device=gt.gt_bboxes.device), titles
    step = student.head_step(student.extract_feat(batch.images), gt)
    positives = student.head.positives(step.outputs, step.matched, gt)
    probabilities = student.head.cls_loss.probabilities(positives.cls_logits[None])[0]  # (P, K)
    certainty = probabilities.gather(1, positives.gt_labels[positives.gt_index, None])[:, 0]  # (P,)
    # of each object the positive that is most certain of its class: a better one replaces a worse one
    best = {int(positives.gt_index[row]): row for row in certainty.argsort().tolist()}
    learned = sorted(best)  # R objects
    rows = [best[index] for index in learned]
    truth, predicted = gt.gt_bboxes[learned], positives.bboxes[rows]  # (R, 4) each
    overlaps = bbox_overlaps(truth, predicted).diagonal().tolist()
    pairs = [
        (titles[index], f'predicted, IoU {overlap:.2f}')
        for index, overlap in zip(learned, overlaps, strict=True)
    ]
    objects = torch.tensor(learned, dtype=torch.long, device=truth.device).repeat_interleave(2)
    bboxes = torch.stack([truth, predicted], 1).flatten(0, 1)  # (2 R, 4)
    return bboxes, objects, [title for pair in pairs for title in pair]

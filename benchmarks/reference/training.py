"""Training of the baseline, plain or distilled as published: the losses of a step, and all steps.

G objects of an image · P positives of the batch · A anchors · boxes xyxy in pixels of the network input
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import ResNet

from benchmarks.reference.augmentation import baseline_pipeline
from benchmarks.reference.distiller import distillation_losses
from benchmarks.reference.network import BaselineSSD300, flat
from benchmarks.reference.ssd_loss import Targets, decode, losses


def training_losses(
    student: BaselineSSD300,
    images: Tensor,
    anchors: Tensor,
    objects: Sequence[Tensor],
    labels: Sequence[Tensor],
    teacher: ResNet | None = None,
    crop_size: int = 112,
) -> dict[str, Tensor]:
    """Compute `loss_cls` and `loss_bbox`; with a teacher also `loss_kd_cls` and `loss_kd_loc`.

    images (N, 3, 300, 300) normalized · anchors (A, 4) · objects, labels: per image (G, 4) and (G,)
    """
    cls_maps, box_maps = student(images)
    found, targets = losses(cls_maps, box_maps, anchors, objects, labels, student.num_classes)
    if teacher is None:
        return found
    counts = [len(of_image) for of_image in objects]
    first = [sum(counts[:i]) for i in range(len(counts))]  # row of each image's first object in all of them

    def logits(i: int, of_image: Targets) -> Tensor:
        return flat(cls_maps, i, student.num_classes + 1)[of_image.positive].float()

    def boxes(i: int, of_image: Targets) -> Tensor:
        deltas = flat(box_maps, i, 4)[of_image.positive].float()
        return decode(anchors[of_image.positive], deltas)

    image_of_object = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return found | distillation_losses(
        images,
        teacher,
        torch.cat([logits(i, of_image) for i, of_image in enumerate(targets)]),
        torch.cat([boxes(i, of_image) for i, of_image in enumerate(targets)]),
        torch.cat([of_image.matched + first[i] for i, of_image in enumerate(targets)]),
        torch.cat(list(objects)),
        image_of_object.to(images.device),
        [len(of_image.positive) for of_image in targets],
        crop_size,
    )


def train(
    student: BaselineSSD300,
    teacher: ResNet,
    crop_size: int,
    anchors: Tensor,
    photos: Sequence[tuple[Path, Any, Any]],
    batch_size: int,
    steps: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    max_norm: float,
    rng: np.random.Generator,
) -> None:
    """Train a distilled student for some steps.

    photos: file, boxes (G, 4) and labels (G,) of each · max_norm: to which gradients are clipped
    rng: all random numbers come from it
    """
    rows = endless(len(photos), rng)
    for _ in range(steps):
        samples = []
        for _ in range(batch_size):
            file, boxes, labels = photos[next(rows)]
            samples.append(
                baseline_pipeline(file, boxes, labels, rng, contrast_first=bool(rng.random() < 0.5))
            )
        images, objects, classes = ([s[key] for s in samples] for key in ('img', 'bboxes', 'labels'))
        optimizer.zero_grad()
        losses = training_losses(student, torch.stack(images), anchors, objects, classes, teacher, crop_size)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(student.parameters(), max_norm)
        optimizer.step()
        schedule.step()


def endless(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Yield rows of a data set without end, in a new order each time through."""
    while True:
        yield from rng.permutation(count).tolist()

"""The losses of a training step of the baseline, plain or distilled as published.

G objects of an image · P positives of the batch · A anchors · boxes xyxy in pixels of the network input
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models import ResNet

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

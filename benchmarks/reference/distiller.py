"""The published distillation of a classifier into SSD (arXiv 2106.05209), with the work that it does.

From docs/method.md, "Deliberate differences to the published code": it copies the whole image once per box,
sends every predicted crop and every target crop through the whole trunk of the teacher although only the
stem is used, cuts an object once per positive that is matched to it, and takes the teacher's logits to the
CPU and back. Logarithms are taken of probabilities plus 1e-10, and boxes are clamped on one side each.

P positives · G ground-truth boxes · K classes · S crop side · boxes xyxy in pixels of the network input
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import ResNet

TEMPERATURE, CLS_WEIGHT = 2.0, 0.4
LOC_WEIGHT, PIXEL_SIDE, STEM_SIDE = 0.15, 4, 8


def crops(images: Tensor, boxes: Tensor, image_of_box: Tensor, size: int) -> Tensor:
    """Cut boxes out of images -> (M, 3, S, S): the whole image is copied for each box, then sampled."""
    height, width = images.shape[2:]
    copies = images[image_of_box]  # (M, 3, H, W)
    x1, y1, x2, y2 = boxes.unbind(1)
    zero = torch.zeros_like(x1)
    affine = torch.stack(
        [
            torch.stack([(x2 - x1) / width, zero, (x1 + x2) / width - 1], 1),
            torch.stack([zero, (y2 - y1) / height, (y1 + y2) / height - 1], 1),
        ],
        1,
    )
    grid = F.affine_grid(affine, [len(boxes), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(copies, grid, align_corners=False)


def trunk(network: ResNet, x: Tensor) -> list[Tensor]:
    """Compute every stage of a ResNet, (M, 3, S, S) -> stem, layer1 ... layer4."""
    stages = [network.maxpool(network.relu(network.bn1(network.conv1(x))))]
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        stages.append(layer(stages[-1]))
    return stages


def clamped(boxes: Tensor, height: int, width: int) -> Tensor:
    """Clamp left and top at 0, right and bottom at the image's size; only on these sides."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([x1.clamp(min=0), y1.clamp(min=0), x2.clamp(max=width), y2.clamp(max=height)], 1)


def distillation_losses(
    images: Tensor,
    teacher: ResNet,
    cls_logits: Tensor,
    boxes: Tensor,
    object_of_positive: Tensor,
    objects: Tensor,
    image_of_object: Tensor,
    positives_per_image: Sequence[int],
    size: int,
) -> dict[str, Tensor]:
    """Compute `loss_kd_cls` (Eq 1) and `loss_kd_loc` (Eq 9 to 11).

    images (N, 3, H, W) normalized · teacher: a ResNet in eval mode that takes such images
    cls_logits (P, K + 1), boxes (P, 4): of the student, with gradient · object_of_positive (P,)
    objects (G, 4) · image_of_object (G,) · positives_per_image: N counts · size: S
    """
    boxes = clamped(boxes, *images.shape[2:])
    with torch.no_grad():
        logits = teacher(crops(images, objects, image_of_object, size))  # (G, K)
    logits = logits.float().cpu()[object_of_positive.cpu()].to(images.device)

    target = F.softmax(logits / TEMPERATURE, 1)
    target = torch.cat([target, target.new_zeros(len(target), 1)], 1)  # no background
    student = F.softmax(cls_logits / TEMPERATURE, 1)
    divergence = target * (torch.log(target + 1e-10) - torch.log(student + 1e-10))
    avg_factor = sum(max(count, 1) for count in positives_per_image)
    loss_cls = CLS_WEIGHT * TEMPERATURE**2 * divergence.sum() / avg_factor

    image = image_of_object[object_of_positive]
    predicted = crops(images, boxes, image, size)  # (P, 3, S, S)
    with torch.no_grad():
        true = crops(images, objects[object_of_positive], image, size)
        true_stem = trunk(teacher, true)[0]
    predicted_stem = trunk(teacher, predicted)[0]
    distances = []
    for ours, theirs, side in ((predicted, true, PIXEL_SIDE), (predicted_stem, true_stem, STEM_SIDE)):
        pooled = [F.adaptive_avg_pool2d(x.float(), side) for x in (ours, theirs)]
        distances.append((pooled[0] - pooled[1]).abs().mean((1, 2, 3)).sum())
    loss_loc = LOC_WEIGHT * torch.stack(distances).sum() / max(len(boxes), 1)
    return {'loss_kd_cls': loss_cls, 'loss_kd_loc': loss_loc}

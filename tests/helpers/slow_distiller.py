"""The paper's sums, one positive at a time, the whole network of the teacher for each crop."""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from mmdet.distillation import ClassifierDistiller, SigmoidKDLoss
from mmdet.structures import Normalization, PositiveSamples, crop_boxes


def slow_losses(
    distiller: ClassifierDistiller, images: Tensor, source: Normalization, samples: PositiveSamples
) -> dict[str, Tensor]:
    """Both losses of a distiller whose teacher is a ResNet, at temperature 2."""
    network, teacher = distiller.teacher.network, distiller.teacher
    size, kd_cls, kd_loc = distiller.crop_size, distiller.kd_cls, distiller.kd_loc

    def look(box: Tensor, image: Tensor) -> dict[str, Tensor]:
        pixels = crop_boxes(image[None], box[None], torch.tensor([0]), size)
        x = pixels
        if teacher.mean is not None:
            own = [torch.tensor(three)[:, None, None] for three in (teacher.mean, teacher.std)]
            raw = pixels * source.std[:, None, None] + source.mean[:, None, None]
            x = (raw - own[0]) / own[1]
        stem = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        return {
            'pixels': pixels * source.std.mean(),
            'stem': stem,
            'layer1': network.layer1(stem),
            'logits': network(x),
        }

    def divergence(student: Tensor, target: Tensor) -> Tensor:
        known = target > 0
        return (target[known] * (target[known].log() - student[known].log())).sum()

    per_image = torch.zeros(len(images))
    recognition = localization = torch.zeros(())
    for logits, box, row in zip(samples.cls_logits, samples.bboxes, samples.gt_index, strict=True):
        image = images[samples.gt_image[row]]
        per_image[samples.gt_image[row]] += 1
        seen, truth = look(box, image), look(samples.gt_bboxes[row], image)
        answer = truth['logits'][0] / 2
        if isinstance(kd_cls, SigmoidKDLoss):
            ways = [torch.stack([x.sigmoid(), 1 - x.sigmoid()], 1) for x in (logits / 2, answer)]
            recognition = recognition + 4 * divergence(*ways) / len(answer)
        else:
            inside = torch.ones(())  # the share of the classes; background gets the rest
            if kd_cls.iou_aware:
                pair = samples.gt_bboxes[row][None], box.detach()[None]
                inside = torchvision.ops.box_iou(*pair)[0, 0].clamp(1e-4, 1 - 1e-4)
            target = torch.cat([inside * F.softmax(answer, 0), 1 - inside[None]])
            recognition = recognition + 4 * divergence(F.softmax(logits / 2, 0), target)
        for level, side, weight in zip(kd_loc.levels, kd_loc.pool_sizes, kd_loc.weights, strict=True):
            pooled = [F.adaptive_avg_pool2d(x[level], side) for x in (seen, truth)]
            localization = localization + weight * (pooled[0] - pooled[1]).abs().mean()
    return {
        'loss_kd_cls': kd_cls.loss_weight * recognition / per_image.clamp(min=1).sum(),
        'loss_kd_loc': localization / max(len(samples.bboxes), 1),
    }

"""Train a teacher on the detector's own batches.

N images · G objects of the batch · K classes · S crop side
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from mmdet.classifiers import IMAGENET, build_classifier, imagenet_normalization, load_pretrained
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, GroundTruth, Normalization, crop_boxes


class SinglePixelConv(nn.Conv2d):
    """A 3 x 3 convolution that multiplies a map of one pixel by the center of its kernel alone.

    The rest of the kernel sees zeros. Small crops end in such maps, and on a CPU the gradient of the whole
    kernel takes 13 times as long.

    Args:
        conv: One that `fits`; its parameters stay its own.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, groups=conv.groups, device='meta')
        self.weight, self.bias, self.stride = conv.weight, conv.bias, conv.stride

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(N, C, h, w) -> (N, C_out, h_out, w_out)."""
        if x.shape[2:] == (1, 1):
            return F.conv2d(x, weight[:, :, 1:2, 1:2], bias, groups=self.groups)
        return super()._conv_forward(x, weight, bias)

    @staticmethod
    def fits(layer: nn.Module) -> bool:
        """Whether it pads a 3 x 3 kernel with a row and column of zeros."""
        if type(layer) is not nn.Conv2d or layer.padding_mode != 'zeros':
            return False
        return (layer.kernel_size, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1))


@MODELS.register_module()
class CropClassifier(BaseModel):
    """A classifier of the ground-truth crops of a detector's batch: the training of a teacher.

    The data set, pipeline and preprocessor are the student's and the crops are cut by the same function,
    so what the teacher is trained on and what it is asked later cannot drift apart.

    Two classification losses: softmax cross-entropy, and sigmoid focal loss beside it for a teacher that
    serves students of both kinds.

    Args:
        data_preprocessor: The student's.
        arch: torchvision's name, or 'timm/NAME'.
        num_classes: K.
        classes: Their names, written into the teacher's file.
        crop_size: S.
        weights: What training starts from: 'imagenet' (torchvision's or timm's own weights), the path of a
            file, or None for random weights. Layers of another shape (the last one) start at random. Read by
            `init_weights`, which the runner calls when a training starts from scratch.
        label_smoothing: Share of the target that goes to all classes alike; softmax only.
        focal_weight: Weight of the sigmoid focal loss; 0: there is none. Written into the teacher's file.
        box_jitter: In training each edge of a box moves by a uniform share of the box's width or height, at
            most by this one, and stays inside the true image. Its random numbers come from torch's CPU
            generator, which is seeded and saved in checkpoints.
        min_side: Objects with a shorter side, in pixels of the network input, are neither trained on nor
            counted in evaluation. `left_out` in the log is their share, in the evaluation their number.
        mean, std: How the network's input is normalized, RGB, 0..255; written into the teacher's file. None:
            as the preprocessor does, or with weights='imagenet' as those weights were trained.

    Raises:
        ValueError: A value that makes no sense; BGR images.
    """

    mean: Tensor  # (3,)
    std: Tensor  # (3,)

    def __init__(
        self,
        data_preprocessor: nn.Module,
        arch: str,
        num_classes: int,
        classes: Sequence[str] | None = None,
        crop_size: int = 112,
        weights: str | None = None,
        label_smoothing: float = 0.0,
        focal_weight: float = 0.0,
        box_jitter: float = 0.0,
        min_side: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        if not 0 <= box_jitter < 0.5:  # from a half on, the edges of a box could pass each other
            raise ValueError(f'box_jitter is a share of a box from 0 to below 0.5; got {box_jitter!r}')
        if (mean is None) != (std is None):
            raise ValueError(f'give mean and std of the network both or neither; got {mean} and {std}')
        self.arch = arch
        self.classes = classes
        self.crop_size = crop_size
        self.weights = weights
        self.label_smoothing = label_smoothing
        self.focal_weight = focal_weight
        self.box_jitter = box_jitter
        self.min_side = min_side
        self.network = build_classifier(arch, num_classes)
        for name, layer in [*self.network.named_modules()]:
            if SinglePixelConv.fits(layer):
                self.network.set_submodule(name, SinglePixelConv(cast(nn.Conv2d, layer)))
        if mean is None and weights == IMAGENET:
            mean, std = imagenet_normalization(self.network)
        source = self.source  # refuses BGR, whatever the mean
        own = source if mean is None else Normalization(torch.tensor(mean), torch.tensor(std))
        self.register_buffer('mean', own.mean.clone(), persistent=False)
        self.register_buffer('std', own.std.clone(), persistent=False)

    @property
    def source(self) -> Normalization:
        """How the detector's batches are normalized."""
        return cast(Normalization, self.data_preprocessor.normalization)

    @property
    def normalization(self) -> Normalization:
        """How the network's input is normalized."""
        return Normalization(self.mean, self.std)

    def init_weights(self) -> None:
        """Load the weights that training starts from, where they fit."""
        if self.weights is not None:
            load_pretrained(self.network, self.arch, self.weights, 'model.weights')

    def crop(self, inputs: Tensor, gt: GroundTruth) -> tuple[Tensor, GroundTruth]:
        """Crop the objects that this model classifies.

        inputs (N, 3, H, W), as the preprocessor returns them
        returns crops (G, 3, S, S), as `normalization` says, and of which objects they are: `gt` with those
            shorter than `min_side` no longer valid, and with the boxes that were cut
        """
        sides = gt.bboxes[..., 2:] - gt.bboxes[..., :2]  # (N, Gmax, 2)
        gt = gt._replace(valid=gt.valid & (sides >= self.min_side).all(-1))
        if self.training and self.box_jitter:
            gt = gt._replace(bboxes=_jittered(gt.bboxes, gt.img_shape, self.box_jitter))
        crops = crop_boxes(inputs, gt.gt_bboxes, gt.gt_image, self.crop_size)
        return self.normalization.convert(crops, self.source), gt

    def forward(self, inputs: Tensor, gt: GroundTruth, mode: str = 'tensor') -> Any:
        """Compute losses, per-image logits, or logits (G, K).

        inputs (N, 3, H, W), as the preprocessor returns them
        """
        crops, kept = self.crop(inputs, gt)
        if mode == 'loss':
            return self._losses(crops, kept) | self._share_left_out(gt, kept)
        logits = self.network(crops).float()
        if mode == 'tensor':
            return logits
        if mode == 'predict':
            return _per_image(logits, gt, kept)
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', not '{mode}'")

    def _losses(self, crops: Tensor, gt: GroundTruth) -> dict[str, Tensor]:
        """`loss_cls`, and `loss_focal` over the number of crops where it has a weight; scalars."""
        if len(crops) == 0:
            # Batch norm cannot train on nothing, and every parameter must still take part (DDP).
            zero = torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0
            return {'loss_cls': zero} | ({'loss_focal': zero} if self.focal_weight else {})
        # Batch norm refuses a single value per channel; the same crop twice has the same mean loss.
        doubled = crops.repeat(2, 1, 1, 1) if self.training and len(crops) == 1 else crops
        logits = self.network(doubled)[: len(crops)].float()
        losses = {'loss_cls': F.cross_entropy(logits, gt.gt_labels, label_smoothing=self.label_smoothing)}
        if self.focal_weight:
            target = F.one_hot(gt.gt_labels, logits.shape[1]).float()  # (G, K)
            focal = sigmoid_focal_loss(logits, target, reduction='sum')
            losses['loss_focal'] = self.focal_weight * focal / len(crops)
        return losses

    def _share_left_out(self, gt: GroundTruth, kept: GroundTruth) -> dict[str, Tensor]:
        """For the log: the share of the batch's objects that `min_side` leaves out."""
        if not self.min_side:
            return {}
        objects = gt.valid.sum()
        return {'left_out': (objects - kept.valid.sum()) / objects.clamp(min=1)}

    def teacher_file(self, epoch: int, metrics: dict[str, float]) -> dict[str, Any]:
        """What `FrozenTeacher` reads: the published layout and what that leaves open."""
        mean, std = ([round(value, 4) for value in three.tolist()] for three in self.normalization)
        return {
            'epoch': epoch,
            'arch': self.arch,
            'state_dict': self.network.state_dict(),
            'best_acc1': metrics['top1'],
            'classes': list(self.classes) if self.classes is not None else None,
            'mean': mean,  # rounded to what the config says: float32 makes 123.6750030517578 of 123.675
            'std': std,
            'crop_size': self.crop_size,
            'focal_weight': self.focal_weight,
            'metrics': metrics,
        }


def _jittered(bboxes: Tensor, img_shape: Tensor, share: float) -> Tensor:
    """Boxes whose edges have moved by up to a share of their sides and stay inside the true image.

    bboxes (N, Gmax, 4) xyxy in pixels · img_shape (N, 2) (h, w) · returns (N, Gmax, 4)
    """
    moves = share * (2 * torch.rand(bboxes.shape) - 1)  # on the CPU: the same numbers on every device
    sides = (bboxes[..., 2:] - bboxes[..., :2]).repeat(1, 1, 2)  # (N, Gmax, 4) w, h, w, h
    limits = img_shape.flip(1).repeat(1, 2)[:, None]  # (N, 1, 4) w, h, w, h
    return (bboxes + moves.to(bboxes.device) * sides).clamp(min=0).minimum(limits)


def _per_image(logits: Tensor, gt: GroundTruth, kept: GroundTruth) -> list[DetDataSample]:
    """One sample per image; its `gt_instances` hold `labels` (G_i,) and `cls_logits` (G_i, K).

    Meta information: `img_id`, and `left_out`, the number of objects of `gt` that are not among the `kept`.
    """
    samples = []
    counts = kept.valid.sum(1).tolist()
    left_out = (gt.valid & ~kept.valid).sum(1).tolist()
    parts = zip(gt.img_id.tolist(), left_out, logits.split(counts), kept.gt_labels.split(counts), strict=True)
    for img_id, missing, cls_logits, labels in parts:
        sample = DetDataSample(metainfo={'img_id': img_id, 'left_out': missing})
        sample.gt_instances = InstanceData(cls_logits=cls_logits, labels=labels)
        samples.append(sample)
    return samples

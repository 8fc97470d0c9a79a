"""Training a teacher on the detector's own batches.

N images · G objects of the batch · K classes · S crop side
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet.distillation.teacher import build_classifier
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample, GroundTruth, Normalization, crop_boxes
from mmdet.utils.checkpoint import load_checkpoint, save_checkpoint


@MODELS.register_module()
class CropClassifier(BaseModel):
    """Classifies the ground-truth crops of a detector's batch.

    The data set, pipeline and preprocessor are the student's and the crops are cut by the same function,
    so what the teacher is trained on and what it is asked later cannot drift apart.

    Args:
        data_preprocessor: The student's.
        arch: torchvision's name, or 'timm/NAME'.
        num_classes: K.
        classes: Their names, written into the teacher's file.
        crop_size: S.
        weights: A file to start from, e.g. ImageNet weights; layers of another shape (the last one) start
            at random. None starts all of them so.
        label_smoothing: Share of the target that goes to all classes alike.
    """

    def __init__(
        self,
        data_preprocessor: nn.Module,
        arch: str,
        num_classes: int,
        classes: Sequence[str] | None = None,
        crop_size: int = 112,
        weights: str | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.arch = arch
        self.classes = classes
        self.crop_size = crop_size
        self.weights = weights
        self.label_smoothing = label_smoothing
        self.network = build_classifier(arch, num_classes)

    def init_weights(self) -> None:
        """Load the weights that training starts from, where they fit."""
        if self.weights is None:
            return
        own = self.network.state_dict()
        state = load_checkpoint(self.weights)['state_dict']
        fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        if not fitting:
            raise ValueError(f'{self.weights} holds nothing that fits {self.arch}')
        self.network.load_state_dict(fitting, strict=False)

    def forward(self, inputs: Tensor, gt: GroundTruth, mode: str = 'tensor') -> Any:
        """Loss, per-image answers or logits (G, K). inputs (N, 3, H, W), as the preprocessor returns them."""
        if mode == 'loss' and not gt.valid.any():
            # Batch norm cannot train on nothing, and every parameter must still take part (DDP).
            return {'loss_cls': torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0}
        crops = crop_boxes(inputs, gt.gt_bboxes, gt.gt_image, self.crop_size)
        if self.training and len(crops) == 1:
            # Batch norm refuses a single value per channel; the same crop twice has the same mean loss.
            logits = self.network(crops.repeat(2, 1, 1, 1))[:1].float()
        else:
            logits = self.network(crops).float()
        if mode == 'tensor':
            return logits
        if mode == 'loss':
            return {'loss_cls': F.cross_entropy(logits, gt.gt_labels, label_smoothing=self.label_smoothing)}
        if mode == 'predict':
            return _per_image(logits, gt)
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', not '{mode}'")

    def teacher_file(self, epoch: int, metrics: dict[str, float]) -> dict[str, Any]:
        """What `FrozenTeacher` reads: the published layout and what that leaves open."""
        normalization = cast(Normalization, self.data_preprocessor.normalization)
        return {
            'epoch': epoch,
            'arch': self.arch,
            'state_dict': self.network.state_dict(),
            'best_acc1': metrics['top1'],
            'classes': list(self.classes) if self.classes is not None else None,
            'mean': normalization.mean.tolist(),
            'std': normalization.std.tolist(),
            'crop_size': self.crop_size,
            'metrics': metrics,
        }


def _per_image(logits: Tensor, gt: GroundTruth) -> list[DetDataSample]:
    """One sample per image; its `gt_instances` hold `labels` (G_i,) and the answer `cls_logits` (G_i, K)."""
    samples = []
    counts = gt.valid.sum(1).tolist()
    parts = zip(gt.img_id.tolist(), logits.split(counts), gt.gt_labels.split(counts), strict=True)
    for img_id, cls_logits, labels in parts:
        sample = DetDataSample(metainfo={'img_id': img_id})
        sample.gt_instances = InstanceData(cls_logits=cls_logits, labels=labels)
        samples.append(sample)
    return samples


@HOOKS.register_module()
class SaveTeacherHook(Hook):
    """Write the teacher's file whenever the evaluated accuracy is the best so far.

    Args:
        file: Where it goes, e.g. 'cls_teachers/ssd/model_best.pth.tar'.
        metric: Name of the accuracy among the evaluated values.
    """

    def __init__(self, file: str, metric: str = 'top1') -> None:
        self.file = Path(file)
        self.metric = metric
        self.best = -1.0

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Compare and write."""
        named = {name.rsplit('/', 1)[-1]: float(value) for name, value in (metrics or {}).items()}
        if runner.rank != 0 or named.get(self.metric, -1.0) <= self.best:
            return
        self.best = named[self.metric]
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.file.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(model.teacher_file(runner.epoch, named), self.file)
        runner.logger.info(f'teacher with {self.metric} {self.best:.4f} written to {self.file}')

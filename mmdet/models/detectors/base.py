"""What all detectors share.

N images · H x W pixels of the network input
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, cast

import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmdet.models.data_preprocessor import DetDataPreprocessor
from mmdet.models.heads import Head
from mmdet.models.postprocess import Detections
from mmdet.structures import DetDataSample, GroundTruth, HeadOutputs, Normalization


class HeadStep(NamedTuple):
    """What a detector's heads make of a training batch."""

    losses: dict[str, Tensor]  # scalars
    outputs: HeadOutputs  # of the head that names classes
    matched: Tensor  # (N, A)


class BaseDetector(BaseModel, ABC):
    """A detector with MMEngine's interface: `mode='loss' | 'predict' | 'tensor'`.

    Args:
        data_preprocessor: Batch of the loader -> network input.
        backbone: Image -> feature maps.
        neck: Feature maps -> feature maps.
        distiller: Further losses from `(images, normalization, PositiveSamples)`, and their balance with the
            detector's own, see `ClassifierDistiller`. It belongs to the loss, not to the model: it holds no
            parameters, `predict` never reads it, and a checkpoint of a distilled detector is one of the
            plain detector.

    Raises:
        ValueError: A distiller beside BGR images.
    """

    def __init__(
        self,
        data_preprocessor: DetDataPreprocessor,
        backbone: nn.Module,
        neck: nn.Module | None = None,
        distiller: nn.Module | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.backbone = backbone
        self.neck = neck
        self.distiller = distiller
        if distiller is not None:
            _ = self.normalization  # refuses BGR now, not in the first step

    @property
    @abstractmethod
    def head(self) -> Head:
        """The head that names classes."""

    @abstractmethod
    def head_step(self, feats: list[Tensor], gt: GroundTruth) -> HeadStep:
        """Predict, match and compute the detector's own losses. feats L x (N, C_l, H_l, W_l)."""

    @abstractmethod
    def head_outputs(self, feats: list[Tensor], img_shape: Tensor) -> HeadOutputs:
        """Predict in images of size `img_shape` (N, 2) (h, w), before any selection of `head`'s."""

    def detect(self, images: Tensor, gt: GroundTruth) -> list[Detections]:
        """Detections per image in pixels of the network input (N, 3, H, W), clipped to the true image."""
        outputs = self.head_outputs(self.extract_feat(images), gt.img_shape)
        return self.head.predict(outputs, gt.img_shape)

    def raw_outputs(self, images: Tensor) -> HeadOutputs:
        """What `head` computes on whole images (N, 3, H, W), before any selection."""
        size = torch.tensor(images.shape[2:], device=images.device)
        return self.head_outputs(self.extract_feat(images), size.expand(len(images), 2))

    def loss(self, images: Tensor, gt: GroundTruth) -> dict[str, Tensor]:
        """Compute the detector's losses, and the distiller's where there is one. images (N, 3, H, W)."""
        step = self.head_step(self.extract_feat(images), gt)
        distiller = cast(Any, self.distiller)
        if distiller is None:
            return step.losses
        positives = self.head.positives(step.outputs, step.matched, gt)
        return distiller.balance(step.losses) | distiller(images, self.normalization, positives)

    @property
    def normalization(self) -> Normalization:
        """How the images that `loss` gets are normalized."""
        return cast(DetDataPreprocessor, self.data_preprocessor).normalization

    def extract_feat(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) -> feature maps L x (N, C_l, H_l, W_l).

        On a CPU detection is faster with the channels last, training is not. The images decide the layout,
        so the weights stay as they are.
        """
        if not self.training and images.device.type == 'cpu':
            images = images.contiguous(memory_format=torch.channels_last)
        feats = self.backbone(images)
        return feats if self.neck is None else self.neck(feats)

    def forward(self, inputs: Tensor, gt: GroundTruth | None = None, mode: str = 'tensor') -> Any:
        """Losses, detections or raw outputs.

        inputs (N, 3, H, W), as the preprocessor returns them · gt is needed for 'loss' and 'predict'
        (the latter reads the ids and sizes of the images only)
        """
        if mode == 'tensor':
            return self.raw_outputs(inputs)
        if gt is None:
            raise ValueError(f"mode='{mode}' needs gt, the ground truth or at least the image sizes")
        if mode == 'loss':
            return self.loss(inputs, gt)
        if mode == 'predict':
            return _in_original_pixels(self.detect(inputs, gt), gt)
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', not '{mode}'")

    @torch.no_grad()
    def count_multiply_adds(self, images: Tensor) -> float:
        """Count the multiply-adds of the network, in G. images (N, 3, H, W), as `forward` gets them."""
        training = self.training
        self.eval()
        with FlopCounterMode(display=False) as counter:
            self(images)
        self.train(training)
        return counter.get_total_flops() / 2e9

    def init_weights(self) -> None:
        """Load the pre-trained weights that training starts from; the rest starts in its constructor."""
        cast(Any, self.backbone).init_weights()


def _in_original_pixels(detections: list[Detections], gt: GroundTruth) -> list[DetDataSample]:
    """Scale boxes from the network input to the original images."""
    samples = []
    scale = (gt.ori_shape / gt.img_shape).flip(1).repeat(1, 2)  # (N, 4): x, y, x, y
    shapes, ids = gt.ori_shape.tolist(), gt.img_id.tolist()
    for found, factor, ori_shape, img_id in zip(detections, scale, shapes, ids, strict=True):
        sample = DetDataSample(metainfo={'img_id': img_id, 'ori_shape': tuple(ori_shape)})
        sample.pred_instances = InstanceData(
            bboxes=found.bboxes * factor, scores=found.scores, labels=found.labels
        )
        samples.append(sample)
    return samples

"""A frozen image classifier.

M crops · S crop side · K classes
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.checkpoint.io import load_checkpoint, load_weights
from mmdet.classifiers import build_classifier, feature_extractor
from mmdet.distillation.fast.chunked import missing_rows
from mmdet.distillation.fast.inference_optimizations import (
    fold_batch_norms,
    fuse_relus,
    optimize_first_conv,
    with_fused_relus,
)
from mmdet.files import suggest
from mmdet.registry import MODELS
from mmdet.structures import Normalization, cached_tensor

LAYER_NAMES = {'stem': 'maxpool'}  # the paper's name -> torchvision's name of the layer in a ResNet


@MODELS.register_module()
class FrozenTeacher(nn.Module):
    """A trained classifier: no gradient to its weights, always in eval mode.

    The file is the one of the published teachers: `state_dict` (names may start with `module.`) beside
    other entries, or a plain state dict. What this toolbox adds to the file is used and checked:
    `classes`, `mean`, `std`, `crop_size`, `focal_weight`. Batch norms are then folded into
    the convolutions before them.

    Args:
        arch: torchvision's name, or 'timm/NAME'.
        checkpoint: The file.
        num_classes: K.
        classes: Class names of the data set, checked against the file's by name and order.
        mean, std: Normalization that the teacher was trained with, RGB, 0..255. Default: what the file
            says, else the student's own (the published file says nothing and saw the student's input).

    Raises:
        FileNotFoundError: No file; says where it goes and how to train one.
        ValueError: The file holds another network, other classes or another normalization.
    """

    def __init__(
        self,
        arch: str,
        checkpoint: str,
        num_classes: int,
        classes: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the student draws the same numbers as in plain training
            self.network = build_classifier(arch, num_classes)
        try:
            file = load_checkpoint(checkpoint)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'teacher file {checkpoint} not found.{suggest(checkpoint)} Put the published file '
                'there, or train it with the config that writes it (configs_dev/teachers/README.md): '
                '`python tools/train.py configs_dev/teachers/NAME.py --data-root DIR`'
            ) from error
        try:
            load_weights(self.network, file['state_dict'], checkpoint)
        except ValueError as error:
            raise ValueError(
                f'{checkpoint} is not the teacher of this config: {error}\n  Check arch, and that the '
                'teacher was trained on this data set'
            ) from error
        self.checkpoint = checkpoint
        self.crop_size: int | None = file.get('crop_size')
        self.focal_weight: float | None = file.get('focal_weight')  # 0: trained with softmax alone
        check_classes(file.get('classes'), num_classes, classes, checkpoint)
        self.mean = _resolve('mean', mean, file.get('mean'), checkpoint)
        self.std = _resolve('std', std, file.get('std'), checkpoint)
        if (self.mean is None) != (self.std is None):
            raise ValueError(f'{checkpoint}: give mean and std of the teacher both or neither')
        self.requires_grad_(requires_grad=False)
        super().train(mode=False)
        fold_batch_norms(self.network)
        self.network.to(memory_format=torch.channels_last)
        self.classifier = with_fused_relus(self.network).eval()

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stay in eval mode."""
        return self

    def compile(self, **settings: Any) -> None:
        """Compile the network; without CUDA graphs, because the number of crops changes."""
        for part in (self.classifier, getattr(self, 'feature_extractor', None)):
            if part is not None:
                part.compile(**settings | {'mode': None})

    def normalize(self, crops: Tensor, source: Normalization) -> Tensor:
        """Convert crops (M, 3, S, S), normalized as `source` says, to this teacher's normalization."""
        if self.mean is None or self.std is None:
            return crops
        own = Normalization(cached_tensor(self.mean, crops), cached_tensor(self.std, crops))
        return own.convert(crops, source)

    def logits(self, crops: Tensor, source: Normalization) -> Tensor:
        """Classify crops (M, 3, S, S), normalized as `source` says: logits (M, K), float32, no gradient."""
        with torch.no_grad():
            inputs = pad_batch(self.normalize(crops, source))
            return self.classifier(inputs)[: len(crops)].float()

    def features(self, crops: Tensor, source: Normalization) -> dict[str, Tensor]:
        """Extract features of crops (M, 3, S, S), float32 (M, C, h, w) per level; gradient to the crops."""
        inputs = pad_batch(self.normalize(crops, source))
        return {level: x[: len(crops)].float() for level, x in self.feature_extractor(inputs).items()}

    def build_feature_extractor(self, levels: Sequence[str]) -> None:
        """Cut the network after the deepest of `levels`, for `features`.

        levels: 'stem' (after conv1, bn, relu, max-pool, of a ResNet) or names of layers: 'layer1', ...

        Raises:
            ValueError: The network has no such level, names those that it has; it cannot be cut.
        """
        nodes = {level: LAYER_NAMES.get(level, level) for level in levels}
        try:
            self.feature_extractor = feature_extractor(self.network, nodes).network
        except ValueError as error:
            hint = 'Levels are layers of the teacher; only ResNets have "stem". Type one of its own: '
            raise ValueError(
                f'{error}.\n  {hint}--cfg-options "model.distiller.kd_loc.levels=(pixels,LAYER)"'
            ) from error
        optimize_first_conv(self.feature_extractor)
        fuse_relus(self.feature_extractor)
        self.feature_extractor.eval()


def pad_batch(crops: Tensor) -> Tensor:
    """Append blank crops to (M, 3, S, S) where `missing_rows` says so."""
    missing = missing_rows(crops)
    return F.pad(crops, [0] * 7 + [missing]) if missing else crops


def check_classes(
    in_file: Sequence[str] | None, num_classes: int, expected: Sequence[str] | None, checkpoint: str
) -> None:
    """Compare the class names in a teacher's file with those of the data set.

    Raises:
        ValueError: Other names, or another order.
    """
    if in_file is None:
        warnings.warn(
            f'{checkpoint} names no classes: their number ({num_classes}) fits, their order cannot be '
            'checked. It must be that of the category ids',
            stacklevel=3,
        )
    elif expected is not None and list(in_file) != list(expected):
        raise ValueError(
            f'the teacher {checkpoint} knows other classes than the data, or in another order.\n'
            f'teacher: {list(in_file)}\ndata:    {list(expected)}\nTrain a teacher on this data set, or '
            'choose another file by `--cfg-options model.distiller.teacher.checkpoint=FILE`'
        )


def _resolve(
    name: str, given: Sequence[float] | None, in_file: Sequence[float] | None, checkpoint: str
) -> tuple[float, ...] | None:
    """Get a value from the config or from the file; where both say one, it must be the same."""
    values = [tuple(float(x) for x in value) for value in (given, in_file) if value is not None]
    if len(values) == 2 and values[0] != values[1]:
        raise ValueError(
            f'the config says {name}={values[0]}, the teacher file {checkpoint} says {values[1]}; '
            f'set {name}=None to use the file'
        )
    return values[0] if values else None

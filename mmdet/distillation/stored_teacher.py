"""A teacher whose answers are in a file.

B objects of the training set · M objects of a batch · S crop side · K classes
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdet.checkpoint.io import load_checkpoint
from mmdet.distillation.teacher import FrozenTeacher, check_classes
from mmdet.registry import MODELS
from mmdet.structures import Normalization, on_gpu

COMMAND = 'python tools/store_teacher.py CONFIG'


@MODELS.register_module()
class StoredTeacher(nn.Module):
    """Look up what a teacher answers about each object of the training set: a step costs no more than that.

    The frozen teacher gives an object the same answer in every epoch, but for the augmentation. So
    `tools/store_teacher.py` asks it once about some augmented views of each object and keeps the mean of the
    logits (as Shen and Xing, ECCV 2022, arXiv 2112.01528, for classification). A teacher of any size then
    costs the same.

    Args:
        file: What `tools/store_teacher.py` has written.
        classes: Class names of the data set, checked against the file's by name and order.
        ann_file: Annotations of the training set, checked against those of the file; `resolve` sets it.
        network: The teacher itself, for a localization loss in its features; None where it is not needed.

    Raises:
        FileNotFoundError: No file; says how to make it.
        ValueError: The file is of other classes, other annotations or another teacher.
    """

    ann_ids: Tensor  # (B,) int64, ascending
    answers: Tensor  # (B, K) float16, logits

    def __init__(
        self,
        file: str,
        classes: Sequence[str] | None = None,
        ann_file: str | None = None,
        network: FrozenTeacher | None = None,
    ) -> None:
        super().__init__()
        try:
            content = load_checkpoint(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'no answers of a teacher in {file}: `{COMMAND} --out {file}` stores them, CONFIG the '
                "student's with the teacher itself (FrozenTeacher)"
            ) from error
        tensors: dict[str, Tensor] = content['state_dict']
        if tensors.keys() != {'ann_ids', 'answers'}:
            raise ValueError(f'{file} does not hold the answers of a teacher; `{COMMAND}` writes such a file')
        check_classes(content['classes'], tensors['answers'].shape[1], classes, file)
        known = {'ann_file': content['annotations'], 'network.checkpoint': content['teacher']}
        given = {'ann_file': ann_file, 'network.checkpoint': network.checkpoint if network else None}
        for name, path in given.items():
            if path is not None and checksum(path) != known[name]:
                raise ValueError(
                    f'{file} was made with another {name} than {path}: store the answers anew, '
                    f'`{COMMAND} --out {file}`'
                )
        self.file = file
        self.crop_size: int = content['crop_size']
        self.focal_weight: float | None = content.get('focal_weight')  # 0: trained with softmax alone
        self.network = network
        self.register_buffer('ann_ids', tensors['ann_ids'])
        self.register_buffer('answers', tensors['answers'])

    def compile(self, **settings: Any) -> None:
        """Compile the network, see `FrozenTeacher.compile`."""
        if self.network is not None:
            self.network.compile(**settings)

    def logits(self, ann_ids: Tensor) -> Tensor:
        """Look up the logits (M, K), float32, of the objects with the ids (M,).

        Those of an object that the file does not know, of an image that could not be read when it was made,
        are NaN on a GPU, which would have to wait for an error; the loss stops the training.

        Raises:
            KeyError: Such an object, on a CPU.
        """
        rows = torch.searchsorted(self.ann_ids, ann_ids).clamp(max=len(self.ann_ids) - 1)
        unknown = self.ann_ids[rows] != ann_ids
        if not on_gpu(ann_ids) and unknown.any():
            raise KeyError(
                f'{self.file} has no answer about the object {ann_ids[unknown][0]}: `{COMMAND}` stores it'
            )
        return self.answers[rows].float().masked_fill(unknown[:, None], torch.nan)

    def features(self, crops: Tensor, source: Normalization) -> dict[str, Tensor]:
        """Extract features of crops (M, 3, S, S) with the network, see `FrozenTeacher.features`."""
        assert self.network is not None  # see `build_feature_extractor`
        return self.network.features(crops, source)

    def build_feature_extractor(self, levels: Sequence[str]) -> None:
        """Cut the network after the deepest of `levels`, see `FrozenTeacher.build_feature_extractor`."""
        if self.network is None:
            raise ValueError(
                f'the levels {tuple(levels)} of kd_loc need the teacher itself: model.distiller.teacher.'
                "network=dict(type='FrozenTeacher', ...); kd_loc.levels=('pixels',) needs none"
            )
        self.network.build_feature_extractor(levels)


def checksum(path: str | Path) -> str:
    """Compute the SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()

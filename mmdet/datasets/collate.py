"""Collate samples into a batch of tensors, in the data worker.

N images · H, W size of the padded batch in pixels · Gmax box rows · boxes xyxy in pixels of the batch
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmdet.registry import COLLATES
from mmdet.structures import NO_IMAGE, EncodedImages, GroundTruth

BOX_ROWS = 16  # box rows come in multiples of this, so that few shapes occur


class BadImage(NamedTuple):
    """An image that is left out of its batch because its file cannot be used."""

    img_id: int
    file: str
    reason: str
    img_shape: tuple[int, int] = (32, 32)  # (h, w) that the sample would have had


def build_collate(loader: Mapping[str, Any]) -> Callable[[Sequence[Any]], Any]:
    """Build the function that `collate_fn` of a loader's config names, with its keywords."""
    keywords = dict(loader.get('collate_fn') or {'type': 'default_collate'})
    function = keywords.pop('type')
    return partial(COLLATES.get(function) if isinstance(function, str) else function, **keywords)


@COLLATES.register_module()
def collate_detection(
    samples: Sequence[dict[str, Any] | BadImage], pad_size_divisor: int = 1
) -> dict[str, Any]:
    """Put samples of CocoDataset into one batch.

    Images are padded right and below, with zeros, to the largest of the batch and to a multiple of
    `pad_size_divisor`. Bad images are left out. When nothing else is left, ONE blank image without objects
    takes their place, with img_id -1, so that no process of a distributed run waits for ever; it has the
    size that the first bad one would have had, which every network of that pipeline accepts.

    Returns:
        inputs uint8 (N, 3, H, W), or EncodedImages of N where the device decodes ·
        gt: GroundTruth of N images · bad_images: list[BadImage].
    """
    bad_images = [sample for sample in samples if isinstance(sample, BadImage)]
    good = [sample for sample in samples if not isinstance(sample, BadImage)]
    if not good:
        good = [_blank(bad_images[0].img_shape)]
    most = max(len(sample['labels']) for sample in good)
    rows = max(1, -(-most // BOX_ROWS)) * BOX_ROWS
    height, width = (
        -(-max(sample['img_shape'][side] for sample in good) // pad_size_divisor) * pad_size_divisor
        for side in (0, 1)
    )
    bboxes = torch.zeros(len(good), rows, 4)
    labels = torch.zeros(len(good), rows, dtype=torch.int64)
    ann_ids = torch.zeros_like(labels)
    valid = torch.zeros(len(good), rows, dtype=torch.bool)
    for i, sample in enumerate(good):
        count = len(sample['labels'])
        bboxes[i, :count] = sample['bboxes']
        labels[i, :count] = sample['labels']
        ann_ids[i, :count] = sample['ann_ids']
        valid[i, :count] = True
    gt = GroundTruth(
        img_id=torch.tensor([sample['img_id'] for sample in good]),
        ori_shape=torch.tensor([sample['ori_shape'] for sample in good]),
        img_shape=torch.tensor([sample['img_shape'] for sample in good]),
        bboxes=bboxes,
        labels=labels,
        valid=valid,
        ann_ids=ann_ids,
    )
    inputs = _stack_images([sample['img'] for sample in good], height, width)
    return {'inputs': inputs, 'gt': gt, 'bad_images': bad_images}


def _stack_images(images: Sequence[Any], height: int, width: int) -> Tensor | EncodedImages:
    """Stack images to a batch of this size: all of them are pixels (3, h, w), or all of them encoded."""
    if isinstance(images[0], EncodedImages):
        fields = zip(*(image[:-1] for image in images), strict=True)
        return EncodedImages._make([*map(torch.cat, fields), (height, width)])
    inputs = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for place, image in zip(inputs, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return inputs


def _blank(shape: tuple[int, int]) -> dict[str, Any]:
    return {
        'img': torch.zeros(3, *shape, dtype=torch.uint8),
        'bboxes': torch.zeros(0, 4),
        'labels': torch.zeros(0, dtype=torch.int64),
        'ann_ids': torch.zeros(0, dtype=torch.int64),
        'img_id': NO_IMAGE,
        'ori_shape': shape,
        'img_shape': shape,
    }

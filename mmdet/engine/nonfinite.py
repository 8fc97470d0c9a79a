"""Stop at losses and refuse checkpoints that hold NaN or infinite numbers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast, is_main_process
from torch import nn

from mmdet.checkpoint.io import not_finite
from mmdet.distributed.gather import gather_text
from mmdet.structures import NO_IMAGE

SHOWN = 4  # boxes of an image that a message lists before it only counts
GENTLER = (
    'Lower the rate (--cfg-options optim_wrapper.optimizer.lr=...) or clip gradients (--cfg-options '
    'optim_wrapper.clip_grad.max_norm=10), and go on with --resume.'
)


def describe_step(
    losses: Mapping[str, float], where: str, data_batch: Mapping[str, Any], dataset: Any
) -> str:
    """Name the losses that are not finite, and describe each image of the batch: id, file, boxes.

    Args:
        losses: By name, the total as `loss`, which is named only where no other is not finite.
        where: In which step.
        data_batch: What the loader has yielded.
        dataset: Knows files and the names of classes.

    Returns:
        The empty string when all losses are finite.
    """
    broken = {name: value for name, value in losses.items() if not math.isfinite(value)}
    if not broken:
        return ''
    parts = {name: value for name, value in broken.items() if name != 'loss'} or broken
    said = ', '.join(f'{name} is {value}' for name, value in parts.items())
    gt = data_batch.get('gt')
    if gt is None:
        return f'{said} in {where}; the batch does not say which images it holds'
    classes = getattr(dataset, 'metainfo', {}).get('classes', ())
    describe = getattr(dataset, 'image_file', lambda img_id: 'file unknown')
    lines = [f'{said} in {where}, on these images (boxes xyxy in pixels of the batch):']
    for i, img_id in enumerate(gt.img_id.tolist()):
        rows = gt.valid[i]
        boxes = [
            f'[{" ".join(f"{x:.1f}" for x in box)}] {classes[label] if label < len(classes) else label}'
            for box, label in zip(gt.bboxes[i][rows].tolist(), gt.labels[i][rows].tolist(), strict=True)
        ]
        file = 'blank, in place of bad ones' if img_id == NO_IMAGE else describe(img_id)
        more = f' and {len(boxes) - SHOWN} more' if len(boxes) > SHOWN else ''
        lines.append(f'  id {img_id}: {file}, {", ".join(boxes[:SHOWN]) or "no boxes"}{more}')
    return '\n'.join(lines)


def stop_not_finite(report: str, model: nn.Module, work_dir: str | Path) -> None:
    """Stop every process because a loss of one of them is not finite; all call it together.

    Args:
        report: `describe_step` of this process.
        model: Not wrapped; once its parameters are not finite, no loss can be.
        work_dir: Holds the checkpoints of the run.

    Raises:
        FloatingPointError: Holds the reports of all processes in process 0, one line in the others.
    """
    reports = [text for text in gather_text(report) if text]
    if not is_main_process():
        raise FloatingPointError(f'{reports[0].splitlines()[0]} see process 0')
    remedy = 'Nothing of this step was saved. Look at these images (python tools/misc/browse_dataset.py).'
    if spoiled := not_finite(dict(model.named_parameters())):
        remedy = (
            f'The weights are not finite ({len(spoiled)} tensors, the first is {spoiled[0]}): the gradients '
            f'of the step before were not, though its losses were. {newest_checkpoint(work_dir)}'
        )
    raise FloatingPointError('\n  '.join([*reports, remedy, GENTLER]))


def newest_checkpoint(work_dir: str | Path) -> str:
    """Say in a sentence from which file a run would go on."""
    latest = Path(work_dir) / 'latest.pth'
    return f'The last good one is {latest.resolve()}.' if latest.exists() else 'There is no earlier one.'


def refuse_not_finite(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Stop all processes where the main one would write a checkpoint with NaN or infinite numbers.

    Weights, their averages and the optimizer's memory must be finite. The log of past values, which holds
    arrays instead of tensors, need not be.

    Raises:
        FloatingPointError: Names the tensors and a good checkpoint.
    """
    wrong = not_finite(checkpoint) if is_main_process() else []
    count = torch.tensor(len(wrong))
    broadcast(count)  # nobody waits for a main process that has stopped
    if count:
        first = f', the first is {wrong[0]}' if wrong else ''
        raise FloatingPointError(
            f'{path} was not written: {count} of its tensors hold NaN or infinite numbers{first}, though the '
            f'losses were finite. {newest_checkpoint(path.parent)}\n  {GENTLER}'
        )

"""A step whose losses are not finite: what is said of it, and what is kept so that it can be run again."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast, is_main_process
from torch import Tensor

from mmdet.checkpoint.io import not_finite, save_checkpoint
from mmdet.checkpoint.rng import get_rng_state
from mmdet.structures import NO_IMAGE

SHOWN = 4  # boxes of an image that a message lists before it only counts
GENTLER = (
    'Lower the rate (--cfg-options optim_wrapper.optimizer.lr=...) or clip gradients (--cfg-options '
    'optim_wrapper.clip_grad.max_norm=10), and go on with --resume.'
)


def device_rng() -> dict[str, Tensor]:
    """As `get_rng_state`, only the generators that a forward pass uses: asked in every step."""
    state = {'torch': torch.get_rng_state()}
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def describe_step(
    losses: Mapping[str, float], where: str, data_batch: Mapping[str, Any], dataset: Any
) -> str:
    """Which losses are not finite, and a line for each image of the batch: id, file, boxes.

    Args:
        losses: By name, the total as `loss`, which is named only where no other is not finite.
        where: In which step.
        data_batch: What the loader has yielded.
        dataset: Knows files and the names of classes.
    """
    broken = {name: value for name, value in losses.items() if not math.isfinite(value)}
    parts = {name: value for name, value in broken.items() if name != 'loss'} or broken
    said = ', '.join(f'{name} is {value}' for name, value in parts.items())
    gt = data_batch.get('gt')
    if gt is None:
        return f'{said} in {where}; the batch does not say which images it holds'
    classes = getattr(dataset, 'metainfo', {}).get('classes', ())
    describe = getattr(dataset, 'describe_image', lambda img_id: 'file unknown')
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


def dump_step(
    path: Path,
    meta: Mapping[str, Any],
    state_dict: Mapping[str, Tensor],
    rng: Mapping[str, Tensor],
    data_batch: Mapping[str, Any],
) -> str:
    """Write what `tools/misc/reproduce_step.py` needs; the file is one that `load_checkpoint` reads.

    Args:
        path: The file.
        meta: Counts, losses, type of mixed precision.
        state_dict: The weights before the step.
        rng: `device_rng` before the forward pass.
        data_batch: What the loader has yielded; its images that could not be read are left out.

    Returns:
        A sentence that says where it is, or why it is not there: the error that it belongs to goes first.
    """
    batch = {
        key: value._asdict() if hasattr(value, '_asdict') else value
        for key, value in data_batch.items()
        if key != 'bad_images'
    }
    try:
        content = {
            'meta': dict(meta),
            'state_dict': state_dict,
            'rng': [{**get_rng_state(), **rng}],
            'batch': batch,
        }
        save_checkpoint(content, path)
    except (OSError, TypeError) as error:
        return f'  The step could not be kept in {path}: {error}'
    return f'  To see where it arises: python tools/misc/reproduce_step.py CONFIG {path}'


def newest_checkpoint(work_dir: str | Path) -> str:
    """A sentence: from which file a run would go on."""
    latest = Path(work_dir) / 'latest.pth'
    return f'The last good one is {latest.resolve()}.' if latest.exists() else 'There is no earlier one.'


def refuse_not_finite(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Stop all processes where the main one would write a checkpoint with NaN or infinite numbers.

    Weights, their averages and the optimizer's memory must be finite. The log of past values, which holds
    arrays instead of tensors, need not be. Nor, under float16's loss scaler, gradients that are still summed:
    the scaler leaves out the step of those that overflowed.

    Raises:
        FloatingPointError: Names the tensors and a good checkpoint.
    """
    scaled = checkpoint.get('optimizer', {}).get('loss_scaler')  # empty in bfloat16
    judged = {key: value for key, value in checkpoint.items() if not (scaled and key == 'gradients')}
    wrong = not_finite(judged) if is_main_process() else []
    count = torch.tensor(len(wrong))
    broadcast(count)  # nobody waits for a main process that has stopped
    if count:
        first = f', the first is {wrong[0]}' if wrong else ''
        raise FloatingPointError(
            f'{path} was not written: {count} of its tensors hold NaN or infinite numbers{first}, though the '
            f'losses were finite. {newest_checkpoint(path.parent)}\n  {GENTLER}'
        )

"""Ask a teacher about every object of a training set, in the student's own augmentation.

B objects of the set · K classes
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor

from mmdet.analysis.teacher import build_distiller, load_batches, teacher_predict
from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from mmdet.cli import make_progress
from mmdet.registry import DATASETS

SAVE_EVERY = 60.0  # seconds


def ask_teacher(
    cfg: Config, views: int, part: Path, rank: int, world_size: int, facts: dict[str, Any]
) -> None:
    """Sum the teacher's logits over the views of the objects in this process's share of the images.

    Every `SAVE_EVERY` seconds and at the end the sums go to `part`. A part that is there is gone on with: the
    batches and their order are the same, and so is the result, to the last bit.

    Args:
        cfg: Of a distilled student, resolved, with the teacher itself.
        views: Of each object. View v of an image is what epoch v of a training could show.
        part: File of the sums.
        rank: Of this process.
        world_size: Image i belongs to process i mod world_size.
        facts: What the part depends on besides; another part than of these is begun anew.
    """
    distiller, preprocessor = build_distiller(cfg, get_device())
    seed = dict(cfg.get('randomness') or {}).get('seed') or 0
    dataset = DATASETS.build({'seed': seed, **cfg.train_dataloader.dataset})
    ann_ids, order = torch.from_numpy(dataset.ann_ids).sort()
    images = torch.from_numpy(dataset.objects()[1])[order]  # (B,) row of each object's image
    state = {
        'ann_ids': ann_ids,
        'sums': torch.zeros(len(ann_ids), len(dataset.metainfo['classes'])),
        'counts': torch.zeros(len(ann_ids), dtype=torch.int64),
    }
    batch_size, batches = cfg.train_dataloader.batch_size, 0
    facts = {**facts, 'views': views, 'seed': seed, 'batch_size': batch_size}
    if part.exists() and (before := load_checkpoint(part)).items() >= facts.items():
        state, batches = before['state_dict'], before['batches']

    def ask(dataset: Any, draws: Sequence[tuple[int, int]], wanted: Tensor) -> Any:
        for batch in load_batches(cfg.train_dataloader, dataset, draws, preprocessor):
            gt = batch.gt
            found = teacher_predict(
                distiller, batch.images, preprocessor.normalization, gt.gt_bboxes, gt.gt_image
            )
            rows = torch.searchsorted(ann_ids, gt.gt_ann_ids.cpu())
            asked = wanted[rows]
            state['sums'].index_add_(0, rows[asked], found.logits.cpu()[asked])
            state['counts'].index_add_(0, rows[asked], torch.ones_like(rows[asked]))
            yield

    def save() -> None:
        save_checkpoint({'state_dict': state, 'batches': batches, **facts}, part)

    mine = range(rank, len(dataset), world_size)
    draws = [(row, view * len(dataset) + row) for row in mine for view in range(views)]
    saved = time.monotonic()
    with make_progress() as progress:
        task = progress.add_task('views', total=len(draws), completed=batches * batch_size)
        for _ in ask(dataset, draws[batches * batch_size :], torch.ones_like(ann_ids, dtype=torch.bool)):
            batches += 1
            progress.update(task, advance=batch_size)
            if time.monotonic() - saved > SAVE_EVERY:
                save()
                saved = time.monotonic()
    # Crops of the augmentation can leave an object out of all views: it is shown as an evaluation shows it.
    unseen = (state['counts'] == 0) & (images % world_size == rank)
    whole = DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': cfg.val_dataloader.dataset.pipeline})
    for _ in ask(whole, [(row, row) for row in images[unseen].unique().tolist()], unseen):
        pass
    save()


def merge_answers(parts: Sequence[Path], out: Path, facts: dict[str, Any]) -> Tensor:
    """Write the mean logits of all parts as the file of a `StoredTeacher`, and remove the parts.

    Returns:
        (B,) how many views are in each mean.
    """
    states = [load_checkpoint(part)['state_dict'] for part in parts]
    sums, counts = (torch.stack([state[name] for state in states]).sum(0) for name in ('sums', 'counts'))
    answers = (sums / counts[:, None]).half()
    save_checkpoint({'state_dict': {'ann_ids': states[0]['ann_ids'], 'answers': answers}, **facts}, out)
    for part in parts:
        part.unlink()
    return counts

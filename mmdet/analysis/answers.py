"""Ask a teacher about every object of a training set, in the student's own augmentation.

B objects of the set · K classes
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from mmdet.analysis.teacher import build_distiller, load_batches, teacher_predict
from mmdet.checkpoint.io import load_checkpoint, save_checkpoint
from mmdet.cli import make_progress
from mmdet.config.resolve import run_seed
from mmdet.distillation.stored_teacher import checksum
from mmdet.registry import DATASETS

SAVE_EVERY = 60.0  # seconds


def ask_teacher(cfg: Config, views: int, part: Path, rank: int, world_size: int) -> None:
    """Sum the teacher's logits over the views of the objects in this process's share of the images.

    Every `SAVE_EVERY` seconds and at the end the sums go to `part`. A part of the same teacher, data and
    views that is there is gone on with: the batches are the same, and so is the result, bit for bit.

    Args:
        cfg: Of a distilled student, resolved, with the teacher itself.
        views: Of each object. View v of an image is what epoch v of a training could show.
        part: File of the sums.
        rank: Of this process.
        world_size: Image i belongs to process i mod world_size.
    """
    asker = _Asker(cfg)
    dataset, facts = asker.dataset, {**asker.facts(), 'views': views}
    batches = 0
    if part.exists() and (before := load_checkpoint(part)).items() >= facts.items():
        asker.state, batches = before['state_dict'], before['batches']

    def save() -> None:
        save_checkpoint({'state_dict': asker.state, 'batches': batches, **facts}, part)

    mine = range(rank, len(dataset), world_size)
    draws = [(row, view * len(dataset) + row) for row in mine for view in range(views)]
    batch_size, saved = facts['batch_size'], time.monotonic()
    with make_progress() as progress:
        task = progress.add_task('views', total=len(draws), completed=batches * batch_size)
        for _ in asker.ask(dataset, draws[batches * batch_size :]):
            batches += 1
            progress.update(task, completed=min(batches * batch_size, len(draws)))
            if time.monotonic() - saved > SAVE_EVERY:
                save()
                saved = time.monotonic()
    # Crops of the augmentation can leave an object out of all views: it is shown as an evaluation shows it.
    unseen = (asker.state['counts'] == 0) & (asker.images % world_size == rank)
    if unseen.any():
        pipeline = cfg.val_dataloader.dataset.pipeline
        whole = DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': pipeline})
        for _ in asker.ask(whole, [(row, row) for row in asker.images[unseen].unique().tolist()], unseen):
            pass
    save()


class _Asker:
    """A teacher, the objects of its training set, and what it has answered so far."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.distiller, self.preprocessor = build_distiller(cfg)
        self.dataset = DATASETS.build({'seed': run_seed(cfg), **cfg.train_dataloader.dataset})
        ann_ids, order = torch.from_numpy(self.dataset.ann_ids).sort()
        self.images = torch.from_numpy(self.dataset.objects()[1])[order]  # (B,) row of each object's image
        self.state = {
            'ann_ids': ann_ids,
            'sums': torch.zeros(len(ann_ids), len(self.dataset.metainfo['classes'])),
            'counts': torch.zeros(len(ann_ids), dtype=torch.int64),
        }

    def facts(self) -> dict[str, Any]:
        """Name what the answers depend on, besides the views."""
        teacher = self.cfg.model.distiller.teacher
        return {
            'annotations': checksum(self.dataset.ann_file),
            'teacher': checksum(teacher.checkpoint),
            'arch': teacher.arch,
            'classes': list(self.dataset.metainfo['classes']),
            'crop_size': self.cfg.model.distiller.crop_size,
            'seed': run_seed(self.cfg),
            'batch_size': self.cfg.train_dataloader.batch_size,
        }

    def ask(
        self, dataset: Any, draws: Sequence[tuple[int, int]], wanted: Tensor | None = None
    ) -> Iterator[None]:
        """Ask about the objects in these draws, or the `wanted` (B,) of them; yields after each batch."""
        normalization = self.preprocessor.normalization
        for images, gt, _ in load_batches(self.cfg.train_dataloader, dataset, draws, self.preprocessor):
            found = teacher_predict(self.distiller, images, normalization, gt.gt_bboxes, gt.gt_image)
            rows = torch.searchsorted(self.state['ann_ids'], gt.gt_ann_ids.cpu())
            asked = torch.ones_like(rows, dtype=torch.bool) if wanted is None else wanted[rows]
            self.state['sums'].index_add_(0, rows[asked], found.logits.cpu()[asked])
            self.state['counts'].index_add_(0, rows[asked], torch.ones_like(rows[asked]))
            yield


def merge_answers(parts: Sequence[Path], out: Path) -> Tensor:
    """Write the mean logits of all parts as the file of a `StoredTeacher`, and remove the parts.

    Objects that are in no view, as their image cannot be read, are left out of the file.

    Returns:
        (B,) how many views are in each mean; 0 for those left out.
    """
    file = load_checkpoint(parts[0])
    state = file['state_dict']
    for part in parts[1:]:  # one at a time: of COCO each takes 273 MB
        other = load_checkpoint(part)['state_dict']
        state['sums'] += other['sums']
        state['counts'] += other['counts']
    counts: Tensor = state['counts']
    seen = counts > 0
    answers = (state['sums'] / counts[:, None])[seen].half()
    save_checkpoint({**file, 'state_dict': {'ann_ids': state['ann_ids'][seen], 'answers': answers}}, out)
    for part in parts:
        part.unlink()
    return counts

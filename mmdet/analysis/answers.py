"""Ask a teacher about every object of a training set, in the student's own augmentation.

B objects of the set · K classes
"""

from __future__ import annotations

import sys
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
from mmdet.config.schedule import input_size
from mmdet.distillation.stored_teacher import checksum
from mmdet.registry import DATASETS

SAVE_EVERY = 60.0  # seconds


def ask_teacher(cfg: Config, views: int, out: Path, rank: int, world_size: int) -> None:
    """Sum the teacher's logits over the views of the objects in this process's share of the images.

    Every `SAVE_EVERY` seconds and at the end the sums go to a part of `out`. A part of the same teacher,
    data, input size and views that is there is gone on with: the batches are the same, and so is the result,
    bit for bit.

    Args:
        cfg: Of a distilled student, resolved, with the teacher itself.
        views: Of each object. View v of an image is what epoch v of a training could show.
        out: File of the answers, see `merge_answers`. A note says if one that is made otherwise is there.
        rank: Of this process.
        world_size: Image i belongs to process i mod world_size.
    """
    asker = _Asker(cfg)
    dataset, facts = asker.dataset, {**asker.facts(), 'views': views}
    if rank == 0:
        _tell_replaced(out, facts)
    part, batches = part_file(out, rank, world_size), 0
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
    asker.ask_unseen(asker.images % world_size == rank)
    save()


def part_file(out: Path, rank: int, world_size: int) -> Path:
    """Name the file of the sums of one process."""
    return out.with_name(f'{out.stem}.part{rank + 1}of{world_size}.pth')


def _tell_replaced(out: Path, facts: dict[str, Any]) -> None:
    """Say which facts a file that is there does not share, or does not tell."""
    held = load_checkpoint(out) if out.exists() else facts
    if others := [name for name, value in facts.items() if name not in held or held[name] != value]:
        print(
            f'note: {out} is not known to be of the same {", ".join(others)}: it will be replaced. '
            'Another --out keeps it',
            file=sys.stderr,
        )


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
            'input_size': input_size(self.cfg),
            'crop_size': self.cfg.model.distiller.crop_size,
            'focal_weight': self.distiller.teacher.focal_weight,
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

    def ask_unseen(self, mine: Tensor) -> None:
        """Ask about those of the objects `mine` (B,) that crops have left out of all views, uncropped."""
        unseen = (self.state['counts'] == 0) & mine
        if unseen.any():  # they are shown as an evaluation shows them
            pipeline = self.cfg.val_dataloader.dataset.pipeline
            whole = DATASETS.build({**self.cfg.train_dataloader.dataset, 'pipeline': pipeline})
            for _ in self.ask(whole, [(row, row) for row in self.images[unseen].unique().tolist()], unseen):
                pass


def merge_answers(parts: Sequence[Path], out: Path) -> Tensor:
    """Write the mean logits of all parts as the file of a `StoredTeacher`, and remove the parts.

    Objects that are in no view, as their image cannot be read, are left out of the file.

    Returns:
        (B,) how many views are in each mean; 0 for those left out.

    Raises:
        ValueError: No object was seen; a file that is there stays.
    """
    file = load_checkpoint(parts[0])
    state = file['state_dict']
    for part in parts[1:]:  # one at a time: of COCO each takes 273 MB
        other = load_checkpoint(part)['state_dict']
        state['sums'] += other['sums']
        state['counts'] += other['counts']
    counts: Tensor = state['counts']
    seen = counts > 0
    if not seen.any():
        raise ValueError(
            'none of the images with objects can be read, so no answers are stored: look at them with '
            '`python tools/misc/check_dataset.py CONFIG`'
        )
    answers = (state['sums'] / counts[:, None])[seen].half()
    save_checkpoint({**file, 'state_dict': {'ann_ids': state['ann_ids'][seen], 'answers': answers}}, out)
    for part in parts:
        part.unlink()
    return counts

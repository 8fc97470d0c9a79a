"""List the annotations and images that could not be used."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet.checkpoint.io import atomic_write
from mmdet.distributed.gather import gather_rows
from mmdet.engine.logs import warn_on_write_error
from mmdet.engine.loops import image_ids
from mmdet.registry import HOOKS
from mmdet.structures import NO_IMAGE

FAULT = ('kind', 'file', 'img_id', 'ann_id', 'reason')


@HOOKS.register_module()
class BadDataHook(Hook):
    """Lists in `work_dir/bad_data.json` what of the data sets could not be used.

    `annotations`: what the data sets found while reading annotations. `images`: files that were left out
    while training or evaluating. In distributed runs processes exchange image ids only; the main one finds
    file and reason itself. A test in the folder of a training keeps what that has listed.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self.datasets: dict[str, Any] = {}  # split -> data set
        self.seen: dict[str, set[int]] = {}  # split -> ids of bad images in this process
        self.reasons: dict[tuple[str, int], tuple[str, str]] = {}  # (split, id) -> file, reason
        self.annotations: list[dict[str, Any]] = []
        self.images: dict[tuple[str, int], dict[str, Any]] = {}

    def before_train(self, runner: Runner) -> None:
        """Report the training set's annotations; a resumed run goes on with its list of images."""
        if runner.iter:
            self.annotations, self.images = _listed(runner)
        self._start(runner, 'train', runner.train_loop.dataloader.dataset)

    def before_val(self, runner: Runner) -> None:
        """Report the validation set's annotations."""
        self._start(runner, 'val', runner.val_loop.dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Report the test set's annotations, beside what a training in this folder has listed."""
        if not self.datasets:
            self.annotations, images = _listed(runner)
            self.images = {key: image for key, image in images.items() if key[0] != 'test'}
        self._start(runner, 'test', runner.test_loop.dataloader.dataset)

    def _start(self, runner: Runner, split: str, dataset: Any) -> None:
        if split in self.datasets:
            return
        self.datasets[split] = dataset
        self.seen[split] = set()
        faults = getattr(dataset, 'faults', [])
        others = [fault for fault in self.annotations if fault['split'] != split]
        self.annotations = others + fault_entries(split, faults)
        if is_main_process():
            self._write(runner)
        if faults:
            kinds = ', '.join(
                f'{count} {kind}' for kind, count in Counter(f.kind for f in faults).most_common()
            )
            runner.logger.warning(f'faults in the {split} annotations: {kinds}; see {_report_path(runner)}')

    def _before_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None, mode: str = 'train'
    ) -> None:
        """Note the images that the loader left out."""
        batch = data_batch or {}
        for bad in batch.get('bad_images', ()):
            self.seen[mode].add(int(bad.img_id))
            self.reasons[mode, int(bad.img_id)] = (str(bad.file), bad.reason)
        ids = image_ids(batch)
        if mode == 'train' and set(ids) == {NO_IMAGE}:
            runner.logger.warning(
                f'no image of batch {batch_idx + 1} could be used; an empty one takes its place'
            )

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        self._gather(runner, mode)

    def after_train(self, runner: Runner) -> None:
        """Report the images of an epoch that was not finished."""
        self._gather(runner, 'train')

    def _gather(self, runner: Runner, split: str) -> None:
        """Collect the ids of all processes; the main one adds those that are new and writes the list."""
        ids = gather_ids(self.seen[split])
        new = sorted(img_id for img_id in ids if (split, img_id) not in self.images)
        if not new or not is_main_process():
            return
        dataset = self.datasets[split]
        for img_id in new:
            file, reason = self.reasons.get((split, img_id)) or (
                str(dataset.describe_image(img_id)),
                dataset.read_image_fault(img_id) or 'could be read now',
            )
            self.images[split, img_id] = {'split': split, 'img_id': img_id, 'file': file, 'reason': reason}
        self._write(runner)
        runner.logger.warning(f'{len(new)} more {split} images left out; see {_report_path(runner)}')

    def _write(self, runner: Runner) -> None:
        with warn_on_write_error(_report_path(runner)):
            write_bad_data(_report_path(runner), self.annotations, list(self.images.values()))


def _report_path(runner: Runner) -> Path:
    return Path(runner.work_dir) / 'bad_data.json'


def _listed(runner: Runner) -> tuple[list[dict[str, Any]], dict[tuple[str, int], dict[str, Any]]]:
    """What the list in the work dir holds: annotations, and images by split and id."""
    path = _report_path(runner)
    if not path.is_file():
        return [], {}
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
        images = {(image['split'], image['img_id']): image for image in report['images']}
        return list(report['annotations']), images
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} is not the list of bad data that a run writes ({error!r}); move it away.'
        ) from error


def fault_entries(split: str, faults: Iterable[Any]) -> list[dict[str, Any]]:
    """Faults of annotations as `bad_data.json` lists them."""
    return [{'split': split} | {name: getattr(fault, name) for name in FAULT} for fault in faults]


def write_bad_data(path: Path, annotations: list[dict[str, Any]], images: list[dict[str, Any]]) -> None:
    """Write `bad_data.json`, whole or not at all."""
    text = json.dumps({'annotations': annotations, 'images': images}, indent=1)
    atomic_write(path, lambda file: file.write(text.encode()))


def gather_ids(ids: set[int]) -> set[int]:
    """The union of the sets of all processes, exchanged as int64 tensors."""
    own = torch.tensor(sorted(ids), dtype=torch.int64)
    return set(torch.cat(gather_rows(own[:, None])).flatten().tolist())

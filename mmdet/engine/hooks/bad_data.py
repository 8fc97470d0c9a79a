"""List the annotations and images that could not be used."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet.checkpoint.io import atomic_write
from mmdet.distributed.gather import gather_text
from mmdet.engine.logs import warn_on_write_error
from mmdet.engine.loops import image_ids
from mmdet.registry import HOOKS
from mmdet.structures import NO_IMAGE

Images = dict[tuple[str, int], dict[str, Any]]  # (split, id) -> split, img_id, file, reason


@HOOKS.register_module()
class BadDataHook(Hook):
    """List in `work_dir/bad_data.json` what of the data sets could not be used.

    `annotations`: what the data sets found while reading annotations. `images`: files that were left out
    while training or evaluating, in any process. A test in the folder of a training keeps what that has
    listed.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self.splits: set[str] = set()  # whose annotations are listed
        self.annotations: list[dict[str, Any]] = []
        self.images: Images = {}
        self.found: Images = {}  # by this process, and not yet told to the others
        self.blank = 0  # batches of this epoch and process without an image

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """List the annotations of a data set before it is used for the first time."""
        if mode in self.splits:
            return
        if not self.splits and (mode == 'test' or runner.iter):  # this folder has a list already
            self.annotations, images = _read(_report_path(runner))
            self.images = {key: image for key, image in images.items() if not key[0] == mode == 'test'}
        self.splits.add(mode)
        faults = getattr(getattr(runner, f'{mode}_loop').dataloader.dataset, 'faults', [])
        others = [fault for fault in self.annotations if fault['split'] != mode]
        self.annotations = others + [{'split': mode, **fault._asdict()} for fault in faults]
        self._write(runner)
        if faults:
            counts = Counter(fault.kind for fault in faults).most_common()
            kinds = ', '.join(f'{count} {kind}' for kind, count in counts)
            runner.logger.warning(f'faults in the {mode} annotations: {kinds}; see {_report_path(runner)}')

    def _before_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None, mode: str = 'train'
    ) -> None:
        """Note the images that the loader left out."""
        batch = data_batch or {}
        for bad in batch.get('bad_images', ()):
            image = {'split': mode, 'img_id': int(bad.img_id), 'file': str(bad.file), 'reason': bad.reason}
            self.found[mode, int(bad.img_id)] = image
        if mode == 'train' and set(image_ids(batch)) == {NO_IMAGE}:
            runner.logger.warning(
                f'no image of batch {batch_idx + 1} could be used; an empty one takes its place'
            )
            self.blank += 1

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Collect the images of all processes; the main one writes the list if any is new.

        Raises:
            ValueError: More than half of the batches of all processes hold no image.
        """
        own = [self.blank, [self.found[key] for key in sorted(self.found)]]
        blanks, images = zip(*map(json.loads, gather_text(json.dumps(own))), strict=True)
        found = {(image['split'], image['img_id']): image for each in images for image in each}
        new = {key: found[key] for key in sorted(found.keys() - self.images.keys())}
        self.images |= new
        self.found, self.blank = {}, 0
        if new:
            self._write(runner)
            runner.logger.warning(f'{len(new)} more {mode} images left out; see {_report_path(runner)}')
        if any(blanks):
            loop, bad = runner.train_loop, next(iter(found.values()))
            batches = loop.batch * runner.world_size  # of the epoch, or what there was time for
            if 2 * sum(blanks) > batches and not loop.stop_signal:  # a signal that ends a run is obeyed
                raise ValueError(
                    f'{sum(blanks)} of {batches} batches of this epoch hold no image that can be used, as '
                    f'{bad["file"]}: {bad["reason"]}. Mend the files that {_report_path(runner)} lists, or '
                    'choose others by data_root and train_img.'
                )

    def after_train(self, runner: Runner) -> None:
        """Collect the images of an epoch that was not finished."""
        self._after_epoch(runner)

    def _write(self, runner: Runner) -> None:
        if is_main_process():
            with warn_on_write_error(_report_path(runner)):
                write_bad_data(_report_path(runner), self.annotations, list(self.images.values()))


def _report_path(runner: Runner) -> Path:
    return Path(runner.work_dir) / 'bad_data.json'


def _read(path: Path) -> tuple[list[dict[str, Any]], Images]:
    """Read what the list in a work dir holds: annotations, and images by split and id."""
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


def write_bad_data(path: Path, annotations: list[dict[str, Any]], images: list[dict[str, Any]]) -> None:
    """Write `bad_data.json`, whole or not at all."""
    text = json.dumps({'annotations': annotations, 'images': images}, indent=1)
    atomic_write(path, lambda file: file.write(text.encode()))

"""What a training run needs beside its steps: log lines, checkpoints, the list of bad data, the curves.

Named as MMEngine's hooks where they take their place; configs reach them through the scope `mmdet`.
"""

import json
import math
import resource
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, broadcast, is_main_process
from mmengine.hooks import EarlyStoppingHook as MMEngineEarlyStoppingHook
from mmengine.hooks import Hook
from mmengine.hooks import LoggerHook as MMEngineLoggerHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

from mmdet.checkpoint.io import atomic_write, load_checkpoint, update_symlink
from mmdet.datasets.collate import NO_IMAGE
from mmdet.distributed.gather import gather_rows
from mmdet.engine.logs import warn_on_write_error
from mmdet.engine.loops import image_ids
from mmdet.engine.state import NUMBERED
from mmdet.registry import HOOKS

RECENT = 50  # steps that the images per second are taken over
HISTORY = 1000  # values of each scalar that are kept in memory; MMEngine copies them all in every step
FAULT = ('kind', 'file', 'img_id', 'ann_id', 'reason')


@HOOKS.register_module()
class LoggerHook(MMEngineLoggerHook):
    """MMEngine's, and: images per second, memory also on the CPU, and a line for the last step.

    The values that running means are taken over go into checkpoints, so that a resumed run logs the same.

    Args are MMEngine's.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save what has been logged of the last steps: of each scalar its values and their counts."""
        if 'optimizer' in checkpoint:
            scalars = runner.message_hub.log_scalars.items()
            checkpoint['log'] = {
                name: [part[-HISTORY:] for part in scalar.data]
                for name, scalar in scalars
                if name.startswith('train/')
            }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on with it."""
        if runner._resume:
            for name, (values, counts) in checkpoint.get('log', {}).items():
                runner.message_hub.log_scalars[name] = HistoryBuffer(values.numpy(), counts.numpy(), HISTORY)

    def before_train(self, runner: Runner) -> None:
        """Start measuring."""
        self.recent: deque[tuple[int, float]] = deque(maxlen=RECENT)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: dict[str, float] | None = None,
    ) -> None:
        """Write a line every `interval` steps, at the end of a shorter epoch, and after the last step."""
        hub = runner.message_hub
        self.recent.append((len(image_ids(data_batch or {})), hub.get_scalar('train/time').current()))
        images, seconds = map(sum, zip(*self.recent, strict=True))
        if images:
            hub.update_scalar('train/images/s', images * runner.world_size / seconds)
        if not torch.cuda.is_available():  # where there is a GPU, MMEngine logs its memory
            hub.update_scalar(
                'train/memory', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            )  # MB
        for scalar in hub.log_scalars.values():
            scalar.max_length = HISTORY
        length = runner.train_loop.epoch_length
        end_of_epoch = batch_idx + 1 == length and (not self.ignore_last or length <= self.interval)
        if (
            self.every_n_inner_iters(batch_idx, self.interval)
            or end_of_epoch
            or self.is_last_train_iter(runner)
        ):
            tag, line = runner.log_processor.get_log_after_iter(runner, batch_idx, 'train')
            runner.logger.info(line)
            runner.visualizer.add_scalars(tag, step=runner.iter + 1, file_path=self.json_log_path)


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Writes `epoch_N.pth` or `iter_N.pth`, `latest.pth` that points to the newest, and the best.

    A new file is whole before `latest.pth` points to it and before an older one is removed. The end of
    training is saved always. `best_METRIC_epoch_N.pth` holds weights and its score, from which resuming goes
    on.

    Args:
        interval: Epochs or iterations between checkpoints; -1: the end only.
        by_epoch: Whether it counts epochs.
        max_keep_ckpts: How many are kept; -1: all.
        save_best: A metric, 'coco/bbox_mAP'.
        rule: Whether a 'greater' or a 'less' value of it is better.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        interval: int = 1,
        by_epoch: bool = True,
        max_keep_ckpts: int = -1,
        save_best: str | None = None,
        rule: str = 'greater',
    ) -> None:
        if rule not in ('greater', 'less'):
            raise ValueError(f"default_hooks.checkpoint.rule is 'greater' or 'less'; got {rule!r}")
        self.interval = interval
        self.by_epoch = by_epoch
        self.max_keep_ckpts = max_keep_ckpts
        self.save_best = save_best
        self.sign = 1 if rule == 'greater' else -1
        self.best: tuple[float, Path] | None = None
        self.saved_iter = 0

    def before_train(self, runner: Runner) -> None:
        """Find out what a resumed run has already written; of several best ones the best stays."""
        self.saved_iter = runner.iter
        if not runner.iter or not self.save_best:
            return
        scored = []
        for path in sorted(Path(runner.work_dir).glob(f'best_{self._metric_name}_*.pth')):
            if not NUMBERED.fullmatch(path.name.removeprefix(f'best_{self._metric_name}_')):
                continue  # of a metric whose name begins like this one's
            try:
                score = load_checkpoint(path)['meta'].get('score')
            except ValueError as error:  # damaged
                runner.logger.warning(f'the best checkpoint so far is left out: {error}')
                continue
            if score is not None:
                scored.append(path)
                if self._is_better(score):
                    self.best = (score, path)
        barrier()  # every process has read them
        for path in scored:  # a run that was killed before it removed the second best
            if is_main_process() and self.best is not None and path != self.best[1]:
                path.unlink(missing_ok=True)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: dict[str, float] | None = None,
    ) -> None:
        """Save every `interval` iterations, and a training that ends inside an epoch."""
        ends_inside = self.is_last_train_iter(runner) and batch_idx + 1 < runner.train_loop.epoch_length
        if ends_inside or (not self.by_epoch and self.every_n_train_iters(runner, self.interval)):
            self._save(runner, epoch=runner.epoch, iteration=runner.iter + 1, whole_epoch=False)

    def after_train_epoch(self, runner: Runner) -> None:
        """Save every `interval` epochs, and the last one."""
        last = runner.epoch + 1 == runner.max_epochs or runner.iter == runner.max_iters
        if last or (self.by_epoch and self.every_n_epochs(runner, self.interval)):
            self._save(runner, epoch=runner.epoch + 1, iteration=runner.iter, whole_epoch=True)

    def after_train(self, runner: Runner) -> None:
        """Save a training that a signal or another hook has stopped."""
        if self.saved_iter != runner.iter:
            self._save(runner, runner.epoch, runner.iter, whole_epoch=runner.train_loop.samples == 0)

    def _save(self, runner: Runner, epoch: int, iteration: int, whole_epoch: bool) -> None:
        self.saved_iter = iteration
        kind, number = ('epoch', epoch) if whole_epoch else ('iter', iteration)
        folder = Path(runner.work_dir)
        path = folder / f'{kind}_{number}.pth'
        runner.logger.info(f'saving {path}')
        runner.save_checkpoint(str(folder), path.name, meta={'epoch': epoch, 'iter': iteration})
        if not is_main_process():
            return
        update_symlink(folder / 'latest.pth', path)
        if self.max_keep_ckpts > 0:
            files = (p for p in folder.glob(f'{kind}_*.pth') if NUMBERED.fullmatch(p.name))
            older = [(int(p.stem.split('_')[1]), p) for p in files]
            older = sorted(entry for entry in older if entry[0] < number)
            for _, old in older[: max(0, len(older) + 1 - self.max_keep_ckpts)]:
                old.unlink()

    def before_val_epoch(self, runner: Runner) -> None:
        """Evaluate what is saved: BatchNorm statistics of the main process (also when others' differ)."""
        for buffer in runner.model.buffers():
            broadcast(buffer)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save the weights when they are the best so far."""
        if not self.save_best or not metrics:  # a set without annotations gives no metrics
            return
        if self.save_best not in metrics:
            raise ValueError(
                f'default_hooks.checkpoint.save_best is {self.save_best}, but there is only '
                f'{", ".join(metrics)}'
            )
        score = float(metrics[self.save_best])
        if not self._is_better(score):
            return
        inside = runner.train_loop.samples
        when = f'iter_{runner.iter}' if inside else f'epoch_{runner.epoch}'
        path = Path(runner.work_dir) / f'best_{self._metric_name}_{when}.pth'
        runner.logger.info(f'best {self.save_best} so far, {score:.4f}: saving {path}')
        runner.save_checkpoint(
            runner.work_dir,
            path.name,
            save_optimizer=False,
            save_param_scheduler=False,
            meta={'epoch': runner.epoch, 'iter': runner.iter, 'score': score},
        )
        if is_main_process() and self.best is not None and self.best[1] != path:
            self.best[1].unlink(missing_ok=True)
        self.best = (score, path)

    @property
    def _metric_name(self) -> str:
        return str(self.save_best).replace('/', '_')

    def _is_better(self, score: float) -> bool:
        return math.isfinite(score) and (self.best is None or self.sign * score > self.sign * self.best[0])


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
        with warn_on_write_error(runner, _report_path(runner)):
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


@HOOKS.register_module()
class CurvesHook(Hook):
    """Draws the learning curves of a run, from its first start on, into `work_dir/curves.png`, as it ends."""

    priority = 'LOWEST'

    def after_train(self, runner: Runner) -> None:
        """Draw them, once there is something to draw."""
        scalars = sorted(Path(runner.work_dir).glob('*/vis_data/scalars.json'))  # named by the time
        if is_main_process() and scalars:
            from mmdet.visualization.curves import plot_curves  # loads matplotlib

            picture = Path(runner.work_dir) / 'curves.png'
            with warn_on_write_error(runner, picture):
                plot_curves(scalars, picture)
                runner.logger.info(f'learning curves: {picture}')


@HOOKS.register_module()
class EarlyStoppingHook(MMEngineEarlyStoppingHook):
    """MMEngine's, whose memory goes into checkpoints.

    Args are MMEngine's.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the best score and for how many evaluations it has been that."""
        checkpoint['early_stopping'] = {'best': self.best_score, 'waited': self.wait_count}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on with them."""
        if runner._resume and 'early_stopping' in checkpoint:
            memory = checkpoint['early_stopping']
            self.best_score, self.wait_count = memory['best'], memory['waited']

"""Save checkpoints: every few epochs or iterations, the best one, and the end of training."""

import math
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet.checkpoint.io import update_symlink
from mmdet.engine.state import NUMBERED
from mmdet.registry import HOOKS

NOTHING_SCORED = -1  # what COCO's numbers are where the set holds no such object


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Write `epoch_N.pth` or `iter_N.pth`, `latest.pth` that points to the newest, and the best.

    A new file is whole before `latest.pth` points to it and before an older one is removed. The end of
    training is saved always. `best_METRIC_epoch_N.pth` holds weights and its score, from which resuming goes
    on.

    Args:
        interval: Epochs or iterations between checkpoints; -1: the end only. Where the gradients of several
            batches are summed, a checkpoint waits for the next step of the optimizer.
        by_epoch: Whether it counts epochs.
        max_keep_ckpts: How many are kept; -1: all.
        save_best: A metric, 'coco/bbox_mAP'; greater is better.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        interval: int = 1,
        by_epoch: bool = True,
        max_keep_ckpts: int = -1,
        save_best: str | None = None,
    ) -> None:
        self.interval = interval
        self.by_epoch = by_epoch
        self.max_keep_ckpts = max_keep_ckpts
        self.save_best = save_best
        self.best = -math.inf, ''  # score and name of the file
        self.saved_iter = 0
        self.due = False  # at the next step of the optimizer, where gradients of several batches are summed

    def before_train(self, runner: Runner) -> None:
        """Begin where a resumed run was saved."""
        self.saved_iter = runner.iter

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save which evaluation was the best so far: its score and its file."""
        if 'optimizer' in checkpoint:
            checkpoint['best'] = {self.save_best or '': list(self.best)}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on with it; the evaluation that followed the checkpoint is done again."""
        if runner._resume and self.save_best in checkpoint.get('best', {}):
            score, file = checkpoint['best'][self.save_best]
            self.best = score, Path(file).name

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        """Save every `interval` iterations, and a training that ends inside an epoch."""
        ends_inside = self.is_last_train_iter(runner) and batch_idx + 1 < runner.train_loop.epoch_length
        self.due |= not self.by_epoch and self.every_n_train_iters(runner, self.interval)
        if ends_inside or (self.due and runner.optim_wrapper.should_update()):
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
        self.saved_iter, self.due = iteration, False
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
        if score == NOTHING_SCORED:
            runner.logger.warning(f'{self.save_best} is -1: there was nothing to score, and no best is saved')
            return
        if not self.best[0] < score < math.inf:  # also of NaN
            return
        when = f'iter_{runner.iter}' if runner.train_loop.samples else f'epoch_{runner.epoch}'
        path = Path(runner.work_dir, f'best_{self.save_best.replace("/", "_")}_{when}.pth')
        runner.logger.info(f'best {self.save_best} so far, {score:.4f}: saving {path}')
        runner.save_checkpoint(
            runner.work_dir,
            path.name,
            save_optimizer=False,
            meta={'epoch': runner.epoch, 'iter': runner.iter, 'score': score},
        )
        if is_main_process() and self.best[1] not in ('', path.name):
            path.with_name(self.best[1]).unlink(missing_ok=True)
        self.best = score, path.name

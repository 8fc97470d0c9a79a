"""Training and evaluation loops that stop and go on anywhere within an epoch."""

import math
import signal
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import EMAHook
from mmengine.runner import BaseLoop, Runner
from mmengine.runner import ValLoop as MMEngineValLoop
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmdet.distributed.signals import GracefulShutdown, StoppedBySignal
from mmdet.engine.nonfinite import describe_step, stop_not_finite
from mmdet.engine.state import unwrap_model
from mmdet.registry import LOOPS


@LOOPS.register_module()
class TrainLoop(BaseLoop):
    """Train for some epochs or iterations, whichever end first, and evaluate in between.

    Its hooks see the counts that MMEngine's hooks expect: `iter` and `epoch` count what is complete, so that
    in `after_train_iter` and `after_train_epoch` they are still the number of the one that has just run.

    Where `optim_wrapper.accumulative_counts` sums the gradients of several batches, the last step of an epoch
    takes what is left. So an epoch, and a run that a signal stops, end with a step of the optimizer.

    Args:
        runner: What owns the model, the optimizer and the hooks.
        dataloader: Config of the training data, or the loader itself.
        max_epochs: Passes through the training data.
        max_iters: Batches.
        val_interval: Epochs between evaluations; the end of training is evaluated always.

    Raises:
        ValueError: No limit, or no batch to train on.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict[str, Any],
        max_epochs: int | None = None,
        max_iters: int | None = None,
        val_interval: int = 1,
    ) -> None:
        super().__init__(runner, dataloader)
        limits = {'max_epochs': max_epochs, 'max_iters': max_iters, 'val_interval': val_interval}
        for name, limit in limits.items():
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise ValueError(f'train_cfg.{name} is a whole number from 1 on; got {limit!r}')
        if max_epochs is None and max_iters is None:
            raise ValueError('train_cfg needs max_epochs or max_iters')
        self.epoch_length = len(self.dataloader)
        if self.epoch_length == 0:
            raise ValueError(
                f'not one batch to train on: {len(self.dataloader.dataset)} images, batch size '
                f'{self.dataloader.batch_size}. Check train_ann, or lower train_dataloader.batch_size.'
            )
        self.val_interval = val_interval
        self.val_begin = 1  # MMEngine reads it
        self.stop_training = False  # MMEngine's EarlyStoppingHook sets it
        self.stop_signal = 0  # number of a signal on which all processes have agreed
        self._signals = GracefulShutdown()
        self._limits = max_epochs or math.inf, max_iters or math.inf
        self.set_progress(0, 0, 0)

    def set_progress(self, epoch: int, iteration: int, samples: int) -> None:
        """Set what is complete.

        Args:
            epoch: Epochs.
            iteration: Batches; in a resumed run earlier ones may have been of another size.
            samples: Of the current epoch, over all processes.
        """
        self.epoch, self.iter, self.samples, self.batch = epoch, iteration, samples, 0
        if samples:  # count batches from the end: those before it may have been of another size
            rest, size = self.seek_sampler(), int(self.dataloader.batch_size)
            steps = rest // size if self.dataloader.drop_last else math.ceil(rest / size)
            self.batch = self.epoch_length - steps
        start = iteration - self.batch  # of the current epoch
        epochs, iterations = self._limits
        self.max_iters = int(min(iterations, start + (epochs - epoch) * self.epoch_length))
        # schedules that count epochs end with this: it must not depend on where max_iters interrupts a run
        self.max_epochs = int(
            epochs if epochs < math.inf else epoch + math.ceil((iterations - start) / self.epoch_length)
        )

    @property
    def samples_per_step(self) -> int:
        """Count the images of one batch over all processes."""
        return int(self.dataloader.batch_size) * int(self.runner.world_size)

    @property
    def finished(self) -> bool:
        """Tell whether a limit is reached."""
        return self.stop_training or self.iter >= self.max_iters

    def run(self) -> nn.Module:
        """Train from where the counts say to the end, or until a signal comes.

        Raises:
            StoppedBySignal: SIGTERM or SIGINT came and the checkpoint is written.
        """
        with self._signals:
            complete = self._train()
        if self.stop_signal and not complete:
            self.runner.logger.warning(
                f'stopped by {signal.Signals(self.stop_signal).name} after {self.epoch} epochs and '
                f'{self.batch} batches, {self.iter} iterations; to go on, give the same command and --resume'
            )
            raise StoppedBySignal(self.stop_signal)
        return self.runner.model

    def _train(self) -> bool:
        """Train; return whether all is done, the last evaluation included."""
        self.runner.call_hook('before_train')
        if self.finished:
            self.runner.logger.warning(
                f'nothing left to train: {self.epoch} of {self.max_epochs} epochs, {self.iter} of '
                f'{self.max_iters} iterations are done'
            )
        complete = True
        if self.iter and (self.samples == 0 or self.finished) and not self._ends_epoch:
            complete = self._evaluate()  # the run that is resumed may have been stopped while it did
        while (not self.finished or self._ends_epoch) and not self.stop_signal:
            self.run_epoch()
            complete = self._evaluate()
        self.runner.call_hook('after_train')
        return complete and self.finished

    @property
    def _ends_epoch(self) -> bool:
        """Tell whether only the end of an epoch is left, as after the checkpoint of its last batch."""
        return self.batch >= self.epoch_length

    def _evaluate(self) -> bool:
        """Evaluate where it is due; return whether no signal keeps it from its end."""
        if self.runner.val_loop is None or not (self.finished or self.epoch % self.val_interval == 0):
            return True
        if self.stop_signal:
            return False
        try:
            self.runner.val_loop.run()
        except EvaluationStoppedError:
            for hook in self.runner.hooks:
                if isinstance(hook, EMAHook):  # it swapped in averaged weights: swap back
                    hook.after_val_epoch(self.runner)
            return False
        return True

    def run_epoch(self) -> None:
        """Train on what is left of the current epoch, or as much of it as `max_iters` or a signal allows."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.seek_sampler()
        optimizer, left = self.runner.optim_wrapper, self.max_iters - self.iter
        # any module without BatchNorm: MMEngine has warned of gradients summed over batches with BatchNorm
        optimizer.initialize_count_status(
            nn.Identity(), self.batch, min(self.epoch_length, self.batch + left)
        )
        for data_batch in self.dataloader:
            self.run_iter(self.batch, data_batch)
            if self.iter >= self.max_iters or (self.stop_signal and optimizer.should_update()):
                break
        if self._ends_epoch:
            self.runner.call_hook('after_train_epoch')
            self.epoch += 1
            self.samples = self.batch = 0

    def seek_sampler(self) -> int:
        """Let the next pass begin where the counts say; return the samples of this process in it."""
        sampler = self.dataloader.sampler
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(self.epoch)
        if self.samples:
            if not hasattr(sampler, 'set_offset'):
                raise ValueError(
                    f'{type(sampler).__name__} cannot go on inside an epoch: use '
                    'sampler=dict(type="DetSampler"), or resume from a checkpoint of a whole epoch'
                )
            return int(sampler.set_offset(self.samples))
        return len(sampler)

    def run_iter(self, batch_idx: int, data_batch: dict[str, Any]) -> None:
        """Train on one batch. Losses are looked at before anything changes that a checkpoint holds.

        Raises:
            FloatingPointError: A loss is not finite, in this process or in another.
        """
        self.runner.call_hook('before_train_iter', batch_idx=batch_idx, data_batch=data_batch)
        total, losses = self.forward_step(data_batch)
        outputs = self._fetch(losses, data_batch)
        self.runner.optim_wrapper.update_params(total)
        self.runner.call_hook('after_train_iter', batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)
        self.iter += 1
        self.batch += 1
        self.samples += self.samples_per_step

    def forward_step(self, data_batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the sum of the losses, and each of them by name: the first half of `train_step`.

        Raises:
            ValueError: A single image, and batch norm where a feature map of it has a single pixel.
        """
        model = unwrap_model(self.runner.model)
        try:
            with self.runner.optim_wrapper.optim_context(self.runner.model):
                losses = self.runner.model(**model.data_preprocessor(data_batch, True), mode='loss')
        except ValueError as error:
            if 'more than 1 value per channel' in str(error):
                raise ValueError(_explain_single_image(data_batch)) from error
            raise
        total, by_name = model.parse_losses(losses)
        return total, by_name

    def _fetch(self, losses: dict[str, Tensor], data_batch: dict[str, Any]) -> dict[str, float]:
        """Copy the losses from the device, all at once, and stop where one is not finite.

        With several processes the same exchange tells whether one of them has received a signal.
        """
        values = torch.stack([value.detach().float() for value in losses.values()])
        broken = values.isfinite().logical_not().any().float()
        flags = torch.stack([broken, values.new_full((), self._signals.received)])
        if self.runner.world_size > 1:
            all_reduce(flags, 'max')
        *numbers, broken_somewhere, stop_signal = torch.cat([values, flags]).tolist()
        self.stop_signal = int(stop_signal)
        outputs = dict(zip(losses, numbers, strict=True))
        if broken_somewhere:
            rates = sorted({rate for group in self.runner.optim_wrapper.get_lr().values() for rate in group})
            where = (
                f'iteration {self.iter + 1} (epoch {self.epoch + 1}, batch {self.batch + 1}) of process '
                f'{self.runner.rank}, at learning rate {", ".join(f"{rate:g}" for rate in rates)}'
            )
            report = describe_step(outputs, where, data_batch, self.dataloader.dataset)
            stop_not_finite(report, unwrap_model(self.runner.model), self.runner.work_dir)
        return outputs

    def agree_to_stop(self) -> bool:
        """Ask whether any process has received a signal; all must ask together."""
        flag = torch.tensor(self._signals.received)
        all_reduce(flag, 'max')
        self.stop_signal = int(flag)
        return bool(self.stop_signal)


class EvaluationStoppedError(Exception):
    """A signal came during an evaluation."""


@LOOPS.register_module()
class ValLoop(MMEngineValLoop):
    """Evaluate as MMEngine; a signal that comes while training ends it after the current batch, unrecorded.

    Args are MMEngine's.
    """

    def run_iter(self, idx: int, data_batch: dict[str, Any]) -> None:
        """Evaluate one batch.

        Raises:
            EvaluationStoppedError: A signal came, in this process or in another.
        """
        super().run_iter(idx, data_batch)
        training = self.runner._train_loop
        size = self.dataloader.batch_size * self.runner.world_size
        complete = idx < len(self.dataloader.dataset) // size  # every process has such a batch, and asks
        if isinstance(training, TrainLoop) and complete and training.agree_to_stop():
            raise EvaluationStoppedError


def image_ids(data_batch: dict[str, Any]) -> list[int]:
    """Read the ids of the images of a batch, -1 for one without a file; empty when the batch has none."""
    gt = data_batch.get('gt')
    return [] if gt is None else gt.img_id.tolist()


def _explain_single_image(data_batch: dict[str, Any]) -> str:
    """Say why batch norm cannot train on a batch, and what to do."""
    left_out = [str(bad.file) for bad in data_batch.get('bad_images', ())]
    mend = f'mend the files that were left out of it ({", ".join(left_out)}), or ' if left_out else ''
    return (
        'this batch holds one image, and batch norm on a map of one pixel needs two: '
        f'{mend}raise the images per process, --batch-size'
    )

"""The training loop: counts epochs and the batch within the epoch, so that it can stop and go on anywhere."""

import math
from typing import Any

import torch
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmdet.registry import LOOPS


@LOOPS.register_module()
class TrainLoop(BaseLoop):
    """Trains for some epochs or iterations, whichever end first, and evaluates in between.

    Its hooks see the counts that MMEngine's hooks expect: `iter` and `epoch` count what is complete, so that
    in `after_train_iter` and `after_train_epoch` they are still the number of the one that has just run.

    Args:
        runner: What owns the model, the optimizer and the hooks.
        dataloader: Config of the training data, or the loader itself.
        max_epochs: Passes through the training data.
        max_iters: Steps.
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
        for name, limit in (
            ('max_epochs', max_epochs),
            ('max_iters', max_iters),
            ('val_interval', val_interval),
        ):
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise ValueError(f'train_cfg.{name} is a whole number from 1 on; got {limit!r}')
        self.epoch_length = len(self.dataloader)
        if self.epoch_length == 0:
            raise ValueError(
                f'not one batch to train on: {len(self.dataloader.dataset)} images, batch size '
                f'{self.dataloader.batch_size}. Check train_ann, or lower train_dataloader.batch_size.'
            )
        if max_epochs is None and max_iters is None:
            raise ValueError('train_cfg needs max_epochs or max_iters')
        self.val_interval = val_interval
        self.val_begin = 1  # MMEngine reads it
        self.stop_training = False  # MMEngine's EarlyStoppingHook sets it
        self._limits = max_epochs or math.inf, max_iters or math.inf
        self.go_to(0, 0, 0)

    def go_to(self, epoch: int, iteration: int, samples: int) -> None:
        """Set what is complete.

        Args:
            epoch: Epochs.
            iteration: Steps; in a resumed run earlier ones may have been of another size.
            samples: Of the current epoch, over all processes.
        """
        self.epoch, self.iter, self.samples, self.batch = epoch, iteration, samples, 0
        if samples:  # count batches from the end: those before it may have been of another size
            rest, size = self._place_sampler(), int(self.dataloader.batch_size)
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
        """Images of one step over all processes."""
        return int(self.dataloader.batch_size) * int(self.runner.world_size)

    @property
    def finished(self) -> bool:
        """Whether a limit is reached."""
        return self.stop_training or self.iter >= self.max_iters

    def run(self) -> nn.Module:
        """Train from where the counts say to the end."""
        self.runner.call_hook('before_train')
        if self.finished:
            self.runner.logger.warning(
                f'nothing left to train: {self.epoch} of {self.max_epochs} epochs, {self.iter} of '
                f'{self.max_iters} iterations are done'
            )
        if self.iter and (self.samples == 0 or self.finished) and not self._ends_epoch:
            self._evaluate()  # the run that is resumed may have been killed while it did
        while not self.finished or self._ends_epoch:
            self.run_epoch()
            self._evaluate()
        self.runner.call_hook('after_train')
        return self.runner.model

    @property
    def _ends_epoch(self) -> bool:
        """Whether an epoch lacks but its end: so the checkpoint of its last step leaves it."""
        return self.batch >= self.epoch_length

    def _evaluate(self) -> None:
        if self.runner.val_loop is not None and (self.finished or self.epoch % self.val_interval == 0):
            self.runner.val_loop.run()

    def run_epoch(self) -> None:
        """Train on what is left of the current epoch, or on as much of it as `max_iters` allows."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self._place_sampler()
        for data_batch in self.dataloader:
            self.run_iter(self.batch, data_batch)
            if self.iter >= self.max_iters:
                break
        if self._ends_epoch:
            self.runner.call_hook('after_train_epoch')
            self.epoch += 1
            self.samples = self.batch = 0

    def _place_sampler(self) -> int:
        """Let the next pass begin where the counts say; returns the samples of this process in it."""
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
        """One step.

        Args:
            batch_idx: Its number within the epoch.
            data_batch: What the loader yields.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        self.runner.call_hook('before_train_iter', batch_idx=batch_idx, data_batch=data_batch)
        losses = self.runner.model.train_step(data_batch, optim_wrapper=self.runner.optim_wrapper)
        outputs = self._as_numbers(losses, data_batch)
        self.runner.call_hook('after_train_iter', batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)
        self.iter += 1
        self.batch += 1
        self.samples += self.samples_per_step

    def _as_numbers(self, losses: dict[str, Tensor], data_batch: dict[str, Any]) -> dict[str, float]:
        """Every loss by name, fetched from the device at once; stops training when one is not finite."""
        values = torch.stack([value.detach().float() for value in losses.values()]).tolist()
        outputs = dict(zip(losses, values, strict=True))
        broken = {name: value for name, value in outputs.items() if not math.isfinite(value)}
        if broken:
            parts = {name: value for name, value in broken.items() if name != 'loss'} or broken
            rates = sorted({rate for group in self.runner.optim_wrapper.get_lr().values() for rate in group})
            raise FloatingPointError(
                f'{", ".join(f"{name} is {value}" for name, value in parts.items())} in iteration '
                f'{self.iter + 1} (epoch {self.epoch + 1}, batch {self.batch + 1}) of process '
                f'{self.runner.rank}, at learning rate {", ".join(f"{rate:g}" for rate in rates)}, on images '
                f'with ids {image_ids(data_batch)}.\n  Nothing of this step was saved. Look at these images '
                '(python tools/misc/browse_dataset.py), lower the rate (--cfg-options '
                'optim_wrapper.optimizer.lr=...) or clip gradients (--cfg-options '
                'optim_wrapper.clip_grad.max_norm=10), and go on with --resume.'
            )
        return outputs


def image_ids(data_batch: dict[str, Any]) -> list[int]:
    """Ids of the images of a batch, -1 for one without a file; empty when the batch does not say."""
    gt = data_batch.get('gt')
    return [] if gt is None else gt.img_id.tolist()

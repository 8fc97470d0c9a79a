"""The training loop: counts epochs and the batch within the epoch, so that it can stop and go on anywhere."""

import math
import signal
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmengine.runner import ValLoop as MMEngineValLoop
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmdet.checkpoint.io import not_finite
from mmdet.distributed.gather import gather_text
from mmdet.distributed.signals import GracefulShutdown, StoppedBySignal
from mmdet.engine.nonfinite import GENTLER, describe_step, device_rng, dump_step, newest_checkpoint
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
        max_skipped: Steps with a loss that is not finite which a run may leave out, over all its resumptions;
            the next one stops it.

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
        max_skipped: int = 0,
    ) -> None:
        super().__init__(runner, dataloader)
        for name, limit, least in (
            ('max_epochs', max_epochs, 1),
            ('max_iters', max_iters, 1),
            ('val_interval', val_interval, 1),
            ('max_skipped', max_skipped, 0),
        ):
            if limit is not None and (not isinstance(limit, int) or limit < least):
                raise ValueError(f'train_cfg.{name} is a whole number from {least} on; got {limit!r}')
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
        self.max_skipped = max_skipped
        self.skipped = 0  # steps that were left out
        self.stop_signal = 0  # number of a signal on which all processes have agreed
        self._signals = GracefulShutdown()
        self._limits = max_epochs or math.inf, max_iters or math.inf
        self.set_progress(0, 0, 0)

    def set_progress(self, epoch: int, iteration: int, samples: int) -> None:
        """Set what is complete.

        Args:
            epoch: Epochs.
            iteration: Steps; in a resumed run earlier ones may have been of another size.
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
        """Images of one step over all processes."""
        return int(self.dataloader.batch_size) * int(self.runner.world_size)

    @property
    def finished(self) -> bool:
        """Whether a limit is reached."""
        return self.stop_training or self.iter >= self.max_iters

    def run(self) -> nn.Module:
        """Train from where the counts say to the end, or to the end of the step in which a signal comes.

        Raises:
            StoppedBySignal: SIGTERM or SIGINT came and the checkpoint is written.
        """
        with self._signals:
            complete = self._train()
        if self.stop_signal and not complete:
            name = signal.Signals(self.stop_signal).name
            self.runner.logger.warning(
                f'stopped by {name} after {self.epoch} epochs and {self.batch} batches, {self.iter} '
                'iterations; to go on, give the same command and --resume'
            )
            raise StoppedBySignal(self.stop_signal)
        return self.runner.model

    def _train(self) -> bool:
        """Train; returns whether all is done, the last evaluation included."""
        self._count_updates(self.iter)
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
        """Whether an epoch lacks but its end: so the checkpoint of its last step leaves it."""
        return self.batch >= self.epoch_length

    def _evaluate(self) -> bool:
        """Evaluate where it is due; returns whether no signal keeps it from its end."""
        if self.runner.val_loop is None or not (self.finished or self.epoch % self.val_interval == 0):
            return True
        if self.stop_signal:
            return False
        try:
            self.runner.val_loop.run()
        except EvaluationStoppedError:
            for hook in self.runner.hooks:
                if isinstance(hook, EMAHook):  # it has lent its average to the model; the others record
                    hook.after_val_epoch(self.runner)
            return False
        return True

    def run_epoch(self) -> None:
        """Train on what is left of the current epoch, or as much of it as `max_iters` or a signal allows."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.seek_sampler()
        for data_batch in self.dataloader:
            self.run_iter(self.batch, data_batch)
            if self.iter >= self.max_iters or self.stop_signal:
                break
        if self._ends_epoch:
            self.runner.call_hook('after_train_epoch')
            self.epoch += 1
            self.samples = self.batch = 0

    def seek_sampler(self) -> int:
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
        """One step. Losses are looked at before anything changes that a checkpoint holds.

        Args:
            batch_idx: Its number within the epoch.
            data_batch: What the loader yields.

        Raises:
            FloatingPointError: A loss is not finite, in this process or in another, and no more such steps
                may be left out.
        """
        self.runner.call_hook('before_train_iter', batch_idx=batch_idx, data_batch=data_batch)
        rng = device_rng()
        before = self._running_statistics() if self.skipped < self.max_skipped else []
        total, losses = self.forward_step(data_batch)
        outputs, all_finite = self._fetch(losses)
        if all_finite:
            self.runner.optim_wrapper.update_params(total)
        else:
            for buffer, value in before:
                buffer.copy_(value)
            self._leave_out(outputs, data_batch, rng)
        self.runner.call_hook(
            'after_train_iter',
            batch_idx=batch_idx,
            data_batch=data_batch,
            outputs=outputs if all_finite else None,
        )
        self.iter += 1
        self.batch += 1
        self.samples += self.samples_per_step

    def forward_step(self, data_batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The first half of MMEngine's `train_step`: the sum of the losses, and each of them by name."""
        model = self.runner.model
        with self.runner.optim_wrapper.optim_context(model):
            data = self._plain_model.data_preprocessor(data_batch, True)
            losses = model(**data, mode='loss')
        total, by_name = self._plain_model.parse_losses(losses)
        return total, by_name

    @property
    def _plain_model(self) -> Any:
        return self.runner.model.module if is_model_wrapper(self.runner.model) else self.runner.model

    def _running_statistics(self) -> list[tuple[Tensor, Tensor]]:
        """Buffers of the model, as BatchNorm's, which a forward pass changes, and copies of them."""
        return [(buffer, buffer.clone()) for buffer in self._plain_model.buffers()]

    def _fetch(self, losses: dict[str, Tensor]) -> tuple[dict[str, float], bool]:
        """Every loss by name, and whether those of all processes are finite, fetched from the device at once.

        With several processes the same exchange tells whether one of them has received a signal.
        """
        values = torch.stack([value.detach().float() for value in losses.values()])
        broken = values.isfinite().logical_not().any().float()
        flags = torch.stack([broken, values.new_full((), self._signals.received)])
        if self.runner.world_size > 1:
            all_reduce(flags, 'max')
        *numbers, broken_somewhere, stop_signal = torch.cat([values, flags]).tolist()
        self.stop_signal = int(stop_signal)
        return dict(zip(losses, numbers, strict=True)), not broken_somewhere

    def agree_to_stop(self) -> bool:
        """Whether any process has received a signal; all must ask together."""
        flag = torch.tensor(self._signals.received)
        all_reduce(flag, 'max')
        self.stop_signal = int(flag)
        return bool(self.stop_signal)

    def _leave_out(
        self, outputs: dict[str, float], data_batch: dict[str, Any], rng: dict[str, Tensor]
    ) -> None:
        """Count a step that is left out because a loss is not finite, or stop; all processes do the same."""
        runner = self.runner
        spoiled = not_finite(dict(self._plain_model.named_parameters()))  # no later step can be finite
        last = bool(spoiled) or self.skipped >= self.max_skipped
        report = ''
        if not all(map(math.isfinite, outputs.values())):
            rates = sorted({rate for group in runner.optim_wrapper.get_lr().values() for rate in group})
            where = (
                f'iteration {self.iter + 1} (epoch {self.epoch + 1}, batch {self.batch + 1}) of process '
                f'{runner.rank}, at learning rate {", ".join(f"{rate:g}" for rate in rates)}'
            )
            report = describe_step(outputs, where, data_batch, self.dataloader.dataset)
            if last and not spoiled:
                report += '\n' + self._dump(outputs, data_batch, rng, where)
        reports = [text for text in gather_text(report) if text]
        if not last:
            self.skipped += 1
            self._count_updates(self.iter + 1)
            runner.logger.warning(
                f'step left out, {self.skipped} of at most {self.max_skipped}: ' + '\n'.join(reports)
            )
            return
        if not is_main_process():
            raise FloatingPointError(f'{reports[0].splitlines()[0]} see process 0')
        if spoiled:
            reports.append(
                f'  The weights are not finite ({len(spoiled)} tensors, the first is {spoiled[0]}): the '
                'gradients of the step before were not, though its losses were. '
                f'{newest_checkpoint(runner.work_dir)}'
            )
        else:
            reports.append(
                '  Nothing of this step was saved. Look at these images (python '
                'tools/misc/browse_dataset.py), or leave such steps out (--cfg-options '
                f'train_cfg.max_skipped={self.max_skipped + 10}).'
            )
        raise FloatingPointError('\n'.join([*reports, f'  {GENTLER}']))

    def _count_updates(self, iteration: int) -> None:
        """Let the optimizer sum gradients over the steps that are made, and not over those left out."""
        if self.skipped:
            self.runner.optim_wrapper.initialize_count_status(
                self.runner.model, iteration - self.skipped, self.max_iters - self.skipped
            )

    def _dump(
        self, outputs: dict[str, float], data_batch: dict[str, Any], rng: dict[str, Tensor], where: str
    ) -> str:
        """Keep the step for `tools/misc/reproduce_step.py`; returns a line that says where."""
        runner = self.runner
        rank = f'_rank{runner.rank}' if runner.world_size > 1 else ''
        amp = getattr(runner.optim_wrapper, 'dtype', None)
        meta = {
            'where': where,
            'losses': outputs,
            'amp_dtype': None if amp is None else str(amp).removeprefix('torch.'),
            'epoch': self.epoch,
            'iter': self.iter,
            'batch_in_epoch': self.batch,
            'skipped_steps': self.skipped,
            'samples_per_step': self.samples_per_step,
            'seed': runner.seed,
            'cfg': runner.cfg.pretty_text,
            'dataset_meta': getattr(self.dataloader.dataset, 'metainfo', {}),
        }
        path = Path(runner.work_dir) / f'not_finite_iter_{self.iter + 1}{rank}.pth'
        return dump_step(path, meta, self._plain_model.state_dict(), rng, data_batch)


class EvaluationStoppedError(Exception):
    """A signal came during an evaluation."""


@LOOPS.register_module()
class ValLoop(MMEngineValLoop):
    """MMEngine's, and: a signal that comes while training ends it after the current batch, unrecorded.

    Args are MMEngine's.
    """

    def run(self) -> dict[str, float]:
        """Evaluate.

        Raises:
            EvaluationStoppedError: A signal came.
        """
        length = torch.tensor(len(self.dataloader))
        all_reduce(length, 'min')  # the processes agree while all of them have a batch
        self.common_length = int(length)
        metrics: dict[str, float] = super().run()
        return metrics

    def run_iter(self, idx: int, data_batch: dict[str, Any]) -> None:
        """One batch, see `run`."""
        super().run_iter(idx, data_batch)
        training = self.runner._train_loop
        if isinstance(training, TrainLoop) and idx < self.common_length and training.agree_to_stop():
            raise EvaluationStoppedError


def image_ids(data_batch: dict[str, Any]) -> list[int]:
    """Ids of the images of a batch, -1 for one without a file; empty when the batch does not say."""
    gt = data_batch.get('gt')
    return [] if gt is None else gt.img_id.tolist()

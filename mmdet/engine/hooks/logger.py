"""Log the training: images per second, and a line for the last step."""

from collections import deque
from typing import Any

from mmengine.hooks import LoggerHook as MMEngineLoggerHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

from mmdet.engine.loops import image_ids
from mmdet.registry import HOOKS

RECENT = 50  # steps that the images per second are taken over
HISTORY = 1000  # values of each scalar that are kept in memory; MMEngine copies them all in every step


@HOOKS.register_module()
class LoggerHook(MMEngineLoggerHook):
    """MMEngine's, and: images per second, and a line for the last step.

    The values that running means are taken over go into checkpoints, so that a resumed run logs the same.

    Args are MMEngine's.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save what has been logged of the last steps: of each scalar its values and their counts."""
        if 'optimizer' in checkpoint:
            checkpoint['log'] = {
                name: [part[-HISTORY:] for part in scalar.data]
                for name, scalar in runner.message_hub.log_scalars.items()
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
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Write a line every `interval` steps, at the end of a shorter epoch, and after the last step.

        The first step of a start has a line too, in the text alone: it shows how fast the run is.
        """
        hub = runner.message_hub
        self.recent.append((len(image_ids(data_batch or {})), hub.get_scalar('train/time').current()))
        images, seconds = map(sum, zip(*self.recent, strict=True))
        if images:
            hub.update_scalar('train/images/s', images * runner.world_size / seconds)
        for scalar in hub.log_scalars.values():
            scalar.max_length = HISTORY
        length = runner.train_loop.epoch_length
        end_of_epoch = batch_idx + 1 == length and (not self.ignore_last or length <= self.interval)
        due = (
            self.every_n_inner_iters(batch_idx, self.interval)
            or end_of_epoch
            or self.is_last_train_iter(runner)
        )
        if due or len(self.recent) == 1:
            tag, line = runner.log_processor.get_log_after_iter(runner, batch_idx, 'train')
            runner.logger.info(line)
            if due:
                runner.visualizer.add_scalars(tag, step=runner.iter + 1, file_path=self.json_log_path)

"""Say what is trained, and show a progress bar on a terminal."""

import atexit
import sys
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmdet.engine.logs import console_handlers, is_step_line
from mmdet.engine.state import unwrap_model
from mmdet.models.detectors import BaseDetector
from mmdet.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Say what is trained; on a terminal draw a progress bar with losses and remaining time.

    The lines of single steps then go to the log file alone.
    """

    priority = 'VERY_HIGH'  # before the distillation monitor looks at a forward pass

    def __init__(self) -> None:
        self.described = False
        self.progress: Progress | None = None

    def before_train(self, runner: Any) -> None:
        """Start the bar."""
        console = Console()
        if not (console.is_terminal and is_main_process()):
            return
        columns = (
            TextColumn('epoch {task.fields[epoch]}'),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn('{task.fields[losses]}'),
        )
        self.progress = Progress(*columns, console=console, refresh_per_second=4, transient=True)
        loop = runner.train_loop
        self.task = self.progress.add_task(
            '', total=loop.max_iters, completed=runner.iter, epoch=runner.epoch + 1, losses=''
        )
        self.progress.start()
        atexit.register(self.progress.stop)  # an error leaves no bar behind and no hidden cursor
        for handler in console_handlers(runner.logger):
            handler.setStream(sys.stdout)  # rich's: lines go above the bar
            handler.addFilter(lambda record: not is_step_line(record))

    def before_train_iter(
        self, runner: Any, batch_idx: int, data_batch: dict[str, Any] | None = None
    ) -> None:
        """Say before the first step what is trained."""
        if not self.described and data_batch is not None:
            runner.logger.info(describe_run(runner, data_batch))
        self.described = True

    def after_train_iter(self, runner: Any, batch_idx: int, **_: Any) -> None:
        """Move the bar; losses are means over the window of the log."""
        if self.progress is None:
            return
        hub, window = runner.message_hub, runner.log_processor.window_size
        losses = {
            name.removeprefix('train/'): scalar.mean(window)
            for name, scalar in hub.log_scalars.items()
            if name.startswith('train/loss')
        }
        text = '  '.join(f'{name} {value:.3f}' for name, value in losses.items())
        self.progress.update(self.task, completed=runner.iter + 1, epoch=runner.epoch + 1, losses=text)

    def after_train(self, runner: Any) -> None:
        """End the bar."""
        if self.progress is not None:
            self.progress.stop()
            for handler in console_handlers(runner.logger):
                handler.setStream(sys.stdout)


def describe_run(runner: Any, data_batch: dict[str, Any]) -> str:
    """Describe in a few lines what is trained, on what, how long, and where the results go."""
    cfg, model, loader = runner.cfg, unwrap_model(runner.model), runner.train_loop.dataloader
    device = next(model.parameters()).device
    card = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'
    precision = cfg.optim_wrapper.get('dtype', 'bfloat16 or float16')
    images = loader.batch_size * runner.world_size
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    counted = '' if cfg.get('compile') else _multiply_adds(model, data_batch)  # it would be compiled for it
    lines = {
        'config': cfg.filename,
        'model': f'{type(model).__name__}, {trained / 1e6:.2f} M parameters are trained{counted}',
        'device': f'{card}, {runner.world_size} process{"es" if runner.world_size > 1 else ""}, '
        f'{precision if cfg.optim_wrapper.type == "AmpOptimWrapper" else "float32"}',
        'steps': f'{runner.max_iters:,} of {images} images, {runner.train_loop.epoch_length} an epoch',
        'work dir': f'{runner.work_dir}, log {runner.logger.log_file}',
    }
    return '\n'.join(['training', *(f'  {name:<9}{text}' for name, text in lines.items())])


def _multiply_adds(model: Any, data_batch: dict[str, Any]) -> str:
    """Count the multiply-adds of a detector for the first image of a batch; empty for another model."""
    if not isinstance(model, BaseDetector):
        return ''
    image = model.data_preprocessor(data_batch)['inputs'][:1]
    return f', {model.count_multiply_adds(image):.3f} G multiply-adds at {image.shape[3]} x {image.shape[2]}'

"""Build and run what a config describes.

MMEngine 0.10 loads checkpoints that do not fit, runs Python text that it finds in them, falls back to full
unpickling, writes them in place, forgets the random number generators and the batch within the epoch, and
cannot start several processes without GPUs.
"""

import importlib.util
import inspect
import os
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather, is_distributed, is_main_process
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mmdet.checkpoint.io import (
    check_writable,
    checkpoint_classes,
    load_checkpoint,
    load_weights,
    remove_temp_files,
    save_checkpoint,
)
from mmdet.config.check import MMENGINE_HOOKS, config_context
from mmdet.config.classes import check_classes
from mmdet.config.resolve import CachedConfig
from mmdet.config.schedule import explain_input_size, input_size
from mmdet.distributed.launch import check_cards, start_process_group
from mmdet.engine.compile import compile_network
from mmdet.engine.loader import build_dataloader
from mmdet.engine.logs import LogVisualizer, keep_long_texts_off_the_console, warn_of_lost_lines
from mmdet.engine.nonfinite import refuse_not_finite
from mmdet.engine.state import (
    check_resumable,
    choose_checkpoint,
    note_rates,
    progress_of,
    restore_training,
    start_from,
    training_state,
    unwrap_model,
    warm_up_notes,
)
from mmdet.engine.threads import note_busy_cores
from mmdet.registry import MODELS
from mmdet.version import __version__


class DetRunner(Runner):
    """Train, validate and test what a resolved config describes; made with `from_cfg`.

    Of MMEngine's Runner it keeps the methods and their names; arguments that change nothing here are `_`.
    """

    optim_wrapper: OptimWrapper  # a config until training begins
    trust_checkpoint = False

    @classmethod
    def from_cfg(cls, cfg: Config, trust_checkpoint: bool = False) -> 'DetRunner':
        """Build what a resolved config describes.

        `resume=True` goes on from `load_from` or else from the newest whole checkpoint in `work_dir`, with
        the seed of that run; `resume='latest'` from the latter in any case. Where there is no checkpoint
        training starts from `load_from` or else from the beginning. Files that a killed run has left half
        written in `work_dir` are removed.

        Args:
            cfg: Resolved.
            trust_checkpoint: Unpickle whatever `load_from` holds, see `load_checkpoint`. What is found in
                `work_dir` is never trusted.

        Raises:
            OSError: `work_dir` cannot be written.
            ValueError: No checkpoint in `work_dir` is whole, or `load_from` cannot be read.
        """
        cfg = CachedConfig.of(cfg)
        check_writable(cfg.work_dir)
        resume = cfg.get('resume', False)
        notes = []
        if resume == 'latest' or (resume and cfg.get('load_from') is None):
            chosen, skipped = choose_checkpoint(cfg.work_dir)
            notes = [f'skipped {reason}' for reason in skipped]
            if chosen is None:
                start = cfg.get('load_from') or 'the beginning'
                notes.append(f'nothing to resume in {cfg.work_dir}: training starts from {start}')
            else:
                cfg.load_from, trust_checkpoint = str(chosen), False
            cfg.resume = chosen is not None
        if cfg.get('resume', False):
            seed = load_checkpoint(cfg.load_from, trust_checkpoint)['meta'].get('seed')
            cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': seed}
        runner: DetRunner = super().from_cfg(cfg)
        runner.trust_checkpoint = trust_checkpoint
        if resume and is_main_process():
            remove_temp_files(runner.work_dir)
        if runner.world_size == 1 and get_device() == 'cpu':
            notes.append(note_busy_cores())
        for note in filter(None, notes):
            runner.logger.warning(note)
        return runner

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Check the cards and join the other processes; then as MMEngine."""
        check_cards()
        if self.distributed and not is_distributed():
            start_process_group(self.launcher, **env_cfg.get('dist_cfg', {}))
        super().setup_env(env_cfg)

    @config_context('randomness')
    def set_randomness(
        self, seed: int | None = None, diff_rank_seed: bool = False, deterministic: bool = False
    ) -> None:
        """Seed every generator; `deterministic` warns about operations that are not instead of stopping."""
        if deterministic:
            os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
        super().set_randomness(seed, diff_rank_seed, deterministic)
        if deterministic:  # the gradient of grid_sample has no deterministic form on CUDA
            torch.use_deterministic_algorithms(True, warn_only=True)

    @config_context('model')
    def build_model(self, model: nn.Module | dict[str, Any]) -> nn.Module:
        """Build a model depth first, see `mmdet.registry`."""
        return model if isinstance(model, nn.Module) else MODELS.build(model)

    # MMEngine's own; an error in here says which part of the config it is of
    build_optim_wrapper = config_context('optim_wrapper')(Runner.build_optim_wrapper)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None) -> None:
        """Scale learning rates where the config says so; note those of the config for a resumed run."""
        note_rates(optim_wrapper)
        super().scale_lr(optim_wrapper, auto_scale_lr)

    @config_context('param_scheduler')
    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build the schedules, and warn of a warm-up that the training does not get over."""
        schedules = super().build_param_scheduler(scheduler)
        for note in warm_up_notes(schedules, self.train_loop.max_iters):
            self.logger.warning(note)
        return schedules

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Register the hooks of a run by name; None leaves one out, also one that MMEngine does not know."""
        given = (hooks or {}).items()
        super().register_default_hooks(
            {name: hook for name, hook in given if hook is not None or name in MMENGINE_HOOKS}
        )

    def register_hook(self, hook: Any, priority: Any = None) -> None:
        """Build a hook and put it where its priority says, as MMEngine."""
        name = hook.get('type') if isinstance(hook, dict) else type(hook).__name__
        with config_context(f'the hook {name}'):
            super().register_hook(hook, priority)

    @config_context('log_level')
    def build_logger(
        self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any
    ) -> MMLogger:
        """Build a text log; one that cannot be written costs one warning."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        warn_of_lost_lines(logger)
        keep_long_texts_off_the_console(logger)
        # of loops that sum gradients across epochs; `TrainLoop` loses none
        logger.addFilter(lambda record: 'Resumed iteration number is not divisible' not in str(record.msg))
        return logger

    @config_context('visualizer')
    def build_visualizer(self, visualizer: Visualizer | dict[str, Any] | None = None) -> Visualizer:
        """Write scalars to a JSON file, and to TensorBoard when it is installed; or where a config says."""
        if not isinstance(visualizer, Visualizer):
            names = ['LocalVisBackend', 'TensorboardVisBackend']
            usual = names[: 1 + bool(importlib.util.find_spec('tensorboard'))]
            backends = [{'type': name} for name in usual]
            visualizer = {'type': LogVisualizer, 'vis_backends': backends, **(visualizer or {})}
        return super().build_visualizer(visualizer)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap a model for several processes, on GPUs or on CPUs.

        Buffers are not broadcast: each process keeps its own BatchNorm statistics and the main one's are
        saved. `channels_last=True` in the config lays the weights out so; feature maps follow.
        `find_unused_parameters=True` is for parameters that no loss of a step depends on.

        Raises:
            ValueError: `sync_bn` in the config, and a batch norm that it would spoil.
        """
        if self.cfg.get('channels_last'):
            model = model.to(memory_format=torch.channels_last)
        if self.distributed and self.cfg.get('sync_bn'):
            _check_sync_bn(model)
        if self.distributed and not is_model_wrapper(model):
            on_gpu = get_device() == 'cuda'
            newer = 'forward_sync_buffers' in inspect.signature(DistributedDataParallel).parameters
            model_wrapper_cfg = {
                'type': 'mmengine.MMDistributedDataParallel',
                'device_ids': [torch.cuda.current_device()] if on_gpu else None,
                'forward_sync_buffers' if newer else 'broadcast_buffers': False,  # renamed in torch
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
                'gradient_as_bucket_view': True,  # no second copy of all gradients
                **(model_wrapper_cfg or {}),
            }
        return super().wrap_model(model_wrapper_cfg, model)

    build_dataloader = staticmethod(build_dataloader)

    def _init_model_weights(self) -> None:
        """Give a model the weights that training starts from, unless a checkpoint is going to fill it."""
        if self._load_from is None:
            super()._init_model_weights()

    def _maybe_compile(self, target: str) -> None:
        """Compile the network where the config says so; MMEngine would compile the whole step."""
        settings = self.cfg.get('compile')
        if settings:
            reason = compile_network(unwrap_model(self.model), **({} if settings is True else settings))
            if reason is None:
                self.logger.info('the network is compiled in its first step, which takes a while')
            else:
                self.logger.warning(f'the network is not compiled, training goes on without: {reason}')

    def load_checkpoint(self, filename: str, **_: Any) -> dict[str, Any]:
        """Load all weights of the model from a file that fits it exactly; the model converts older names.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is of another model or other classes, damaged, or not safe to read.
        """
        checkpoint = load_checkpoint(filename, self.trust_checkpoint)
        names = checkpoint_classes(checkpoint)
        for loop in (self._train_loop, self._val_loop, self._test_loop):
            if names is not None and isinstance(loop, BaseLoop):
                dataset = loop.dataloader.dataset
                data_names = getattr(dataset, 'metainfo', {}).get('classes', names)
                check_classes(data_names, getattr(dataset, 'ann_file', 'the data set'), names, filename)
        if told := explain_input_size(self.cfg, checkpoint['meta'].get('input_size'), filename):
            self.logger.warning(told)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        load_weights(unwrap_model(self.model), checkpoint['state_dict'], filename)
        self._has_loaded = True
        self.logger.info(f'loaded {filename}')
        return checkpoint

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        *,
        save_optimizer: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
        **_: Any,
    ) -> None:
        """Write a checkpoint whole or not at all, and none that is not finite; every process must call it.

        Gradients are not saved: a run that is resumed is the same bit for bit where it is called after a step
        of the optimizer, `runner.optim_wrapper.should_update()`.

        Args:
            out_dir: A local folder.
            filename: In it.
            save_optimizer: Whether to save what resuming needs, too.
            meta: Further entries; `epoch` and `iter` count what is complete.
            by_epoch: Whether it is called at the end of an epoch rather than of an iteration, when `meta`
                does not say.

        Raises:
            FloatingPointError: It holds NaN or infinite numbers; names a good checkpoint.
        """
        counts = {'epoch': self.epoch + by_epoch, 'iter': self.iter + (not by_epoch), **(meta or {})}
        loop = self.train_loop
        checkpoint: dict[str, Any] = {
            'meta': {
                **counts,
                **progress_of(loop, counts['epoch'], counts['iter']),
                'seed': self.seed,
                'dataset_meta': getattr(loop.dataloader.dataset, 'metainfo', {}),
                'input_size': input_size(self.cfg),
                'cfg': self.cfg.pretty_text,
                'version': __version__,
                'time': time.strftime('%Y-%m-%d %H:%M:%S'),
            },
            'state_dict': unwrap_model(self.model).state_dict(),
        }
        if save_optimizer:
            checkpoint |= training_state(self.optim_wrapper, self.param_schedulers or ())
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        path = Path(out_dir) / filename
        refuse_not_finite(checkpoint, path)
        if is_main_process():
            save_checkpoint(checkpoint, path)

    def load_or_resume(self) -> None:
        """Resume, or load `load_from`, and make sure that all processes begin at the same step.

        A new training takes of `load_from` what fits; for a test everything must.

        Raises:
            ValueError: They do not; or nothing fits.
        """
        if self._load_from and not self._resume and isinstance(self._train_loop, BaseLoop):
            checkpoint = load_checkpoint(self._load_from, self.trust_checkpoint)
            start_from(unwrap_model(self.model), checkpoint, self._load_from, super()._init_model_weights)
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
            self._has_loaded = True
        super().load_or_resume()
        starts = [int(value) for value in all_gather(torch.tensor(self.iter))]
        if len(set(starts)) > 1:
            raise ValueError(
                f'the processes begin after {", ".join(map(str, starts))} iterations: they found different '
                f'checkpoints in {self.work_dir}, which has to be on a file system that all machines share'
            )

    def resume(self, filename: str, **_: Any) -> None:
        """Go on where a checkpoint of this runner was written, also inside an epoch.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: As `load_checkpoint`, or it holds weights only.
        """
        checkpoint = self.load_checkpoint(filename)
        check_resumable(checkpoint, filename)
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        scale_lr = self.cfg.get('auto_scale_lr', {}).get('enable', False)
        loop = self.train_loop
        for note in restore_training(
            checkpoint, loop, self.optim_wrapper, self.param_schedulers or (), scale_lr
        ):
            self.logger.warning(note)
        self.logger.info(
            f'resumed after {loop.epoch} epochs and {loop.batch} batches, {loop.iter} iterations'
        )


def _check_sync_bn(model: nn.Module) -> None:
    """Refuse a batch norm that does more, as timm's with its activation: MMEngine puts a bare one there.

    Raises:
        ValueError: There is one; names it.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm) and not type(layer).__module__.startswith('torch.'):
            raise ValueError(
                f'sync_bn would replace {name}, a {type(layer).__name__}, by a bare one: leave sync_bn out, '
                "--cfg-options sync_bn=None, or take a classifier of torchvision, an arch without 'timm/'"
            )

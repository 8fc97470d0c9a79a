"""The only class that corrects MMEngine.

MMEngine 0.10 loads checkpoints that do not fit, runs Python text that it finds in them, falls back to full
unpickling, writes them in place, forgets the random number generators and the batch within the epoch, and
cannot start several processes without GPUs.
"""

import copy
import importlib.util
import inspect
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather, get_rank, get_world_size, is_distributed, is_main_process
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from mmdet.checkpoint.io import (
    check_writable,
    checkpoint_classes,
    load_checkpoint,
    load_weights,
    remove_temp_files,
    save_checkpoint,
)
from mmdet.checkpoint.rng import get_rng_state, set_rng_state
from mmdet.config.check import MMENGINE_HOOKS, config_context
from mmdet.config.resolve import CachedConfig, check_classes
from mmdet.datasets.collate import init_worker
from mmdet.distributed.heartbeat import record_position
from mmdet.distributed.launch import check_cards, start_process_group
from mmdet.distributed.signals import block_signals
from mmdet.engine.compile import compile_network
from mmdet.engine.logs import LogVisualizer, tell_unwritten_lines
from mmdet.engine.nonfinite import refuse_not_finite
from mmdet.engine.state import check_resumable, choose_checkpoint
from mmdet.registry import COLLATES, DATA_SAMPLERS, DATASETS, MODELS
from mmdet.version import __version__

# What a schedule has done so far; what it is going to do is in the config, which may train for longer now.
PROGRESS = ('base_values', 'last_step', '_global_step', '_last_value', 'best', 'num_bad_epochs')


class DetRunner(Runner):
    """MMEngine's Runner, corrected; made from a resolved config with `from_cfg`."""

    optim_wrapper: OptimWrapper  # a config until training begins
    trust_checkpoint = False

    @classmethod
    def from_cfg(cls, cfg: Config, trust_checkpoint: bool = False) -> 'DetRunner':
        """Build what a resolved config describes.

        `resume=True` goes on from `load_from` or else from the newest whole checkpoint in `work_dir`, with
        the seed of that run; where there is no checkpoint training starts from the beginning. Files that a
        killed run has left half written in `work_dir` are removed.

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
        resumed = cfg.get('resume', False)
        skipped: list[str] = []
        if resumed and cfg.get('load_from') is None:
            trust_checkpoint = False
            chosen, skipped = choose_checkpoint(cfg.work_dir)
            cfg.load_from = None if chosen is None else str(chosen)
            cfg.resume = chosen is not None
        if cfg.get('resume', False):
            seed = load_checkpoint(cfg.load_from, trust_checkpoint)['meta'].get('seed')
            cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': seed}
        runner: DetRunner = super().from_cfg(cfg)
        runner.trust_checkpoint = trust_checkpoint
        if resumed and is_main_process():
            remove_temp_files(runner.work_dir)
        for reason in skipped:
            runner.logger.warning(f'skipped {reason}')
        if resumed and not cfg.resume:
            runner.logger.warning(f'nothing to resume in {cfg.work_dir}: training starts from the beginning')
        return runner

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Check the cards and join the other processes; then as MMEngine."""
        check_cards()
        if self.distributed and not is_distributed():
            start_process_group(self.launcher, **env_cfg.get('dist_cfg', {}))
        super().setup_env(env_cfg)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """As MMEngine; among several processes each tells where it is, see `mmdet.distributed.heartbeat`."""
        record_position(f'in iteration {self.iter + 1} ({fn_name})')
        super().call_hook(fn_name, **kwargs)

    def set_randomness(
        self, seed: int | None = None, diff_rank_seed: bool = False, deterministic: bool = False
    ) -> None:
        """Seed every generator; `deterministic` warns about operations that are not instead of stopping."""
        if deterministic:
            os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
        with config_context('randomness'):
            super().set_randomness(seed, diff_rank_seed, deterministic)
        if deterministic:  # the gradient of grid_sample has no deterministic form on CUDA
            torch.use_deterministic_algorithms(True, warn_only=True)

    def build_model(self, model: nn.Module | dict[str, Any]) -> nn.Module:
        """Build a model depth first, see `mmdet.registry`."""
        with config_context('model'):
            return model if isinstance(model, nn.Module) else MODELS.build(model)

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        """As MMEngine."""
        with config_context('optim_wrapper'):
            return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """As MMEngine."""
        with config_context('param_scheduler'):
            return super().build_param_scheduler(scheduler)

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """As MMEngine; None leaves out any hook, also one whose name MMEngine does not know."""
        hooks = hooks or {}
        super().register_default_hooks(
            {name: hook for name, hook in hooks.items() if hook is not None or name in MMENGINE_HOOKS}
        )

    def register_hook(self, hook: Any, priority: Any = None) -> None:
        """As MMEngine."""
        name = hook.get('type') if isinstance(hook, dict) else type(hook).__name__
        with config_context(f'the hook {name}'):
            super().register_hook(hook, priority)

    def build_logger(
        self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any
    ) -> MMLogger:
        """As MMEngine; a text log that cannot be written costs one warning."""
        with config_context('log_level'):
            logger = super().build_logger(log_level, log_file, **kwargs)
        tell_unwritten_lines(logger)
        return logger

    def build_visualizer(self, visualizer: Visualizer | dict[str, Any] | None = None) -> Visualizer:
        """Scalars go to a JSON file, and to TensorBoard when it is installed."""
        if visualizer is None:
            names = ['LocalVisBackend']
            if importlib.util.find_spec('tensorboard'):
                names.append('TensorboardVisBackend')
            return LogVisualizer.get_instance(
                self._experiment_name,
                vis_backends=[{'type': f'mmengine.{name}'} for name in names],
                save_dir=self._log_dir,
            )
        return super().build_visualizer(visualizer)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap a model for several processes, on GPUs or on CPUs.

        Buffers are not broadcast: each process keeps its own BatchNorm statistics and the main one's are
        saved. `channels_last=True` in the config lays the weights out so; feature maps follow.
        """
        if self.cfg.get('channels_last'):
            model = model.to(memory_format=torch.channels_last)
        if self.distributed and not is_model_wrapper(model):
            on_gpu = get_device() == 'cuda'
            newer = 'forward_sync_buffers' in inspect.signature(DistributedDataParallel).parameters
            model_wrapper_cfg = {
                'type': 'mmengine.MMDistributedDataParallel',
                'device_ids': [torch.cuda.current_device()] if on_gpu else None,
                'forward_sync_buffers' if newer else 'broadcast_buffers': False,  # renamed in torch
                'find_unused_parameters': False,
                'gradient_as_bucket_view': True,  # no second copy of all gradients
                **(model_wrapper_cfg or {}),
            }
        return super().wrap_model(model_wrapper_cfg, model)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict[str, Any], seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a loader and its parts; the seed goes to the data set and to the sampler.

        Args:
            dataloader: `dataset`, `sampler`, `collate_fn` (a name in COLLATES and its keywords) and what
                torch's DataLoader takes. Without workers `persistent_workers` and `prefetch_factor` are
                dropped; memory is pinned where there is a GPU, unless `pin_memory` is False.
            seed: Of this run.
            diff_rank_seed: Whether `seed` has the rank added to it; data need one for all processes.

        Raises:
            KeyError: Unknown collate function.
            TypeError: Unknown key.
        """
        if isinstance(dataloader, DataLoader):
            return dataloader
        settings = dict(copy.deepcopy(dataloader))
        seed = (seed or 0) - (get_rank() if diff_rank_seed else 0)
        dataset = DATASETS.build({'seed': seed, **settings.pop('dataset')})
        if not settings.get('num_workers'):
            for key in ('persistent_workers', 'prefetch_factor'):
                settings.pop(key, None)
        settings['pin_memory'] = settings.get('pin_memory', True) and torch.cuda.is_available()
        # its own generator, so that a new iterator does not move the model's random numbers
        generator = torch.Generator().manual_seed(seed)
        with config_context(f'the data loader of {getattr(dataset, "ann_file", "this data set")}'):
            sampler = DATA_SAMPLERS.build({'seed': seed, 'dataset': dataset, **settings.pop('sampler')})
            return _Loader(
                dataset,
                sampler=sampler,
                collate_fn=_collate_fn(settings.pop('collate_fn', {'type': 'default_collate'})),
                worker_init_fn=init_worker,
                generator=generator,
                **settings,
            )

    def _init_model_weights(self) -> None:
        """Give a model the weights that training starts from, unless a checkpoint is going to fill it."""
        if self._load_from is None:
            super()._init_model_weights()

    def _maybe_compile(self, target: str) -> None:
        """Compile the network where the config says so; MMEngine would compile the whole step."""
        settings = self.cfg.get('compile')
        if settings:
            reason = compile_network(self._plain_model, **({} if settings is True else settings))
            if reason is None:
                self.logger.info('the network is compiled in its first step, which takes a while')
            else:
                self.logger.warning(f'the network is not compiled, training goes on without: {reason}')

    @property
    def _plain_model(self) -> nn.Module:
        return self.model.module if is_model_wrapper(self.model) else self.model

    def load_checkpoint(
        self,
        filename: str,
        map_location: str = 'cpu',
        strict: bool = True,
        revise_keys: list[tuple[str, str]] | None = None,
    ) -> dict[str, Any]:
        """Load all weights of the model from a file that fits it exactly.

        Args:
            filename: The file.
            map_location: Ignored: weights are read to the CPU and copied.
            strict: Ignored: always.
            revise_keys: Ignored: the model converts older names itself.

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
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        load_weights(self._plain_model, checkpoint['state_dict'], filename)
        self._has_loaded = True
        self.logger.info(f'loaded {filename}')
        return checkpoint

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict[str, Any] | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint whole or not at all, and none that is not finite; every process must call it.

        Args:
            out_dir: A local folder.
            filename: In it.
            file_client_args: Not supported.
            save_optimizer: Whether to save what resuming needs, too.
            save_param_scheduler: As `save_optimizer`, for the schedules.
            meta: Further entries; `epoch` and `iter` count what is complete.
            by_epoch: Whether it is called at the end of an epoch rather than of an iteration, when `meta`
                does not say.
            backend_args: Not supported.

        Raises:
            FloatingPointError: It holds NaN or infinite numbers; names a good checkpoint.
        """
        loop = self.train_loop
        meta = dict(meta or {})
        meta.setdefault('epoch', self.epoch + int(by_epoch))
        meta.setdefault('iter', self.iter + int(not by_epoch))
        inside = meta['epoch'] == loop.epoch
        metainfo = getattr(loop.dataloader.dataset, 'metainfo', {})
        steps = meta['iter'] - loop.iter  # one that is just ending is not counted yet
        meta.update(
            batch_in_epoch=loop.batch + steps if inside else 0,
            samples_in_epoch=loop.samples + steps * loop.samples_per_step if inside else 0,
            samples_per_step=loop.samples_per_step,
            skipped_steps=loop.skipped,
            seed=self.seed,
            dataset_meta=metainfo,
            cfg=self.cfg.pretty_text,
            version=__version__,
            time=time.strftime('%Y-%m-%d %H:%M:%S'),
        )
        checkpoint: dict[str, Any] = {'meta': meta, 'state_dict': self._plain_model.state_dict()}
        if save_optimizer:
            checkpoint['optimizer'] = self.optim_wrapper.state_dict()
            checkpoint['rng'] = _gather_rng()
            checkpoint['gradients'] = self._gather_gradients()
        if save_param_scheduler:
            checkpoint['param_schedulers'] = [
                {key: value for key, value in schedule.state_dict().items() if key in PROGRESS}
                for schedule in self.param_schedulers or ()
            ]
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        path = Path(out_dir) / filename
        refuse_not_finite(checkpoint, path)
        if is_main_process():
            save_checkpoint(checkpoint, path)

    def load_or_resume(self) -> None:
        """As MMEngine, and make sure that all processes begin at the same step.

        Raises:
            ValueError: They do not.
        """
        super().load_or_resume()
        starts = [int(value) for value in all_gather(torch.tensor(self.iter))]
        for rank, start in enumerate(starts):
            if start != starts[0]:
                raise ValueError(
                    f'process {rank} begins after {start} iterations, process 0 after {starts[0]}: they '
                    f'found different checkpoints in {self.work_dir}, which has to be on a file system that '
                    'all machines share'
                )

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str = 'cpu',
    ) -> None:
        """Go on where a checkpoint was written, also inside an epoch.

        Args:
            filename: A checkpoint of this runner.
            resume_optimizer: Ignored: always.
            resume_param_scheduler: Ignored: always.
            map_location: Ignored, see `load_checkpoint`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: As `load_checkpoint`, or it holds weights only.
        """
        checkpoint = self.load_checkpoint(filename)
        check_resumable(checkpoint, filename)
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        self.optim_wrapper.load_state_dict(checkpoint['optimizer'])
        for schedule, state in zip(self.param_schedulers or (), checkpoint['param_schedulers'], strict=True):
            schedule.load_state_dict(state)
        self._resume_position(checkpoint['meta'])
        rank, states = get_rank(), checkpoint['rng']
        if len(states) == get_world_size():
            set_rng_state(states[rank])
            self._restore_gradients(checkpoint.get('gradients', []), rank)
        else:
            self.logger.warning(
                f'{filename} was written by {len(states)} processes: random numbers, and gradients that are '
                'summed over several steps, start anew'
            )
        loop = self.train_loop
        self.logger.info(
            f'resumed after {loop.epoch} epochs and {loop.batch} batches, {loop.iter} iterations'
        )

    def _resume_position(self, meta: dict[str, Any]) -> None:
        loop = self.train_loop
        earlier = meta['samples_per_step']
        loop.skipped = meta.get('skipped_steps', 0)
        loop.set_progress(
            meta['epoch'], meta['iter'], meta.get('samples_in_epoch', meta['batch_in_epoch'] * earlier)
        )
        if earlier != loop.samples_per_step:
            factor = loop.samples_per_step / earlier if self.cfg.get('auto_scale_lr', {}).get('enable') else 1
            self._scale_rates(factor)
            self.logger.warning(
                f'the checkpoint counts steps of {earlier} images, this run has {loop.samples_per_step} '
                '(batch size x processes): it goes on at the same image, not bit for bit, with the '
                f"checkpoint's learning rate x {factor:g}"
                + ('' if factor != 1 else ' (--auto-scale-lr scales it with the images of a step)')
            )

    def _scale_rates(self, factor: float) -> None:
        """Multiply the learning rates that a checkpoint has restored, and what schedules make them from."""
        for group in self.optim_wrapper.param_groups:
            for name in ('lr', 'initial_lr'):
                if name in group:
                    group[name] *= factor
        for schedule in self.param_schedulers or ():
            if schedule.param_name == 'lr':
                schedule.base_values = [value * factor for value in schedule.base_values]

    def _gather_gradients(self) -> list[list[torch.Tensor | None]]:
        """Of every process what it has summed for a step of the optimizer that is yet to come."""
        if self.optim_wrapper.should_update():
            return []
        own = [parameter.grad for parameter in self._plain_model.parameters()]
        rows: list[list[torch.Tensor | None]] = [[] for _ in range(get_world_size())]
        for gradient in own:  # one after the other: they need not be on the device all at once
            parts = [None] * len(rows) if gradient is None else all_gather(gradient)
            for row, part in zip(rows, parts, strict=True):
                row.append(None if part is None else part.cpu())
        return rows

    def _restore_gradients(self, rows: list[list[torch.Tensor | None]], rank: int) -> None:
        if rows:
            for parameter, gradient in zip(self._plain_model.parameters(), rows[rank], strict=True):
                parameter.grad = None if gradient is None else gradient.to(parameter.device)


class _Loader(DataLoader):
    """Workers are born deaf to signals, until `init_worker` tells them whom to obey."""

    def __iter__(self) -> Any:
        with block_signals():
            return super().__iter__()


def _collate_fn(settings: dict[str, Any]) -> partial[Any]:
    keywords = dict(settings)
    name = keywords.pop('type')
    function = COLLATES.get(name) if isinstance(name, str) else name
    if function is None:
        raise KeyError(f'collate_fn {name} is not one of {", ".join(COLLATES.module_dict)}')
    try:
        inspect.signature(function).bind(None, **keywords)
    except TypeError as error:
        raise TypeError(f'config of {name}: {error}') from error
    return partial(function, **keywords)


def _gather_rng() -> list[dict[str, torch.Tensor]]:
    """The state of the random number generators of every process."""
    states = {name: all_gather(state) for name, state in get_rng_state().items()}
    return [dict(zip(states, values, strict=True)) for values in zip(*states.values(), strict=True)]

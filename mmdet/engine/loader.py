"""Build the data loaders of a run."""

import copy
from typing import Any

import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader

from mmdet.config.check import config_context
from mmdet.datasets.collate import build_collate
from mmdet.datasets.samplers import DetSampler
from mmdet.datasets.worker import init_worker
from mmdet.distributed.signals import block_signals
from mmdet.registry import DATA_SAMPLERS, DATASETS


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
        TypeError: Unknown key.
    """
    if isinstance(dataloader, DataLoader):
        return dataloader
    settings = dict(copy.deepcopy(dataloader))
    seed = (seed or 0) - (get_rank() if diff_rank_seed else 0)
    dataset = DATASETS.build({'seed': seed, **settings.pop('dataset')})
    if not settings.get('num_workers'):
        settings.pop('persistent_workers', None)
        settings.pop('prefetch_factor', None)
    settings['pin_memory'] = settings.get('pin_memory', True) and torch.cuda.is_available()
    settings['collate_fn'] = build_collate(settings)
    with config_context(f'the data loader of {getattr(dataset, "ann_file", "this data set")}'):
        sampler = DATA_SAMPLERS.build({'seed': seed, 'dataset': dataset, **settings.pop('sampler')})
        if isinstance(sampler, DetSampler) and not settings.get('drop_last'):
            sampler.batch_size = settings.get('batch_size', 1)
        return _Loader(
            dataset,
            sampler=sampler,
            worker_init_fn=init_worker,
            # its own, so that a new iterator does not move the model's random numbers
            generator=torch.Generator().manual_seed(seed),
            **settings,
        )


class _Loader(DataLoader):
    """Load data in workers that ignore SIGTERM and SIGINT, see `block_signals`."""

    def __iter__(self) -> Any:
        with block_signals():
            return super().__iter__()

"""Which image comes when, and with which random numbers.

World processes read one global order: position p belongs to process p mod world.
"""

from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from mmdet.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class DetSampler(Sampler[tuple[int, int]]):
    """Yields (index, draw): which image, and the number that its random numbers are made from.

    draw = epoch * length + position in the global order, with length = times * len(dataset). Order and
    draws are functions of the seed and the epoch alone, the same for any number of processes; so resuming
    needs only the epoch and an offset.

    Args:
        dataset: What is read.
        shuffle: A new order in each pass through the set; else the set's own order.
        seed: The same in all processes.
        times: How often an epoch goes through the set.
        round_up: Every process gets equally many samples (DDP needs that), by repeating the first few of
            the epoch; else each sample comes exactly once, as evaluation needs it. By default as `shuffle`.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int = 0,
        times: int = 1,
        round_up: bool | None = None,
    ) -> None:
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = seed
        self.times = times
        self.round_up = shuffle if round_up is None else round_up
        self.rank, self.world_size = get_dist_info()
        self.epoch = 0
        self.offset = 0

    @property
    def length(self) -> int:
        """Samples of one epoch over all processes, the repeated ones not counted."""
        return self.times * len(self.dataset)

    def __len__(self) -> int:
        """Samples of a whole epoch in this process, whatever the offset."""
        rounding = self.world_size - 1 if self.round_up else self.world_size - 1 - self.rank
        return (self.length + rounding) // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        offset, self.offset = self.offset, 0
        count = len(self.dataset)
        rng = np.random.default_rng([self.seed, self.epoch])
        passes = [rng.permutation(count) if self.shuffle else np.arange(count) for _ in range(self.times)]
        order = np.concatenate(passes)
        positions = (self.rank + self.world_size * np.arange(offset, len(self))) % self.length
        draws = self.epoch * self.length + positions
        return zip(order[positions].tolist(), draws.tolist(), strict=True)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def set_offset(self, offset: int) -> None:
        """Leave out the first samples of this process in the next pass, and in that one only.

        Args:
            offset: Samples of this epoch that this process has consumed before it stopped.
        """
        self.offset = offset

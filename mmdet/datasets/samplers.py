"""Order the samples of an epoch, shuffled and shared among processes.

World processes read one global order: position p, counted from where they begin, belongs to process
p mod world.
M images · B objects of all images
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info
from numpy.typing import NDArray
from torch.utils.data import Sampler

from mmdet.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class DetSampler(Sampler[tuple[int, int]]):
    """Yield (index, draw): a row of the data set, and the number that seeds the augmentation.

    draw = epoch * length + position in the global order, with length = times * images of a pass. Order and
    draws are functions of the seed and the epoch alone, the same for any number of processes; so resuming
    needs only the epoch and an offset.

    Attributes:
        batch_size: Of the loader, which sets it where the last batch of an epoch may be smaller; else 1. With
            `round_up`, a single image in that batch, too few for batch norm, gets a second one.

    Args:
        dataset: What is read; asked for its `objects()` (see CocoDataset) when images are repeated.
        shuffle: A new order in each pass through the set; else the set's own order.
        seed: The same in all processes.
        times: How often an epoch goes through the set.
        round_up: Every process gets equally many samples (DDP needs that), by repeating the first few of
            the epoch; else each sample comes exactly once, as evaluation needs it. By default as `shuffle`.
        repeat_thr: Share of the images: those with a class that fewer hold come several times in a pass, see
            `repeat_factors`. The fraction of a factor is drawn once from the seed, so all epochs are equally
            long. None: each image comes once.
        group_size: Tall images and others come in runs of so many, so that a batch that keeps their shape has
            little padding: a multiple of the images that all processes together take per step. 1: no runs.

    Raises:
        ValueError: `repeat_thr` is not a share, or `times` or `group_size` not a whole number from 1 on.
    """

    def __init__(
        self,
        dataset: Any,
        shuffle: bool = True,
        seed: int = 0,
        times: int = 1,
        round_up: bool | None = None,
        repeat_thr: float | None = None,
        group_size: int = 1,
    ) -> None:
        for name, value in (('times', times), ('group_size', group_size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'{name} is a whole number from 1 on; got {value!r}')
        if repeat_thr is not None and not 0 < repeat_thr <= 1:
            raise ValueError(f'repeat_thr is a share of the images, above 0 and up to 1; got {repeat_thr!r}')
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = seed
        self.times = times
        self.round_up = shuffle if round_up is None else round_up
        self.group_size = group_size
        self.rank, self.world_size = get_dist_info()
        self.batch_size = 1
        self.epoch = 0
        self.offset = 0
        self.images = np.arange(len(dataset))  # of one pass
        if repeat_thr is not None:
            labels, images = dataset.objects()
            factors = repeat_factors(labels, images, len(dataset), repeat_thr)
            chance = np.random.default_rng([seed, 0, 1]).random(len(dataset))  # a stream that no epoch uses
            self.images = np.repeat(self.images, np.floor(factors + chance).astype(np.int64))

    @property
    def length(self) -> int:
        """Count the samples of one epoch over all processes, without those that round it up."""
        return self.times * len(self.images)

    @property
    def times_shown(self) -> NDArray[np.int64]:
        """Count how often each image comes in an epoch: (M,)."""
        return self.times * np.bincount(self.images, minlength=len(self.dataset))

    def __len__(self) -> int:
        """Count the samples of a whole epoch in this process, whatever the offset."""
        return self._share(self.length)

    def _share(self, samples: int) -> int:
        """Count the samples that this process gets of so many."""
        rounding = self.world_size - 1 if self.round_up else self.world_size - 1 - self.rank
        share = max(samples + rounding, 0) // self.world_size
        return share + (self.round_up and share % self.batch_size == 1)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        offset, self.offset = self.offset, 0
        rng = np.random.default_rng([self.seed, self.epoch])
        passes = [rng.permutation(self.images) if self.shuffle else self.images for _ in range(self.times)]
        order = np.concatenate(passes)
        if self.group_size > 1:
            height, width = self.dataset.sizes.T
            order = order[group_in_runs((height > width)[order], self.group_size)]
        count = self._share(self.length - offset)
        positions = (offset + self.rank + self.world_size * np.arange(count)) % self.length
        draws = self.epoch * self.length + positions
        return zip(order[positions].tolist(), draws.tolist(), strict=True)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def set_offset(self, offset: int) -> int:
        """Skip the first samples of the next pass, and of that one only.

        Args:
            offset: Samples of this epoch that all processes together, of whatever number, have consumed.

        Returns:
            How many of the others come to this process.
        """
        self.offset = min(offset, self.length)
        return self._share(self.length - self.offset)


def group_in_runs(tall: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """Reorder samples so that runs of `size` are all tall or all not; each run stands where it is complete.

    The last samples of either kind, too few for a run, stand at the end.

    tall (B,) · returns (B,) positions
    """
    complete = np.empty(len(tall), np.int64)  # position at which the run of each sample is complete
    for kind in (False, True):
        places = np.flatnonzero(tall == kind)
        full = len(places) // size * size
        complete[places[:full]] = places[size - 1 : full : size].repeat(size)
        complete[places[full:]] = len(tall) + kind
    return np.argsort(complete, kind='stable')


def repeat_factors(
    labels: NDArray[np.int64], images: NDArray[np.int64], count: int, threshold: float
) -> NDArray[np.float64]:
    """Compute how often an image is shown, so that rare classes are seen more often.

    A class that the share f of the images holds asks for max(1, sqrt(threshold / f)), an image gets the most
    that one of its classes asks for. Section 4 of LVIS, arXiv 1908.03195.

    labels (B,) · images (B,) row of each object's image in [0, count) · returns (count,) from 1 on
    """
    factors = np.ones(count)
    image, label = np.unique(np.stack([images, labels]), axis=1)  # each class once per image
    held = np.bincount(label) / count  # (K,) share of the images that hold a class
    np.maximum.at(factors, image, np.sqrt(threshold / held[label]))
    return factors

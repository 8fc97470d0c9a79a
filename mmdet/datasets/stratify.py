"""Divide a data set so that every part has its share of every class.

S splits · C classes
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratify(amounts: NDArray[np.int64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Choose a split for each group of images, so that each split gets its share of every class.

    Iterative stratification (Sechidis et al. 2011): groups with rare classes first, at random among equals,
    each to the split that lacks most of the group's rarest class.

    amounts (groups, C + 1) images of a group that hold each class, and all its images · shares (S,), sum 1
    returns (groups,) in [0, S)
    """
    held = amounts > 0
    holders = held.sum(0)  # (C + 1,) groups that hold a class
    rarest = np.where(held, holders, len(held) + 1).argmin(1)  # (groups,) C where there is no object
    order = np.random.default_rng(seed).permutation(len(held))
    missing = np.outer(shares, amounts.sum(0))  # (S, C + 1)
    splits = np.zeros(len(held), np.int64)
    for row in order[holders[rarest[order]].argsort(kind='stable')]:
        lack = missing[:, [rarest[row], -1]]
        splits[row] = max(range(len(shares)), key=lambda split: tuple(lack[split]))
        missing[splits[row]] -= amounts[row]
    return splits

"""Find photos that show nearly the same: frames of one scene, copies, other sizes or qualities.

N photos
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mmdet.datasets.transforms import BadImageError, read_image

SIDE = 16  # of the hash in pixels: with 8, photos of textures are taken for one another
MAX_DISTANCE = 20  # of 256 bits may differ between photos that are alike
ONES = np.array([number.bit_count() for number in range(256)], np.uint8)


def photo_hash(file: Path) -> NDArray[np.uint8]:
    """Compute the difference hash of a photo: is each of 16 x 16 gray pixels darker than the next?

    Returns:
        (32,) 256 bits, eight a byte. Photos that show the same differ in few.

    Raises:
        BadImageError: The file cannot be read; names it.
    """
    try:
        gray = cv2.cvtColor(read_image(file), cv2.COLOR_BGR2GRAY)
    except BadImageError as error:
        raise BadImageError(f'{file}: {error}') from error
    small = cv2.resize(gray, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1])


def group_near_duplicates(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Group photos that are alike, also by way of others: a is like b and b like c.

    hashes (N, 32), from `photo_hash` · returns (N,), for each photo the row of the first one of its group
    """
    group = np.full(len(hashes), -1)
    for first in range(len(hashes)):
        if group[first] >= 0:
            continue
        waiting = [first]
        group[first] = first
        while waiting:
            distances = ONES[hashes ^ hashes[waiting.pop()]].sum(1)
            near = np.flatnonzero((group < 0) & (distances <= MAX_DISTANCE))
            group[near] = first
            waiting += near.tolist()
    return group

import numpy as np
import pytest

from mmdet.datasets.stratify import stratify


@pytest.mark.parametrize('seed', range(3))
def test_every_class_has_its_share_also_beside_others(seed):
    """Of 400 groups of one to three images half hold class 0, a quarter class 1, and 20 class 2."""
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 4, 400)
    held = np.stack([rng.random(400) < 0.5, rng.random(400) < 0.25, np.arange(400) % 20 == 0], 1)
    amounts = np.concatenate([held * images[:, None], images[:, None]], 1)
    splits = stratify(amounts, [0.7, 0.2, 0.1], seed)
    found = np.stack([amounts[splits == number].sum(0) for number in range(3)])
    expected = np.outer([0.7, 0.2, 0.1], amounts.sum(0))
    assert np.abs(found - expected)[:, :3].max() <= 3  # images of a group
    assert np.abs(found - expected)[:, 3].max() <= 0.03 * images.sum()


def test_the_rarest_class_goes_where_it_lacks_most():
    assert stratify(np.array([[6, 6], [3, 3], [1, 1]]), [0.7, 0.3], 0).tolist() in (
        [0, 1, 0],
        [0, 1, 1],
        [0, 0, 1],
    )

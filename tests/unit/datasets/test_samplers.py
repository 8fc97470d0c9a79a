"""The global order, and how processes share it."""

import numpy as np
import pytest

from mmdet.datasets import DetSampler, samplers
from mmdet.datasets.samplers import repeat_factors


@pytest.fixture
def in_process(monkeypatch):
    def build(rank, world_size, **kwargs):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda: (rank, world_size))
        return DetSampler(**kwargs)

    return build


def interleaved(parts):
    longest = max(len(part) for part in parts)
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def test_an_epoch_goes_through_the_set_as_often_as_asked():
    sampler = DetSampler(range(7), shuffle=True, seed=1, times=3)
    order = list(sampler)
    assert len(order) == len(sampler) == 21
    for first in (0, 7, 14):  # each pass is complete
        assert sorted(index for index, _ in order[first : first + 7]) == list(range(7))
    assert [draw for _, draw in order] == list(range(21))
    assert order[:7] != sorted(order[:7])


def test_draws_go_on_over_epochs_and_orders_differ():
    sampler = DetSampler(range(10), shuffle=True, seed=1, times=2)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert [draw for _, draw in second] == list(range(20, 40))
    assert [index for index, _ in first] != [index for index, _ in second]
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(DetSampler(range(10), shuffle=True, seed=2, times=2)) != first


@pytest.mark.parametrize('world_size', [1, 2, 3, 4, 7])
def test_same_global_order_for_any_number_of_processes(in_process, world_size):
    alone = DetSampler(range(10), shuffle=True, seed=3, times=2)
    alone.set_epoch(5)
    order = list(alone)
    parts = []
    for rank in range(world_size):
        sampler = in_process(rank, world_size, dataset=range(10), shuffle=True, seed=3, times=2)
        sampler.set_epoch(5)
        parts.append(list(sampler))
        assert len(parts[-1]) == len(sampler)
    assert len({len(part) for part in parts}) == 1
    together = interleaved(parts)
    assert together[:20] == order
    assert together[20:] == order[: len(together) - 20]  # the same samples again, not new ones


@pytest.mark.parametrize('world_size', [1, 2, 3, 8])
def test_evaluation_sees_each_image_once(in_process, world_size):
    parts = [
        list(in_process(rank, world_size, dataset=range(5), shuffle=False)) for rank in range(world_size)
    ]
    assert interleaved(parts) == [(i, i) for i in range(5)]
    for rank, part in enumerate(parts):
        assert len(in_process(rank, world_size, dataset=range(5), shuffle=False)) == len(part)


@pytest.mark.parametrize('world_size', [1, 3])
def test_resuming_in_the_middle_of_an_epoch(in_process, world_size):
    sampler = in_process(world_size - 1, world_size, dataset=range(10), shuffle=True, seed=3)
    sampler.set_epoch(2)
    order = list(sampler)
    resumed = in_process(world_size - 1, world_size, dataset=range(10), shuffle=True, seed=3)
    assert resumed.set_offset(2 * world_size) == len(order) - 2
    resumed.set_epoch(2)
    assert list(resumed) == order[2:]
    assert len(resumed) == len(order)
    assert list(resumed) == order  # once only


@pytest.mark.parametrize(('before', 'after'), [(1, 2), (2, 1), (2, 3), (3, 2), (1, 4)])
def test_other_processes_see_the_rest_of_an_epoch_once(in_process, before, after):
    """Wherever the first ones stopped; only to be equally many some samples come twice."""
    for length in (7, 10, 12):
        order = list(in_process(0, 1, dataset=range(length), shuffle=True, seed=3))
        for seen in range(0, length + before, before):
            parts = []
            for rank in range(after):
                sampler = in_process(rank, after, dataset=range(length), shuffle=True, seed=3)
                count = sampler.set_offset(seen)
                parts.append(list(sampler))
                assert len(parts[-1]) == count
            rest = interleaved(parts)
            assert rest[: max(length - seen, 0)] == order[seen:]
            assert len(rest) - max(length - seen, 0) < after


class LabeledImages:
    """16 images: class 0 in all of them, twice in the first; class 1 in the last only; class 2 nowhere."""

    def __len__(self):
        return 16

    def objects(self):
        images = np.array([0, *range(16), 15])
        return np.array([0] * 17 + [1]), images


def test_factors_of_lvis():
    factors = repeat_factors(*LabeledImages().objects(), 16, threshold=0.25)
    assert factors.tolist() == [1] * 15 + [2]  # sqrt(0.25 / (1 / 16))
    by_hand = repeat_factors(np.array([0, 1, 1]), np.array([0, 1, 1]), 4, threshold=0.5)
    np.testing.assert_allclose(by_hand, [2**0.5, 2**0.5, 1, 1])  # two objects of one image hold a class once
    assert repeat_factors(np.zeros(0, int), np.zeros(0, int), 2, threshold=0.5).tolist() == [1, 1]


def test_images_of_rare_classes_come_more_often_in_each_pass():
    sampler = DetSampler(LabeledImages(), shuffle=True, seed=1, times=3, repeat_thr=0.25)
    order = list(sampler)
    assert len(order) == len(sampler) == 3 * 17
    assert sampler.times_shown.tolist() == [3] * 15 + [6]
    for first in (0, 17, 34):
        assert sorted(index for index, _ in order[first : first + 17]) == [*range(16), 15]
    assert [draw for _, draw in order] == list(range(51))  # the same image twice is augmented twice
    sampler.set_epoch(1)
    assert [draw for _, draw in sampler] == list(range(51, 102))


def test_the_fraction_of_a_factor_is_drawn_from_the_seed():
    """Class 1 asks for sqrt(0.16 * 16) = 1.6 times."""
    samplers_of_seeds = [DetSampler(LabeledImages(), seed=seed, repeat_thr=0.16) for seed in range(400)]
    extra = [len(sampler) - 16 for sampler in samplers_of_seeds]
    assert set(extra) == {0, 1}
    assert 0.5 < np.mean(extra) < 0.7  # four standard deviations
    again = DetSampler(LabeledImages(), seed=7, repeat_thr=0.16)
    assert list(again) == list(samplers_of_seeds[7])
    again.set_epoch(5)
    assert len(list(again)) == len(again) == len(samplers_of_seeds[7])


@pytest.mark.parametrize('world_size', [2, 3])
def test_repeated_images_keep_one_global_order_and_resume(in_process, world_size):
    def build(rank, processes):
        sampler = in_process(rank, processes, dataset=LabeledImages(), seed=3, times=2, repeat_thr=0.2)
        sampler.set_epoch(4)
        return sampler

    order = list(build(0, 1))
    parts = [list(build(rank, world_size)) for rank in range(world_size)]
    assert interleaved(parts)[: len(order)] == order
    resumed = build(1, world_size)
    resumed.set_offset(4 * world_size)
    assert list(resumed) == parts[1][4:]


@pytest.mark.parametrize('share', [0, -0.1, 1.5])
def test_a_threshold_is_a_share(share):
    with pytest.raises(ValueError, match='share of the images'):
        DetSampler(LabeledImages(), repeat_thr=share)


class Photos(list):
    """A data set of which only the sizes are known."""

    @property
    def sizes(self):
        return np.array(self)


@pytest.mark.parametrize('world_size', [1, 2, 4])
def test_a_step_of_all_processes_sees_one_orientation(in_process, world_size):
    tall = np.random.default_rng(0).random(203) < 0.3
    photos = Photos([(4, 3) if up else (3, 4) for up in tall])
    plain = [index for index, _ in DetSampler(photos, seed=3)]
    parts = [
        [index for index, _ in in_process(rank, world_size, dataset=photos, seed=3, group_size=8)]
        for rank in range(world_size)
    ]
    order = interleaved(parts)[:203]
    assert sorted(order) == list(range(203))
    for kind in (False, True):  # within a kind, the order of the shuffle
        assert [x for x in order if tall[x] == kind] == [x for x in plain if tall[x] == kind]
    steps = [tall[order[first : first + 8]] for first in range(0, 203, 8)]
    assert sum(step.any() and not step.all() for step in steps) <= 2  # the rests at the end
    assert {step.all() for step in steps[:10]} == {False, True}
    wide = Photos([(3, 4)] * 20)
    assert list(DetSampler(wide, seed=1, group_size=8)) == list(DetSampler(wide, seed=1))[:20]


@pytest.mark.parametrize('option', ['times', 'group_size'])
@pytest.mark.parametrize('value', [0, 1.5])
def test_counts_are_whole_numbers(option, value):
    with pytest.raises(ValueError, match=f'{option} is a whole number'):
        DetSampler(range(3), **{option: value})


@pytest.mark.parametrize('world_size', [1, 2, 3])
@pytest.mark.parametrize('length', range(1, 14))
def test_no_batch_of_an_epoch_is_a_single_image(in_process, world_size, length):
    """As many batches as without, the other epochs as ever; also where the rest of an epoch is resumed."""
    size = 3
    for rank in range(world_size):
        plain = in_process(rank, world_size, dataset=range(length), shuffle=True, seed=3)
        filled = in_process(rank, world_size, dataset=range(length), shuffle=True, seed=3)
        filled.batch_size = size
        before, after = list(plain), list(filled)
        assert len(after) == len(filled) == len(before) + (len(before) % size == 1)
        assert -(-len(after) // size) == -(-len(before) // size)
        assert after[: len(before)] == before
        for step in range(len(after) // size + 1):
            count = filled.set_offset(step * size * world_size)
            assert list(filled) == after[step * size :]
            assert count == len(after[step * size :])
        evaluated = in_process(rank, world_size, dataset=range(length), shuffle=False)
        evaluated.batch_size = size
        assert list(evaluated) == [(i, i) for i in range(rank, length, world_size)]

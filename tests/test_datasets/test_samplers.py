"""The global order, and how processes share it."""

import pytest

from mmdet.datasets import DetSampler, samplers


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
    resumed.set_offset(2)
    resumed.set_epoch(2)
    assert list(resumed) == order[2:]
    assert len(resumed) == len(order)
    assert list(resumed) == order  # once only

"""Where the levels beyond the backbone's come from."""

import pytest
import torch

from mmdet.models.necks import FPN


@pytest.mark.parametrize('relu', [False, True])
def test_extra_levels_on_the_output_come_from_the_necks_last_one(relu: bool) -> None:
    torch.manual_seed(0)
    neck = FPN((4, 8, 16), 6, 5, start_level=1, add_extra_convs='on_output', relu_before_extra_convs=relu)
    p4, p5, p6, p7, p8 = neck([torch.randn(1, c, s, s) for c, s in ((4, 32), (8, 16), (16, 8))])
    assert [len(x[0, 0]) for x in (p4, p5, p6, p7, p8)] == [16, 8, 4, 2, 1]
    convs = neck.fpn_convs
    assert torch.equal(p6, convs[2](p5))  # never rectified: it is an output as it is
    assert torch.equal(p7, convs[3](p6.relu() if relu else p6))
    assert torch.equal(p8, convs[4](p7.relu() if relu else p7))


def test_no_extra_level_where_none_is_asked_for() -> None:
    neck = FPN((4, 8, 16), 6, num_outs=3, add_extra_convs='on_input')
    assert len(neck([torch.randn(1, c, s, s) for c, s in ((4, 32), (8, 16), (16, 8))])) == 3

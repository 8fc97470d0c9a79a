"""What every detector can do, shown by the small SSD."""

from typing import Any

import pytest
import torch
from torch import nn

from mmdet.config.resolve import merge_config
from mmdet.registry import MODELS
from tests.helpers.tiny_run import NARROW, PLAIN


def test_multiply_adds_are_those_of_the_convolutions() -> None:
    model: Any = MODELS.build(merge_config(PLAIN, NARROW).model)
    macs = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda conv, _, out: macs.append(conv.weight.numel() * out[0, 0].numel())
            )
    assert model.count_multiply_adds(torch.zeros(1, 3, 96, 96)) == pytest.approx(sum(macs) / 1e9)
    assert len(macs) > 20

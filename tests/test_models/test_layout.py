"""Memory layout of the feature maps."""

import torch
from mmengine import Config

from mmdet.registry import MODELS
from tests.tiny_run import ROOT


def test_channels_are_last_where_a_cpu_detects_only() -> None:
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(ROOT / 'configs/ssd/ssd_tiny.py').model)
    weights = {name: value.stride() for name, value in model.state_dict().items()}
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        trained = model.train().extract_feat(images)
        found = model.eval().extract_feat(images)
        expected = model.neck(model.backbone(images))
    assert trained[0].is_contiguous()
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert weights == {name: value.stride() for name, value in model.state_dict().items()}

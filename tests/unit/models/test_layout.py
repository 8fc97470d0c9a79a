"""Memory layout of the feature maps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine import Config

from mmdet.datasets.collate import collate_detection
from mmdet.engine import DetRunner
from mmdet.registry import MODELS
from tests.helpers.tiny_run import PLAIN, ROOT, be_quick, small_config, without_evaluation, write_sets


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


def test_a_step_with_the_channels_last_computes_the_same() -> None:
    """In float64: pooling and batch norms over a few pixels turn another rounding into another gradient."""
    torch.manual_seed(0)
    box = {
        'bboxes': torch.tensor([[10.0, 20.0, 70.0, 80.0]]),
        'labels': torch.tensor([1]),
        'ann_ids': torch.tensor([1]),
    }
    shape = {'ori_shape': (96, 96), 'img_shape': (96, 96)}
    images = torch.randint(256, (2, 3, 96, 96), dtype=torch.uint8)
    batch = collate_detection([{'img': img, 'img_id': i, **box, **shape} for i, img in enumerate(images)])
    model = MODELS.build(Config.fromfile(PLAIN).model).double()
    data = model.data_preprocessor(batch, training=True)
    data['inputs'] = data['inputs'].double()

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        losses = model(**data, mode='loss')
        sum(losses.values()).backward()
        return [p.grad for p in model.parameters()]

    expected = gradients()
    model.to(memory_format=torch.channels_last)
    for one, other in zip(gradients(), expected, strict=True):
        assert (one - other).norm() <= 1e-6 * other.norm()


def test_the_config_lays_out_the_weights(
    tiny_coco: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_quick(monkeypatch)
    cfg = small_config(write_sets(tiny_coco, tmp_path / 'set'), tmp_path / 'run', channels_last=True)
    model = DetRunner.from_cfg(without_evaluation(cfg)).model
    for name, value in model.named_parameters():
        assert value.ndim < 4 or value.is_contiguous(memory_format=torch.channels_last), name


def test_random_weights_do_not_depend_on_the_order_of_the_configs_keys() -> None:
    """MMEngine writes a config with its keys sorted."""
    cfg = Config.fromfile(PLAIN).model.to_dict()
    states = []
    for keys in (cfg, sorted(cfg), sorted(cfg, reverse=True)):
        torch.manual_seed(0)
        states.append(MODELS.build({key: cfg[key] for key in keys}).state_dict())
    for state in states[1:]:
        assert all(torch.equal(state[name], value) for name, value in states[0].items())

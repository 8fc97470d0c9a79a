"""Numbers of the config as tensors."""

import torch

from mmdet.structures import cached_tensor


def test_dtype_and_one_tensor() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    assert cached_tensor((0.1, 0.2), like).tolist() == [0.1, 0.2]
    assert cached_tensor((0.1, 0.2), like) is cached_tensor((0.1, 0.2), like)
    assert cached_tensor((0.1, 0.2), like.float()).dtype == torch.float32


def test_made_in_inference_it_can_be_trained_with() -> None:
    with torch.inference_mode():
        cached_tensor((3.25,), torch.zeros(1))
    weight = torch.ones(1, requires_grad=True)
    (weight * cached_tensor((3.25,), weight)).backward()
    assert weight.grad.item() == 3.25

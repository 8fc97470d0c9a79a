"""The same numbers on a GPU as on the CPU."""

from pathlib import Path

import pytest
import torch

from mmdet.datasets import collate_detection
from mmdet.datasets.transforms import Colour, PackDetInputs, Window
from mmdet.distillation import ClassifierDistiller, CropL1Loss
from mmdet.models import DetDataPreprocessor
from mmdet.structures import crop_boxes
from tests.golden_model import golden_ssd300
from tests.test_models.test_drawing import task, write
from tests.test_structures.test_boxes import random_boxes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def test_crops() -> None:
    images = torch.randn(3, 3, 60, 100, generator=torch.Generator().manual_seed(0))
    bboxes, index = random_boxes(3, 7, 60), torch.tensor([2, 0, 1, 0, 2, 2, 2])
    results = []
    for device in ('cpu', 'cuda'):
        leaf = bboxes.to(device).requires_grad_()
        crops = crop_boxes(images.to(device), leaf, index.to(device), 14)
        crops.square().sum().backward()
        results.append((crops.detach().cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-3)


def test_decoding(tmp_path: Path) -> None:
    """nvJPEG rounds and smooths colours otherwise than libjpeg: a few grey levels, on average under two."""
    kinds = ['rgb.jpg', 'progressive.jpg', 'gray.jpg', 'rgb.png'] * 4
    tasks = [
        task(
            write(tmp_path, kind, seed),
            Window(-20 * seed, 5, 200, 250, 60, 80, seed % 2 == 1),
            Colour(hue=seed),
        )
        for seed, kind in enumerate(kinds)
    ]
    data = collate_detection([PackDetInputs('device')(each) for each in tasks])
    preprocessor = DetDataPreprocessor(mean=[0, 0, 0], std=[1, 1, 1])
    here, there = (preprocessor.to(device)(data)['inputs'] for device in ('cpu', 'cuda'))
    assert there.is_cuda
    assert (here - there.cpu()).abs().mean((1, 2, 3)).max() < 2


def test_losses_of_ssd300(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    model, images, gt, expected = golden_ssd300()
    model.distiller = ClassifierDistiller(kd_loc=CropL1Loss(('pixels',), (4,)))
    results = []
    try:
        for device in ('cpu', 'cuda'):
            model.to(device)
            on_device = type(gt)(*(value.to(device) for value in gt))
            results.append({k: v.item() for k, v in model(images.to(device), on_device, mode='loss').items()})
    finally:
        model.to('cpu').distiller = None
    assert results[1] == pytest.approx(results[0], rel=1e-3)
    assert results[1]['loss_cls'] == pytest.approx(float(expected['loss_cls']), rel=1e-3)

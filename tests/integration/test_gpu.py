"""The same numbers on a GPU as on the CPU."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdet.datasets import collate_detection
from mmdet.datasets.transforms import ColorJitter, PackDetInputs, Window
from mmdet.distillation import ClassifierDistiller, CropL1Loss, FrozenTeacher, SoftmaxKDLoss
from mmdet.models import DetDataPreprocessor
from mmdet.structures import crop_boxes
from tests.helpers.forked import free_port
from tests.helpers.golden_model import golden_ssd300
from tests.helpers.same import assert_same_checkpoints
from tests.helpers.tiny_run import DISTILLED, ROOT, as_arguments, options_of, save_teacher, write_sets
from tests.unit.models.test_device_decoding import task, write
from tests.unit.structures.test_boxes import random_boxes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def test_crops() -> None:
    images = torch.randn(3, 3, 60, 100, generator=torch.Generator().manual_seed(0))
    bboxes, index = random_boxes(3, 7, 60), torch.tensor([2, 0, 1, 0, 2, 2, 2])
    results = []
    for device in ('cpu', 'cuda'):
        leaf = bboxes.detach().to(device).requires_grad_()
        crops = crop_boxes(images.to(device), leaf, index.to(device), 14)
        crops.square().sum().backward()
        results.append((crops.detach().cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-3)


def test_decoding(tmp_path: Path) -> None:
    """nvJPEG rounds and smooths colors otherwise than libjpeg: a few gray levels, on average under two."""
    kinds = ['rgb.jpg', 'progressive.jpg', 'gray.jpg', 'rgb.png'] * 4
    tasks = [
        task(
            write(tmp_path, kind, seed),
            Window(-20 * seed, 5, 200, 250, 60, 80, seed % 2 == 1),
            ColorJitter(hue=seed),
        )
        for seed, kind in enumerate(kinds)
    ]
    data = collate_detection([PackDetInputs('device')(each) for each in tasks])
    preprocessor = DetDataPreprocessor(mean=[0, 0, 0], std=[1, 1, 1])
    here, there = (preprocessor.to(device)(data)['inputs'] for device in ('cpu', 'cuda'))
    assert there.is_cuda
    assert (here - there.cpu()).abs().mean((1, 2, 3)).max() < 2


@pytest.mark.parametrize('kernels', ['0', '1'])
def test_losses_of_ssd300(kernels: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('MMDET_KERNELS', kernels)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    model, images, gt, expected = golden_ssd300()
    classes = tuple(map(str, range(80)))
    teacher = FrozenTeacher('resnet18', str(save_teacher(tmp_path / 'teacher.pth', classes=classes)), 80)
    model.distiller = ClassifierDistiller(112, teacher, SoftmaxKDLoss(), CropL1Loss())
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


def test_a_restart_over_nccl(tiny_coco, tmp_path):
    """Distilled, by the tool: killed and started again by torchrun it ends as without, bit for bit."""
    root = write_sets(tiny_coco, tmp_path / 'set', images=12)
    teacher = save_teacher(tmp_path / 'teacher.pth')
    config = tmp_path / 'run.py'
    config.write_text(
        f"_base_ = {str(DISTILLED)!r}\ncustom_imports = dict(imports=['tests.helpers.disturb'])\n"
    )
    environment = {**os.environ, 'PYTHON': sys.executable, 'MAX_RESTARTS': '1', 'NCCL_DEBUG': 'VERSION'}

    def run(name: str, *faults: list[Any]) -> str:
        options = options_of(
            teacher,
            train_cfg__max_iters=6,
            default_hooks__checkpoint__interval=2,
            default_hooks__checkpoint__by_epoch=False,
            custom_hooks=[{'type': 'FaultHook', 'faults': list(faults)}],
        )
        typed = [config, '1', '--deterministic', '--no-validate', '--data-root', root]
        typed += ['--work-dir', tmp_path / name, *as_arguments(options)]
        done = subprocess.run(
            ['bash', ROOT / 'tools/dist_train_cls_loc.sh', *typed],
            env={**environment, 'PORT': str(free_port())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    assert 'NCCL version' in run('whole')
    told = run('killed', [0, 0, 4, signal.SIGKILL.name])
    steps = [f'{start} {step}' for start, step in re.findall(r'<(\d) 0 (\d) ', told)]
    assert steps == ['0 1', '0 2', '0 3', '0 4', '1 3', '1 4', '1 5', '1 6']
    assert_same_checkpoints(tmp_path / 'whole', tmp_path / 'killed')

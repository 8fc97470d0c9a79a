"""The SSD300 that is measured, its batch, its teacher, and one training step of each way.

N images · A anchors · K classes
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision.models import ResNet

from benchmarks.parity import gradient_norm
from benchmarks.reference.network import BaselineSSD300
from benchmarks.reference.training import training_losses
from benchmarks.report import ROOT
from benchmarks.settings import Settings
from mmdet.config.resolve import load_config
from mmdet.datasets.collate import collate_detection
from mmdet.engine.compile import compile_network
from mmdet.registry import DATASETS, MODELS

CONFIG = ROOT / 'configs' / 'ssd' / 'ssd300.py'
DISTILLED_CONFIG = ROOT / 'configs_dev' / 'ssd' / 'ssd300_coco_cls_loc.py'
QUICK_WIDTH, QUICK_CROP = 1 / 16, 32
STEP = Callable[[], dict[str, float]]


class Subject(NamedTuple):
    """One detector of this toolbox with the batch that it is measured on."""

    cfg: Config  # resolved
    detector: Any  # of this toolbox
    data: dict[str, Any]  # as the loader hands it over: inputs uint8, gt; on the CPU
    objects: list[Tensor]  # per image (G, 4), on the device
    labels: list[Tensor]  # per image (G,), on the device
    width: float  # of the reference's network

    @property
    def classes(self) -> tuple[str, ...]:
        """K names."""
        return tuple(self.cfg.train_dataloader.dataset.metainfo['classes'])

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    def anchors(self, device: torch.device) -> Tensor:
        """(A, 4)."""
        return anchors_of(self.detector, device)


def anchors_of(detector: Any, device: torch.device) -> Tensor:
    """(A, 4): of an SSD300 of this toolbox."""
    sizes = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
    anchors: Tensor = detector.head.anchor_generator(sizes, device).boxes
    return anchors


def narrowed(width: float) -> dict[str, Any]:
    """Overrides that give SSD300 `width` times its channels."""
    channels = [int(c * width) for c in (512, 1024, 512, 256, 256, 256)]
    return {
        'model.backbone.weights': None,
        'model.backbone.width': width,
        'model.neck.in_channels': channels[:2],
        'model.neck.out_channels': channels,
        'model.bbox_head.in_channels': channels,
    }


def subject(settings: Settings, batch_size: int, teacher: Path | None = None) -> Subject:
    """SSD300-VGG16 with seeded weights, and the first photos of the validation set through its test pipeline.

    Args:
        settings: Of this run.
        batch_size: N; photos repeat when the set has fewer.
        teacher: File of a teacher: the student is a distilled one.
    """
    arch = _teacher_arch(settings)
    distilled = {'model.distiller.teacher.checkpoint': str(teacher), 'model.distiller.teacher.arch': arch}
    options: dict[str, Any] = {'model.backbone.weights': None} | (distilled if teacher else {})
    if settings.quick:
        options |= narrowed(QUICK_WIDTH)
    if settings.quick and teacher:
        options['model.distiller.crop_size'] = QUICK_CROP
    cfg = load_config(DISTILLED_CONFIG if teacher else CONFIG, options, settings.data_root)
    if settings.amp:
        cfg.optim_wrapper.type = 'mmdet.AmpOptimWrapper'  # MMEngine has one of this name, too
        cfg.optim_wrapper.dtype = 'bfloat16'
    cfg.optim_wrapper.optimizer.lr = 0.0  # all the work of a step, and the next one finds the same weights
    torch.manual_seed(0)
    detector = MODELS.build(cfg.model)
    calm(detector)
    detector.to(settings.device)
    if settings.channels_last:
        detector.to(memory_format=torch.channels_last)
    if settings.compile and (reason := compile_network(detector)):
        raise RuntimeError(f'--compile: this machine cannot: {reason}')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    data = collate_detection([dataset[i % len(dataset)] for i in range(batch_size)])
    gt = data['gt']
    if settings.on_gpu:  # as the loader does
        data |= {'inputs': data['inputs'].pin_memory(), 'gt': type(gt)(*(each.pin_memory() for each in gt))}
    per_image = [(gt.bboxes[i, valid], gt.labels[i, valid]) for i, valid in enumerate(gt.valid)]
    objects, labels = ([x.to(settings.device) for x in column] for column in zip(*per_image, strict=True))
    return Subject(cfg, detector, data, objects, labels, QUICK_WIDTH if settings.quick else 1.0)


def calm(detector: Any) -> None:
    """Bring random weights to where a trained student's are in size.

    Pixels have a standard deviation near 60, and boxes should start near their anchors: a box that lies
    wholly outside the image is the one thing that the published crops treat otherwise.
    """
    with torch.no_grad():
        detector.backbone.features[0].weight /= 60
        for conv in detector.head.reg_convs:
            conv[0].weight *= 0.1


def our_step(subject: Subject) -> STEP:
    """A training step as the runner makes it: preprocessor, losses, backward, optimizer."""
    subject.detector.train()
    optim_wrapper = build_optim_wrapper(subject.detector, subject.cfg.optim_wrapper)

    def run() -> dict[str, float]:
        log = subject.detector.train_step(subject.data, optim_wrapper)
        return {name: value.item() for name, value in log.items() if name.startswith('loss_')}

    return run


def baseline_student(subject: Subject, device: torch.device) -> BaselineSSD300:
    """The reference's network with the weights of ours."""
    return BaselineSSD300(subject.num_classes, subject.width).take_weights(subject.detector).to(device)


def baseline_step(
    subject: Subject, student: BaselineSSD300, settings: Settings, teacher: ResNet | None = None
) -> STEP:
    """A training step of the baseline; with a teacher, distilled the published way."""
    device = settings.device
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4)
    images, anchors = normalized(subject.data['inputs'], device), subject.anchors(device)
    crop_size = 112 if teacher is None else int(subject.cfg.model.distiller.crop_size)

    def run() -> dict[str, float]:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp):
            found = training_losses(
                student, images, anchors, subject.objects, subject.labels, teacher, crop_size
            )
        total = torch.stack(list(found.values())).sum()
        total.backward()
        optimizer.step()
        return {name: value.item() for name, value in found.items()}

    return run


def with_gradient(step: STEP) -> dict[str, float]:
    """What one step computes, and the length of the gradient that reaches its optimizer."""
    lengths: list[float] = []

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        lengths.append(gradient_norm([p for group in optimizer.param_groups for p in group['params']]))

    hook = register_optimizer_step_pre_hook(before)
    found = step()
    hook.remove()
    return {**found, 'gradient': lengths[0]}


def normalized(inputs: Tensor, device: torch.device) -> Tensor:
    """uint8 BGR -> float32 RGB, mean-subtracted: what the published student sees."""
    mean = torch.tensor([123.675, 116.28, 103.53], device=device)[:, None, None]
    return inputs.to(device).flip(1).float() - mean


def make_teacher(settings: Settings, classes: Sequence[str]) -> tuple[ResNet, Path]:
    """A ResNet50 of seeded random weights, unfolded and in eval mode, and its file.

    Its batch norms have seen noise of the size of the student's input once, or its logits would explode.
    """
    crop_size = QUICK_CROP if settings.quick else 112
    torch.manual_seed(1)
    network = torchvision.models.get_model(_teacher_arch(settings), weights=None, num_classes=len(classes))
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the statistics of all that was seen, here one batch
    with torch.no_grad():
        network.train()(60 * torch.randn(4, 3, crop_size, crop_size))
    network.requires_grad_(requires_grad=False)
    file = settings.work_dir / f'teacher_{_teacher_arch(settings)}_{len(classes)}.pth'
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {'state_dict': network.state_dict(), 'classes': list(classes), 'crop_size': crop_size}
    torch.save(content, file)
    return network.eval().to(settings.device), file


def _teacher_arch(settings: Settings) -> str:
    return 'resnet18' if settings.quick else 'resnet50'

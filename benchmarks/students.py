"""The student that is measured, its batch, its teacher, and one training step of each contender.

N images · A anchors · K classes
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks.parity import differing_numbers, exact_float32
from benchmarks.reference.network import BaselineSSD300
from benchmarks.reference.training import training_losses
from benchmarks.report import ROOT
from benchmarks.settings import Settings
from mmdet.analysis.teacher import teacher_predict
from mmdet.checkpoint.io import save_checkpoint
from mmdet.classifiers import build_classifier
from mmdet.commands.benchmark import STUDENTS
from mmdet.config.resolve import load_config
from mmdet.datasets.collate import collate_detection
from mmdet.distillation.stored_teacher import checksum
from mmdet.engine.compile import compile_network
from mmdet.registry import DATASETS, MODELS

CONFIG = ROOT / 'configs' / 'ssd' / 'ssd300.py'
BATCH, BATCH_COMPACT, BATCH_GPU = 8, 16, 64
QUICK_WIDTH = 1 / 16
QUICK_TEACHER = {'model.distiller.teacher.arch': 'resnet18', 'model.distiller.crop_size': 32}
PIXEL_STD = 60.0  # about that of photos, in gray levels
STEP = Callable[[], dict[str, float]]


class Teacher(NamedTuple):
    """An image classifier, its file, and what it answers."""

    network: Any  # nothing of it folded, in eval mode, on the device
    file: Path
    crop_size: int
    options: dict[str, Any]  # overrides of the student's config that name it
    answers: Path | None = None  # stored ones, which the student then reads


class Subject(NamedTuple):
    """One detector of this toolbox with the batch that it is measured on."""

    settings: Settings
    detector: Any  # of this toolbox
    cfg: Config  # resolved
    data: dict[str, Any]  # as the loader hands it over: inputs uint8, gt; on the CPU
    objects: list[Tensor]  # per image (G, 4), on the device
    labels: list[Tensor]  # per image (G,), on the device

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the K class names."""
        return tuple(self.cfg.train_dataloader.dataset.metainfo['classes'])


def anchors_of(detector: Any, device: torch.device, side: int = 300) -> Tensor:
    """Return the anchors (A, 4) of an SSD of this toolbox for images of `side` pixels."""
    generator = detector.head.anchor_generator
    sizes = [(math.ceil(side / stride),) * 2 for stride in generator.strides]
    anchors: Tensor = generator(sizes, device).boxes
    return anchors


def narrowed(width: float) -> dict[str, Any]:
    """Return overrides that give SSD300 `width` times its channels."""
    channels = [int(c * width) for c in (512, 1024, 512, 256, 256, 256)]
    return {
        'model.backbone.width': width,
        'model.neck.in_channels': channels[:2],
        'model.neck.out_channels': channels,
        'model.bbox_head.in_channels': channels,
        'model.backbone.weights': None,
    }


def subject(settings: Settings, batch_size: int, teacher: Teacher | None = None, **kd_loc: Any) -> Subject:
    """Build the student with seeded weights, and a batch of the first photos of the validation set.

    Args:
        settings: Of this run.
        batch_size: N; photos repeat when the set has fewer.
        teacher: The student is distilled from it.
        **kd_loc: Other values of its localization loss than the config's.
    """
    cfg = student_config(settings, teacher, kd_loc)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    data = collate_detection([dataset[row % len(dataset)] for row in range(batch_size)])
    first = collate_detection([dataset[row % len(dataset)] for row in range(BATCH)])
    torch.manual_seed(0)
    detector = MODELS.build(cfg.model)
    scale_weights(detector)
    if settings.student != 'ssd300':  # it has no batch norms
        set_statistics(detector, detector.data_preprocessor(first)['inputs'])
    detector.to(settings.device)
    if settings.channels_last or cfg.get('channels_last'):  # as the runner does
        detector.to(memory_format=torch.channels_last)
    if settings.compile and (reason := compile_network(detector)):
        raise RuntimeError(f'--compile: this machine cannot: {reason}')
    gt = data['gt']
    if settings.on_gpu:  # as the loader does
        data |= {'inputs': data['inputs'].pin_memory(), 'gt': type(gt)(*(each.pin_memory() for each in gt))}
    objects, labels = (
        [x[i, valid].to(settings.device) for i, valid in enumerate(gt.valid)] for x in (gt.bboxes, gt.labels)
    )
    return Subject(settings, detector, cfg, data, objects, labels)


def student_config(settings: Settings, teacher: Teacher | None, kd_loc: Mapping[str, Any]) -> Config:
    """Load the student's config for seeded weights; the arguments are those of `subject`."""
    options: dict[str, Any] = {'model.backbone.weights': None}
    if settings.quick and settings.student == 'ssd300':
        options |= narrowed(QUICK_WIDTH)
    if settings.student == 'ssdlite_small':
        options |= {'model.backbone.frozen_levels': 0}  # freezing needs weights
    if teacher is None:
        options |= {'row': 'plain'}
    else:
        options |= teacher.options | {f'model.distiller.kd_loc.{key}': value for key, value in kd_loc.items()}
    cfg = load_config(ROOT / STUDENTS[settings.student], options, settings.data_root)
    if teacher and teacher.answers:
        distiller = cfg.model.distiller
        distiller.teacher = {
            'type': 'StoredTeacher',
            'file': str(teacher.answers),
            'network': distiller.teacher,
        }
    if settings.amp:
        cfg.optim_wrapper.update(type='mmdet.AmpOptimWrapper', dtype='bfloat16')  # MMEngine has one, too
    cfg.optim_wrapper.optimizer.lr = 0.0  # all the work of a step, and the next one finds the same weights
    return cfg


def scale_weights(detector: Any) -> None:
    """Scale random weights to the size that a trained student's have.

    Pixels that are not divided have a standard deviation near 60. Boxes should start near their anchors: a
    box that lies wholly outside the image is the one thing that the published crops treat otherwise.
    """
    with torch.no_grad():
        if detector.data_preprocessor.std.eq(1).all():
            detector.backbone.features[0].weight /= PIXEL_STD
        for conv in detector.head.reg_convs:
            conv[-1].weight *= 0.1


def set_statistics(network: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of one batch (N, 3, H, W), or logits would vanish or explode."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the statistics of all that was seen
    with torch.no_grad():
        network.train()(images)


def our_step(subject: Subject) -> STEP:
    """Build a training step as the runner makes it: preprocessor, losses, backward, optimizer."""
    subject.detector.train()
    optim_wrapper = build_optim_wrapper(subject.detector, subject.cfg.optim_wrapper)

    def run() -> dict[str, float]:
        log = subject.detector.train_step(subject.data, optim_wrapper)
        return {name: value.item() for name, value in log.items() if name.startswith('loss_')}

    return run


def baseline_student(subject: Subject) -> BaselineSSD300:
    """Build the baseline's network with the weights of ours."""
    width = QUICK_WIDTH if subject.settings.quick else 1.0
    student = BaselineSSD300(len(subject.classes), width).take_weights(subject.detector)
    return student.to(subject.settings.device)


def baseline_step(subject: Subject, student: BaselineSSD300, teacher: Teacher | None = None) -> STEP:
    """Build a training step of the baseline; with a teacher, distilled the published way."""
    anchors, images = anchors_of(subject.detector, subject.settings.device), normalized(subject)
    published = (teacher.network, teacher.crop_size) if teacher else ()

    def losses() -> dict[str, Tensor]:
        return training_losses(student, images, anchors, subject.objects, subject.labels, *published)

    return sgd_step(student, losses, subject.settings)


def sgd_step(model: nn.Module, losses: Callable[[], dict[str, Tensor]], settings: Settings) -> STEP:
    """Build a step of SGD on the sum of some losses, with the optimizer of our configs."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4)

    def run() -> dict[str, float]:
        optimizer.zero_grad()
        with settings.autocast():
            found = losses()
        torch.stack(list(found.values())).sum().backward()
        optimizer.step()
        return {name: value.item() for name, value in found.items()}

    return run


def check_step(
    settings: Settings, count: int, tolerance: float | dict[str, float], teacher: Teacher | None = None
) -> list[str]:
    """Compare a step of ours with one of the baseline, both in float32: their losses and gradients."""
    exact = subject(settings._replace(amp=False), count, teacher)
    return compare_steps(our_step(exact), baseline_step(exact, baseline_student(exact), teacher), tolerance)


def compare_steps(ours: STEP, theirs: STEP, tolerance: float | dict[str, float]) -> list[str]:
    """List where the losses of two steps or the lengths of their gradients differ."""
    with exact_float32():
        return differing_numbers(with_gradient(ours), with_gradient(theirs), tolerance)


def with_gradient(step: STEP) -> dict[str, float]:
    """Run one step; adds the norm of the gradient that reaches its optimizer to the losses."""
    lengths: list[Tensor] = []

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = (p for group in optimizer.param_groups for p in group['params'])
        lengths.append(get_total_norm([p.grad.double() for p in parameters if p.grad is not None]))

    hook = register_optimizer_step_pre_hook(before)
    found = step()
    hook.remove()
    return {**found, 'gradient': lengths[0].item()}


def normalized(subject: Subject) -> Tensor:
    """Return the batch (N, 3, H, W) as float32 RGB, mean-subtracted, as the published student sees it."""
    device = subject.settings.device
    mean = torch.tensor([123.675, 116.28, 103.53], device=device)[:, None, None]
    return subject.data['inputs'].to(device).flip(1).float() - mean


def photos(subject: Subject) -> Tensor:
    """Return the batch (N, 3, H, W) as RGB in [0, 1], as torchvision's detectors take images."""
    images: Tensor = subject.data['inputs'].to(subject.settings.device).flip(1).float() / 255
    return images


def make_teacher(settings: Settings) -> Teacher:
    """Build the teacher that the student's config names with seeded weights, and write its file."""
    options = dict(QUICK_TEACHER if settings.quick and settings.student == 'ssd300' else {})
    cfg = load_config(ROOT / STUDENTS[settings.student], options, settings.data_root)
    arch, crop_size = cfg.model.distiller.teacher.arch, cfg.model.distiller.crop_size
    classes = list(cfg.train_dataloader.dataset.metainfo['classes'])
    torch.manual_seed(1)
    network = build_classifier(arch, len(classes))
    spread = PIXEL_STD / fmean(cfg.model.data_preprocessor.std)
    set_statistics(network, spread * torch.randn(4, 3, crop_size, crop_size))
    network.requires_grad_(requires_grad=False)
    file = settings.work_dir / f'teacher_{Path(arch).name}_{len(classes)}.pth'
    file.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint({'state_dict': network.state_dict(), 'classes': classes, 'crop_size': crop_size}, file)
    options['model.distiller.teacher.checkpoint'] = str(file)
    return Teacher(network.eval().to(settings.device), file, crop_size, options)


def store_answers(subject: Subject, teacher: Teacher) -> Teacher:
    """Write what the teacher says of the batch, as `tools/store_teacher.py` does of a training set."""
    detector = subject.detector
    batch = detector.data_preprocessor(subject.data)
    gt, normalization = batch['gt'], detector.normalization
    found = teacher_predict(detector.distiller, batch['inputs'], normalization, gt.gt_bboxes, gt.gt_image)
    ann_ids, order = gt.gt_ann_ids.cpu().sort()
    facts = {'classes': list(subject.classes), 'crop_size': teacher.crop_size, 'annotations': ''}
    answers = teacher.file.with_name(f'answers_{teacher.file.name}')
    tensors = {'ann_ids': ann_ids, 'answers': found.logits.cpu()[order].half()}
    save_checkpoint({'state_dict': tensors, 'teacher': checksum(teacher.file), **facts}, answers)
    return teacher._replace(answers=answers)

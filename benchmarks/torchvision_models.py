"""torchvision's detectors beside ours: its SSD300 with weights of its own, its SSDLite with ours.

N images · A anchors · K classes
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead

from benchmarks.settings import Settings
from benchmarks.students import STEP, Subject, anchors_of, compare_steps, our_step, photos, sgd_step, subject

TOLERANCE = {'loss_cls': 1e-5, 'loss_bbox': 1e-5, 'gradient': 1e-3}  # of a step of SSDLite
LOSSES = {'classification': 'loss_cls', 'bbox_regression': 'loss_bbox'}  # its names and ours


def torchvision_model(subject: Subject, **options: Any) -> Any:
    """Build torchvision's model of the same kind on the same device."""
    torch.manual_seed(0)
    if subject.settings.student == 'ssdlite':
        model = ssdlite_model(subject, **options)
    else:
        model = torchvision.models.detection.ssd300_vgg16(
            weights=None, weights_backbone=None, num_classes=len(subject.classes) + 1, **options
        )
    return model.to(subject.settings.device)


def ssdlite_model(subject: Subject, **options: Any) -> SSD:
    """Build what `ssdlite320_mobilenet_v3_large` is with ImageNet weights, and copy our weights into it.

    Without those it would have half the channels in its tail, another network than ours. The anchors are its
    own: as many in each cell, of other sizes. The normalization of pixels is ours.
    """
    norm, classes = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03), len(subject.classes) + 1
    detector, anchors = subject.detector, DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    head = SSDLiteHead([672, 960, 512, 256, 256, 128], anchors.num_anchors_per_location(), classes, norm)
    mean, std = ((x / 255).tolist() for x in detector.data_preprocessor.normalization)
    trunk = mobilenet_v3_large(weights=None, norm_layer=norm).features
    model = SSD(
        SSDLiteFeatureExtractorMobileNet(trunk, 13, norm),  # its tap: the expansion of block 13
        anchors,
        (320, 320),
        classes,
        head=head,
        image_mean=mean,
        image_std=std,
        **options,
    )
    # The same layers in the same order
    model.load_state_dict(dict(zip(model.state_dict(), detector.state_dict().values(), strict=True)))
    with torch.no_grad():
        for predictor in head.classification_head.module_list:
            for values in predictor[-1].parameters():  # background first, which is our last
                values.copy_(values.unflatten(0, (-1, classes)).roll(1, 1).flatten(0, 1))
    for ours, theirs in zip(norms(detector), norms(model), strict=True):
        theirs.eps = ours.eps
    return model


def torchvision_step(subject: Subject) -> STEP:
    """Build a step of torchvision's model on the same photos and boxes, on its own anchors: similar work."""
    return step_of(subject, torchvision_model(subject))


def check_ssdlite_step(settings: Settings, count: int) -> list[str]:
    """Compare a step of SSDLite with torchvision's in float32, on our anchors: their losses and gradients.

    Batch norms keep their statistics: those of a level of four cells magnify the last bits of float32. Such
    a bit may still change which negatives are the hardest, so gradients agree less than losses.
    """
    exact = subject(settings._replace(amp=False), count)
    model, anchors = torchvision_model(exact), anchors_of(exact.detector, exact.settings.device, 320)
    model.anchor_generator.forward = lambda *_: [anchors] * count
    steps = our_step(exact), step_of(exact, model)
    for layer in norms(exact.detector) + norms(model):
        layer.eval()
    return compare_steps(*steps, TOLERANCE)


def step_of(subject: Subject, model: Any) -> STEP:
    """Build a step of one of torchvision's models."""
    model.train()
    images = list(photos(subject))
    targets = [
        {'boxes': boxes, 'labels': labels + 1}  # 0 is its background
        for boxes, labels in zip(subject.objects, subject.labels, strict=True)
    ]

    def losses() -> dict[str, Tensor]:
        return {LOSSES[name]: loss for name, loss in model(images, targets).items()}

    return sgd_step(model, losses, subject.settings)


def torchvision_network(model: Any, images: list[Tensor]) -> Callable[[], Any]:
    """Build what computes the outputs of the heads, the anchors and the sizes of the images."""

    def network() -> Any:
        batch, _ = model.transform(images)
        features = list(model.backbone(batch.tensors).values())
        return model.head(features), model.anchor_generator(batch, features), batch.image_sizes

    return network


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the batch norms of a model in order."""
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]

"""`infer`: detection with NMS beside the baseline and torchvision, network and post-processing apart."""

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.reference.network import BaselineSSD300
from benchmarks.reference.postprocess import MAX_PER_IMAGE, NMS_IOU, SCORE_THR, detections
from benchmarks.report import Row, Target
from benchmarks.settings import Settings
from benchmarks.step import peaks, photos
from benchmarks.students import Subject, baseline_student, normalized, subject
from benchmarks.timing import Timing, interleaved, ratio

CANDIDATES = 60_000  # class scores of an image above the threshold, where the network has 80 classes
PARITY = 'the same detections: labels, scores 1e-5, boxes 0.001 pixels, of the same outputs'
SHARE = Target(0.1, at_least=False)
CPU_ROW = Row('infer', 'inference, batch 1, CPU', 's', Target(1.2, of='ratio'))
LATENCY_ROW = Row('infer', 'inference, batch 1, GPU', 's', Target(0.005, at_least=False))
RATE_ROW = Row('infer', 'inference, batch 64, GPU', 'images/s', Target(1300))


def run(settings: Settings) -> list[Row]:
    """Batch 1 on either device, and batch 64 on a GPU."""
    if settings.on_gpu:
        rows = of_batch(settings, 1, LATENCY_ROW)
        rows += of_batch(settings, settings.batch_size or 64, RATE_ROW)
        return [CPU_ROW._replace(note='run with --device cpu'), *rows]
    rows = of_batch(settings, settings.batch_size or 1, CPU_ROW)
    return [*rows, *(row._replace(note='no GPU in this run') for row in (LATENCY_ROW, RATE_ROW))]


def of_batch(settings: Settings, count: int, row: Row) -> list[Row]:
    """The whole, the network, and the post-processing."""
    found = subject(settings, count)
    detector, student = found.detector.eval(), baseline_student(found, settings.device).eval()
    with torch.no_grad():
        logits = detector(normalized(found.data['inputs'], settings.device)).cls_logits
        gain = gain_for(logits.roll(1, 2))  # background first
        for heads in (detector.head.cls_convs, student.cls_convs):
            scale(heads, gain)
    contenders = ours(found, settings) | baseline(found, student, settings)
    if not settings.quick:  # it has one size only
        contenders |= torchvisions(found, settings)
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=3 if settings.on_gpu else 1)
    faults = check(found, settings)
    rows = []
    for part in ('', ' network', ' post-processing'):
        named = {
            name: times[name + part] for name in ('ours', 'reference', 'torchvision') if name + part in times
        }
        other = 'torchvision' if 'torchvision' in named else 'reference'
        shown = {k: t.rate(count) if row.unit == 'images/s' else t.spread for k, t in named.items()}
        rows.append(
            row._replace(
                name=row.name if not part else f'{row.name}:{part}',
                target=None if part else row.target,
                ours=shown['ours'],
                reference=shown['reference'],
                torchvision=shown.get('torchvision'),
                ratio=ratio(named[other], named['ours']),
                peak_mib=peaks(named),
                faults=faults,
                parity=PARITY,
                note=f'ratio to {other}; some {CANDIDATES} candidates an image' if not part else '',
            )
        )
    return [*rows, share_of_postprocessing(row, times)]


def share_of_postprocessing(row: Row, times: dict[str, Timing]) -> Row:
    """Of the whole inference."""
    names = [name for name in ('ours', 'reference', 'torchvision') if name in times]
    shares = {name: ratio(times[f'{name} post-processing'], times[name]) for name in names}
    return Row(
        'infer',
        f'{row.name}: share of post-processing',
        'x',
        SHARE,
        ours=shares['ours'],
        reference=shares['reference'],
        torchvision=shares.get('torchvision'),
    )


def gain_for(logits: Tensor) -> float:
    """The factor on class logits (N, A, K + 1), background first, that gives about `CANDIDATES`.

    Random weights give every class about the same score, below the threshold. Post-processing takes time by
    the number of scores above it, so all contenders get the same one: 60,000 of all anchors, of which some
    9,000 belong to the best 1,000 anchors of a level, a crowded photo.
    """
    wanted = CANDIDATES * len(logits) * (logits.shape[2] - 1) / 80
    gain = 1e-3
    while (logits * gain).softmax(2)[..., 1:].gt(SCORE_THR).sum() < wanted and gain < 1e6:
        gain *= 1.1
    return gain


def scale(heads: nn.ModuleList, gain: float) -> None:
    """Multiply the outputs of convolutions."""
    for parameter in heads.parameters():
        parameter.mul_(gain)


def ours(found: Subject, settings: Settings) -> dict[str, Callable[[], Any]]:
    """Whole, network, post-processing."""
    detector, device = found.detector, settings.device
    batch = detector.data_preprocessor(found.data)
    sizes = batch['gt'].img_shape
    with torch.no_grad():
        outputs = detector(batch['inputs'], mode='tensor')

    @torch.no_grad()
    def whole() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp):
            return detector.test_step(found.data)

    @torch.no_grad()
    def network() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp):
            return detector(batch['inputs'], mode='tensor')

    @torch.no_grad()
    def post() -> Any:
        return detector.head.predict(outputs, sizes)

    return {'ours': whole, 'ours network': network, 'ours post-processing': post}


def baseline(found: Subject, student: BaselineSSD300, settings: Settings) -> dict[str, Callable[[], Any]]:
    """Whole, network, post-processing of the reference."""
    device, anchors = settings.device, found.anchors(settings.device)
    with torch.no_grad():
        maps = student(normalized(found.data['inputs'], device))

    @torch.no_grad()
    def network() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp):
            return student(normalized(found.data['inputs'], device))

    @torch.no_grad()
    def whole() -> Any:
        outputs = network()
        return detections(outputs[0], outputs[1], anchors, found.num_classes)

    @torch.no_grad()
    def post() -> Any:
        return detections(maps[0], maps[1], anchors, found.num_classes)

    return {'reference': whole, 'reference network': network, 'reference post-processing': post}


def torchvisions(found: Subject, settings: Settings) -> dict[str, Callable[[], Any]]:
    """The same of torchvision's SSD300-VGG16 with our thresholds; its 400 candidates a class stay."""
    torch.manual_seed(0)
    device = settings.device
    model: Any = torchvision.models.detection.ssd300_vgg16(
        weights=None,
        weights_backbone=None,
        num_classes=found.num_classes + 1,
        score_thresh=SCORE_THR,
        nms_thresh=NMS_IOU,
        detections_per_img=MAX_PER_IMAGE,
    )
    model.to(device).eval()
    images = list(photos(found, device))

    @torch.no_grad()
    def network() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp):
            batch, _ = model.transform(images)
            features = list(model.backbone(batch.tensors).values())
            return model.head(features), model.anchor_generator(batch, features), batch.image_sizes

    with torch.no_grad():
        scale(model.head.classification_head, gain_for(network()[0]['cls_logits'].float()))
        outputs, anchors, sizes = network()

    @torch.no_grad()
    def whole() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp):
            return model(images)

    @torch.no_grad()
    def post() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp):  # NMS knows no bfloat16
            return model.postprocess_detections(outputs, anchors, sizes)

    return {'torchvision': whole, 'torchvision network': network, 'torchvision post-processing': post}


@torch.no_grad()
def check(found: Subject, settings: Settings) -> list[str]:
    """Compare the detections that ours and the reference make of the same float32 outputs."""
    head = found.detector.head
    batch = found.detector.data_preprocessor(found.data)
    feats = found.detector.extract_feat(batch['inputs'])
    cls_maps = [conv(x) for conv, x in zip(head.cls_convs, feats, strict=True)]
    box_maps = [conv(x) for conv, x in zip(head.reg_convs, feats, strict=True)]
    theirs = detections(cls_maps, box_maps, found.anchors(settings.device), found.num_classes)
    faults = []
    for i, (own, other) in enumerate(
        zip(head.predict(head(feats), batch['gt'].img_shape), theirs, strict=True)
    ):
        rows = torch.cat([own.bboxes, own.scores[:, None], own.labels[:, None].float()], 1)
        if rows.shape != other.shape:
            faults.append(f'photo {i}: {len(rows)} detections, the reference has {len(other)}')
            continue
        # Equal scores may swap places: each detection must be there, wherever.
        allowed = rows.new_tensor([1e-3] * 4 + [1e-5, 0])
        same = ((rows[:, None] - other[None]).abs() <= allowed).all(2)  # (D, D)
        wrong = max(int((~same.any(side)).sum()) for side in (0, 1))
        if wrong:
            faults.append(f'photo {i}: {wrong} of {len(rows)} detections differ')
    return faults

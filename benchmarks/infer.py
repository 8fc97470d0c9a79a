"""`infer`: detection with NMS beside the baseline and torchvision, network and post-processing apart."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.parity import exact_float32
from benchmarks.reference.network import BaselineSSD300
from benchmarks.reference.postprocess import MAX_PER_IMAGE, NMS_IOU, SCORE_THR, detections
from benchmarks.report import CONTENDERS, Row, Target, for_device
from benchmarks.settings import Settings
from benchmarks.students import (
    Subject,
    anchors_of,
    baseline_student,
    normalized,
    photos,
    subject,
)
from benchmarks.timing import interleaved, ratio
from benchmarks.torchvision_models import torchvision_model, torchvision_network
from mmdet.models.postprocess import Detections, NMSPostProcess

CANDIDATES = 0.086  # of an image's class scores lie above the threshold: some 60,000 of SSD300's for COCO
PARITY = 'the same detections: labels, scores 1e-5, boxes 0.001 pixels, of the same outputs'
OUTPUTS = 1e-4  # of the largest one
SSDLITE_PARITY = f"outputs of torchvision's network with our weights {OUTPUTS:g}; {PARITY}"
SHARE = Target(0.1, at_least=False)
FASTER = Target(1.2, of='ratio')
ROWS = {  # of a CPU and of a GPU
    'ssd300': (
        [Row('infer', 'inference, batch 1, CPU', 's', FASTER)],
        [
            Row('infer', 'inference, batch 1, GPU', 's', Target(0.005, at_least=False)),
            Row('infer', 'inference, batch 64, GPU', 'images/s', Target(1300)),
        ],
    ),
    'ssdlite': (
        [Row('infer', 'inference of SSDLite, batch 1, CPU', 's', FASTER)],
        [Row('infer', 'inference of SSDLite, batch 1, GPU', 's', FASTER)],
    ),
}
PARTS = dict[str, Callable[[], Any]]


def run(settings: Settings) -> list[Row]:
    """Measure batch 1 on either device, and batch 64 on a GPU."""
    return for_device(settings, *ROWS[settings.student], lambda row: of_batch(settings, row))


def of_batch(settings: Settings, row: Row) -> list[Row]:
    """Measure the whole, the network, the post-processing, and the share of that."""
    count = settings.batch_size or 64 if row.unit == 'images/s' else 1
    found, ssd300 = subject(settings, count), settings.student == 'ssd300'
    detector = found.detector.eval()
    with torch.no_grad():
        images = detector.data_preprocessor(found.data)['inputs']
        gain = gain_for(detector(images).cls_logits.roll(1, 2))  # background first
        scale([convs[-1] for convs in detector.head.cls_convs], gain)
    contenders = ours(found)
    if ssd300:
        contenders |= baseline(found, baseline_student(found).eval())
    if not (settings.quick and ssd300):  # torchvision's has one size only
        contenders |= torchvisions(found)
    times = interleaved(contenders, settings.repeats, settings.device, warm_up=3 if settings.on_gpu else 1)
    present = [name for name in CONTENDERS if name in times]
    against = 'torchvision' if 'torchvision' in present else 'reference'
    check = check_baseline if ssd300 else check_torchvision
    parity = {'faults': check(found), 'parity': PARITY if ssd300 else SSDLITE_PARITY}
    rows = []
    for part in ('', ' network', ' post-processing'):
        of_part = {name: times[name + part] for name in present}
        figures = row.measured(of_part, count, against, **parity)
        rows.append(figures._replace(name=f'{row.name}:{part}', target=None) if part else figures)
    rows[0] = rows[0]._replace(
        note=f'ratio to {against}; {CANDIDATES:.1%} of the class scores are candidates'
    )
    shares: dict[str, Any] = {name: ratio(times[f'{name} post-processing'], times[name]) for name in present}
    target = SHARE if ssd300 else None
    return [*rows, Row('infer', f'{row.name}: share of post-processing', 'x', target, **shares)]


def gain_for(logits: Tensor) -> float:
    """Find the factor on class logits (N, A, K + 1), background first, that gives about `CANDIDATES`.

    Random weights give every class about the same score, below the threshold. Post-processing takes time by
    the number of scores above it, so all contenders get the same one: with SSD300 60,000 of all anchors, of
    which some 9,000 belong to the best 1,000 anchors of a level, a crowded photo.
    """
    wanted = CANDIDATES * logits[..., 1:].numel()
    gain = 1e-3
    while (logits * gain).softmax(2)[..., 1:].gt(SCORE_THR).sum() < wanted and gain < 1e6:
        gain *= 1.1
    return gain


def scale(convs: Iterable[nn.Module], gain: float) -> None:
    """Multiply the outputs of convolutions."""
    for conv in convs:
        for parameter in conv.parameters():
            parameter.mul_(gain)


def parts(
    name: str,
    settings: Settings,
    network: Callable[[], Any],
    post: Callable[[Any], Any],
    whole: Callable[[], Any] | None = None,
) -> PARTS:
    """Make three contenders of one: the whole, the network, and the post-processing of its outputs.

    Args:
        name: Of the contender.
        settings: Of this run: they decide the precision.
        network: Gives the outputs.
        post: Takes them.
        whole: None: one after the other.
    """

    def inference(part: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.no_grad(), settings.autocast():
                return part()

        return call

    outputs = inference(network)()
    return {
        name: inference(whole or (lambda: post(network()))),
        f'{name} network': inference(network),
        f'{name} post-processing': inference(lambda: post(outputs)),
    }


def ours(found: Subject) -> PARTS:
    """Build the parts of this toolbox."""
    detector = found.detector
    batch = detector.data_preprocessor(found.data)
    return parts(
        'ours',
        found.settings,
        network=lambda: detector(batch['inputs'], mode='tensor'),
        post=lambda outputs: detector.head.predict(outputs, batch['gt'].img_shape),
        whole=lambda: detector.test_step(found.data),
    )


def baseline(found: Subject, student: BaselineSSD300) -> PARTS:
    """Build the parts of the baseline."""
    anchors = anchors_of(found.detector, found.settings.device)
    return parts(
        'reference',
        found.settings,
        network=lambda: student(normalized(found)),
        post=lambda maps: detections(maps[0], maps[1], anchors, len(found.classes)),
    )


def torchvisions(found: Subject) -> PARTS:
    """Build the parts of torchvision's model with our thresholds; its 400 candidates a class stay."""
    thresholds = {'score_thresh': SCORE_THR, 'nms_thresh': NMS_IOU, 'detections_per_img': MAX_PER_IMAGE}
    model = torchvision_model(found, **thresholds).eval()
    images = list(photos(found))
    network = torchvision_network(model, images)
    if found.settings.student == 'ssd300':  # its weights are its own
        with torch.no_grad():
            scale([model.head.classification_head], gain_for(network()[0]['cls_logits']))
    return parts(
        'torchvision',
        found.settings,
        network=network,
        post=lambda outputs: model.postprocess_detections(*outputs),
        whole=lambda: model(images),
    )


@torch.no_grad()
def check_baseline(found: Subject) -> list[str]:
    """Compare the detections that ours and the baseline make of the same float32 outputs."""
    head = found.detector.head
    batch = found.detector.data_preprocessor(found.data)
    feats = found.detector.extract_feat(batch['inputs'])
    maps = [
        [conv(x) for conv, x in zip(convs, feats, strict=True)] for convs in (head.cls_convs, head.reg_convs)
    ]
    theirs = detections(
        maps[0], maps[1], anchors_of(found.detector, found.settings.device), len(found.classes)
    )
    return differing_detections(head.predict(head(feats), batch['gt'].img_shape), theirs)


@torch.no_grad()
def check_torchvision(found: Subject) -> list[str]:
    """Compare the network with torchvision's, and what either makes of the same float32 outputs.

    Without the limits that differ: the best 1,000 anchors of a level go on here, 400 of a class there.
    """
    head, batch = found.detector.head, found.detector.data_preprocessor(found.data)
    limits = {'topk_candidates': 10**6, 'score_thresh': SCORE_THR, 'nms_thresh': NMS_IOU}
    model = torchvision_model(found, **limits, detections_per_img=MAX_PER_IMAGE).eval()
    with exact_float32():
        outputs = found.detector.raw_outputs(batch['inputs'])
        theirs, _, sizes = torchvision_network(model, list(photos(found)))()
    ours = {'cls_logits': outputs.cls_logits.roll(1, 2), 'bbox_regression': outputs.box_deltas}
    faults = [
        f'{name} differ by {difference:.2g}'
        for name in ours
        if not (difference := float((ours[name] - theirs[name]).abs().max()))
        < OUTPUTS * theirs[name].abs().max()
    ]
    limitless = NMSPostProcess(**vars(head.postprocess) | {'nms_pre': 10**6})
    bboxes = head.decode(outputs, batch['gt'].img_shape)
    detections = limitless(bboxes, head.scores(outputs), outputs.anchors.num_per_level)
    rows = [
        torch.cat([x['boxes'], x['scores'][:, None], x['labels'][:, None] - 1.0], 1)
        for x in model.postprocess_detections(ours, [outputs.anchors.boxes] * len(bboxes), sizes)
    ]
    return faults + differing_detections(detections, rows)


def differing_detections(ours: Sequence[Detections], theirs: Sequence[Tensor]) -> list[str]:
    """List the images of which two sets of detections differ; theirs (D, 6): box, score, label."""
    faults = []
    for i, own in enumerate(ours):
        rows = torch.cat([own.bboxes, own.scores[:, None], own.labels[:, None].float()], 1)  # (D, 6)
        allowed = rows.new_tensor([1e-3] * 4 + [1e-5, 0])
        # Equal scores may swap places: each detection must be there, wherever.
        same = ((rows[:, None] - theirs[i][None]).abs() <= allowed).all(2)
        wrong = max(int((~same.any(side)).sum()) for side in (0, 1))
        if wrong:
            faults.append(f'photo {i}: {wrong} of {len(rows)} detections differ')
    return faults

"""Write the report on a teacher: how accurate it is on the distiller's crops, and how well calibrated.

M crops · K classes
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor

from mmdet.analysis.calibration import (
    BINS,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    NEAR_ONE_HOT,
    classifier_reliability,
    measure,
)
from mmdet.analysis.markdown import table, write_page
from mmdet.analysis.plots import plot_reliability
from mmdet.analysis.teacher import build_distiller, predict_split
from mmdet.evaluation.accuracy import top_hits

GOOD_ERROR = 0.05  # expected calibration error below which nothing needs saying
MANY_ONE_HOT = 0.5
USEFUL_GAIN = 0.05  # top-1 above that of always answering the commonest class
FEW_CROPS = 200
PUBLISHED_TEMPERATURE = 2.0  # of arXiv 2106.05209
SIZES = ('small, area below 32²', 'medium', 'large, area from 96²')
AREA_EDGES = (32.0**2, 96.0**2)  # COCO's, square pixels of the original image
TEXT = f"""# Teacher report

`{{file}}`, {{arch}}, on the crops of side {{side}} that the
distiller of `{{config}}` cuts out of its {{split}} batches ({{data}}).

    {{command}}

{{on}}

## Verdict

{{verdict}}

## Numbers

{{numbers}}

![reliability diagram](reliability.svg)

Confidence is the largest of the softmax probabilities. The expected calibration error sorts all answers
by confidence into {BINS} bins of equal width and averages |share of right answers - mean confidence| over
the bins, each weighted by its number of answers. The calibrating temperature T is the one that minimizes
the mean negative log-likelihood of softmax(logits / T) on these very crops, so the errors at T are a little
too good. A T above 1 means over-confident, below 1 under-confident.

## By size

By the area of the box in pixels of the original image (COCO counts the area of the mask where there is one).
Not given for augmented images: what is cut out and enlarged has no size in the original.

{{sizes}}

## By class

{{classes}}
"""


def write_report(cfg: Config, split: str, out_dir: Path, command: str) -> str:
    """Measure the teacher of a distilled config; write report.md, .html and .json and reliability.svg.

    The report names the `command` that was typed. Returns the text of report.md.
    """
    distiller, preprocessor = build_distiller(cfg)
    logits, labels, areas = predict_split(cfg, split, distiller, preprocessor)
    classes = cfg[f'{split}_dataloader'].dataset.metainfo['classes']
    numbers = measure(logits, labels)
    temperature = numbers['temperature']
    out_dir.mkdir(parents=True, exist_ok=True)
    panels = {
        'as it answers': classifier_reliability(logits, labels),
        f'at temperature {temperature:.2f}': classifier_reliability(logits.double() / temperature, labels),
    }
    plot_reliability(panels, out_dir / 'reliability.svg')
    commonest = labels.bincount().max().item() / len(labels)
    suggested, _ = suggest_temperature(numbers, commonest, on_training_crops=split == 'train')
    content = json.dumps({**numbers, 'suggested_temperature': suggested}, indent=2)
    (out_dir / 'report.json').write_text(content + '\n')
    used = (cfg.model.distiller.get('kd_cls') or {}).get('temperature')
    verdict = advise(numbers, commonest, used, on_training_crops=split == 'train')
    by_class = {name: labels == label for label, name in enumerate(classes)}
    size = torch.bucketize(areas, torch.tensor(AREA_EDGES))
    by_size = {name: size == place for place, name in enumerate(SIZES)} if split == 'val' else {}
    teacher = cfg.model.distiller.teacher
    text = TEXT.format(
        file=teacher.checkpoint,
        arch=teacher.arch,
        side=distiller.crop_size,
        config=cfg.filename,
        split='augmented training' if split == 'train' else 'evaluation',
        data=cfg.data_root,
        command=command,
        on=f'torch {torch.__version__} on {get_device()}',
        verdict='\n'.join(f'- {sentence}' for sentence in verdict),
        numbers=number_table(numbers, len(classes)),
        sizes=group_table(by_size, logits, labels, classes),
        classes=group_table(by_class, logits, labels, classes),
    )
    write_page(out_dir / 'report.md', text)
    return text


def share(values: Tensor) -> str:
    """Format the mean of bools or probabilities (M,) in percent; a dash for none."""
    return f'{100 * float(values.double().mean()):.1f} %' if len(values) else '-'


def number_table(numbers: Mapping[str, float], classes: int) -> str:
    """Lay out what `measure` has found."""
    shares = {
        'top1': 'top-1',
        'top5': 'top-5',
        'confidence': 'mean confidence',
        'near_one_hot': f'near-one-hot answers, confidence above {NEAR_ONE_HOT}',
    }
    values = {
        'error': 'expected calibration error',
        'entropy': f'mean entropy, nats (at most {float(torch.tensor(classes).log()):.3f})',
        'loss': 'negative log-likelihood, nats',
        'temperature': 'calibrating temperature',
        'calibrated_error': 'calibration error at that temperature',
        'calibrated_loss': 'negative log-likelihood at that temperature',
    }
    rows = [('crops', str(numbers['crops']))]
    rows += [(title, f'{numbers[name]:.1%}') for name, title in shares.items()]
    rows += [(title, f'{numbers[name]:.3f}') for name, title in values.items()]
    return table(('', 'value'), rows)


def group_table(groups: Mapping[str, Tensor], logits: Tensor, labels: Tensor, classes: Sequence[str]) -> str:
    """Lay out accuracy and confidence of groups of crops, and the class that they are mistaken for.

    groups: name -> (M,) bool · logits (M, K) · labels (M,)
    """
    top1, top5 = top_hits(logits, labels)
    confidence, answers = logits.softmax(1).max(1)
    rows = []
    for name, chosen in groups.items():
        wrong = answers[chosen & ~top1].bincount(minlength=len(classes))
        mistaken = classes[int(wrong.argmax())] if wrong.any() else '-'
        rows.append(
            (name, int(chosen.sum()), *(share(x[chosen]) for x in (top1, top5, confidence)), mistaken)
        )
    head = ('objects', 'crops', 'top-1', 'top-5', 'mean confidence', 'most often mistaken for')
    return table(head, rows)


def advise(
    numbers: Mapping[str, float], commonest: float, used: float | None, on_training_crops: bool = False
) -> list[str]:
    """Say what the numbers mean for distillation, in plain sentences, the last a suggested temperature.

    Args:
        numbers: From `measure`.
        commonest: Share of the commonest class among the crops.
        used: Temperature of the config's kd_cls; None without one.
        on_training_crops: Whether the teacher was trained on these crops' images.
    """
    top1, confidence, error = numbers['top1'], numbers['confidence'], numbers['error']
    said = [
        f'It names {top1:.1%} of {numbers["crops"]} objects rightly; always answering the commonest '
        f'class would reach {commonest:.1%}.',
        f'{_describe_confidence(confidence - top1, error)}: mean confidence {confidence:.1%}, {top1:.1%} '
        f'right, expected calibration error {error:.3f}.',
    ]
    if top1 - commonest < USEFUL_GAIN:
        said.append('That is hardly better than no teacher: train it longer before you distill from it.')
    if numbers['near_one_hot'] > MANY_ONE_HOT:
        said.append(
            f'{numbers["near_one_hot"]:.0%} of its answers are near one-hot: they say little that the labels '
            'do not. Strong teachers can hurt: in arXiv 2106.05209 ResNeXt101 (top-1 83.35) gave a worse '
            'student than ResNet50 (80.30), 25.3 against 26.3 mAP. Compare with a run without kd_cls.'
        )
    if on_training_crops:
        said.append(
            'These are crops of training images, which it has learned: accuracy and certainty are higher '
            'than on new objects. They are what the student is taught with, but no basis for a temperature; '
            'use the val split for that.'
        )
    suggested, basis = suggest_temperature(numbers, commonest, on_training_crops)
    now = '' if used is None else f' (the config says {used:g})'
    said.append(
        f'Suggested temperature: {suggested:g}{now}: {basis}. It looks at the teacher alone. From 1 to 3 AP '
        'hardly depends on it: the paper measured 26.1, 26.3 and 26.0 mAP at 1, 2 and 3, and on chess pieces '
        'three teachers differed by -0.3, +0.5 and 0.0 AP between the suggested 1.5 and 2, one seed each; 4 '
        'cost 3.6 AP on FOD, one seed. Where wrong classes are the problem and IoU 0.5 is enough, try '
        'kd_cls.temperature=1 with loss_weight=1.6: on FOD that raised AP50 by 2.2 and '
        'lowered AP75 by 2.3: docs/experiments.md.'
    )
    return said


def _describe_confidence(gap: float, error: float) -> str:
    """Say whether a confidence that lies `gap` above the accuracy is deserved."""
    if error < GOOD_ERROR:
        return 'Its certainty is largely deserved'
    if abs(gap) <= GOOD_ERROR / 2:
        return 'It is over-confident in some answers and under-confident in others'
    low = 'It is under-confident (label smoothing and a short training do that)'
    return 'It is over-confident' if gap > 0 else low


def suggest_temperature(
    numbers: Mapping[str, float], commonest: float, on_training_crops: bool
) -> tuple[float, str]:
    """Suggest a temperature of `kd_cls`, and say what it is based on; the arguments are those of `advise`."""
    reasons = {
        'these are training crops': on_training_crops,
        f'{numbers["crops"]} crops are too few (fewer than {FEW_CROPS})': numbers['crops'] < FEW_CROPS,
        'it knows too little': numbers['top1'] - commonest < USEFUL_GAIN,
        'no temperature calibrates it': not MIN_TEMPERATURE < numbers['temperature'] < MAX_TEMPERATURE,
    }
    for reason, holds in reasons.items():
        if holds:
            return PUBLISHED_TEMPERATURE, f'the published one, since {reason}'
    wanted = round(2 * PUBLISHED_TEMPERATURE * numbers['temperature']) / 2
    return min(max(wanted, 1.0), 10.0), (
        f'the published {PUBLISHED_TEMPERATURE:g} times the calibrating {numbers["temperature"]:.2f}, in '
        'halves and kept within 1 and 10, so that its honest probabilities are softened by the published '
        'factor'
    )

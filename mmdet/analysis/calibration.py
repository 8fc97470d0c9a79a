"""How much of a classifier's certainty is deserved.

M crops · K classes · T temperature · confidence: the largest probability of an answer
Probabilities are the softmax over the K logits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15  # of confidence, equally wide, as in arXiv 1706.04599
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
NEAR_ONE_HOT = 0.99  # confidence above which an answer says hardly more than a label
GOOD_ERROR = 0.05  # expected calibration error below which nothing needs saying
MANY_ONE_HOT = 0.5
USEFUL_GAIN = 0.05  # top-1 above that of always answering the commonest class
FEW_CROPS = 200
PUBLISHED_TEMPERATURE = 2.0  # of arXiv 2106.05209
SMALL, MEDIUM, LARGE = 0, 1, 2
AREA_EDGES = (32.0**2, 96.0**2)  # COCO's, square pixels of the original image


class Reliability(NamedTuple):
    """Answers sorted into B bins by their confidence; bin b holds confidences in (b / B, (b + 1) / B]."""

    answers: Tensor  # (B,) int64, their number
    confidence: Tensor  # (B,) float64, their mean confidence; 0 in an empty bin
    accuracy: Tensor  # (B,) float64, share of them that is right; 0 in an empty bin


class ClassCounts(NamedTuple):
    """Per true class."""

    crops: Tensor  # (K,) int64
    top1: Tensor  # (K,) int64, crops whose likeliest class is the true one
    top5: Tensor  # (K,) int64, crops whose true class is among the five likeliest
    confused: Tensor  # (K,) int64, the wrong class that is answered most often; -1 where none is


def reliability(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> Reliability:
    """Sort answers by confidence.

    probabilities (M, K) · labels (M,) in [0, K)
    """
    confidence, answer = probabilities.max(1)  # (M,) each
    return sort_by_confidence(confidence, answer == labels, bins)


def sort_by_confidence(confidence: Tensor, right: Tensor, bins: int = BINS) -> Reliability:
    """Sort answers of anything that is more or less certain, as a detector is of its detections.

    confidence (M,) in [0, 1] · right (M,) bool
    """
    confidence = confidence.double()
    row = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    count = torch.bincount(row, minlength=bins)
    filled = count.clamp(min=1)
    return Reliability(
        answers=count,
        confidence=torch.bincount(row, weights=confidence, minlength=bins) / filled,
        accuracy=torch.bincount(row, weights=right.double(), minlength=bins) / filled,
    )


def calibration_error(found: Reliability) -> float:
    """Expected calibration error: the mean over all answers of |accuracy - confidence| of their bin.

    `sum over the bins of answers / M * |accuracy - confidence|` (arXiv 1706.04599, Eq 3); 0 without answers.
    """
    gap = (found.accuracy - found.confidence).abs()
    return float((found.answers * gap).sum() / found.answers.sum().clamp(min=1))


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats: probabilities (M, K) -> (M,); 0 for a certain answer, ln K for no idea."""
    return torch.special.entr(probabilities.double()).sum(1)


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T that makes softmax(logits / T) likeliest: it minimizes the mean negative log-likelihood.

    In 1 / T that mean is convex, so its slope has one root, which bisection finds (to a millionth of T).
    Where it has none between `LEAST_TEMPERATURE` and `MOST_TEMPERATURE` the nearer one is returned: the
    least one when every answer is right, the most one when the answers tell nothing.

    logits (M, K) · labels (M,) in [0, K)

    Raises:
        ValueError: No crops.
    """
    if not len(logits):
        raise ValueError('no crops: there is nothing that a temperature could be fitted to')
    logits = logits.double()
    true = logits.gather(1, labels[:, None])[:, 0]  # (M,)

    def slope(inverse: float) -> float:
        """Derivative of the mean negative log-likelihood in 1 / T."""
        expected = (torch.softmax(logits * inverse, 1) * logits).sum(1)
        return float((expected - true).mean())

    low, high = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    if slope(low) >= 0:
        return MOST_TEMPERATURE
    if slope(high) <= 0:
        return LEAST_TEMPERATURE
    while high - low > 1e-6 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 2 / (low + high)


def negative_log_likelihood(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> float:
    """Mean over the crops of -log of the true class's probability, in nats. logits (M, K) · labels (M,)."""
    return float(F.cross_entropy(logits.double() / temperature, labels))


def correct(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the true class is the likeliest one, and among the five likeliest.

    logits (M, K) · labels (M,) -> two (M,) bool
    """
    best = logits.topk(min(5, logits.shape[1]), 1).indices  # (M, 5)
    hit = best == labels[:, None]
    return hit[:, 0], hit.any(1)


def class_counts(logits: Tensor, labels: Tensor) -> ClassCounts:
    """Count per class. logits (M, K) · labels (M,) in [0, K)."""
    classes = logits.shape[1]
    top1, top5 = correct(logits, labels)
    answers = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
    wrong = answers.clone().fill_diagonal_(0)  # (K, K): true class, answer
    most, confused = wrong.max(1)
    return ClassCounts(
        crops=answers.sum(1),
        top1=torch.bincount(labels[top1], minlength=classes),
        top5=torch.bincount(labels[top5], minlength=classes),
        confused=torch.where(most > 0, confused, -1),
    )


def size_of(areas: Tensor) -> Tensor:
    """COCO's size of each object, SMALL, MEDIUM or LARGE. areas (M,) in square pixels of the original."""
    return torch.bucketize(areas, areas.new_tensor(AREA_EDGES))


class Calibration(NamedTuple):
    """The numbers of a classifier on M crops."""

    crops: int
    top1: float
    top5: float
    confidence: float  # mean
    error: float  # expected calibration error
    entropy: float  # mean, nats
    near_one_hot: float  # share of the answers with a confidence above NEAR_ONE_HOT
    loss: float  # mean negative log-likelihood, nats
    temperature: float  # that calibrates
    calibrated_error: float  # expected calibration error at that temperature
    calibrated_loss: float


def measure(logits: Tensor, labels: Tensor) -> Calibration:
    """All numbers at once. logits (M, K) · labels (M,) in [0, K).

    Raises:
        ValueError: No crops.
    """
    temperature = best_temperature(logits, labels)
    probabilities = logits.double().softmax(1)
    calibrated = (logits.double() / temperature).softmax(1)
    confidence = probabilities.amax(1)
    top1, top5 = (hit.double().mean() for hit in correct(logits, labels))
    return Calibration(
        crops=len(logits),
        top1=float(top1),
        top5=float(top5),
        confidence=float(confidence.mean()),
        error=calibration_error(reliability(probabilities, labels)),
        entropy=float(entropy(probabilities).mean()),
        near_one_hot=float((confidence > NEAR_ONE_HOT).double().mean()),
        loss=negative_log_likelihood(logits, labels),
        temperature=temperature,
        calibrated_error=calibration_error(reliability(calibrated, labels)),
        calibrated_loss=negative_log_likelihood(logits, labels, temperature),
    )


def advice(
    numbers: Calibration, commonest: float, used: float | None, on_training_crops: bool = False
) -> list[str]:
    """What the numbers mean for distillation, in plain sentences, the last a suggested temperature.

    Args:
        numbers: From `measure`.
        commonest: Share of the commonest class among the crops.
        used: Temperature of the config's kd_cls; None without one.
        on_training_crops: Whether the teacher was trained on these crops' images.
    """
    gain = numbers.top1 - commonest
    sentences = [
        f'It names {numbers.top1:.1%} of {numbers.crops} objects rightly; always answering the commonest '
        f'class would reach {commonest:.1%}.',
        f'{_certainty(numbers)}: mean confidence {numbers.confidence:.1%}, {numbers.top1:.1%} right, '
        f'expected calibration error {numbers.error:.3f}.',
    ]
    if gain < USEFUL_GAIN:
        sentences.append('That is hardly better than no teacher: train it longer before you distil from it.')
    if numbers.near_one_hot > MANY_ONE_HOT:
        sentences.append(
            f'{numbers.near_one_hot:.0%} of its answers are near one-hot: they say little that the labels do '
            'not. Strong teachers can hurt: in arXiv 2106.05209 ResNeXt101 (top-1 83.35) gave a worse '
            'student than ResNet50 (80.30), 25.3 against 26.3 mAP. Try a higher temperature, label '
            'smoothing or a smaller teacher, and compare with a run without kd_cls.'
        )
    if on_training_crops:
        sentences.append(
            'These are crops of training images, which it has learned: accuracy and certainty are higher '
            'than on new objects. They are what the student is taught with, but no basis for a temperature; '
            'use the val split for that.'
        )
    return [*sentences, _suggestion(numbers, gain, used, on_training_crops)]


def _certainty(numbers: Calibration) -> str:
    gap = numbers.confidence - numbers.top1
    if numbers.error < GOOD_ERROR:
        return 'Its certainty is largely deserved'
    if gap > GOOD_ERROR / 2:
        return 'It is over-confident'
    if gap < -GOOD_ERROR / 2:
        return 'It is under-confident (label smoothing and a short training do that)'
    return 'It is over-confident in some answers and under-confident in others'


def _suggestion(numbers: Calibration, gain: float, used: float | None, on_training_crops: bool) -> str:
    """The suggested temperature and what it is based on."""
    reasons = {
        'these are training crops': on_training_crops,
        f'{numbers.crops} crops are too few (fewer than {FEW_CROPS})': numbers.crops < FEW_CROPS,
        'it knows too little': gain < USEFUL_GAIN,
        'no temperature calibrates it': not LEAST_TEMPERATURE < numbers.temperature < MOST_TEMPERATURE,
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    if reason is not None:
        suggested, basis = PUBLISHED_TEMPERATURE, f'the published one, since {reason}'
    else:
        wanted = round(2 * PUBLISHED_TEMPERATURE * numbers.temperature) / 2
        suggested = min(max(wanted, 1.0), 10.0)
        basis = (
            f'the published {PUBLISHED_TEMPERATURE:g} times the calibrating {numbers.temperature:.2f}, in '
            'halves and kept within 1 and 10, so that its honest probabilities are softened by the published '
            'factor'
        )
    now = '' if used is None else f' (the config says {used:g})'
    return (
        f'Suggested temperature: {suggested:g}{now}: {basis}. A rule of thumb and a place to start, not '
        "measured: it looks at the teacher alone. Whether the student gains only the student's AP can tell, "
        'over several seeds; in the paper temperatures 1, 2 and 3 gave 26.1, 26.3 and 26.0 mAP, closer to '
        'each other than the plain runs (25.5 to 25.9).'
    )

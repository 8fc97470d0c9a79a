"""Measure whether the confidence of a classifier or detector is deserved.

M answers · K classes · B bins · confidence: the probability (or score) of an answer
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet.evaluation.accuracy import top_hits

BINS = 15  # of confidence, equally wide, as in arXiv 1706.04599
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
NEAR_ONE_HOT = 0.99  # confidence above which an answer says hardly more than a label


class Reliability(NamedTuple):
    """Answers sorted into B bins by their confidence; bin b holds confidences in (b / B, (b + 1) / B]."""

    answers: Tensor  # (B,) int64, their number
    confidence: Tensor  # (B,) float64, their mean confidence; 0 in an empty bin
    accuracy: Tensor  # (B,) float64, share of them that is right; 0 in an empty bin


def reliability(confidence: Tensor, right: Tensor, bins: int = BINS) -> Reliability:
    """Sort answers into bins by their confidence.

    confidence (M,) in [0, 1] · right (M,) bool
    """
    confidence = confidence.double()
    row = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    count = torch.bincount(row, minlength=bins)
    sums = (torch.bincount(row, values, minlength=bins) for values in (confidence, right.double()))
    return Reliability(count, *(total / count.clamp(min=1) for total in sums))


def calibration_error(found: Reliability) -> float:
    """Compute the expected calibration error: the mean of |accuracy - confidence| over all answers' bins.

    `sum over the bins of answers / M * |accuracy - confidence|` (arXiv 1706.04599, Eq 3); 0 without answers.
    """
    gap = (found.accuracy - found.confidence).abs()
    return float((found.answers * gap).sum() / found.answers.sum().clamp(min=1))


def classifier_reliability(logits: Tensor, labels: Tensor) -> Reliability:
    """Sort a classifier's answers into bins by their softmax probability. logits (M, K) · labels (M,)."""
    confidence, answer = logits.softmax(1).max(1)  # (M,) each
    return reliability(confidence, answer == labels)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the T that minimizes the mean negative log-likelihood of softmax(logits / T).

    In 1 / T that mean is convex, so its slope has one root, which bisection finds (four decimals of T).
    Where it has none between `MIN_TEMPERATURE` and `MAX_TEMPERATURE` the nearer one is returned: the least
    one when every answer is right, the most one when the answers tell nothing.

    logits (M, K) · labels (M,) in [0, K) · M > 0
    """
    logits = logits.double()
    true = logits.gather(1, labels[:, None])[:, 0]  # (M,)
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    while high - low > 1e-6 * low:
        middle = (low + high) / 2
        slope = ((torch.softmax(logits * middle, 1) * logits).sum(1) - true).mean()  # of the mean in 1 / T
        low, high = (low, middle) if slope > 0 else (middle, high)
    return round(2 / (low + high), 4)


def measure(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Measure a classifier's accuracy, confidence and calibration on M > 0 crops.

    logits (M, K) · labels (M,) in [0, K)

    Returns:
        Number of 'crops'; 'top1' and 'top5' accuracy; mean 'confidence', expected calibration 'error', mean
        'entropy' (nats), share of 'near_one_hot' answers, mean negative log-likelihood 'loss' (nats); the
        'temperature' that calibrates, and error and loss at it, 'calibrated_error' and 'calibrated_loss'.
    """
    temperature = fit_temperature(logits, labels)
    logits = logits.double()
    probabilities = logits.softmax(1)
    confidence = probabilities.amax(1)
    top1, top5 = top_hits(logits, labels)
    means = {
        'top1': top1,
        'top5': top5,
        'confidence': confidence,
        'entropy': torch.special.entr(probabilities).sum(1),
        'near_one_hot': confidence > NEAR_ONE_HOT,
    }
    return {
        'crops': len(labels),
        **{name: float(values.double().mean()) for name, values in means.items()},
        'error': calibration_error(classifier_reliability(logits, labels)),
        'loss': float(F.cross_entropy(logits, labels)),
        'temperature': temperature,
        'calibrated_error': calibration_error(classifier_reliability(logits / temperature, labels)),
        'calibrated_loss': float(F.cross_entropy(logits / temperature, labels)),
    }

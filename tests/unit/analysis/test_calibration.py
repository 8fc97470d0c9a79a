import math

import pytest
import torch

from mmdet.analysis.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    calibration_error,
    classifier_reliability,
    fit_temperature,
    measure,
    reliability,
)
from mmdet.evaluation.accuracy import top_hits


def test_a_calibrated_classifier_has_no_error(honest: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits = torch.tensor([[3.0, 1.0]]).log().repeat(8, 1)
    found = classifier_reliability(logits, torch.tensor([0, 0, 0, 1] * 2))
    assert found.answers.tolist() == [0] * 11 + [8] + [0] * 3
    assert found.accuracy[11] == 0.75
    assert calibration_error(found) == pytest.approx(0, abs=1e-6)
    assert calibration_error(classifier_reliability(*honest)) < 0.01


def test_always_wrong_and_certain() -> None:
    logits, labels = torch.tensor([[60.0, 0.0, 0.0]]).repeat(10, 1), torch.ones(10, dtype=torch.long)
    numbers = measure(logits, labels)
    assert numbers['temperature'] == MAX_TEMPERATURE
    expected = {'error': 1, 'top1': 0, 'top5': 1, 'near_one_hot': 1, 'entropy': 0, 'loss': 60, 'crops': 10}
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_certain_and_right_wants_the_least_temperature() -> None:
    assert fit_temperature(torch.eye(4), torch.arange(4)) == MIN_TEMPERATURE


@pytest.mark.parametrize('temperature', [0.5, 1.0, 6.0])
def test_a_known_temperature_is_recovered(
    temperature: float, honest: tuple[torch.Tensor, torch.Tensor]
) -> None:
    logits, labels = honest
    found = fit_temperature(logits * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    # what is found is the minimum, as a walk to both sides shows
    scaled = (logits.double() * temperature / (found * x) for x in (0.99, 1, 1.01))
    below, at, above = (float(torch.nn.functional.cross_entropy(one, labels)) for one in scaled)
    assert at < min(below, above)


def test_the_calibration_error_is_the_weighted_gap() -> None:
    confidence, right = torch.tensor([0.9, 0.9, 0.6, 0.7]), torch.tensor([True, False, True, True])
    expected = 2 / 4 * abs(0.5 - 0.9) + 1 / 4 * 0.4 + 1 / 4 * 0.3
    assert calibration_error(reliability(confidence, right)) == pytest.approx(expected, abs=1e-6)


def test_a_confidence_of_one_falls_into_the_last_bin_and_nothing_has_no_error() -> None:
    assert reliability(torch.ones(3), torch.ones(3) > 0, bins=4).answers.tolist() == [0, 0, 0, 3]
    assert calibration_error(reliability(torch.zeros(0), torch.zeros(0) > 0)) == 0


def test_entropy_of_no_idea() -> None:
    assert measure(torch.zeros(2, 4), torch.tensor([0, 1]))['entropy'] == pytest.approx(math.log(4))


def test_top_five_of_many_classes() -> None:
    top1, top5 = top_hits(torch.arange(8.0, 0, -1).repeat(8, 1), torch.arange(8))
    assert top1.tolist() == [True] + [False] * 7
    assert top5.tolist() == [True] * 5 + [False] * 3

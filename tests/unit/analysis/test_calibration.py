import math

import pytest
import torch

from mmdet.analysis.calibration import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    advice,
    best_temperature,
    calibration_error,
    class_counts,
    correct,
    entropy,
    measure,
    negative_log_likelihood,
    reliability,
    size_of,
)


def honest(count: int = 40_000, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (M, K), and labels (M,) drawn from their softmax."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def test_a_perfectly_calibrated_classifier_has_no_error() -> None:
    probabilities = torch.tensor([[0.75, 0.25]]).repeat(8, 1)
    labels = torch.tensor([0, 0, 0, 1] * 2)
    found = reliability(probabilities, labels)
    assert found.answers.tolist() == [0] * 11 + [8] + [0] * 3
    assert found.accuracy[11] == found.confidence[11] == 0.75
    assert calibration_error(found) == 0
    logits, drawn = honest()
    assert calibration_error(reliability(logits.softmax(1), drawn)) < 0.01
    assert best_temperature(logits, drawn) == pytest.approx(1, abs=0.03)


def test_always_wrong_and_certain() -> None:
    logits = torch.tensor([[60.0, 0.0, 0.0]]).repeat(10, 1)
    labels = torch.ones(10, dtype=torch.long)
    numbers = measure(logits, labels)
    assert numbers.error == pytest.approx(1)
    assert (numbers.top1, numbers.top5, numbers.near_one_hot) == (0, 1, 1)
    assert numbers.entropy == pytest.approx(0, abs=1e-9)
    assert numbers.temperature == MOST_TEMPERATURE
    assert numbers.loss == pytest.approx(60)


def test_certain_and_right_wants_the_least_temperature() -> None:
    logits = torch.eye(4)
    assert best_temperature(logits, torch.arange(4)) == LEAST_TEMPERATURE


@pytest.mark.parametrize('temperature', [0.5, 1.7, 6.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    logits, labels = honest()
    found = best_temperature(logits * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    # what is found is the minimum, as a walk to both sides shows
    losses = [negative_log_likelihood(logits * temperature, labels, found * x) for x in (0.99, 1, 1.01)]
    assert losses[1] < min(losses[0], losses[2])


def test_the_calibration_error_is_the_weighted_gap() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    labels = torch.tensor([0, 1, 0, 1])
    expected = 2 / 4 * abs(0.5 - 0.9) + 1 / 4 * 0.4 + 1 / 4 * 0.3
    assert calibration_error(reliability(probabilities, labels)) == pytest.approx(expected, abs=1e-6)


def test_a_confidence_of_one_falls_into_the_last_bin_and_nothing_has_no_error() -> None:
    found = reliability(torch.eye(3), torch.arange(3), bins=4)
    assert found.answers.tolist() == [0, 0, 0, 3]
    assert calibration_error(reliability(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))) == 0


def test_entropy_from_certain_to_no_idea() -> None:
    found = entropy(torch.tensor([[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]]))
    torch.testing.assert_close(found, torch.tensor([0, math.log(4), math.log(2)], dtype=torch.float64))


def test_counts_per_class() -> None:
    logits = torch.tensor([[3.0, 2, 1], [3, 2, 1], [0, 1, 2], [2, 1, 0], [0, 1, 2]])
    counts = class_counts(logits, torch.tensor([0, 1, 1, 1, 1]))
    assert counts.crops.tolist() == [1, 4, 0]
    assert counts.top1.tolist() == [1, 0, 0]
    assert counts.top5.tolist() == [1, 4, 0]
    assert counts.confused.tolist() == [-1, 0, -1]


def test_top_five_of_many_classes() -> None:
    logits = torch.arange(8.0, 0, -1).repeat(8, 1)
    top1, top5 = correct(logits, torch.arange(8))
    assert top1.tolist() == [True] + [False] * 7
    assert top5.tolist() == [True] * 5 + [False] * 3


def test_sizes_are_cocos() -> None:
    assert size_of(torch.tensor([32.0**2, 32**2 + 1, 96**2, 96**2 + 1])).tolist() == [0, 1, 1, 2]


def test_no_crops_is_an_error() -> None:
    with pytest.raises(ValueError, match='no crops'):
        measure(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


@pytest.mark.parametrize(
    ('factor', 'says', 'suggested'), [(1, 'deserved', 2), (3, 'over', 6), (0.3, 'under', 1)]
)
def test_the_suggestion_follows_the_calibrating_temperature(factor: float, says: str, suggested: int) -> None:
    logits, labels = honest()
    sentences = advice(measure(logits * factor, labels), commonest=0.2, used=2.0)
    assert says in sentences[1]
    assert f'Suggested temperature: {suggested} (the config says 2)' in sentences[-1]


def test_without_a_basis_the_published_temperature_is_suggested_with_the_reason() -> None:
    logits, labels = honest()
    for numbers, commonest, training, reason in (
        (measure(logits[:50], labels[:50]), 0.2, False, 'too few'),
        (measure(logits * 3, labels), 0.7, False, 'knows too little'),
        (measure(logits * 3, labels), 0.2, True, 'training crops'),
    ):
        last = advice(numbers, commonest, None, training)[-1]
        assert 'Suggested temperature: 2: the published one' in last
        assert reason in last
    assert any('near one-hot' in sentence for sentence in advice(measure(logits * 20, labels), 0.2, 2.0))

"""Temperature scaling and calibration error: hand-computed numbers, and a plain grid over temperatures."""

from __future__ import annotations

from math import exp, inf, log

import numpy as np
import pytest

from qa.confidence.temperature import (
    LEAST_PROBABILITY,
    ReliabilityBin,
    expected_calibration_error,
    fit_temperature,
    log_chances,
    negative_log_likelihood,
    reliability,
)


def test_reliability_and_its_error_by_hand() -> None:
    confidence = [0.0, 0.1, 0.5, 0.6, 0.75, 1.0]
    correct = [False, True, True, False, True, True]
    # (0, 0.5]: 0, 0.1, 0.5 -> confidence 0.2, accuracy 2/3. (0.5, 1]: 0.6, 0.75, 1 -> 2.35/3, accuracy 2/3.
    low, high = reliability(confidence, correct, bins=2)
    assert (low.lower, low.upper, low.count) == (0.0, 0.5, 3)
    assert (high.lower, high.upper, high.count) == (0.5, 1.0, 3)
    assert (low.confidence, low.accuracy) == pytest.approx((0.2, 2 / 3))
    assert (high.confidence, high.accuracy) == pytest.approx((2.35 / 3, 2 / 3))
    expected = 0.5 * (2 / 3 - 0.2) + 0.5 * (2.35 / 3 - 2 / 3)
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(expected)
    assert expected_calibration_error(confidence, correct, bins=1) == pytest.approx(4 / 6 - 2.95 / 6)


def test_bins_are_closed_above_and_empty_ones_are_kept() -> None:
    rows = reliability([0.7], [1], bins=10)
    assert [row.count for row in rows] == [0] * 6 + [1] + [0] * 3
    assert rows[6] == ReliabilityBin(0.6, 0.7, 1, 0.7, 1.0)
    assert rows[0] == ReliabilityBin(0.0, 0.1, 0, None, None)


@pytest.mark.parametrize(
    ("confidence", "correct", "error"),
    [([1.0, 1.0], [1, 1], 0.0), ([1.0, 1.0], [0, 0], 1.0), ([0.0], [1], 1.0), ([0.5, 0.5], [0, 1], 0.0)],
)
def test_extreme_calibration_errors(confidence: list[float], correct: list[int], error: float) -> None:
    assert expected_calibration_error(confidence, correct) == error


@pytest.mark.parametrize("confidence", [[1.5], [-0.1], [np.nan], [0.5, 0.5], [[0.5]]])
def test_what_is_no_confidence_is_refused(confidence: list[float]) -> None:
    with pytest.raises(ValueError, match="confidence"):
        expected_calibration_error(confidence, [1])
    with pytest.raises(ValueError, match="not defined"):
        expected_calibration_error([], [])


def test_log_chances_by_hand() -> None:
    # Weights 6, 3, 1; the first row's third entry does not exist.
    scores = np.log([[6.0, 3.0, 1.0], [6.0, 3.0, 1.0], [6.0, 3.0, 1.0]])
    scores[0, 2] = -inf
    right, wrong = log_chances(scores, np.array([0, 1, 2]), 1.0)
    assert np.exp(right) == pytest.approx([6 / 9, 0.3, 0.1])
    assert np.exp(wrong) == pytest.approx([3 / 9, 0.7, 0.9])
    right, wrong = log_chances(2 * scores[1:2], np.array([0]), 2.0)
    assert (exp(right[0]), exp(wrong[0])) == pytest.approx((0.6, 0.4))


def test_log_chances_are_precise_and_bounded() -> None:
    scores = np.array([[20.0, 0.0], [20.0, -inf], [900.0, 0.0]])
    right, wrong = log_chances(scores, np.array([0, 0, 0]), 1.0)
    assert right == pytest.approx([-log(1 + exp(-20)), 0.0, 0.0], rel=1e-12)
    assert wrong == pytest.approx([-20 - log(1 + exp(-20)), log(LEAST_PROBABILITY), log(LEAST_PROBABILITY)])


def random_case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, entries = int(rng.integers(1, 40)), int(rng.integers(2, 8))
    scores = rng.normal(0, rng.choice([0.5, 3.0, 20.0]), (rows, entries))
    scores[:, 1:][rng.random((rows, entries - 1)) < 0.3] = -inf
    return scores, np.zeros(rows, np.int64), rng.random(rows) < rng.random()


def slow_loss(scores: np.ndarray, chosen: np.ndarray, correct: np.ndarray, temperature: float) -> float:
    total = 0.0
    for row, place, right in zip(scores.tolist(), chosen.tolist(), correct.tolist(), strict=True):
        top = max(row)
        weights = [exp((score - top) / temperature) for score in row]
        wanted = weights[place] if right else sum(weights) - weights[place]
        total -= log(max(wanted / sum(weights), LEAST_PROBABILITY))
    return total / len(scores)


def test_temperature_beats_every_temperature_of_a_fine_grid() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(80):
        case = random_case(rng)
        found = fit_temperature(*case)
        least = min(slow_loss(*case, temperature=exp(point)) for point in np.linspace(-3, 3, 301))
        assert slow_loss(*case, temperature=found) <= least + 1e-5
        assert negative_log_likelihood(*case, temperature=found) == pytest.approx(
            slow_loss(*case, temperature=found), abs=1e-6
        )
        inside += -2.99 < log(found) < 2.99
    assert inside > 10


def test_temperature_is_recovered_from_answers_drawn_with_it() -> None:
    rng = np.random.default_rng(5)
    for true in (0.5, 1.0, 3.0):
        scores = -np.sort(-rng.normal(0, 4, (6000, 5)), axis=1)
        weights = np.exp(scores / true)
        correct = rng.random(6000) < weights[:, 0] / weights.sum(axis=1)
        assert fit_temperature(scores, np.zeros(6000, np.int64), correct) == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("rows", [1, 50])
def test_temperature_stays_bounded(rows: int) -> None:
    scores, chosen = np.tile([5.0, 4.0, 1.0], (rows, 1)), np.zeros(rows, np.int64)
    assert fit_temperature(scores, chosen, np.ones(rows, bool)) == pytest.approx(exp(-3), rel=0.01)
    assert fit_temperature(scores, chosen, np.zeros(rows, bool)) == pytest.approx(exp(3), rel=0.01)


def test_temperature_is_one_where_nothing_is_better() -> None:
    alone = np.array([[5.0, -inf], [2.0, -inf]])
    assert fit_temperature(alone, np.zeros(2, np.int64), np.array([True, False])) == 1.0
    assert fit_temperature(np.zeros((4, 2)), np.zeros(4, np.int64), np.array([True, False] * 2)) == 1.0
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0, bool)) == 1.0

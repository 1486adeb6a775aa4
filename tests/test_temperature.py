"""Temperatures and calibration error: hand-computed numbers, and a plain grid over both temperatures."""

from __future__ import annotations

from math import exp, inf, log

import numpy as np
import pytest

from qa.confidence.temperature import (
    LEAST_PROBABILITY,
    ReliabilityBin,
    expected_calibration_error,
    fit_temperatures,
    log_chances,
    negative_log_likelihood,
    null_probability,
    reliability,
    span_shares,
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


def test_span_shares_and_null_probability_by_hand() -> None:
    shares, level = span_shares(np.log([6.0, 3.0]), 1.0)
    assert shares == pytest.approx([2 / 3, 1 / 3])
    assert level == pytest.approx(log(9))
    shares, level = span_shares(2 * np.log([6.0, 3.0]), 2.0)
    assert shares == pytest.approx([2 / 3, 1 / 3])
    assert level == pytest.approx(2 * log(9))
    assert null_probability(log(3), log(9), 1.0) == pytest.approx(0.25)
    assert null_probability(log(81), log(9), 2.0) == pytest.approx(0.75)
    assert span_shares(np.zeros(0), 1.0)[1] == -inf
    assert null_probability(-inf, -inf, 1.0) == null_probability(inf, 3.0, 1.0) == 1.0
    assert null_probability(-inf, 3.0, 1.0) == 0.0


def test_log_chances_by_hand() -> None:
    # Spans weigh 6, 3, 1 (the first row has two). "No answer": never said; 2 to their 10; 30 to their 10.
    scores = np.log([[6.0, 3.0, 1.0], [6.0, 3.0, 1.0], [6.0, 3.0, 1.0]])
    scores[0, 2] = -inf
    null_scores = np.array([-inf, log(2), log(30)])
    right, wrong = log_chances(scores, null_scores, 1.0, 1.0)
    assert np.exp(right) == pytest.approx([6 / 9, 6 / 12, 0.75])
    assert np.exp(wrong) == pytest.approx([3 / 9, 6 / 12, 0.25])
    again = log_chances(2 * scores, 2 * null_scores, 2.0, 2.0)
    assert np.exp(again) == pytest.approx(np.exp([right, wrong]))
    right, wrong = log_chances(scores, np.array([-inf, log(2.5), log(40)]), 1.0, 0.5)  # 1 to 16, 16 to 1
    assert np.exp(right) == pytest.approx([6 / 9, 16 / 17 * 0.6, 16 / 17])
    assert np.exp(wrong) == pytest.approx([3 / 9, 1 - 16 / 17 * 0.6, 1 / 17])


def test_log_chances_are_precise_and_bounded() -> None:
    scores = np.array([[20.0, 0.0], [20.0, -inf], [900.0, 0.0], [20.0, -inf], [20.0, -inf]])
    null_scores = np.array([-inf, -inf, -inf, 0.0, inf])
    right, wrong = log_chances(scores, null_scores, 1.0, 1.0)
    least = log(LEAST_PROBABILITY)
    small = -log(1 + exp(-20))
    assert right == pytest.approx([small, 0.0, 0.0, small, 0.0], rel=1e-12)
    assert wrong == pytest.approx([-20 + small, least, least, -20 + small, least])


Case = tuple[np.ndarray, np.ndarray, np.ndarray]


def random_case(rng: np.random.Generator) -> Case:
    rows, entries = int(rng.integers(1, 40)), int(rng.integers(2, 8))
    scores = -np.sort(-rng.normal(0, rng.choice([0.5, 3.0, 20.0]), (rows, entries)), axis=1)
    scores[:, 1:][rng.random((rows, entries - 1)) < 0.3] = -inf
    null_scores = scores[:, 0] + rng.normal(-1, rng.choice([0.5, 3.0, 20.0]), rows)
    null_scores = np.full(rows, -inf) if rng.random() < 0.3 else null_scores
    true, true_null = np.exp(rng.normal(0, 0.7, 2)).tolist()
    chance = (
        np.exp(log_chances(scores, null_scores, true, true_null)[0]) if rng.random() < 0.7 else rng.random()
    )
    return scores, null_scores, rng.random(rows) < chance


def slow_loss(
    scores: np.ndarray, nulls: np.ndarray, correct: np.ndarray, temperature: float, null_temperature: float
) -> float:
    total = 0.0
    for row, null_score, right in zip(scores.tolist(), nulls.tolist(), correct.tolist(), strict=True):
        top = max(row)
        weights = [exp((score - top) / temperature) for score in row]
        over = (null_score - top - temperature * log(sum(weights))) / null_temperature
        null, some = (1 / (1 + exp(-min(max(sign * over, -700), 700))) for sign in (1, -1))
        said, not_said = null, some
        if null_score <= top:
            said, not_said = some * weights[0] / sum(weights), null + some * sum(weights[1:]) / sum(weights)
        total -= log(max(said if right else not_said, LEAST_PROBABILITY))
    return total / len(scores)


def test_temperatures_beat_every_pair_of_a_fine_grid() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(25):
        case = random_case(rng)
        found = fit_temperatures(*case)
        grid = np.exp(np.linspace(-3, 3, 25 if len(case[0]) > 20 else 61))
        least = min(
            slow_loss(*case, one, other) for one in grid for other in grid[:: 61 if case[1][0] == -inf else 1]
        )
        assert slow_loss(*case, *found) <= least + 1e-4
        assert negative_log_likelihood(*case, *found) == pytest.approx(slow_loss(*case, *found), abs=1e-6)
        inside += all(-2.99 < log(one) < 2.99 and one != 1.0 for one in found)
    assert inside > 3


def test_temperatures_are_recovered_from_answers_drawn_with_them() -> None:
    rng = np.random.default_rng(5)
    for true, true_null in ((0.5, 3.0), (1.0, 1.0), (3.0, 0.5)):
        scores = -np.sort(-rng.normal(0, 4, (8000, 5)), axis=1)
        null_scores = scores[:, 0] + rng.normal(0, 2, 8000)
        weights = np.exp((scores - scores[:, :1]) / true)
        odds = (null_scores - scores[:, 0]) / true_null - np.log(weights.sum(axis=1)) * true / true_null
        null = 1 / (1 + np.exp(-odds))
        first = (1 - null) * weights[:, 0] / weights.sum(axis=1)
        chance = np.where(null_scores > scores[:, 0], null, first)
        found = fit_temperatures(scores, null_scores, rng.random(8000) < chance)
        assert found == pytest.approx((true, true_null), rel=0.15)


@pytest.mark.parametrize("rows", [1, 50])
def test_temperatures_stay_bounded(rows: int) -> None:
    scores = np.tile([5.0, 4.0, 1.0], (rows, 1))
    never, sure = np.full(rows, -inf), np.full(rows, 9.0)
    right, wrong = np.ones(rows, bool), np.zeros(rows, bool)
    assert fit_temperatures(scores, never, right) == pytest.approx((exp(-3), 1.0), rel=0.01)
    assert fit_temperatures(scores, never, wrong) == pytest.approx((exp(3), 1.0), rel=0.01)
    assert fit_temperatures(scores, sure, right)[1] == pytest.approx(exp(-3), rel=0.01)
    assert fit_temperatures(scores, sure, wrong) == pytest.approx((exp(3), exp(-3)), rel=0.01)


def test_temperatures_are_one_where_nothing_is_better() -> None:
    alone, never = np.array([[5.0, -inf], [2.0, -inf]]), np.full(2, -inf)
    assert fit_temperatures(alone, never, np.array([True, False])) == (1.0, 1.0)
    even = np.array([True, False] * 2)
    assert fit_temperatures(np.zeros((4, 2)), np.full(4, -inf), even) == (1.0, 1.0)
    assert fit_temperatures(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool)) == (1.0, 1.0)

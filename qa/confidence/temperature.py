"""Confidence that means something: temperature scaling and calibration error over arrays. NumPy only, pure.

Implementation of: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599), sections
2, 4.1 and 4.2, with the loss of the one decision a reader makes: is what it said right? Two temperatures,
because a passage that does not tell is another doubt than where in it the answer stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LEAST_PROBABILITY = 1e-12
"""A confident error costs log(1e12) at most: one that no temperature can mend must not end in infinity."""

_LOG_TEMPERATURES = np.linspace(-3.0, 3.0, 25)  # 0.05 to 20; the middle one is temperature 1
ROUNDS = 4
"""Of the search in the best cell of the grid, along one temperature and then the other."""

Point = tuple[float, float]
"""Logarithms of temperature and null temperature."""

_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers whose confidence lies in (lower, upper]; the first bin holds 0, too.

    confidence: their mean confidence; accuracy: the share that is right; both None where there is no answer.
    """

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> list[ReliabilityBin]:
    """A reliability diagram in numbers: `bins` bins of equal width over 0 to 1 (Guo et al. 2017, section 2).

    confidence: (answers,) between 0 and 1. correct: (answers,) true or false, or 1 and 0.
    Raises ValueError for other numbers or shapes.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise ValueError(f"one confidence per answer: {confidence.shape}, {correct.shape}")
    if bins < 1 or not np.all((confidence >= 0) & (confidence <= 1)):
        raise ValueError("a confidence must lie between 0 and 1, and there must be at least one bin")
    edges = np.arange(bins + 1) / bins
    number = np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
    counts = np.bincount(number, minlength=bins)
    sums = np.bincount(number, confidence, bins), np.bincount(number, correct, bins)
    found = []
    for index, count in enumerate(counts.tolist()):
        means = [float(total[index] / count) if count else None for total in sums]
        found.append(ReliabilityBin(float(edges[index]), float(edges[index + 1]), count, *means))
    return found


def expected_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over the bins of `reliability`, weighted by their counts.

    Between 0 (calibrated) and 1: equation 3 of Guo et al. 2017. Raises ValueError where there is no answer.
    """
    rows = reliability(confidence, correct, bins)
    answers = sum(row.count for row in rows)
    if not answers:
        raise ValueError("the calibration error of no answers is not defined")
    distances = (
        row.count * abs(row.accuracy - row.confidence)
        for row in rows
        if row.accuracy is not None and row.confidence is not None
    )
    return sum(distances) / answers


def span_shares(scores: FloatArray, temperature: float) -> tuple[FloatArray, float]:
    """Softmax of a question's span scores, (spans,), and their level: what "no answer" is compared with.

    The level is temperature * logsumexp(scores / temperature), a score a little above the best span's; -inf
    without spans.
    """
    if not len(scores):
        return np.zeros(0), -math.inf
    best = scores.max()
    weights = np.exp((scores - best) / temperature)
    total = weights.sum()
    return weights / total, float(best + temperature * np.log(total))


def null_probability(null_score: float, level: float, null_temperature: float) -> float:
    """Probability that the passage does not tell: Platt scaling (Guo et al. 2017, section 4.1).

    null_score: less the threshold. level: of the spans, see `span_shares`. With the spans' own temperature
    this is "no answer" in one softmax with the spans. 1.0 without spans, or where the null score is infinite.
    """
    if level == -math.inf or null_score == math.inf:
        return 1.0
    return float(np.exp(_log_sigmoid(np.array((null_score - level) / null_temperature))))


def log_chances(
    scores: FloatArray, null_scores: FloatArray, temperature: float, null_temperature: float
) -> tuple[FloatArray, FloatArray]:
    """Log probability that what is said is right, and that it is wrong: two arrays (rows,).

    What is said is "no answer" where its score is above the first span's, else the first span, whose
    probability is its share of the softmax over the spans, of what "no answer" leaves.

    scores: (rows, spans) of a question's spans, best first; -inf = no such span, but for the first.
    null_scores: (rows,) less the threshold; -inf = "no answer" is never said.
    """
    told, others, level = _shares(scores, temperature)
    return _said(told, others, null_scores - level, null_scores > scores[:, 0], null_temperature)


def _shares(scores: FloatArray, temperature: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log share of the first span, of all others together, and the level: three arrays (rows,)."""
    scaled = scores / temperature
    top = scaled.max(axis=1, keepdims=True)
    weights = np.exp(scaled - top)
    # Summing up the others keeps the digits that 1 - p loses where p is close to 1.
    others = weights[:, 1:].sum(axis=1)
    total = np.log(weights[:, 0] + others)
    return scaled[:, 0] - top[:, 0] - total, _log(others) - total, temperature * (top[:, 0] + total)


def _said(
    told: FloatArray,
    others: FloatArray,
    odds: FloatArray,
    withheld: npt.NDArray[np.bool_],
    null_temperature: float | FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """`log_chances` from `_shares`; with a column of null temperatures, a row for each."""
    null, some = _log_sigmoid(odds / null_temperature), _log_sigmoid(-odds / null_temperature)
    right = np.where(withheld, null, some + told)
    wrong = np.where(withheld, some, np.logaddexp(null, some + others))
    least = np.log(LEAST_PROBABILITY)
    return np.maximum(right, least), np.maximum(wrong, least)


def _log(values: FloatArray) -> FloatArray:
    return np.log(values, out=np.full(values.shape, -np.inf), where=values > 0)


def _log_sigmoid(values: FloatArray) -> FloatArray:
    return -np.logaddexp(0.0, -values)


def negative_log_likelihood(
    scores: FloatArray,
    null_scores: FloatArray,
    correct: npt.NDArray[np.bool_],
    temperature: float,
    null_temperature: float,
) -> float:
    """Mean loss, in nats, of the forecast "what is said is right". Shapes: `log_chances`."""
    right, wrong = log_chances(scores, null_scores, temperature, null_temperature)
    return float(-np.where(correct, right, wrong).mean())


def fit_temperatures(
    scores: FloatArray, null_scores: FloatArray, correct: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """The two temperatures between exp(-3) and exp(3) that make the forecasts of `log_chances` fit best.

    Minimises `negative_log_likelihood`: a grid over both log temperatures, because the loss may have several
    valleys, then golden-section search in the best one, for one and the other in turn. Bounded, because where
    all is right (wrong) the loss falls for ever as a temperature falls (rises). Each is 1.0 where nothing is
    better, and where there are no rows.

    scores, null_scores: see `log_chances`. correct: (rows,) whether what is said is right.
    Returns: temperature, null_temperature.
    """
    if not len(scores):
        return 1.0, 1.0

    def loss(point: Point) -> float:
        return negative_log_likelihood(scores, null_scores, correct, *(float(np.exp(part)) for part in point))

    best = _best_of_grid(scores, null_scores, correct)
    point: Point = (float(_LOG_TEMPERATURES[best[0]]), float(_LOG_TEMPERATURES[best[1]]))
    for axis in (0, 1) * ROUNDS:
        low, high = (
            float(_LOG_TEMPERATURES[np.clip(best[axis] + step, 0, len(_LOG_TEMPERATURES) - 1)])
            for step in (-1, 1)
        )
        along = partial(_moved, point, axis)
        found = _golden_section(lambda value, along=along: loss(along(value)), low, high)  # type: ignore[misc]
        point = min(point, along(found), key=loss)
    for axis in (0, 1):
        plain = _moved(point, axis, 0.0)
        point = plain if loss(plain) <= loss(point) + 1e-9 else point
    return float(np.exp(point[0])), float(np.exp(point[1]))


def _best_of_grid(
    scores: FloatArray, null_scores: FloatArray, correct: npt.NDArray[np.bool_]
) -> tuple[int, int]:
    """Places of the best pair of `_LOG_TEMPERATURES`."""
    losses, withheld = [], null_scores > scores[:, 0]
    for log_temperature in _LOG_TEMPERATURES:
        told, others, level = _shares(scores, float(np.exp(log_temperature)))
        right, wrong = _said(told, others, null_scores - level, withheld, np.exp(_LOG_TEMPERATURES)[:, None])
        losses.append(-np.where(correct, right, wrong).mean(axis=1))
    return divmod(int(np.argmin(losses)), len(_LOG_TEMPERATURES))


def _moved(point: Point, axis: int, value: float) -> Point:
    return (value, point[1]) if axis == 0 else (point[0], value)


def _golden_section(loss: Callable[[float], float], low: float, high: float, steps: int = 25) -> float:
    """Where `loss` is least between low and high, within (high - low) * 0.618 ** steps; it has one valley."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    for _ in range(steps):
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - _GOLDEN * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + _GOLDEN * (high - low)
            loss_right = loss(right)
    return left if loss_left <= loss_right else right

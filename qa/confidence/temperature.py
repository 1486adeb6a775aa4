"""Confidence that means something: temperature scaling and calibration error over arrays. NumPy only, pure.

Implementation of: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599), sections
2 and 4.2, with the loss of the one decision a reader makes: is the answer it chose right?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LEAST_PROBABILITY = 1e-12
"""A confident error costs log(1e12) at most: one that no temperature can mend must not end in infinity."""

_LOG_TEMPERATURES = np.linspace(-3.0, 3.0, 49)  # 0.05 to 20; the middle one is temperature 1
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


def log_chances(
    scores: FloatArray, chosen: npt.NDArray[np.integer], temperature: float
) -> tuple[FloatArray, FloatArray]:
    """Log probability that the chosen entry is right, and that it is wrong: two arrays (rows,).

    scores: (rows, entries) logits, -inf = no such entry. chosen: (rows,) an entry that exists.
    """
    rows = np.arange(len(scores))
    scaled = scores / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    weights = np.exp(scaled)
    total = np.log(weights.sum(axis=1))
    weights[rows, chosen] = 0.0
    # Summing up the others keeps the digits that 1 - p loses where p is close to 1.
    others = weights.sum(axis=1)
    least = np.log(LEAST_PROBABILITY)
    wrong = np.log(others, out=np.full(len(scores), -np.inf), where=others > 0) - total
    return np.maximum(scaled[rows, chosen] - total, least), np.maximum(wrong, least)


def negative_log_likelihood(
    scores: FloatArray, chosen: npt.NDArray[np.integer], correct: npt.NDArray[np.bool_], temperature: float
) -> float:
    """Mean loss, in nats, of the forecast "the chosen entry is right". Shapes: `log_chances`."""
    right, wrong = log_chances(scores, chosen, temperature)
    return float(-np.where(correct, right, wrong).mean())


def fit_temperature(
    scores: FloatArray, chosen: npt.NDArray[np.integer], correct: npt.NDArray[np.bool_]
) -> float:
    """The temperature between exp(-3) and exp(3) that makes the chosen entries' probabilities fit best.

    Minimises `negative_log_likelihood`: a grid over log temperature, because the loss may have several
    valleys, then golden-section search in the best one. Bounded, because where all is right (wrong) the
    loss falls for ever as the temperature falls (rises). 1.0 where nothing is better, and where there are
    no rows.
    """
    if not len(scores):
        return 1.0

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(scores, chosen, correct, float(np.exp(log_temperature)))

    losses = [loss(point) for point in _LOG_TEMPERATURES]
    best = int(np.argmin(losses))
    low, high = _LOG_TEMPERATURES[max(best - 1, 0)], _LOG_TEMPERATURES[min(best + 1, len(losses) - 1)]
    found = _golden_section(loss, float(low), float(high))
    candidates = {0.0: loss(0.0), float(_LOG_TEMPERATURES[best]): losses[best], found: loss(found)}
    least = min(candidates.values())
    if candidates[0.0] <= least + 1e-9:
        return 1.0
    return float(np.exp(min(candidates, key=candidates.__getitem__)))


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

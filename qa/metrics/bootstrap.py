"""How far a mean score would move on other questions: bootstrap interval, and a paired test of two systems.

Sources: Efron and Tibshirani 1993, chapter 13 (percentile interval); Koehn 2004, "Statistical significance
tests for machine translation evaluation" (paired bootstrap); Riezler and Maxwell 2005 (shifting to the null
hypothesis). What is resampled is questions. Questions about one passage are not independent, so that
intervals are a little narrow.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from qa.errors import InputError


@dataclass(frozen=True)
class PairedResult:
    """System A against system B on the same questions.

    difference: mean of A minus mean of B, in the unit of the scores.
    p_value: two-sided, in (0, 1]: the chance of a difference at least this large if A and B were
        equally good; never below 1 / (samples + 1).
    interval: percentile interval of the difference, (low, high).
    """

    difference: float
    p_value: float
    interval: tuple[float, float]


def bootstrap_interval(
    scores: Sequence[float], *, samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean of `scores`, in their unit.

    scores: (questions,) one score per question; scores of 0 to 1 give a share, times 100 percent.
    samples: how many times the questions are drawn with replacement.
    The same scores, order and seed give the same interval on every Python and machine.
    """
    return _percentile_interval(_resampled_means(scores, samples, confidence, seed), confidence)


def paired_bootstrap(
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedResult:
    """Is A better than B, or is it the choice of questions? Paired over questions, two-sided.

    scores_a, scores_b: (questions,) scores of the same questions in the same order.
    """
    if len(scores_a) != len(scores_b):
        raise InputError(
            f"A paired test needs the same questions: {len(scores_a)} scores against {len(scores_b)}."
        )
    differences = [a - b for a, b in zip(scores_a, scores_b, strict=True)]
    means = _resampled_means(differences, samples, confidence, seed)
    observed = math.fsum(differences) / len(differences)
    # Centred on the observed difference, the resampled means show the spread if the true one were 0. The
    # slack keeps rounding from deciding about resamples exactly as extreme as the observation.
    as_extreme = sum(abs(mean - observed) >= abs(observed) - 1e-12 for mean in means)
    return PairedResult(observed, (as_extreme + 1) / (samples + 1), _percentile_interval(means, confidence))


def _resampled_means(scores: Sequence[float], samples: int, confidence: float, seed: int) -> list[float]:
    """Means of `samples` draws of len(scores) scores with replacement, ascending."""
    if not scores:
        raise InputError("A bootstrap needs the score of at least one question.")
    if samples < 1:
        raise InputError(f"A bootstrap needs at least 1 sample, got {samples}; 1000 is usual.")
    if not 0 < confidence < 1:
        raise InputError(f"Confidence must lie between 0 and 1 (exclusive), got {confidence}; 0.95 is usual.")
    # random() is the one method whose sequence Python promises to keep; that of choices() may change.
    draw = random.Random(seed).random
    values = list(scores)
    count = len(values)
    return sorted(
        math.fsum([values[int(draw() * count)] for _ in range(count)]) / count for _ in range(samples)
    )


def _percentile_interval(ascending: list[float], confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    return _quantile(ascending, tail), _quantile(ascending, 1 - tail)


def _quantile(ascending: list[float], share: float) -> float:
    """Linear interpolation between the two nearest ranks (Hyndman and Fan 1996, type 7)."""
    position = share * (len(ascending) - 1)
    below = int(position)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (position - below) * (ascending[above] - ascending[below])

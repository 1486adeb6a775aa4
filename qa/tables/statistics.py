"""What a table says of several numbers: mean, spread, interval, and whether one row is better than another.

Over seeds: mean and sample standard deviation (n - 1). Over questions: percentile bootstrap, and the paired
bootstrap of `qa.metrics.bootstrap`, both on each question's mean over the seeds: two seeds do not make twice
the questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from qa.errors import InputError
from qa.metrics import PairedResult, bootstrap_interval, paired_bootstrap

SIGNIFICANT = 0.05
"""Two-sided p-value below which a difference counts."""


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of one or more values."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1), in the values' unit; None for a single value."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def over_seeds(marks: Sequence[Sequence[float]]) -> list[float]:
    """(seeds, questions) marks -> (questions,) means. Raises InputError where the numbers differ."""
    if len({len(one) for one in marks}) != 1:
        raise InputError(f"marks of {' and '.join(str(len(one)) for one in marks)} questions have no mean")
    return [mean(column) for column in zip(*marks, strict=True)]


def interval(marks: Sequence[Sequence[float]], *, samples: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval over questions of the mean of (seeds, questions) marks."""
    return bootstrap_interval(over_seeds(marks), samples=samples)


def compare(
    marks_a: Sequence[Sequence[float]], marks_b: Sequence[Sequence[float]], *, samples: int = 1000
) -> PairedResult:
    """Two rows on the same questions: difference of their means, two-sided p-value, interval."""
    return paired_bootstrap(over_seeds(marks_a), over_seeds(marks_b), samples=samples)

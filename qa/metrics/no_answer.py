"""The no-answer threshold: answering "no answer" where the null odds exceed it, and the best one by search.

Null odds are any number that grows with the belief that the passage does not tell: a probability, or the
null score minus the best span's score (Devlin et al. 2019, section 4.3). Rules: evaluate-v2.0.py,
`apply_no_ans_threshold` and `find_best_thresh`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from qa.errors import InputError
from qa.metrics.answers import Golds


@dataclass(frozen=True)
class BestThreshold:
    """The best score a threshold can reach, and the lowest cut point that reaches it.

    score: percent of the questions.
    threshold: in the unit of the null odds; "no answer" where null odds > threshold (strictly).
    """

    score: float
    threshold: float


def apply_threshold(
    scores: Mapping[str, float], null_odds: Mapping[str, float], golds: Golds, threshold: float
) -> dict[str, float]:
    """Scores after answering "no answer" wherever null odds > threshold (strictly).

    There the score becomes 1.0 for a question without golds and 0.0 for one with golds; elsewhere it stays.
    Ids in `null_odds` beyond those of `scores` are not looked at. `InputError` where odds are missing or not
    comparable.
    """
    if math.isnan(threshold):
        raise InputError("The no-answer threshold is not a number; give one in the unit of the null odds.")
    _check_odds(scores, null_odds)
    return {
        id_: float(not golds[id_]) if null_odds[id_] > threshold else score for id_, score in scores.items()
    }


def find_best_threshold(
    scores: Mapping[str, float],
    null_odds: Mapping[str, float],
    golds: Golds,
    *,
    predictions: Mapping[str, str] | None = None,
) -> BestThreshold:
    """The threshold with the highest mean of `scores` (0 to 1, one per question) over all cut points.

    Equals evaluate-v2.0.py on files whose null odds are all different, with two repairs that make the
    threshold reachable, so that `apply_threshold` with it gives the score returned:
    - Questions with equal null odds change sides together. The official script cuts between them, so there
      its result depends on the order of the file and can be one that no threshold gives.
    - Where answering nothing is best, the official threshold is always 0.0. It is kept where all null odds
      are above 0, as probabilities are; otherwise the threshold lies below the lowest null odds.

    predictions: with them, a non-empty prediction to an unanswerable question counts as wrong even if
        nothing is left of it after normalising ("The."), which is the official rule; without them, such a
        question counts by its score.

    The result is tuned on these questions, hence an upper bound on them: fit on one split, report on another.
    `InputError` where the ids of scores and golds differ, or odds are missing or not comparable.
    """
    if scores.keys() != golds.keys():
        odd = next(iter(scores.keys() ^ golds.keys()))
        raise InputError(
            f"Threshold search needs one score per question, but question {odd!r} lacks score or golds."
        )
    if not scores:
        raise InputError("Threshold search needs at least one question.")
    _check_odds(scores, null_odds)

    def gain(id_: str) -> float:
        """What the sum of scores gains when this question is answered and no longer left empty."""
        if golds[id_]:
            return scores[id_]
        if predictions is None:
            return scores[id_] - 1.0
        return -1.0 if predictions[id_] else 0.0

    total: float = sum(not texts for texts in golds.values())
    best = total
    lowest = min(null_odds[id_] for id_ in scores)
    threshold = 0.0 if lowest > 0 else min(lowest - 1.0, math.nextafter(lowest, -math.inf))
    for odds, tied in groupby(sorted(scores, key=null_odds.__getitem__), key=null_odds.__getitem__):
        for id_ in tied:
            total += gain(id_)
        if total > best:
            best, threshold = total, odds
    return BestThreshold(100.0 * best / len(scores), threshold)


def _check_odds(scores: Mapping[str, float], null_odds: Mapping[str, float]) -> None:
    missing = [id_ for id_ in scores if id_ not in null_odds]
    if missing:
        raise InputError(f"Null odds are missing for {len(missing)} questions, the first is {missing[0]!r}.")
    # With odds of -inf, answering nothing would need a threshold below -inf. +inf (no span found) is fine.
    bad = next((id_ for id_ in scores if math.isnan(null_odds[id_]) or null_odds[id_] == -math.inf), None)
    if bad is not None:
        raise InputError(f"The null odds of question {bad!r} are {null_odds[bad]}; give a number.")

"""The official SQuAD evaluations over a data set: same keys, same order, same numbers to the last digit.

Sources: evaluate-v1.1.py and evaluate-v2.0.py (see `qa.metrics.answers` for where they part on single
answers). Where the official scripts stop with a KeyError or overlook something, an `InputError` or a warning
says so here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qa.errors import InputError
from qa.metrics.answers import Golds, QuestionScores, Version, score_questions
from qa.metrics.no_answer import apply_threshold, find_best_threshold


@dataclass(frozen=True)
class IdDifference:
    """How the ids of the predictions differ from those of the questions.

    missing: questions without a prediction, in the order of the data.
    extra: predictions without a question, in their own order.
    """

    missing: list[str]
    extra: list[str]


def compare_ids(golds: Golds, predicted: Iterable[str]) -> IdDifference:
    """Which questions lack a prediction, and which predictions lack a question."""
    ids = list(predicted)
    known = set(ids)
    return IdDifference([id_ for id_ in golds if id_ not in known], [id_ for id_ in ids if id_ not in golds])


def final_scores(
    golds: Golds,
    predictions: Mapping[str, str],
    *,
    version: Version = "2.0",
    null_odds: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> QuestionScores:
    """The scores per question behind the official exact and F1: threshold applied, missing predictions at 0.

    The input of `bootstrap_interval` and `paired_bootstrap`. Null odds and threshold do nothing under 1.1.
    """
    answered = _answered(golds, predictions)
    raw = score_questions(answered, predictions, version=version)
    if version == "1.1":
        return QuestionScores(_complete(raw.exact, golds), _complete(raw.f1, golds))
    return _finish(golds, answered, raw, null_odds, threshold)


def evaluate_squad1(
    golds: Golds, predictions: Mapping[str, str], *, scores: QuestionScores | None = None
) -> dict[str, float]:
    """SQuAD 1.1 scores, as evaluate-v1.1.py.

    scores: `final_scores` of these very arguments, where they are known already.
    Returns: exact_match, f1 (percent of all questions in `golds`). Warnings tell of missing predictions,
    which count 0, and of predictions without a question. `InputError` where a question has no gold.
    """
    unanswerable = next((id_ for id_, texts in golds.items() if not texts), None)
    if unanswerable is not None:
        raise InputError(f"Question {unanswerable!r} has no gold answer; score the data as version 2.0.")
    _check_questions(golds, predictions, allow_missing=True)
    scores = scores or final_scores(golds, predictions, version="1.1")
    return {"exact_match": _percent(scores.exact, golds), "f1": _percent(scores.f1, golds)}


def evaluate_squad2(
    golds: Golds,
    predictions: Mapping[str, str],
    *,
    null_odds: Mapping[str, float] | None = None,
    threshold: float = 1.0,
    allow_missing: bool = False,
    raw: QuestionScores | None = None,
) -> dict[str, float]:
    """SQuAD 2.0 scores, as evaluate-v2.0.py.

    null_odds: question id -> how much "no answer" is preferred; the answer becomes "" where they exceed
        `threshold` (strictly). The default threshold suits probabilities: 1.0 changes nothing there.
    raw: `score_questions` of the questions that have a prediction, where it is known already.
    Returns: exact, f1 (percent), total (questions), then HasAns_* and NoAns_* over the questions with and
    without golds (absent where there are none), and, where null odds are given, best_exact,
    best_exact_thresh, best_f1, best_f1_thresh. The best_* are searched from the predictions as they stand,
    before `threshold` (see `find_best_threshold`: ties are grouped), and are an upper bound on these very
    questions.

    Questions without a prediction: an `InputError`, or with `allow_missing` a warning and 0 everywhere,
    whether or not they have golds. A warning tells of predictions without a question.
    """
    _check_questions(golds, predictions, allow_missing=allow_missing)
    answered = _answered(golds, predictions)
    raw = raw or score_questions(answered, predictions, version="2.0")
    scores = _finish(golds, answered, raw, null_odds, threshold)
    result = _part(scores, list(golds))
    has_answer = [id_ for id_, texts in golds.items() if texts]
    no_answer = [id_ for id_, texts in golds.items() if not texts]
    for prefix, ids in (("HasAns", has_answer), ("NoAns", no_answer)):
        if ids:
            result |= {f"{prefix}_{name}": value for name, value in _part(scores, ids).items()}
    if null_odds is None:
        return result
    for name, by_question in (("exact", raw.exact), ("f1", raw.f1)):
        best = find_best_threshold(by_question, null_odds, answered, predictions=predictions)
        # Missing predictions are 0 at every threshold: they only enlarge the number of questions.
        result[f"best_{name}"] = best.score * (len(answered) / len(golds))
        result[f"best_{name}_thresh"] = best.threshold
    return result


def _answered(golds: Golds, predictions: Mapping[str, str]) -> Golds:
    return {id_: texts for id_, texts in golds.items() if id_ in predictions}


def _complete(scores: Mapping[str, float], golds: Golds) -> dict[str, float]:
    """Scores for every question, 0 where there was no prediction."""
    return {id_: scores.get(id_, 0.0) for id_ in golds}


def _finish(
    golds: Golds,
    answered: Golds,
    raw: QuestionScores,
    null_odds: Mapping[str, float] | None,
    threshold: float,
) -> QuestionScores:
    """SQuAD 2.0 scores of all questions from those of the predictions as they stand."""
    # Official: without a file of null odds they are all 0.0, so a negative threshold empties every answer.
    odds = dict.fromkeys(answered, 0.0) if null_odds is None else null_odds
    exact = apply_threshold(raw.exact, odds, answered, threshold)
    token_f1 = apply_threshold(raw.f1, odds, answered, threshold)
    return QuestionScores(_complete(exact, golds), _complete(token_f1, golds))


def _part(scores: QuestionScores, ids: list[str]) -> dict[str, float]:
    return {"exact": _percent(scores.exact, ids), "f1": _percent(scores.f1, ids), "total": len(ids)}


def _percent(scores: Mapping[str, float], ids: Iterable[str]) -> float:
    # A plain sum in file order, as in the official scripts: fsum would differ in the last digit.
    chosen = [scores[id_] for id_ in ids]
    return 100.0 * sum(chosen) / len(chosen)


def _check_questions(golds: Golds, predictions: Mapping[str, str], *, allow_missing: bool) -> None:
    if not golds:
        raise InputError("There are no questions to score; give golds for at least one.")
    ids = compare_ids(golds, predictions)
    if ids.extra:
        warnings.warn(
            f"{len(ids.extra)} predictions have no question and are left out, first {ids.extra[0]!r}.",
            stacklevel=3,
        )
    if ids.missing:
        count = f"{len(ids.missing)} of {len(golds)}"
        text = f"{count} questions have no prediction, the first is {ids.missing[0]!r}"
        if not allow_missing:
            raise InputError(f"{text}: predict them, or let them count as 0 (allow_missing).")
        warnings.warn(f"{text}; they count as 0.", stacklevel=3)

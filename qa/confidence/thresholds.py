"""The no-answer threshold and the temperatures, fitted on dev questions and kept with the model.

The threshold maximises dev F1, as in Devlin et al. 2019, section 4.3, and SpanBERT (Joshi et al. 2020); the
temperatures make confidence a probability (Guo et al. 2017). `qa.confidence.final_answers` applies them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np

from qa.confidence.final_answers import Calibration, FinalAnswer, choose, read_calibration
from qa.confidence.temperature import (
    ReliabilityBin,
    expected_calibration_error,
    fit_temperatures,
    reliability,
)
from qa.decoding.spans import span_scores
from qa.errors import InputError
from qa.metrics import apply_threshold, find_best_threshold, score_questions
from qa.records import Prediction

__all__ = [
    "Calibration",
    "FinalAnswer",
    "ReliabilityBin",
    "choose",
    "cross_fitted_f1",
    "expected_calibration_error",
    "fit_calibration",
    "read_calibration",
    "reliability",
]

Golds = Mapping[str, Sequence[str]]


def fit_calibration(predictions: Sequence[Prediction], golds: Golds, *, fitted_on: str) -> Calibration:
    """Threshold and temperatures for the reader that made these predictions.

    predictions: of the dev questions. golds: question id -> gold texts, none = unanswerable; the same
        questions.
    fitted_on: their name, for the record.

    The threshold is the official search's on F1, and None where no question is unanswerable. The
    temperatures are those under which "the answer is an exact match" is forecast best
    (`qa.confidence.temperature.fit_temperatures`), given that threshold. Scores of the same questions under
    their own threshold are an oracle: see `cross_fitted_f1`. Raises ValueError where predictions and golds
    are of different questions, InputError where there are none.
    """
    _check_match(predictions, golds)
    threshold = None if all(golds.values()) else _fit_threshold(predictions, golds)
    rough = Calibration(threshold, 1.0, fitted_on, len(predictions))
    answers = [choose(prediction, rough) for prediction in predictions]
    exact = score_questions(golds, {answer.id: answer.text for answer in answers}).exact
    correct = np.array([exact[answer.id] == 1.0 for answer in answers])
    temperature, null_temperature = _fit_temperatures(predictions, correct, threshold)
    fitted = replace(rough, temperature=temperature, null_temperature=null_temperature)
    before = [answer.probability for answer in answers]
    after = [choose(prediction, fitted).probability for prediction in predictions]
    return replace(
        fitted,
        expected_calibration_error=expected_calibration_error(after, correct),
        uncalibrated_error=expected_calibration_error(before, correct),
    )


def cross_fitted_f1(predictions: Sequence[Prediction], golds: Golds) -> float:
    """SQuAD 2.0 F1 in percent under a threshold that was not tuned on the questions it scores.

    The questions are halved by a hash of their ids (the halves differ by one question at most); the threshold
    tuned on one half answers the other, both ways. The official best F1 tunes on what it scores, an oracle.
    Raises ValueError for fewer than two questions, or golds of other questions.
    """
    _check_match(predictions, golds)
    if len(predictions) < 2:
        raise ValueError("cross-fitting needs two questions at least")
    ordered = sorted(
        predictions, key=lambda prediction: sha256(prediction.id.encode(errors="surrogatepass")).digest()
    )
    halves = ordered[::2], ordered[1::2]
    total = 0.0
    for tuned, scored in (halves, halves[::-1]):
        threshold = _fit_threshold(tuned, _golds_of(tuned, golds))
        f1, odds = _span_f1(scored, golds)
        total += sum(apply_threshold(f1, odds, golds, threshold).values())
    return 100.0 * total / len(predictions)


def _check_match(predictions: Sequence[Prediction], golds: Golds) -> None:
    if not predictions:
        raise InputError("there are no dev questions to fit a threshold and a temperature on; give some")
    ids = {prediction.id for prediction in predictions}
    if len(ids) < len(predictions) or ids != set(golds):
        raise ValueError(
            f"{len(predictions)} predictions of {len(ids)} questions, golds of {len(golds)} others"
        )


def _golds_of(predictions: Sequence[Prediction], golds: Golds) -> dict[str, Sequence[str]]:
    return {prediction.id: golds[prediction.id] for prediction in predictions}


def _best_texts(predictions: Sequence[Prediction]) -> dict[str, str]:
    return {
        prediction.id: prediction.n_best[0].text if prediction.n_best else "" for prediction in predictions
    }


def _span_f1(predictions: Sequence[Prediction], golds: Golds) -> tuple[dict[str, float], dict[str, float]]:
    """F1 of every best span, 0 to 1, and the null odds, both by question id."""
    f1 = score_questions(_golds_of(predictions, golds), _best_texts(predictions)).f1
    return f1, {prediction.id: prediction.null_odds for prediction in predictions}


def _fit_threshold(predictions: Sequence[Prediction], golds: Golds) -> float:
    """A finite threshold that answers these questions as the official search's best one does.

    That one is the null odds of some question; this one lies half-way to the next higher odds, because a
    later run in other batches sees that question's odds change in the last digits, and must not change its
    answer.
    """
    f1, odds = _span_f1(predictions, golds)
    best = find_best_threshold(f1, odds, golds, predictions=_best_texts(predictions)).threshold
    finite = [value for value in odds.values() if math.isfinite(value)]
    best = min(best, max(finite, default=0.0))
    above = min((value for value in finite if value > best), default=best + 2.0)
    middle = best + (above - best) / 2
    return middle if middle < above else best


def _fit_temperatures(
    predictions: Sequence[Prediction], correct: np.ndarray, threshold: float | None
) -> tuple[float, float]:
    """Temperatures for the answers chosen with `threshold`; questions without a span tell nothing of them."""
    rows = [row for row, prediction in enumerate(predictions) if prediction.n_best]
    width = max((len(predictions[row].n_best) for row in rows), default=0)
    scores = np.full((len(rows), width), -math.inf)
    for place, row in enumerate(rows):
        found = span_scores(predictions[row].n_best)
        scores[place, : len(found)] = found
    null_scores = np.full(len(rows), -math.inf)
    if threshold is not None:
        null_scores[:] = [predictions[row].null_score - threshold for row in rows]
    return fit_temperatures(scores, null_scores, correct[rows])

"""From a reader's scores to answers and marks: what happens after the last batch, on every rank alike.

Training-time evaluation, prediction and the predictor all come through here: one question gets one answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from qa.confidence.final_answers import Calibration, FinalAnswer, choose
from qa.confidence.temperature import expected_calibration_error
from qa.confidence.thresholds import cross_fitted_f1, fit_calibration
from qa.decoding import DecodingSettings, decode
from qa.decoding.spans import span_texts
from qa.metrics import (
    Golds,
    QuestionScores,
    ThresholdSource,
    Version,
    bootstrap_interval,
    evaluate_squad1,
    evaluate_squad2,
    oracle_scores,
    score_questions,
    signature,
)
from qa.records import Prediction
from qa.windows.reading import window_table

if TYPE_CHECKING:
    from qa.decoding import WindowScores
    from qa.questions import QuestionSet


METRIC_NAMES = (
    *(
        "loss",
        "exact_match",
        "f1",
        "total",
        "HasAns_exact",
        "HasAns_f1",
        "HasAns_total",
        "NoAns_exact",
        "NoAns_f1",
    ),
    *(
        "NoAns_total",
        "best_exact",
        "best_exact_thresh",
        "best_f1",
        "best_f1_thresh",
        "cross_fitted_f1",
        "threshold",
    ),
    *("top5_exact", "top5_f1", "top20_exact", "top20_f1", "expected_calibration_error"),
    *("temperature", "null_temperature"),
)
"""What `--metric_for_best_model` may name; HasAns, NoAns, best and threshold need unanswerable questions."""


@dataclass(frozen=True)
class Evaluation:
    """Everything known about a question set after a reader has seen it.

    metrics: plain names to numbers, scores in percent. calibration: the one the answers were chosen with.
    marks: question id -> exact match and F1 of its answer, each 0 to 1; empty where nothing was scored.
    """

    predictions: Sequence[Prediction]
    answers: Sequence[FinalAnswer]
    metrics: dict[str, float]
    calibration: Calibration
    signature: str = ""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    marks: dict[str, tuple[float, float]] = field(default_factory=dict)


def find_spans(questions: QuestionSet, scores: WindowScores, settings: DecodingSettings) -> list[Prediction]:
    """Post-processing hook: n-best spans and null score of every question, in the order of the examples."""
    table = questions.table
    return decode(
        scores, window_table(questions.windows.table), table["context"][:], table["id"][:], settings
    )


def score_predictions(
    predictions: Sequence[Prediction],
    golds: Golds | None,
    *,
    calibration: Calibration | None,
    name: str,
    threshold: float | None = None,
    bootstrap_samples: int = 0,
) -> Evaluation:
    """Metrics hook: answers chosen with a calibration, scored as the official evaluators do.

    golds: None where no answers came with the questions: nothing is scored.
    calibration: the one saved with the reader; None: fitted on these very questions, as SpanBERT does while
        it trains, which makes the threshold an oracle (`cross_fitted_f1` is the figure without that help).
    threshold: a no-answer threshold given by the user, in place of the calibration's.
    Sets without unanswerable questions are scored by SQuAD 1.1's rules, others by SQuAD 2.0's. By those of
    1.1 every question has an answer: a threshold saved with the reader is left aside there, and with it the
    probability of "no answer"; one given by the user is not.
    """
    if golds is None:
        chosen_with = _with_threshold(calibration or Calibration.unfitted(unanswerable=True), threshold)
        return Evaluation(
            predictions, [choose(prediction, chosen_with) for prediction in predictions], {}, chosen_with
        )
    source: ThresholdSource = "oracle" if calibration is None else "dev"
    source = source if threshold is None else "given"
    chosen_with = _with_threshold(
        calibration or fit_calibration(predictions, golds, fitted_on=name), threshold
    )
    version: Version = "1.1" if all(golds.values()) else "2.0"
    if version == "1.1" and threshold is None:
        chosen_with = replace(chosen_with, threshold=None)
    answers = [choose(prediction, chosen_with) for prediction in predictions]
    texts = {answer.id: answer.text for answer in answers}
    applied = chosen_with.threshold
    scores = score_questions(golds, texts, version=version)
    metrics = _official(predictions, golds, texts, scores, version) | _oracle(predictions, golds)
    # Confidence is that of an exact match by the rules of 2.0, whatever the set.
    right = (scores if version == "2.0" else score_questions(golds, texts, version="2.0")).exact
    metrics |= _confidence_metrics(predictions, golds, right, answers, chosen_with)
    metrics |= {} if applied is None else {"threshold": applied}
    mark = signature(
        golds,
        version=version,
        threshold=applied,
        threshold_source=source,
        samples=bootstrap_samples,
    )
    return Evaluation(
        predictions,
        answers,
        metrics,
        chosen_with,
        mark,
        _intervals(scores, bootstrap_samples),
        {key: (float(exact), scores.f1[key]) for key, exact in scores.exact.items()},
    )


def _with_threshold(calibration: Calibration, threshold: float | None) -> Calibration:
    return calibration if threshold is None else replace(calibration, threshold=threshold)


def _official(
    predictions: Sequence[Prediction],
    golds: Golds,
    texts: dict[str, str],
    scores: QuestionScores,
    version: Version,
) -> dict[str, float]:
    """Official scores under one pair of names, `exact_match` and `f1`, whatever the version calls them."""
    if version == "1.1":
        return evaluate_squad1(golds, texts, scores=scores)
    best_spans = {p.id: p.n_best[0].text if p.n_best else "" for p in predictions}
    searched = evaluate_squad2(golds, best_spans, null_odds=finite_null_odds(predictions))
    official = evaluate_squad2(golds, texts, raw=scores)
    official |= {key: value for key, value in searched.items() if key.startswith("best_")}
    return {"exact_match": official.pop("exact"), **official}


def _oracle(predictions: Sequence[Prediction], golds: Golds) -> dict[str, float]:
    """How good the best of the first 5 and 20 spans is, over the questions that have an answer."""
    answerable = {key: texts for key, texts in golds.items() if texts}
    n_best = {p.id: span_texts(p.n_best, 20) for p in predictions if p.id in answerable}
    return oracle_scores(answerable, n_best, ks=(5, 20)) if answerable else {}


def _confidence_metrics(
    predictions: Sequence[Prediction],
    golds: Golds,
    right: dict[str, float],
    answers: Sequence[FinalAnswer],
    chosen_with: Calibration,
) -> dict[str, float]:
    """Whether probabilities can be believed, and the F1 that no threshold was tuned for."""
    found = {
        "expected_calibration_error": expected_calibration_error(
            [answer.probability for answer in answers], [right[answer.id] for answer in answers]
        ),
        "temperature": chosen_with.temperature,
    }
    if chosen_with.threshold is not None:
        found["null_temperature"] = chosen_with.null_temperature
    if any(golds.values()) and not all(golds.values()):
        found["cross_fitted_f1"] = cross_fitted_f1(predictions, golds)
    return found


def _intervals(scores: QuestionScores, samples: int) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals over questions, in percent; none without samples."""
    if not samples:
        return {}
    found = {}
    for key, values in (("exact_match", scores.exact), ("f1", scores.f1)):
        low, high = bootstrap_interval(list(values.values()), samples=samples)
        found[key] = (100 * low, 100 * high)
    return found


def finite_null_odds(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Null odds as the official files hold them: an infinite one becomes the largest finite one plus one."""
    odds = {p.id: p.null_odds for p in predictions}
    largest = max((value for value in odds.values() if value != float("inf")), default=0.0)
    return {key: min(value, largest + 1.0) for key, value in odds.items()}

"""From n-best lists to metrics: every set of answers is scored once by each set of rules it needs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import qa.evaluation
import qa.metrics.squad
from qa.confidence.final_answers import Calibration
from qa.evaluation import score_predictions
from qa.metrics import evaluate_squad1, evaluate_squad2
from qa.records import Prediction, Span

PREDICTIONS = [
    Prediction("a", (Span(0, 8, "the Nile", 3.0), Span(0, 4, "Nile", 1.0)), -1.0),
    Prediction("b", (Span(0, 5, "Congo", 2.0),), 1.5),
    Prediction("c", (Span(0, 4, "Oder", 0.5),), 4.0),
]
ANSWERABLE = {"a": ["Nile"], "b": ["the river Congo"], "c": ["Elbe"]}
MIXED = {**ANSWERABLE, "c": []}


@pytest.mark.parametrize(
    ("golds", "expected"),
    [
        # 1.1: official scores and marks; 2.0: whether confidence can be believed.
        (ANSWERABLE, {("1.1", "Nile Congo Oder"): 1, ("2.0", "Nile Congo Oder"): 1}),
        # 2.0: the answers for all three; the best spans, whatever the threshold, for the best_* search.
        (MIXED, {("2.0", "Nile Congo "): 1, ("2.0", "Nile Congo Oder"): 1}),
    ],
)
def test_each_set_of_answers_is_scored_once(
    golds: dict[str, list[str]], expected: dict[tuple[str, str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qa.evaluation, "cross_fitted_f1", lambda *arguments: 0.0)
    calls: Counter[tuple[str, str]] = Counter()
    original = qa.metrics.squad.score_questions

    def counted(golds: Any, texts: Any, *, version: Any) -> Any:
        calls[version, " ".join(texts[key] for key in golds).replace("the ", "")] += 1
        return original(golds, texts, version=version)

    monkeypatch.setattr(qa.evaluation, "score_questions", counted)
    monkeypatch.setattr(qa.metrics.squad, "score_questions", counted)
    calibration = Calibration(threshold=1.0, temperature=1.0, fitted_on="dev", questions=3)
    found = score_predictions(PREDICTIONS, golds, calibration=calibration, name="dev")
    assert calls == expected
    texts = {"a": "the Nile", "b": "Congo", "c": "Oder" if golds is ANSWERABLE else ""}
    assert {answer.id: answer.text for answer in found.answers} == texts
    if golds is ANSWERABLE:
        official = evaluate_squad1(golds, texts)
    else:
        official = evaluate_squad2(golds, texts)
        official["exact_match"] = official.pop("exact")
    assert {name: found.metrics[name] for name in official} == official
    assert found.marks == {"a": (1.0, 1.0), "b": (0.0, 2 / 3), "c": (float(golds is MIXED),) * 2}

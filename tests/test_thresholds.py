"""Final answers: threshold and confidence, hand-computed and against brute force over every threshold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from math import exp, inf, log

import numpy as np
import pytest

from qa.confidence.final_answers import Calibration, choose
from qa.confidence.thresholds import cross_fitted_f1, fit_calibration
from qa.errors import InputError
from qa.metrics import find_best_threshold, score_questions
from qa.records import Prediction, Span


def prediction(id_: str, spans: Sequence[tuple[str, float]], null_score: float) -> Prediction:
    found = tuple(Span(place, place + len(text), text, score) for place, (text, score) in enumerate(spans))
    return Prediction(id_, found, null_score)


WORDS = ["red", "blue", "green", "red car", "blue car"]


def random_dev(
    rng: np.random.Generator, questions: int, decimals: int
) -> tuple[list[Prediction], dict[str, list[str]]]:
    predictions, golds = [], {}
    for number in range(questions):
        texts = rng.choice(WORDS, size=int(rng.integers(0, 4)), replace=False).tolist()
        scores = np.sort(np.round(rng.normal(0, 2, len(texts)), decimals))[::-1].tolist()
        null_score = float(np.round(rng.normal(0, 2), decimals))
        predictions.append(prediction(f"q{number}", list(zip(texts, scores, strict=True)), null_score))
        golds[f"q{number}"] = rng.choice(WORDS, size=int(rng.integers(0, 3))).tolist()
    return predictions, golds


def f1_with(predictions: list[Prediction], golds: dict[str, list[str]], threshold: float) -> float:
    """Sum of F1 after answering "" where null odds > threshold, from the official scores of the texts."""
    texts = {p.id: p.n_best[0].text if p.n_best and not p.null_odds > threshold else "" for p in predictions}
    return sum(score_questions({p.id: golds[p.id] for p in predictions}, texts).f1.values())


def cuts(predictions: list[Prediction]) -> list[float]:
    return [-1e9, *sorted({p.null_odds for p in predictions if p.null_odds < inf})]


@pytest.mark.parametrize("decimals", [0, 6])
def test_threshold_is_as_good_as_the_best_of_all(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    for _ in range(150):
        predictions, golds = random_dev(rng, int(rng.integers(1, 25)), decimals)
        threshold = fit_calibration(predictions, golds, fitted_on="dev").threshold
        if all(golds.values()):
            assert threshold is None
            continue
        assert threshold is not None
        best = max(f1_with(predictions, golds, cut) for cut in cuts(predictions))
        assert f1_with(predictions, golds, threshold) == pytest.approx(best)
        texts = {p.id: p.n_best[0].text if p.n_best else "" for p in predictions}
        odds = {p.id: p.null_odds for p in predictions}
        official = find_best_threshold(score_questions(golds, texts).f1, odds, golds, predictions=texts)
        assert 100 * best / len(predictions) == pytest.approx(official.score)
        assert [value > threshold for value in odds.values()] == [
            value > official.threshold for value in odds.values()
        ]


def test_threshold_by_hand_keeps_its_distance_from_the_questions() -> None:
    predictions = [
        prediction("right", [("red", 5.0)], 1.0),  # odds -4: answer it
        prediction("half", [("red car", 2.0)], 1.0),  # odds -1: answer it, for F1 2/3
        prediction("none", [("blue", 1.0)], 2.0),  # odds +1: do not
        prediction("lost", [("blue", 0.0)], 9.0),  # odds +9: wrong either way
    ]
    golds = {"right": ["red"], "half": ["red"], "none": [], "lost": ["red"]}
    calibration = fit_calibration(predictions, golds, fitted_on="dev")
    assert calibration.threshold == 0.0  # half-way between -1 and +1; the official search says -1
    answers = {p.id: choose(p, calibration).text for p in predictions}
    assert answers == {"right": "red", "half": "red car", "none": "", "lost": ""}
    noisy = [replace(p, null_score=p.null_score + 1e-5) for p in predictions]
    assert {p.id: choose(p, calibration).text for p in noisy} == answers


@pytest.mark.parametrize(
    ("golds", "answered"),
    [
        ({"a": ["red"], "b": ["red"], "c": []}, {"a": "red", "b": "red", "c": "red"}),
        ({"a": [], "b": [], "c": []}, {"a": "", "b": "", "c": ""}),
    ],
)
def test_threshold_is_finite_where_all_or_none_should_be_answered(
    golds: dict[str, list[str]], answered: dict[str, str]
) -> None:
    predictions = [
        prediction(id_, [("red", 1.0)], odds + 1.0) for id_, odds in (("a", 2.0), ("b", 3.0), ("c", -1.0))
    ]
    calibration = fit_calibration(
        [*predictions, prediction("d", [], 0.0)], {**golds, "d": []}, fitted_on="dev"
    )
    assert calibration.threshold is not None
    assert abs(calibration.threshold) < 10
    assert {p.id: choose(p, calibration).text for p in predictions} == answered


def test_probabilities_sum_to_one_and_the_given_answer_has_its_own() -> None:
    rng = np.random.default_rng(7)
    given = 0
    for _ in range(40):
        predictions, golds = random_dev(rng, 20, 3)
        calibration = fit_calibration(predictions, golds, fitted_on="dev")
        assert calibration.threshold is not None
        for p in predictions:
            shares, null_share = calibration.probabilities(p)
            assert sum(shares) + null_share == pytest.approx(1.0)
            answer = choose(p, calibration)
            assert (answer.span is None) == (not p.n_best or p.null_odds > calibration.threshold)
            assert answer.probability == (null_share if answer.span is None else shares[0])
            assert not len(shares) or shares[0] == max(shares)
            assert answer.null_probability == null_share
            given += answer.span is not None
    assert 100 < given < 700


def test_temperatures_minimise_the_loss_of_the_final_answers() -> None:
    rng = np.random.default_rng(11)

    def loss(predictions: list[Prediction], golds: dict[str, list[str]], calibration: Calibration) -> float:
        total = 0.0
        for p in predictions:
            answer = choose(p, calibration)
            right = answer.text in golds[p.id] if golds[p.id] else not answer.text
            total -= log(max(answer.probability if right else 1 - answer.probability, 1e-12))
        return total / len(predictions)

    for _ in range(6):
        predictions, golds = random_dev(rng, 60, 3)
        fitted = fit_calibration(predictions, golds, fitted_on="dev")
        least = min(
            loss(predictions, golds, replace(fitted, temperature=exp(one), null_temperature=exp(other)))
            for one in np.linspace(-3, 3, 21)
            for other in np.linspace(-3, 3, 21)
        )
        assert loss(predictions, golds, fitted) <= least + 1e-4
        assert fitted.expected_calibration_error is not None
        assert 0 <= fitted.expected_calibration_error <= 1


def test_calibration_by_hand() -> None:
    # Three of four answers are right, each with weight 9 against 1. Confidence 0.75 needs 3 against 1: at
    # temperature 2 it equals the accuracy. At temperature 1 it was 0.9.
    predictions = [prediction(id_, [("red", log(9)), ("blue", 0.0)], 0.0) for id_ in "abcd"]
    golds = {"a": ["red"], "b": ["Red!"], "c": ["the red", "green"], "d": ["green"]}
    fitted = fit_calibration(predictions, golds, fitted_on="squad dev")
    assert fitted.threshold is None
    assert fitted.temperature == pytest.approx(2.0, rel=1e-3)
    assert (fitted.fitted_on, fitted.questions) == ("squad dev", 4)
    assert fitted.expected_calibration_error == pytest.approx(0.0, abs=1e-4)
    assert fitted.uncalibrated_error == pytest.approx(0.15)
    assert choose(predictions[0], fitted).probability == pytest.approx(0.75, rel=1e-3)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("all_answerable", [True, False])
def test_fitting_stays_finite_on_extreme_questions(right: bool, count: int, all_answerable: bool) -> None:
    spans = [("red", 3.0), ("blue", 1.0)]
    predictions = [prediction(f"q{number}", spans, 2.0) for number in range(count)]
    golds: dict[str, list[str]] = {p.id: ["red" if right else "green"] for p in predictions}
    if not all_answerable:
        golds["q0"] = []
    fitted = fit_calibration(predictions, golds, fitted_on="dev")
    assert exp(-3.01) < fitted.temperature < exp(3.01)
    assert exp(-3.01) < fitted.null_temperature < exp(3.01)
    assert (fitted.threshold is None) == all_answerable
    assert Calibration.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False))) == fitted


def test_fitting_where_no_question_has_a_span() -> None:
    predictions = [prediction("a", [], 1.0), prediction("b", [], inf)]
    fitted = fit_calibration(predictions, {"a": [], "b": ["red"]}, fitted_on="dev")
    assert (fitted.temperature, fitted.null_temperature) == (1.0, 1.0)
    assert fitted.threshold is not None
    assert [choose(p, fitted).text for p in predictions] == ["", ""]
    assert fitted.expected_calibration_error == 0.5
    fitted = fit_calibration(predictions, {"a": ["red"], "b": ["red"]}, fitted_on="dev")
    assert (fitted.threshold, fitted.expected_calibration_error) == (None, 0.0)


def test_cross_fitting_by_hand() -> None:
    ids = sorted("abcd", key=lambda id_: sha256(id_.encode()).digest())
    # One half would answer at odds 1, the other not even at odds -1; each is scored by the other's threshold.
    half, other = (ids[0], ids[2]), (ids[1], ids[3])
    predictions = [
        prediction(half[0], [("red", 0.0)], 1.0),
        prediction(half[1], [("red", 0.0)], 3.0),
        prediction(other[0], [("red", 0.0)], -1.0),
        prediction(other[1], [("red", 0.0)], -3.0),
    ]
    golds = {half[0]: ["red"], half[1]: [], other[0]: [], other[1]: ["red"]}
    # 2 (tuned on `half`) answers both of `other`, -2 (tuned on `other`) none of `half`: one right in each.
    assert cross_fitted_f1(predictions, golds) == 50.0
    assert f1_with(predictions, golds, 2.0) == 3.0


def best_cut(predictions: list[Prediction], golds: dict[str, list[str]]) -> float:
    """Half-way between the lowest best cut and the next; to answer nothing is a cut at 0, or 1 below all."""
    odds = sorted({p.null_odds for p in predictions if p.null_odds < inf}) or [2.0]
    nothing = 0.0 if odds[0] > 0 else odds[0] - 1
    ascending = [nothing, *odds, odds[-1] + 2]
    f1 = [round(f1_with(predictions, golds, cut), 9) for cut in ascending[:-1]]
    place = f1.index(max(f1))
    return (ascending[place] + ascending[place + 1]) / 2


def test_cross_fitting_equals_brute_force_and_ignores_the_order() -> None:
    rng = np.random.default_rng(13)
    lower = 0
    for _ in range(60):
        predictions, golds = random_dev(rng, int(rng.integers(2, 30)), 6)
        ordered = sorted(predictions, key=lambda p: sha256(p.id.encode()).digest())
        total = 0.0
        for tuned, scored in ((ordered[::2], ordered[1::2]), (ordered[1::2], ordered[::2])):
            total += f1_with(scored, golds, best_cut(tuned, golds))
        found = cross_fitted_f1(predictions, golds)
        assert found == pytest.approx(100 * total / len(predictions))
        assert cross_fitted_f1(predictions[::-1], golds) == found
        oracle = 100 * max(f1_with(predictions, golds, cut) for cut in cuts(predictions)) / len(predictions)
        assert found <= oracle + 1e-9
        lower += found < oracle - 1e-9
    assert lower > 20


def test_questions_and_golds_must_match() -> None:
    lone = prediction("q", [("red", 1.0)], 0.0)
    with pytest.raises(InputError, match="no dev questions"):
        fit_calibration([], {}, fitted_on="dev")
    for golds in ({}, {"q": ["a"], "r": ["b"]}, {"r": ["b"]}):
        with pytest.raises(ValueError, match="1 predictions of 1 questions"):
            fit_calibration([lone], golds, fitted_on="dev")
    with pytest.raises(ValueError, match="2 predictions of 1 questions"):
        cross_fitted_f1([lone, lone], {"q": []})
    with pytest.raises(ValueError, match="two questions at least"):
        cross_fitted_f1([lone], {"q": []})

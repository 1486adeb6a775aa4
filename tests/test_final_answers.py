"""Final answers and their confidence by hand, and calibration files that are wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import inf, log, sqrt
from pathlib import Path

import pytest

from qa.confidence.final_answers import Calibration, choose, read_calibration
from qa.errors import InputError
from qa.records import Prediction, Span


def prediction(id_: str, spans: Sequence[tuple[str, float]], null_score: float) -> Prediction:
    found = tuple(Span(place, place + len(text), text, score) for place, (text, score) in enumerate(spans))
    return Prediction(id_, found, null_score)


RIVER = prediction("q", [("the Nile", log(6)), ("Nile", log(3))], null_score=log(1))
ALWAYS = Calibration(threshold=None, temperature=1.0, fitted_on="dev", questions=1)


def test_probabilities_by_hand() -> None:
    shares, null_share = ALWAYS.probabilities(RIVER)
    assert shares == pytest.approx([2 / 3, 1 / 3])
    assert null_share == 0.0
    knows = replace(ALWAYS, threshold=0.0)
    shares, null_share = knows.probabilities(RIVER)  # weights 6, 3, 1
    assert shares == pytest.approx([0.6, 0.3])
    assert null_share == pytest.approx(0.1)
    shares, null_share = replace(knows, temperature=0.5, null_temperature=0.5).probabilities(RIVER)
    assert shares == pytest.approx([36 / 46, 9 / 46])  # weights 36, 9, 1
    assert null_share == pytest.approx(1 / 46)
    shares, null_share = replace(knows, null_temperature=0.5).probabilities(RIVER)  # 1 to 81, then 6 to 3
    assert shares == pytest.approx([81 / 82 * 2 / 3, 81 / 82 * 1 / 3])
    assert null_share == pytest.approx(1 / 82)
    shares, null_share = replace(knows, temperature=0.5).probabilities(RIVER)  # 1 to sqrt 45, then 36 to 9
    assert null_share == pytest.approx(1 / (1 + sqrt(45)))
    assert shares == pytest.approx([0.8 * (1 - null_share), 0.2 * (1 - null_share)])
    shares, null_share = replace(knows, threshold=-log(6)).probabilities(RIVER)  # weights 6, 3, 6
    assert shares == pytest.approx([0.4, 0.2])
    assert null_share == pytest.approx(0.4)


def test_probabilities_where_nothing_was_found_or_scores_are_huge() -> None:
    nothing = prediction("q", [], 3.0)
    knows = replace(ALWAYS, threshold=0.0, temperature=2.0)
    assert knows.probabilities(nothing)[0].shape == (0,)
    assert knows.probabilities(nothing)[1] == 1.0
    assert ALWAYS.probabilities(nothing)[1] == 0.0
    assert knows.probabilities(prediction("q", [], inf))[1] == 1.0
    shares, null_share = knows.probabilities(replace(RIVER, null_score=inf))
    assert (shares.tolist(), null_share) == ([0.0, 0.0], 1.0)
    sharp = replace(knows, temperature=0.05, null_temperature=0.05)
    shares, null_share = sharp.probabilities(prediction("q", [("a", 4000.0), ("b", -4000.0)], -inf))
    assert (shares.tolist(), null_share) == ([1.0, 0.0], 0.0)


def test_choose_compares_strictly() -> None:
    odds = RIVER.null_odds
    at = choose(RIVER, replace(ALWAYS, threshold=odds))
    assert (at.text, at.span) == ("the Nile", RIVER.n_best[0])
    below = choose(RIVER, replace(ALWAYS, threshold=odds - 0.01))
    assert (below.id, below.text, below.span) == ("q", "", None)
    assert at.probability == pytest.approx(at.null_probability)
    assert below.probability == below.null_probability > at.null_probability


def test_choose_without_threshold_always_answers_where_it_can() -> None:
    answer = choose(replace(RIVER, null_score=100.0), ALWAYS)
    assert (answer.text, answer.null_probability) == ("the Nile", 0.0)
    assert answer.probability == pytest.approx(2 / 3)
    nothing = choose(prediction("q", [], 1.0), ALWAYS)
    assert (nothing.text, nothing.span, nothing.probability, nothing.null_probability) == ("", None, 0.0, 0.0)
    nothing = choose(prediction("q", [], 1.0), replace(ALWAYS, threshold=50.0))
    assert (nothing.text, nothing.probability, nothing.null_probability) == ("", 1.0, 1.0)


def test_calibration_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    for calibration in (
        Calibration(-1.25, 2.5, "dev", 80, 0.03, 0.2, null_temperature=0.75),
        Calibration.unfitted(unanswerable=True),
        ALWAYS,
    ):
        path.write_text(json.dumps(calibration.to_dict()), encoding="utf-8")
        assert read_calibration(path) == calibration
    assert Calibration.unfitted(unanswerable=False).threshold is None
    assert Calibration.unfitted(unanswerable=True).threshold == 0.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threshold", "0"),
        ("threshold", float("nan")),
        ("threshold", True),
        ("temperature", 0),
        ("temperature", inf),
        ("temperature", None),
        ("null_temperature", 0.0),
        ("null_temperature", "1"),
        ("fitted_on", None),
        ("questions", -1),
        ("questions", 2.0),
        ("expected_calibration_error", 1.5),
        ("uncalibrated_error", "0.1"),
    ],
)
def test_a_wrong_value_in_a_calibration_is_named(key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^here: {key} cannot be .*; evaluate the reader"):
        Calibration.from_dict(ALWAYS.to_dict() | {key: value}, "here")


def test_what_is_no_calibration_is_refused(tmp_path: Path) -> None:
    missing = {key: value for key, value in ALWAYS.to_dict().items() if key != "temperature"}
    contents: list[object] = [[], None, {}, missing, ALWAYS.to_dict() | {"temprature": 1.0}]
    for content in contents:
        with pytest.raises(InputError, match="not a calibration with the keys threshold, temperature"):
            Calibration.from_dict(content)
    path = tmp_path / "calibration.json"
    with pytest.raises(InputError, match=r"calibration\.json: cannot be read"):
        read_calibration(path)
    path.write_bytes(b'{"threshold": \xff')
    with pytest.raises(InputError, match=r"calibration\.json: cannot be read"):
        read_calibration(path)

"""Metrics against values computed by hand, and against slow independent searches."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from qa.errors import InputError
from qa.metrics import (
    BestThreshold,
    Version,
    apply_threshold,
    bootstrap_interval,
    compare_ids,
    evaluate_squad1,
    evaluate_squad2,
    exact_match,
    f1,
    final_scores,
    find_best_threshold,
    normalize_answer,
    oracle_scores,
    paired_bootstrap,
    score_questions,
    signature,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel\tTower.\n", "eiffel tower"),
        ("A man, a plan, an isle", "man plan isle"),
        # Punctuation goes before articles do: "a." is the article, "a-b" is the word "ab".
        ("(a.) b", "b"),
        ("a-b", "ab"),
        ("The-atre", "theatre"),
        ("$2,000.50", "200050"),
        ("rock'n'roll", "rocknroll"),
        # Only ASCII punctuation is deleted; "the" inside typographic quotes still stands between word breaks.
        ("“the” end", "“ ” end"),
        ("d\u2019été — ça", "d\u2019été — ça"),
        ("don\u2019t", "don\u2019t"),
        # White space as Python's str.split has it: no-break and ideographic space are among it.
        ("x\u00a0y\u3000z", "x y z"),
        ("東京、大阪。", "東京、大阪。"),
        ("ÀÉ", "àé"),
        # An article next to a letter that is no ASCII is no word of its own.
        ("aé theß", "aé theß"),
        ("anthem", "anthem"),
        ("_the_", ""),
        ("the", ""),
        ("...", ""),
        ("", ""),
    ],
)
def test_normalize_answer(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected
    assert normalize_answer(normalize_answer(text)) == expected


@pytest.mark.parametrize(
    ("prediction", "golds", "expected"),
    [
        ("Norway", ["Norway"], (1.0, 1.0)),
        ("the NORWAY!", ["Norway"], (1.0, 1.0)),
        # Tokens {cat, sat} and {cat, sat, down}: precision 1, recall 2/3.
        ("the cat sat", ["a cat sat down"], (0.0, 0.8)),
        # A bag, not a set: y counts twice. Precision 2/3, recall 2/4.
        ("x y y", ["y y y z"], (0.0, 4 / 7)),
        ("y x", ["x y"], (0.0, 1.0)),
        ("x", ["y"], (0.0, 0.0)),
        # The best gold counts, for F1 as for exact match.
        ("x y", ["z", "x", "x y z w"], (0.0, 2 / 3)),
        ("x y", ["z", "X, y"], (1.0, 1.0)),
        ("東京", ["東京"], (1.0, 1.0)),
        ("東京", ["東京都"], (0.0, 0.0)),
        ("", ["x"], (0.0, 0.0)),
        ("the", ["x"], (0.0, 0.0)),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_one_answer(
    prediction: str, golds: list[str], expected: tuple[float, float], version: Version
) -> None:
    exact, token_f1 = expected
    assert exact_match(prediction, golds, version=version) == exact
    assert f1(prediction, golds, version=version) == pytest.approx(token_f1, abs=1e-15)


@pytest.mark.parametrize(
    ("prediction", "golds", "version", "exact", "token_f1"),
    [
        ("", [], "2.0", 1.0, 1.0),
        ("The.", [], "2.0", 1.0, 1.0),
        ("x", [], "2.0", 0.0, 0.0),
        ("an", ["the"], "1.1", 1.0, 0.0),
        ("an", ["the"], "2.0", 1.0, 1.0),
        ("", [""], "1.1", 1.0, 0.0),
        ("", [""], "2.0", 1.0, 1.0),
        # 2.0 drops the golds of which nothing is left, unless nothing else is there.
        ("", ["the", "x"], "1.1", 1.0, 0.0),
        ("", ["the", "x"], "2.0", 0.0, 0.0),
        ("x", ["the"], "2.0", 0.0, 0.0),
    ],
)
def test_where_nothing_is_left(
    prediction: str, golds: list[str], version: Version, exact: float, token_f1: float
) -> None:
    assert exact_match(prediction, golds, version=version) == exact
    assert f1(prediction, golds, version=version) == token_f1


def test_one_answer_refuses() -> None:
    with pytest.raises(InputError, match=r"1\.1 scoring needs a gold"):
        exact_match("x", [], version="1.1")
    with pytest.raises(InputError, match=r"write \['x'\]"):
        f1("x", "x")
    with pytest.raises(InputError, match="no SQuAD version '3'"):
        f1("x", ["x"], version="3")  # type: ignore[arg-type]


def test_f1_equals_matching_tokens_one_by_one() -> None:
    rng = random.Random(0)
    for _ in range(500):
        prediction = [rng.choice("uvwxyz") for _ in range(rng.randint(1, 6))]
        golds = [[rng.choice("uvwxyz") for _ in range(rng.randint(1, 6))] for _ in range(rng.randint(1, 3))]
        best = 0.0
        for gold in golds:
            left = list(gold)
            for token in prediction:
                if token in left:
                    left.remove(token)
            best = max(best, 2 * (len(gold) - len(left)) / (len(prediction) + len(gold)))
        assert f1(" ".join(prediction), [" ".join(gold) for gold in golds]) == pytest.approx(best, abs=1e-12)


def test_score_questions_keeps_the_order_of_the_golds() -> None:
    scores = score_questions({"b": ["x y"], "a": []}, {"a": "", "b": "x", "c": "not asked"})
    assert list(scores.exact.items()) == [("b", 0.0), ("a", 1.0)]
    assert list(scores.f1.items()) == [("b", 2 / 3), ("a", 1.0)]
    with pytest.raises(InputError, match="question 'a' is None"):
        score_questions({"a": ["x"]}, {})
    with pytest.raises(InputError, match=r"'a'.*1\.1"):
        score_questions({"a": []}, {"a": "x"}, version="1.1")


def test_squad1() -> None:
    golds = {"a": ["x y", "x"], "b": ["the"], "c": ["u v"]}
    # a: exact. b: both sides normalise to nothing, exact but F1 0. c: precision 1, recall 1/2.
    assert list(evaluate_squad1(golds, {"a": "X", "b": "", "c": "u"}).items()) == [
        ("exact_match", 100 * 2 / 3),
        ("f1", 100 * (1 + 0 + 2 / 3) / 3),
    ]
    with pytest.warns(UserWarning, match="2 of 3 questions have no prediction, the first is 'b'; they"):
        assert evaluate_squad1(golds, {"a": "x"}) == {"exact_match": 100 / 3, "f1": 100 / 3}
    with pytest.warns(UserWarning, match="1 predictions have no question and are left out, first 'z'"):
        evaluate_squad1(golds, {"a": "x", "b": "x", "c": "x", "z": "x"})
    with pytest.raises(InputError, match="no questions"):
        evaluate_squad1({}, {})
    with pytest.raises(InputError, match="Question 'a' has no gold answer"):
        evaluate_squad1({"a": []}, {})


def test_squad2_keys_order_and_values() -> None:
    golds = {"n1": [], "h1": ["x y", "x"], "h2": ["u v"], "n2": [], "h3": ["w"]}
    predictions = {"h1": "X", "h2": "u", "h3": "z", "n1": "", "n2": "q"}
    scores = evaluate_squad2(golds, predictions)
    assert list(scores.items()) == [
        ("exact", 40.0),
        ("f1", 100 * (1 + 1 + 2 / 3) / 5),
        ("total", 5),
        ("HasAns_exact", 100 / 3),
        ("HasAns_f1", 100 * (1 + 2 / 3) / 3),
        ("HasAns_total", 3),
        ("NoAns_exact", 50.0),
        ("NoAns_f1", 50.0),
        ("NoAns_total", 2),
    ]
    # Points of 5, with the threshold at 0.0, 0.1, 0.2, 0.5, 0.6: exact 2, 3, 3, 2, 2; F1 2, 3, 3 2/3, 2 2/3,
    # 2 2/3 (n1, at 0.9, is right either way).
    null_odds = {"n1": 0.9, "h1": 0.1, "h2": 0.2, "n2": 0.5, "h3": 0.6}
    with_odds = evaluate_squad2(golds, predictions, null_odds=null_odds, threshold=0.5)
    assert list(with_odds) == [*scores, "best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"]
    # n1 and h3 exceed 0.5, n2 does not: strictly.
    assert with_odds["exact"] == 40.0
    assert with_odds["best_exact"] == 60.0
    assert with_odds["best_exact_thresh"] == 0.1
    assert with_odds["best_f1"] == pytest.approx(100 * (3 + 2 / 3) / 5)
    assert with_odds["best_f1_thresh"] == 0.2
    # The search does not see the threshold, and the default threshold changes no probability.
    assert evaluate_squad2(golds, predictions, null_odds=null_odds) == {**with_odds, **scores}


def test_squad2_parts_that_are_absent() -> None:
    assert list(evaluate_squad2({"a": ["x"]}, {"a": "x"})) == [
        "exact", "f1", "total", "HasAns_exact", "HasAns_f1", "HasAns_total",
    ]  # fmt: skip
    assert list(evaluate_squad2({"a": []}, {"a": "x"})) == [
        "exact", "f1", "total", "NoAns_exact", "NoAns_f1", "NoAns_total",
    ]  # fmt: skip


def test_squad2_threshold() -> None:
    golds = {"h": ["x"], "n": [], "the": ["the"]}
    predictions = {"h": "x", "n": "x", "the": ""}
    null_odds = {"h": 0.7, "n": 0.7, "the": 0.7, "not asked": 0.0}
    # Equal is not above. Above, a question with golds is wrong, even where its golds normalise to nothing.
    assert evaluate_squad2(golds, predictions, null_odds=null_odds, threshold=0.7)["exact"] == 100 * 2 / 3
    assert final_scores(golds, predictions, null_odds=null_odds, threshold=0.69).exact == {
        "h": 0.0,
        "n": 1.0,
        "the": 0.0,
    }
    # The default threshold is 1.0.
    assert evaluate_squad2({"h": ["x"]}, {"h": "x"}, null_odds={"h": 1.0})["exact"] == 100.0
    assert evaluate_squad2({"h": ["x"]}, {"h": "x"}, null_odds={"h": 1.001})["exact"] == 0.0
    # Without null odds they are 0.0, as in the official script.
    assert evaluate_squad2(golds, predictions, threshold=-1.0)["exact"] == 100 / 3
    assert evaluate_squad2(golds, predictions, threshold=0.0)["exact"] == 100 * 2 / 3


def test_squad2_missing_predictions() -> None:
    golds = {"h": ["x"], "m": [], "n": []}
    with pytest.raises(InputError, match="1 of 3 questions have no prediction, the first is 'm'"):
        evaluate_squad2(golds, {"h": "x", "n": ""})
    with pytest.warns(UserWarning, match="1 of 3 questions have no prediction, the first is 'm'"):
        scores = evaluate_squad2(
            golds, {"h": "x", "n": ""}, null_odds={"h": 0.0, "n": 1.0}, threshold=0.5, allow_missing=True
        )
    assert scores["exact"] == pytest.approx(200 / 3)
    assert scores["best_exact"] == pytest.approx(200 / 3)
    assert scores["total"] == 3
    assert scores["NoAns_exact"] == 50.0
    with pytest.raises(InputError, match="Null odds are missing for 1 questions, the first is 'm'"):
        evaluate_squad2(golds, {"h": "x", "m": "", "n": ""}, null_odds={"h": 0.0, "n": 1.0})
    ids = compare_ids(golds, ["z", "h", "y"])
    assert (ids.missing, ids.extra) == (["m", "n"], ["z", "y"])


def random_case(rng: random.Random, odds_choices: int) -> tuple[dict, dict, dict, dict]:
    """(golds, predictions, scores, null odds) of a few questions; few odds to choose from = many ties."""
    golds, predictions, scores, null_odds = {}, {}, {}, {}
    for number in range(rng.randint(1, 8)):
        id_ = f"q{number}"
        golds[id_] = ["x"] if rng.random() < 0.6 else []
        # "The." counts as right on an unanswerable question, yet as an answer in the search.
        predictions[id_] = rng.choice(["", "x", "y", "The."])
        # Quarters: sums are exact, so that equal totals are equal.
        scores[id_] = rng.randint(0, 4) / 4 if golds[id_] else exact_match(predictions[id_], [])
        null_odds[id_] = float(rng.randint(-odds_choices, odds_choices)) / 2
    return golds, predictions, scores, null_odds


def percent_at(cut: float, golds: dict, null_odds: dict, if_answered: dict) -> float:
    """Percent of the questions, where those with null odds above `cut` are left empty."""
    gained = [float(not golds[id_]) if null_odds[id_] > cut else if_answered[id_] for id_ in golds]
    return 100 * sum(gained) / len(golds)


@pytest.mark.parametrize("odds_choices", [0, 1, 2, 50])
@pytest.mark.parametrize("official", [False, True])
def test_best_threshold_equals_trying_every_cut(odds_choices: int, official: bool) -> None:
    rng = random.Random(odds_choices)
    for _ in range(400):
        golds, predictions, scores, null_odds = random_case(rng, odds_choices)
        if_answered = dict(scores)
        if official:
            if_answered |= {id_: float(predictions[id_] == "") for id_ in golds if not golds[id_]}
        found = find_best_threshold(scores, null_odds, golds, predictions=predictions if official else None)

        cuts = [min(null_odds.values()) - 0.5, *sorted(set(null_odds.values()))]
        percents = [percent_at(cut, golds, null_odds, if_answered) for cut in cuts]
        assert found.score == pytest.approx(max(percents), abs=1e-9)
        assert percent_at(found.threshold, golds, null_odds, if_answered) == pytest.approx(
            found.score, abs=1e-9
        )
        lowest = cuts[percents.index(max(percents))]
        if lowest == cuts[0]:
            assert found.threshold < cuts[1]
            assert found.threshold == 0.0 or cuts[1] <= 0
        else:
            assert found.threshold == lowest
        if not official:
            applied = apply_threshold(scores, null_odds, golds, found.threshold)
            assert 100 * sum(applied.values()) / len(golds) == pytest.approx(found.score, abs=1e-9)


def test_ties_do_not_depend_on_the_order_of_the_file() -> None:
    # Right answer and distractor with equal odds: cutting between them, in one order, would promise 100 %.
    golds = {"h": ["x"], "n": []}
    for order in itertools.permutations(golds):
        null_odds = dict.fromkeys(order, 0.5)
        scores = {"h": 1.0, "n": 0.0}
        assert find_best_threshold(scores, null_odds, golds) == BestThreshold(50.0, 0.0)
    assert find_best_threshold({"h": 1.0, "n": 0.0}, {"h": 0.5, "n": 0.6}, golds) == BestThreshold(100.0, 0.5)


def test_threshold_of_answering_nothing_is_reachable() -> None:
    golds: dict[str, list[str]] = {"n": [], "m": []}
    scores = {"n": 0.0, "m": 0.0}
    assert find_best_threshold(scores, {"n": 0.1, "m": 2.0}, golds) == BestThreshold(100.0, 0.0)
    for lowest in (0.0, -3.0, -1e300):
        best = find_best_threshold(scores, {"n": lowest, "m": 2.0}, golds)
        assert best.score == 100.0
        assert best.threshold < lowest
        assert apply_threshold(scores, {"n": lowest, "m": 2.0}, golds, best.threshold) == {"n": 1.0, "m": 1.0}


def test_null_odds_without_a_number() -> None:
    golds = {"h": ["x"], "n": []}
    scores = {"h": 1.0, "n": 1.0}
    # No span was found: +inf is a value like any other.
    assert find_best_threshold(scores, {"h": 0.0, "n": math.inf}, golds) == BestThreshold(100.0, 0.0)
    for odds in (math.nan, -math.inf):
        with pytest.raises(InputError, match="null odds of question 'n'"):
            find_best_threshold(scores, {"h": 0.0, "n": odds}, golds)
    with pytest.raises(InputError, match="threshold is not a number"):
        apply_threshold(scores, {"h": 0.0, "n": 0.0}, golds, math.nan)
    with pytest.raises(InputError, match="one score per question"):
        find_best_threshold({"h": 1.0}, {"h": 0.0}, golds)
    with pytest.raises(InputError, match="at least one"):
        find_best_threshold({}, {}, {})


def test_oracle() -> None:
    golds = {"h1": ["x y"], "h2": ["u"], "n": []}
    n_best = {"h1": ["z", "x", "x y"], "h2": [], "n": ["q", ""], "not asked": ["u"]}
    scores = oracle_scores(golds, n_best, ks=(2, 1, 5, 2))
    expected = {
        "top1_exact": 0.0,
        "top1_f1": 0.0,
        "top2_exact": 100 / 3,
        "top2_f1": 100 * (2 / 3 + 1) / 3,
        "top5_exact": 200 / 3,
        "top5_f1": 200 / 3,
        "HasAns_top1_exact": 0.0,
        "HasAns_top1_f1": 0.0,
        "HasAns_top2_exact": 0.0,
        "HasAns_top2_f1": 100 / 3,
        "HasAns_top5_exact": 50.0,
        "HasAns_top5_f1": 50.0,
        "NoAns_top1_exact": 0.0,
        "NoAns_top1_f1": 0.0,
        "NoAns_top2_exact": 100.0,
        "NoAns_top2_f1": 100.0,
        "NoAns_top5_exact": 100.0,
        "NoAns_top5_f1": 100.0,
    }
    assert list(scores) == list(expected)
    assert scores == pytest.approx(expected)
    assert oracle_scores({"a": ["x"]}, {"a": ("x",)}, version="1.1") == {
        f"top{k}_{name}": 100.0 for k in (1, 5, 10, 20) for name in ("exact", "f1")
    }
    with pytest.raises(InputError, match="1 questions have no n-best list, the first is 'n'"):
        oracle_scores(golds, {"h1": [], "h2": []})
    with pytest.raises(InputError, match="depths of at least 1"):
        oracle_scores(golds, n_best, ks=(0,))
    with pytest.raises(InputError, match="list of texts"):
        oracle_scores({"a": ["x"]}, {"a": "x"})


def test_top_1_oracle_is_the_plain_score() -> None:
    rng = random.Random(4)
    golds = {f"q{i}": [] if i % 3 == 0 else [rng.choice("xyz") + " w"] for i in range(60)}
    n_best = {id_: [rng.choice(["", "x w", "y", "z w v"]) for _ in range(4)] for id_ in golds}
    plain = evaluate_squad2(golds, {id_: texts[0] for id_, texts in n_best.items()})
    top = oracle_scores(golds, n_best, ks=(1, 2, 4))
    assert (top["top1_exact"], top["top1_f1"]) == (plain["exact"], plain["f1"])
    assert top["HasAns_top1_f1"] == plain["HasAns_f1"]
    assert top["top1_f1"] < top["top2_f1"] < top["top4_f1"]


def test_bootstrap_of_equal_scores_and_of_two() -> None:
    assert bootstrap_interval([0.25] * 7) == (0.25, 0.25)
    # Two questions: the mean of a resample is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    assert bootstrap_interval([0.0, 1.0], samples=4000, confidence=0.6) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], samples=4000, confidence=0.4) == (0.5, 0.5)
    # A confidence near 1 gives the whole range: here of one draw.
    low, high = bootstrap_interval([0.0, 1.0, 3.0], samples=1)
    assert low == high


def test_bootstrap_is_reproducible() -> None:
    scores = [i % 2 for i in range(400)]
    interval = bootstrap_interval(scores, seed=3)
    assert interval == bootstrap_interval(scores, seed=3)
    assert interval != bootstrap_interval(scores, seed=4)
    # Standard error of a share of 1/2 over 400 questions: 0.025.
    assert interval == pytest.approx((0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025), abs=0.006)
    # Resampling with the documented generator, written out.
    draw = random.Random(3).random
    means = sorted(sum(scores[int(draw() * 400)] for _ in range(400)) / 400 for _ in range(999))
    assert bootstrap_interval(scores, samples=999, confidence=0.5, seed=3) == pytest.approx(
        ((means[249] + means[250]) / 2, (means[748] + means[749]) / 2)
    )


def test_bootstrap_interval_covers_the_truth() -> None:
    rng = random.Random(1)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval([rng.random() ** 2 for _ in range(50)], samples=200, seed=trial)
        covered += low <= 1 / 3 <= high
    assert 180 <= covered <= 198


def test_paired_bootstrap() -> None:
    scores = [0.0, 0.5, 1.0] * 20
    same = paired_bootstrap(scores, scores)
    assert (same.difference, same.p_value, same.interval) == (0.0, 1.0, (0.0, 0.0))
    # Always better by the same: no resample is as far from the observed difference as that is from 0.
    better = paired_bootstrap([score + 0.25 for score in scores], scores, samples=999)
    assert (better.difference, better.p_value, better.interval) == (0.25, 0.001, (0.25, 0.25))
    # 60 questions won, 40 lost: standard error 0.098, two standard errors away from 0.
    wins, losses = [1.0] * 60 + [0.0] * 40, [0.0] * 60 + [1.0] * 40
    result = paired_bootstrap(wins, losses, samples=4000)
    assert result.difference == pytest.approx(0.2)
    assert result.p_value == pytest.approx(0.0456, abs=0.015)
    assert result.interval == pytest.approx((0.2 - 1.96 * 0.098, 0.2 + 1.96 * 0.098), abs=0.025)
    mirrored = paired_bootstrap(losses, wins, samples=4000)
    assert mirrored.p_value == result.p_value
    assert mirrored.interval == pytest.approx((-result.interval[1], -result.interval[0]))


def test_bootstrap_refuses() -> None:
    with pytest.raises(InputError, match="at least one question"):
        bootstrap_interval([])
    with pytest.raises(InputError, match="at least 1 sample"):
        bootstrap_interval([1.0], samples=0)
    with pytest.raises(InputError, match=r"got 95"):
        bootstrap_interval([1.0], confidence=95)
    with pytest.raises(InputError, match="2 scores against 1"):
        paired_bootstrap([1.0, 0.0], [1.0])


def test_signature() -> None:
    golds = {"q1": ["Norway"], "q2": []}
    plain = "squad2|n:2|noans:1|golds:2c0274bb|norm:official|missing:0|thresh:none|boot:none|version:1"
    assert signature(golds) == plain
    assert signature(dict(reversed(golds.items()))) == plain
    assert signature({"q1": ("Norway",), "q2": []}) == plain
    assert signature({"q1": ["Norge"], "q2": []}) != plain
    assert signature(
        golds, version="1.1", missing=3, threshold=-2, threshold_source="dev", samples=1000, seed=7
    ) == (
        "squad1|n:2|noans:1|golds:2c0274bb|norm:official|missing:3|thresh:-2.0|fit:dev|ties:grouped|"
        "boot:1000|conf:0.95|seed:7|version:1"
    )


def test_metrics_need_only_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import qa.metrics, qa.metrics.files, qa.metrics.__main__\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names))"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['qa']"


def dev_golds(path: Path) -> dict[str, list[str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        data = json.load(file)["data"]
    return {
        question["id"]: [answer["text"] for answer in question["answers"]]
        for article in data
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    }


def test_official_dev_sets_scored_with_their_own_golds(real_data: Path) -> None:
    golds1 = dev_golds(real_data / "squad" / "dev-v1.1.json.gz")
    assert len(golds1) == 10_570
    first = {id_: texts[0] for id_, texts in golds1.items()}
    assert evaluate_squad1(golds1, first) == {"exact_match": 100.0, "f1": 100.0}
    # The last gold of one question is a full stop: under 1.1 that is exact, with F1 0.
    last = {id_: texts[-1] for id_, texts in golds1.items()}
    assert evaluate_squad1(golds1, last) == {"exact_match": 100.0, "f1": 100 * 10_569 / 10_570}
    kept = dict(list(first.items())[1057:])
    with pytest.warns(UserWarning, match="1057 of 10570"):
        assert evaluate_squad1(golds1, kept) == {"exact_match": 90.0, "f1": 90.0}

    golds2 = dev_golds(real_data / "squad" / "dev-v2.0.json.gz")
    first = {id_: texts[0] if texts else "" for id_, texts in golds2.items()}
    scores = evaluate_squad2(golds2, first)
    assert scores == {
        "exact": 100.0, "f1": 100.0, "total": 11_873,
        "HasAns_exact": 100.0, "HasAns_f1": 100.0, "HasAns_total": 5_928,
        "NoAns_exact": 100.0, "NoAns_f1": 100.0, "NoAns_total": 5_945,
    }  # fmt: skip
    # Under 2.0 the full stop is no gold, so predicting it is wrong.
    last = {id_: texts[-1] if texts else "" for id_, texts in golds2.items()}
    assert evaluate_squad2(golds2, last)["exact"] == 100 * 11_872 / 11_873
    # Answering nothing at all: exactly the unanswerable ones are right.
    nothing = evaluate_squad2(golds2, dict.fromkeys(golds2, ""))
    assert nothing["exact"] == nothing["f1"] == 100 * 5_945 / 11_873
    # Answering everything, with null odds that know the truth but for 10 questions of each kind.
    answered = {id_: texts[0] if texts else "anything" for id_, texts in golds2.items()}
    has_answer = [id_ for id_, texts in golds2.items() if texts]
    no_answer = [id_ for id_, texts in golds2.items() if not texts]
    null_odds = {**dict.fromkeys(has_answer, -1.0), **dict.fromkeys(no_answer, 3.0)}
    null_odds |= dict.fromkeys(no_answer[:10], -1.0) | dict.fromkeys(has_answer[:10], 3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searched = evaluate_squad2(golds2, answered, null_odds=null_odds, threshold=1.0)
    assert searched["exact"] == searched["best_f1"] == 100 * (11_873 - 20) / 11_873
    assert searched["best_exact_thresh"] == -1.0
    assert searched["HasAns_f1"] == 100 * 5_918 / 5_928
    assert searched["NoAns_f1"] == 100 * 5_935 / 5_945

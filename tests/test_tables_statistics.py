"""Mean, deviation, interval and significance of hand-made records, against an independent computation."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import numpy as np
import pytest
from table_cases import TWO_ROWS, by_hand, table_of

from qa.errors import InputError
from qa.tables.cells import FilledTable, compare_cells, fill
from qa.tables.statistics import compare, deviation, interval, mean, over_seeds

QUESTIONS = 40


def resampled_means(values: np.ndarray, samples: int = 1000) -> np.ndarray:
    """Bootstrap by definition: the questions that the documented generator draws, averaged by NumPy."""
    draw = random.Random(0).random
    drawn = [[int(draw() * len(values)) for _ in values] for _ in range(samples)]
    return values[np.array(drawn)].mean(axis=1)


def marks(seed: int, good: float) -> list[float]:
    """Percent, to two decimals, as records hold them."""
    numbers = np.random.default_rng(seed)
    return [round(float(one), 2) for one in np.clip(numbers.normal(good, 30, QUESTIONS), 0, 100)]


MARKS = {
    ("a", 1): marks(1, 70),
    ("a", 2): marks(2, 70),
    ("b", 1): marks(3, 40),
    ("b", 2): marks(4, 40),
    ("c", 1): marks(5, 30),
}


@pytest.fixture
def filled(empty_folder: Path) -> FilledTable:
    table = table_of(empty_folder, TWO_ROWS)
    plan, records = by_hand(table, MARKS)
    return fill(table, plan, records)


def test_mean_and_deviation_are_those_of_the_standard_library(filled: FilledTable) -> None:
    for row, seeds in (("a", 2), ("b", 2)):
        scores = [statistics.fmean(MARKS[row, seed]) for seed in (1, 2)]
        cell = filled.cells[row, "f1"]
        assert cell.mean == pytest.approx(statistics.fmean(scores), rel=1e-12)
        assert cell.deviation == pytest.approx(statistics.stdev(scores), rel=1e-12)
        assert cell.seeds == seeds
    assert filled.cells["c", "f1"].mean == pytest.approx(statistics.fmean(MARKS["c", 1]))
    assert (filled.cells["c", "f1"].deviation, filled.cells["c", "f1"].seeds) == (None, 1)


def test_the_interval_is_the_bootstrap_by_definition(filled: FilledTable) -> None:
    over = np.mean([MARKS["a", 1], MARKS["a", 2]], axis=0)
    expected = np.percentile(resampled_means(over), [2.5, 97.5])
    assert filled.cells["a", "f1"].interval == pytest.approx(tuple(expected), abs=1e-9)


def test_significance_is_the_paired_bootstrap_by_definition(filled: FilledTable) -> None:
    over = {row: np.mean([MARKS[row, 1], MARKS[row, 2]], axis=0) for row in "ab"}
    difference = over["a"] - over["b"]
    means = resampled_means(difference)
    extreme = np.sum(np.abs(means - difference.mean()) >= abs(difference.mean()) - 1e-12)
    (contest,) = [one for one in filled.contests if one.column == "f1"]
    assert (contest.best, contest.second, contest.questions) == ("a", "b", QUESTIONS)
    assert contest.result is not None
    assert contest.result.p_value == (extreme + 1) / 1001
    assert contest.result.difference == pytest.approx(difference.mean())
    assert contest.result.interval == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=1e-9)
    assert filled.cells["a", "f1"].significant is (contest.result.p_value < 0.05) is True
    assert not any(filled.cells[row, "f1"].significant for row in "bc")


def test_a_small_difference_is_not_called_best(empty_folder: Path) -> None:
    table = table_of(empty_folder, TWO_ROWS)
    nearly = [*MARKS["a", 1][:-1], max(0.0, MARKS["a", 1][-1] - 5)]
    plan, records = by_hand(table, {("a", 1): MARKS["a", 1], ("b", 1): nearly})
    filled = fill(table, plan, records)
    (contest,) = [one for one in filled.contests if one.column == "f1"]
    assert contest.result is not None
    assert contest.result.p_value > 0.05
    assert not any(cell.significant for cell in filled.cells.values())


def test_equal_rows_have_no_best(empty_folder: Path) -> None:
    table = table_of(empty_folder, TWO_ROWS)
    plan, records = by_hand(table, {("a", 1): MARKS["a", 1], ("b", 1): MARKS["a", 1]})
    assert fill(table, plan, records).contests == ()


def test_marks_of_other_questions_are_not_compared(empty_folder: Path) -> None:
    from dataclasses import replace

    table = table_of(empty_folder, TWO_ROWS)
    plan, records = by_hand(table, {("a", 1): MARKS["a", 1], ("b", 1): MARKS["b", 1]})
    other = records["b-seed1.json"]
    assert other.marks is not None
    records["b-seed1.json"] = replace(other, marks=replace(other.marks, ids_sha256="others"))
    filled = fill(table, plan, records)
    assert [contest.result for contest in filled.contests] == [None, None]
    assert compare_cells(filled.cells["a", "f1"], filled.cells["b", "f1"]) is None
    assert not any(cell.significant for cell in filled.cells.values())


def test_seeds_make_no_more_questions() -> None:
    """The same marks twice give the interval of the marks once."""
    assert interval([MARKS["a", 1]] * 2) == interval([MARKS["a", 1]])
    assert compare([MARKS["a", 1]] * 3, [MARKS["b", 1]]) == compare([MARKS["a", 1]], [MARKS["b", 1]])


def test_small_cases_by_hand() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert deviation([1.0, 2.0, 6.0]) == pytest.approx(7**0.5)
    assert deviation([5.0]) is None
    assert over_seeds([[0, 100, 50], [100, 100, 0]]) == [50, 100, 25]
    with pytest.raises(InputError, match="marks of 1 and 2 questions have no mean"):
        over_seeds([[1.0], [1.0, 2.0]])

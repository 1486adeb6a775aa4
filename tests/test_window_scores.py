"""The decoder's view of windows and of their best logits: order, missing entries, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from qa.decoding.window_scores import WindowTable, top_k
from qa.errors import InputError


def test_top_k_order_missing_entries_and_padding() -> None:
    start = np.array([[1.0, 3.0, 3.0, -inf, 2.0], [7.0, 5.0, 99.0, 99.0, 99.0]], np.float32)
    scores = top_k(start, start[:, ::-1].copy(), 4, lengths=np.array([5, 2]))
    assert scores.start_tokens.tolist() == [[1, 2, 4, 0], [0, 1, -1, -1]]
    assert scores.start_logits.tolist() == [[3.0, 3.0, 2.0, 1.0], [7.0, 5.0, -inf, -inf]]
    assert scores.end_tokens.tolist() == [[2, 3, 0, 4], [0, 1, -1, -1]]
    assert scores.null_scores.tolist() == [3.0, 106.0]
    wide = top_k(start, start, 7)
    assert wide.start_tokens.tolist() == [[1, 2, 4, 0, -1, -1, -1], [2, 3, 4, 0, 1, -1, -1]]


def test_top_k_is_a_stable_sort_on_random_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.integers(-3, 4, size=(200, 30)).astype(np.float32)
    scores = top_k(logits, -logits, 8)
    for row in range(len(logits)):
        assert scores.start_tokens[row].tolist() == sorted(range(30), key=lambda t: (-logits[row, t], t))[:8]
        assert scores.end_tokens[row].tolist() == sorted(range(30), key=lambda t: (logits[row, t], t))[:8]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    logits = np.zeros((3, 4), np.float32)
    broken = logits.copy()
    broken[2, 3] = value
    with pytest.raises(InputError, match="not finite in window 2"):
        top_k(broken, logits, 2)
    scores = top_k(logits, logits, 2)
    with pytest.raises(InputError, match="not finite in window 1"):
        replace(scores, null_scores=np.array([0.0, value, 0.0]))


COLUMNS = {
    "example_index": np.array([0, 0]),
    "passage_start": np.array([3, 3]),
    "passage_end": np.array([8, 8]),
    "document_start": np.array([0, 0]),
    "offsets": np.zeros(36, np.int32),
    "length": np.array([9, 9]),
}


def test_a_table_from_columns_shares_the_offsets() -> None:
    offsets = np.arange(14, dtype=np.int32)
    columns = COLUMNS | {"offsets": offsets, "length": np.array([4, 3]), "passage_end": np.array([4, 3])}
    table = WindowTable.from_columns(**columns)
    assert len(table) == 2
    assert table.row_splits.tolist() == [0, 4, 7]
    assert table.lengths.tolist() == [4, 3]
    assert table.offsets[4].tolist() == [8, 9]
    assert np.shares_memory(table.offsets, offsets)
    same = WindowTable.from_columns(**columns | {"offsets": offsets.reshape(7, 2)})
    assert np.shares_memory(same.offsets, offsets)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("passage_end", [3, 99], "passage_start <= passage_end"),
        ("passage_start", [3], "passage_start has shape"),
        ("offsets", [[0, 0]], "offsets has shape"),
        ("row_splits", [1, 9, 18], "row_splits"),
        ("example_index", [1, 0], "example_index must be ascending"),
        ("document_start", [5, 0], "document_start must ascend"),
    ],
)
def test_a_table_that_cannot_be_is_refused(column: str, value: list[int], message: str) -> None:
    table = WindowTable.from_columns(**COLUMNS)
    with pytest.raises(ValueError, match=message):
        replace(table, **{column: np.array(value)})


def test_scores_that_cannot_be_are_refused() -> None:
    scores = top_k(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0]]), 2)
    with pytest.raises(ValueError, match="descend"):
        replace(scores, start_logits=scores.start_logits[:, ::-1])
    with pytest.raises(ValueError, match="missing entry"):
        replace(scores, end_tokens=np.array([[1, -1]]))
    with pytest.raises(ValueError, match="shape"):
        replace(scores, end_tokens=scores.end_tokens[:, :1])

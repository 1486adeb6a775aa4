"""Reading a windows table: the decoder's view, which windows train, a window as text."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from window_cases import build, examples_of, minilm, random_rows

from qa.errors import InputError
from qa.windows import WindowSettings, build_windows
from qa.windows.reading import describe_window, keep_negative_windows, window_lengths, window_table


def check_window_table(table: datasets.Dataset) -> None:
    view = window_table(table)
    assert len(view.example_index) == len(table) > 0
    for row, window in enumerate(table):
        for name in ("example_index", "passage_start", "passage_end", "document_start"):
            assert getattr(view, name)[row] == window[name]
        offsets = view.offsets[view.row_splits[row] : view.row_splits[row + 1]]
        assert offsets.reshape(-1).tolist() == window["offsets"]
    assert view.offsets.dtype == np.int32


def test_window_table_of_whole_sliced_chunked_and_selected_tables(tmp_path: Path) -> None:
    settings = WindowSettings(max_seq_length=100, doc_stride=20)
    table = build_windows(examples_of(random_rows(7, 30)), minilm(), settings, cache_dir=None).table
    check_window_table(table)
    check_window_table(table.select(range(3, 11)))  # a slice of the Arrow table
    check_window_table(table.select([1, 4, 5, 9, len(table) - 1]))  # indices
    check_window_table(datasets.concatenate_datasets([table.select(range(4)), table.select(range(4, 9))]))
    cached = build_windows(examples_of(random_rows(7, 30)), minilm(), settings, cache_dir=tmp_path).table
    check_window_table(cached.select(range(2, 20)))
    assert window_lengths(cached.select([4, 1])).tolist() == [cached[4]["length"], cached[1]["length"]]
    with pytest.raises(ValueError, match="ascending"):
        window_table(table.select([5, 0]))


def test_negative_windows_are_thinned_for_answerable_questions_only() -> None:
    context = "word " * 1500
    rows = [("why ?", context, [("word", 5 * place)]) for place in range(40)] + [("why ?", context, [])] * 3
    windows = build(rows, max_seq_length=64, doc_stride=8, max_question_length=16)
    table, held, example = windows.table, windows.holds_answer, windows.example_index
    assert keep_negative_windows(table, 1.0, 7).tolist() == list(range(len(table)))
    none = keep_negative_windows(table, 0.0, 7)
    assert none.tolist() == np.flatnonzero(held | (example >= 40)).tolist()
    some, more = (keep_negative_windows(table, share, 7) for share in (0.3, 0.6))
    assert set(none) < set(some) < set(more)
    candidates = len(table) - len(none)
    assert candidates > 1000
    assert abs((len(some) - len(none)) / candidates - 0.3) < 0.05
    assert keep_negative_windows(table, 0.3, 7).tolist() == some.tolist()
    assert keep_negative_windows(table, 0.3, 8).tolist() != some.tolist()
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="negative_share"):
            keep_negative_windows(table, share, 7)


def test_a_window_as_text() -> None:
    context = "old " * 60 + "Paris is big. " + "new " * 60
    rows = [("where is it?", context, [("Paris is", 240)]), ("where ?", "Berlin", [])]
    marked, without = (describe_window(row, minilm()) for row in build(rows).table)
    assert marked == (
        "question  [CLS] where is it? [SEP]\n"
        f"passage   ... {'old ' * 40}[[paris is]] big. {'new ' * 37}new ...\n"
        "length    131 tokens; 124 of the passage, from token 0 on\n"
        "label     tokens 66 to 67"
    )
    assert without == (
        "question  [CLS] where? [SEP]\n"
        "passage   berlin\n"
        "length    6 tokens; 1 of the passage, from token 0 on\n"
        "label     [CLS] (no answer in this window)"
    )

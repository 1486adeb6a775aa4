"""build_windows: settings refused up front, odd texts, counts, the cache."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from window_cases import build, examples_of, minilm, random_rows

import qa.windows.columns
from qa.errors import InputError
from qa.windows import Windows, WindowSettings, build_windows
from qa.windows.columns import WindowColumns
from qa.windows.reading import keep_negative_windows, window_table

COLUMNS = {
    "input_ids": datasets.List(datasets.Value("int32")),
    "token_type_ids": datasets.List(datasets.Value("int8")),
    "offsets": datasets.List(datasets.Value("int32")),
    **{name: datasets.Value("int32") for name in ("passage_start", "passage_end", "document_start")},
    "example_index": datasets.Value("int32"),
    "start_positions": datasets.List(datasets.Value("int32")),
    "end_positions": datasets.List(datasets.Value("int32")),
    "length": datasets.Value("int32"),
}


def test_awkward_texts() -> None:
    rows = [
        ("what ?", "", []),  # no context
        ("what ?", "\x07\x00 \u200b\r\n", []),  # nothing but what BERT drops
        ("", "Paris", [("Paris", 0)]),  # no question
        ("what ?", "A\x07\x07 b", [("\x07\x07", 1)]),  # an answer that no token covers
        ("what ?", "A b", [("", 1)]),  # an empty answer
        ("what ?", "A b", [("", 1), ("b", 2)]),
        ("what ?", "🙂🙂 שלום\r\ncafe\u0301 ok.", [("cafe\u0301 ok", 9)]),
    ]
    windows = build(rows, gold="random")
    table = windows.table
    assert table["example_index"][:] == list(range(7))
    assert table["length"][:3] == [5, 5, 4]
    assert [(row["passage_start"], row["passage_end"]) for row in table.select([0, 1, 2])] == [
        (4, 4),
        (4, 4),
        (2, 3),
    ]
    assert table["start_positions"][:6] == [[0], [0], [2], [0], [0], [5]]
    emoji = table[6]
    start, end = emoji["start_positions"][0], emoji["end_positions"][0]
    offsets = np.array(emoji["offsets"]).reshape(-1, 2)
    assert rows[6][1][offsets[start, 0] : offsets[end, 1]] == "cafe\u0301 ok"
    assert windows.questions == 7
    assert windows.empty_passages == 2
    assert windows.answers_without_tokens == 3
    assert windows.unanswerable_questions == 2
    assert windows.answers_in_no_window == 0
    assert windows.windows_without_answer == 4


def test_long_questions_are_cut_and_counted() -> None:
    rows = [
        ("why " * 3000, "Because it is so.", [("so", 14)]),
        ("why " * 8, "Because.", []),
        ("why " * 7, "So.", []),
    ]
    windows = build(rows, max_question_length=7, max_seq_length=64, doc_stride=16)
    assert windows.truncated_questions == 2
    assert windows.table["passage_start"][:] == [9, 9, 9]
    assert windows.table[0]["start_positions"] == [9 + 3]


def test_a_gold_longer_than_every_window_is_counted() -> None:
    context = "word " * 300
    windows = build(
        [("why ?", context, [(context[:-1], 0)]), ("why ?", context, [("word", 0)])],
        max_seq_length=64, doc_stride=8, max_question_length=16,
    )  # fmt: skip
    assert windows.answers_in_no_window == 1
    assert windows.unanswerable_questions == 0
    assert windows.windows_without_answer == len(windows.table) - 1
    assert int(windows.holds_answer.sum()) == 1
    assert windows.table["start_positions"][:][windows.holds_answer.argmax()] == [4]


def test_an_offset_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="example q0: the answer 'aris' does not stand at character 0"):
        build([("where ?", "Paris", [("aris", 0)])])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_seq_length": 384, "doc_stride": 317}, "lower doc_stride to 316 or less"),
        ({"max_seq_length": 67, "doc_stride": 0}, "leaves no room for the passage"),
        ({"max_seq_length": 67, "doc_stride": 1, "stride_meaning": "step"}, "leaves no room for the passage"),
    ],
)
def test_windows_that_cannot_move_on_are_refused_up_front(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build([("a", "b", [])], **settings)
    WindowSettings(max_seq_length=384, doc_stride=316).validate(3)
    WindowSettings(max_seq_length=384, doc_stride=5000, stride_meaning="step").validate(3)


@pytest.mark.parametrize(
    "settings",
    [
        {"stride_meaning": "hop"},
        {"segments": "ones"},
        {"gold": "last"},
        {"max_seq_length": 0},
        {"max_question_length": 0},
        {"doc_stride": -1},
        {"doc_stride": 0, "stride_meaning": "step"},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        WindowSettings(**settings)


def test_columns_and_types(tmp_path: Path) -> None:
    examples = examples_of(random_rows(1, 9))
    for cache_dir in (None, tmp_path):
        windows = build_windows(examples, minilm(), WindowSettings(), cache_dir=cache_dir)
        assert windows.table.features == datasets.Features(COLUMNS)
        assert windows.table.format["type"] is None


def counts(windows: Windows) -> dict[str, Any]:
    return {name: value for name, value in vars(windows).items() if name != "table"}


def test_cache_hit_rebuilds_nothing_and_keeps_the_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*random_rows(2, 30), ("why " * 90, "Because", [("", 0)])]
    settings = WindowSettings(max_seq_length=128, doc_stride=32)
    in_memory = build_windows(examples_of(rows), minilm(), settings, cache_dir=None)
    built = build_windows(examples_of(rows), minilm(), settings, cache_dir=tmp_path)
    assert built.table[:] == in_memory.table[:]
    assert counts(built) == counts(in_memory)
    assert built.truncated_questions > 0
    assert built.answers_without_tokens > 0
    assert len(list(tmp_path.glob("windows-*.arrow"))) == 1

    def fail(*args: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(WindowColumns, "__call__", fail)
    # A call with truncation leaves a mark in the tokenizer's backend; it is not content.
    minilm()("word " * 20, truncation=True, max_length=9)
    again = build_windows(examples_of(rows), minilm(), settings, cache_dir=tmp_path)
    assert again.table[:] == built.table[:]
    assert counts(again) == counts(built)


def test_whatever_changes_the_windows_changes_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("where ?", "Paris is old", [("Paris", 0)])]
    other = copy.deepcopy(minilm())
    other.add_tokens(["Paris"])
    files = 0
    for tokenizer, changed_rows, settings in (
        (minilm(), rows, WindowSettings()),
        (other, rows, WindowSettings()),
        (minilm(), [("where ?", "Paris is odd", [("Paris", 0)])], WindowSettings()),
        (minilm(), [("where ?", "Paris is old", [("old", 9)])], WindowSettings()),
        (minilm(), rows, WindowSettings(gold="all")),
        (minilm(), rows, WindowSettings(segments="zeros")),
        (minilm(), rows, WindowSettings(stride_meaning="step")),
        (minilm(), rows, WindowSettings(doc_stride=127)),
    ):
        build_windows(examples_of(changed_rows), tokenizer, settings, cache_dir=tmp_path)
        files += 1
        assert len(list(tmp_path.glob("windows-*.arrow"))) == files
    monkeypatch.setattr("qa.windows.building.WINDOWS_VERSION", 2)
    build_windows(examples_of(rows), minilm(), WindowSettings(), cache_dir=tmp_path)
    assert len(list(tmp_path.glob("windows-*.arrow"))) == files + 1


def test_batches_and_processes_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_of(random_rows(4, 40))
    settings = WindowSettings(max_seq_length=100, doc_stride=20)
    whole = build_windows(examples, minilm(), settings, cache_dir=None).table[:]
    shared = build_windows(examples, minilm(), settings, cache_dir=tmp_path / "two", num_proc=2)
    assert shared.table[:] == whole
    monkeypatch.setattr("qa.windows.building.EXAMPLES_PER_BATCH", 7)
    monkeypatch.setattr(qa.windows.columns, "PASSAGE_CACHE_TOKENS", 100)
    assert build_windows(examples, minilm(), settings, cache_dir=None).table[:] == whole
    assert build_windows(examples, minilm(), settings, cache_dir=tmp_path / "small").table[:] == whole
    kept = examples.select([5, 3, 30])
    chosen = build_windows(kept, minilm(), settings, cache_dir=None)
    pairs = list(zip(whole["example_index"], whole["input_ids"], strict=True))
    expected = [ids for row in (5, 3, 30) for example, ids in pairs if example == row]
    assert chosen.table["input_ids"][:] == expected
    assert sorted(set(chosen.table["example_index"][:])) == [0, 1, 2]


def test_no_examples_no_windows(tmp_path: Path) -> None:
    for cache_dir in (None, tmp_path):
        windows = build_windows(examples_of([]), minilm(), WindowSettings(), cache_dir=cache_dir)
        assert windows.table.features == datasets.Features(COLUMNS)
        assert set(counts(windows).values()) == {0}
        assert len(windows.lengths) == len(window_table(windows.table).offsets) == 0
        assert keep_negative_windows(windows.table, 0.5, 1).tolist() == []

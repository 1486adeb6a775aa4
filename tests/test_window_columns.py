"""Windows and labels: equal to the tokenizer's own, to BERT's step rule, to a loop over tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from window_cases import Row, build, examples_of, minilm, random_rows, roberta

from qa.windows import WindowSettings
from qa.windows.columns import WindowColumns, layout_windows


@pytest.mark.parametrize("name", ["minilm", "roberta", "roberta with prefix space"])
@pytest.mark.parametrize(("max_seq_length", "doc_stride"), [(384, 128), (100, 20), (100, 0), (90, 25)])
def test_overlap_equals_the_tokenizers_own_windows(name: str, max_seq_length: int, doc_stride: int) -> None:
    tokenizer = minilm() if name == "minilm" else roberta("prefix" in name)
    rows = random_rows(max_seq_length + doc_stride, 70)
    rows = [row for row in rows if len(tokenizer(row[0], add_special_tokens=False)["input_ids"]) <= 60]
    assert len(rows) > 50
    questions, contexts = [row[0] for row in rows], [row[1] for row in rows]
    settings = {"max_seq_length": max_seq_length, "doc_stride": doc_stride, "max_question_length": 60}
    table = build(rows, tokenizer, **settings).table
    theirs = tokenizer(
        questions,
        contexts,
        truncation="only_second",
        max_length=max_seq_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    wholes = [tokenizer(text, add_special_tokens=False, return_offsets_mapping=True) for text in contexts]
    assert table["input_ids"][:] == theirs["input_ids"]
    assert table["example_index"][:] == theirs["overflow_to_sample_mapping"]
    zeros = [[0] * len(ids) for ids in theirs["input_ids"]]
    assert table["token_type_ids"][:] == theirs.get("token_type_ids", zeros)
    assert table["length"][:] == [len(ids) for ids in theirs["input_ids"]]
    for row, window in enumerate(table):
        second = [place for place, part in enumerate(theirs.sequence_ids(row)) if part == 1]
        assert list(range(window["passage_start"], window["passage_end"])) == second
        offsets = [tuple(pair) for pair in np.array(window["offsets"]).reshape(-1, 2).tolist()]
        expected = [
            theirs["offset_mapping"][row][p] if p in second else (0, 0) for p in range(window["length"])
        ]
        begin, stop = window["document_start"], window["document_start"] + len(second)
        whole = wholes[window["example_index"]]
        if "prefix" in name and begin > 0:
            # Their later windows take the space before the first token for one the tokenizer added.
            expected[second[0]] = whole["offset_mapping"][begin]
        assert offsets == expected
        assert (
            offsets[slice(second[0], second[-1] + 1) if second else slice(0)]
            == whole["offset_mapping"][begin:stop]
        )
        assert (
            window["input_ids"][window["passage_start"] : window["passage_end"]]
            == whole["input_ids"][begin:stop]
        )
    assert len(table) > len(rows)


def bert_windows(tokens: int, room: int, doc_stride: int) -> list[tuple[int, int]]:
    """(start, length) by the loop of BERT's run_squad.py."""
    windows, start = [], 0
    while start < tokens:
        length = min(tokens - start, room)
        windows.append((start, length))
        if start + length == tokens:
            break
        start += min(length, doc_stride)
    return windows or [(0, 0)]


def test_step_equals_berts_loop() -> None:
    random = np.random.default_rng(0)
    for doc_stride in (1, 7, 128, 1000):
        settings = WindowSettings(max_seq_length=100, doc_stride=doc_stride, stride_meaning="step")
        question, passage = random.integers(0, 65, size=300), random.integers(0, 900, size=300)
        layout = layout_windows(question, passage, 3, settings)
        expected = [
            (example, start, length)
            for example in range(300)
            for start, length in bert_windows(passage[example], 97 - question[example], doc_stride)
        ]
        made = zip(
            layout.example.tolist(), layout.document_start.tolist(), layout.passage.tolist(), strict=True
        )
        assert list(made) == expected


def test_2000_tokens_are_13_windows_by_step_and_6_by_overlap() -> None:
    row: Row = ("who " * 14, "word " * 2000, [])
    step = build([row], max_seq_length=512, doc_stride=128, stride_meaning="step").table
    assert step["document_start"][:] == [128 * place for place in range(13)]
    overlap = build([row], max_seq_length=512, doc_stride=128, stride_meaning="overlap").table
    assert overlap["document_start"][:] == [367 * place for place in range(6)]


@pytest.mark.parametrize("name", ["minilm", "roberta"])
@pytest.mark.parametrize("stride_meaning", ["overlap", "step"])
def test_labels_equal_a_loop_over_tokens(name: str, stride_meaning: str) -> None:
    tokenizer = minilm() if name == "minilm" else roberta()
    rows = random_rows(5, 90)
    windows = build(
        rows, tokenizer, max_seq_length=64, doc_stride=10, max_question_length=20, gold="random",
        stride_meaning=stride_meaning,
    )  # fmt: skip
    labelled = lost = 0
    for window in windows.table:
        _, context, golds = rows[window["example_index"]]
        offsets = tokenizer(context, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        expected = []
        for text, start in golds:
            end = start + len(text)
            tokens = [p for p, (low, high) in enumerate(offsets) if high > start and low < end and text]
            if tokens:
                first, last = (place - window["document_start"] for place in (tokens[0], tokens[-1]))
                inside = first >= 0 and last < window["passage_end"] - window["passage_start"]
                shift = window["passage_start"]
                expected.append((first + shift, last + shift) if inside else (0, 0))
        lost += (len(golds) - len(expected)) * (window["document_start"] == 0)
        made = list(zip(window["start_positions"], window["end_positions"], strict=True))
        assert made == (expected or [(0, 0)])
        labelled += sum(start > 0 for start, _ in made)
    assert labelled > 100
    assert windows.answers_without_tokens == lost > 0
    assert windows.unanswerable_questions == sum(not golds for *_, golds in rows) > 0


def test_labels_by_hand() -> None:
    context = "Paris is old. Berlin is not Paris."
    windows = build([("where ?", context, [("Paris", 28), ("Paris", 0)]), ("what ?", context, [])])
    first, unanswerable = windows.table
    # [CLS] where ? [SEP] paris is old . berlin is not paris . [SEP]
    assert first["length"] == 14
    assert (first["start_positions"], first["end_positions"]) == ([11], [11])
    assert first["token_type_ids"] == [0] * 4 + [1] * 10
    assert (first["passage_start"], first["passage_end"], first["document_start"]) == (4, 13, 0)
    assert np.array(first["offsets"]).reshape(-1, 2)[4:6].tolist() == [[0, 5], [6, 8]]
    assert (unanswerable["start_positions"], unanswerable["end_positions"]) == ([0], [0])
    everywhere = build([("where ?", context, [("Paris", 28)])], gold="all").table[0]
    assert (everywhere["start_positions"], everywhere["end_positions"]) == ([4, 11], [4, 11])
    annotated = build(
        [("where ?", context, [("Paris", 28), ("old", 9), ("Paris", 28)])], gold="random"
    ).table[0]
    assert annotated["start_positions"] == [11, 6, 11]


def test_all_counts_no_token_span_twice() -> None:
    # Both texts are the same token; a sum of probabilities must not count it twice.
    row: Row = ("where ?", "In Paris, yes", [("Paris", 3), (" Paris", 2), ("Par", 3)])
    assert build([row], gold="all").table[0]["start_positions"] == [5]
    assert build([row], gold="random").table[0]["start_positions"] == [5, 5, 5]


def test_zeros_are_zeros_everywhere() -> None:
    rows: list[Row] = [("where ?", "Paris is old", [])]
    assert build(rows, segments="zeros").table[0]["token_type_ids"] == [0] * 8
    assert build(rows, segments="bert").table[0]["token_type_ids"] == [0] * 4 + [1] * 4
    assert set(build(rows, roberta(), segments="bert").table[0]["token_type_ids"]) == {0}


def test_every_distinct_passage_is_tokenized_once() -> None:
    class Spy:
        def __init__(self, backend: Tokenizer) -> None:
            self.backend = backend
            self.passages: list[str] = []

        def encode_batch(self, texts: list[str], **kwargs: Any) -> list[Any]:
            self.passages += texts
            return self.backend.encode_batch(texts, **kwargs)

        def encode_batch_fast(self, texts: list[str], **kwargs: Any) -> list[Any]:
            return self.backend.encode_batch_fast(texts, **kwargs)

    rows = random_rows(6, 60)
    columns = WindowColumns.of(minilm(), WindowSettings())
    columns.backend = spy = Spy(columns.backend)  # type: ignore[assignment]
    examples = examples_of(rows).with_format("arrow")
    for start in range(0, 60, 10):
        columns(examples[start : start + 10], range(start, start + 10))
    assert sorted(spy.passages) == sorted({context for _, context, _ in rows})


def test_real_squad_answers_come_back(real_data: Path) -> None:
    import gzip
    import json

    with gzip.open(real_data / "squad/dev-v1.1.json.gz") as file:
        articles = json.load(file)["data"][:6]
    rows = [
        (q["question"], p["context"], [(a["text"], a["answer_start"]) for a in q["answers"]])
        for article in articles
        for p in article["paragraphs"]
        for q in p["qas"]
    ]
    windows = build(rows, gold="random")
    assert windows.answers_without_tokens == 0
    assert windows.unanswerable_questions == 0
    exact = total = 0
    for window in windows.table:
        context, golds = rows[window["example_index"]][1:]
        offsets = np.array(window["offsets"]).reshape(-1, 2)
        for (text, _), start, end in zip(
            golds, window["start_positions"], window["end_positions"], strict=True
        ):
            if start:
                total += 1
                found = context[offsets[start, 0] : offsets[end, 1]]
                assert text.strip() in found
                exact += found == text.strip()
    assert total > 1000
    assert exact / total > 0.99

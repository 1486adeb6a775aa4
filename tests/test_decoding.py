"""Decoding: hand-computed cases, and thousands of random ones against the slow reference."""

from __future__ import annotations

import gc
import itertools
import pickle
from collections import Counter
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
import pytest
from reference_decoding import ReferenceWindow, reference_n_best

import qa.decoding.candidates
import qa.decoding.duplicates
from qa.decoding import DecodingSettings, WindowScores, WindowTable, decode, top_k
from qa.decoding.spans import SpanView, span_scores, span_texts
from qa.errors import InputError
from qa.records import Prediction, Span

MODES = ("keep", "text", "overlap")


def table_of(examples: list[list[ReferenceWindow]]) -> WindowTable:
    windows = [window for example in examples for window in example]
    offsets = [pair for window in windows for pair in window.offsets]
    return WindowTable.from_columns(
        example_index=np.repeat(np.arange(len(examples)), [len(example) for example in examples]),
        passage_start=np.array([window.passage_start for window in windows], np.int32),
        passage_end=np.array([window.passage_end for window in windows], np.int32),
        document_start=np.array([window.document_start for window in windows], np.int32),
        offsets=np.array(offsets, np.int32).reshape(-1),
        length=np.array([len(window.offsets) for window in windows], np.int32),
    )


def scores_of(examples: list[list[ReferenceWindow]], k: int) -> WindowScores:
    """Full logits of all windows, padded to a rectangle with what must not be looked at, then reduced."""
    windows = [window for example in examples for window in example]
    lengths = np.array([len(window.offsets) for window in windows], np.int64)
    start = np.full((len(windows), max(lengths, default=1) + 2), 99.0, np.float32)
    end = start.copy()
    for row, window in enumerate(windows):
        start[row, : lengths[row]] = window.start_logits
        end[row, : lengths[row]] = window.end_logits
    return top_k(start, end, k, lengths)


def decoded(
    examples: list[list[ReferenceWindow]], contexts: list[str], settings: DecodingSettings
) -> list[Prediction]:
    ids = [f"q{number}" for number in range(len(contexts))]
    return decode(scores_of(examples, settings.n_best_size), table_of(examples), contexts, ids, settings)


def n_best(prediction: Prediction) -> list[tuple[int, int, str, float]]:
    return [(span.start, span.end, span.text, span.score) for span in prediction.n_best]


# "[CLS] who [SEP] red cat , red dog [SEP]": the passage is tokens 3 to 7.
CONTEXT = "red cat, red dog"
OFFSETS = [(0, 0), (0, 0), (0, 0), (0, 3), (4, 7), (7, 8), (9, 12), (13, 16), (0, 0)]
ONE_WINDOW = ReferenceWindow(
    start_logits=[1.0, 9.0, 0.0, 5.0, 0.0, 0.0, 4.0, 2.0, 8.0],
    end_logits=[0.5, 0.0, 9.0, 3.0, 2.0, 0.0, 2.5, 1.0, 0.0],
    offsets=OFFSETS,
    passage_start=3,
    passage_end=8,
    document_start=0,
)


def test_pairs_of_the_best_starts_and_ends_by_hand() -> None:
    # Best 5 starts: who 9, [SEP] 8, red 5, red 4, dog 2. Best 5 ends: [SEP] 9, red 3, red 2.5, cat 2, dog 1.
    settings = DecodingSettings(n_best_size=5, duplicates="keep")
    [prediction] = decoded([[ONE_WINDOW]], [CONTEXT], settings)
    assert prediction.id == "q0"
    assert prediction.null_score == 1.5
    assert n_best(prediction) == [
        (0, 3, "red", 8.0),
        (0, 12, "red cat, red", 7.5),
        (0, 7, "red cat", 7.0),
        (9, 12, "red", 6.5),
        (0, 16, "red cat, red dog", 6.0),
    ]
    assert prediction.null_odds == 1.5 - 8.0


@pytest.mark.parametrize(
    ("duplicates", "expected"),
    [
        ("keep", [(0, 3), (0, 12), (0, 7), (9, 12), (0, 16), (9, 16), (13, 16)]),
        ("text", [(0, 3), (0, 12), (0, 7), (0, 16), (9, 16), (13, 16)]),  # the second "red" is gone
        ("overlap", [(0, 3), (9, 12), (13, 16)]),
    ],
)
def test_duplicates_by_hand(duplicates: str, expected: list[tuple[int, int]]) -> None:
    window = replace(ONE_WINDOW, start_logits=[-inf, -inf, -inf, 5.0, -inf, -inf, 4.0, 2.0, -inf])
    settings = DecodingSettings(duplicates=duplicates)  # type: ignore[arg-type]
    [prediction] = decoded([[window]], [CONTEXT], settings)
    found = [(span.start, span.end) for span in prediction.n_best]
    assert [pair for pair in found if pair[1] != 8] == expected  # apart from those that end in the comma
    assert ((0, 8) in found) == (duplicates != "overlap")


def test_longest_answer_counts_word_pieces_both_ends_included() -> None:
    texts = {}
    for longest in (1, 2, 3):
        settings = DecodingSettings(n_best_size=12, max_answer_length=longest, duplicates="keep")
        [prediction] = decoded([[ONE_WINDOW]], [CONTEXT], settings)
        texts[longest] = {(span.start, span.end) for span in prediction.n_best}
    assert texts[1] == {(0, 3), (4, 7), (7, 8), (9, 12), (13, 16)}
    assert texts[2] - texts[1] == {(0, 7), (4, 8), (7, 12), (9, 16)}
    assert max(end - start for start, end in texts[3]) == 9  # ", red dog", not "red cat, red"


# A passage of ten letters, "a" to "j", cut into windows of six: tokens 0 to 5, 4 to 9, after "[CLS] [SEP]".
LETTERS = "abcdefghij"


def letters(
    first: int, starts: dict[str, float], ends: dict[str, float], null: float, size: int = 6
) -> ReferenceWindow:
    text = LETTERS[first : first + size]
    return ReferenceWindow(
        start_logits=[null, -inf, *(starts.get(letter, -inf) for letter in text), -inf],
        end_logits=[0.0, -inf, *(ends.get(letter, -inf) for letter in text), -inf],
        offsets=[(0, 0), (0, 0), *((place, place + 1) for place in range(first, first + len(text))), (0, 0)],
        passage_start=2,
        passage_end=2 + len(text),
        document_start=first,
    )


def test_windows_are_pooled_and_the_null_score_is_their_minimum() -> None:
    windows = [
        letters(0, {"a": 3.0, "e": 1.0}, {"b": 2.0, "f": 1.0}, null=4.0),
        letters(4, {"e": 2.0, "i": 2.5}, {"f": 1.5, "j": 0.5}, null=-1.0),
    ]
    [prediction] = decoded([windows], [LETTERS], DecodingSettings())
    assert prediction.null_score == -1.0
    assert n_best(prediction) == [
        (0, 2, "ab", 5.0),
        (0, 6, "abcdef", 4.0),
        (4, 6, "ef", 3.5),  # of the second window; the first one's, 2.0, is the same span
        (8, 10, "ij", 3.0),
        (4, 10, "efghij", 2.5),
    ]


def test_max_context_by_hand() -> None:
    # In window 0, "e" has 4 letters to its left and 1 to its right: 1 + 0.01 * 6. In window 1: 0 + 0.06.
    # "f" has min(5, 0) there and min(1, 4) here. So "e" may start in window 0 only, "f" in window 1 only.
    starts, ends = {"e": 1.0, "f": 2.0}, {"f": 0.5}
    windows = [letters(0, starts, ends, 0.0), letters(4, {"e": 7.0, "f": 3.0}, ends, 0.0)]
    [prediction] = decoded([windows], [LETTERS], DecodingSettings(max_context=True))
    assert n_best(prediction) == [(5, 6, "f", 3.5), (4, 6, "ef", 1.5)]
    [prediction] = decoded([windows], [LETTERS], DecodingSettings(max_context=False))
    assert n_best(prediction) == [(4, 6, "ef", 7.5), (5, 6, "f", 3.5)]


def test_max_context_ties_go_to_the_first_window_and_length_decides_close_ones() -> None:
    # Windows a-f and b-g: "d" has min(3, 2) and min(2, 3), equal. The third window c-h gives it min(1, 4).
    windows = [letters(first, {"d": float(first)}, {"d": 0.0}, 0.0) for first in (0, 1, 2)]
    [prediction] = decoded([windows], [LETTERS], DecodingSettings(max_context=True))
    assert n_best(prediction) == [(3, 4, "d", 0.0)]
    # A window b-h is longer: min(2, 4) + 0.07 beats 2 + 0.06.
    windows[1] = letters(1, {"d": 1.0}, {"d": 0.0}, 0.0, size=7)
    [prediction] = decoded([windows], [LETTERS], DecodingSettings(max_context=True))
    assert n_best(prediction) == [(3, 4, "d", 1.0)]


def test_equal_scores_keep_window_then_start_rank_then_end_rank() -> None:
    first = letters(0, {"a": 1.0, "b": 2.0}, {"b": 1.0, "c": 2.0}, 0.0)  # b-c 4, a-c 3, b-b 3, a-b 2
    second = letters(4, {"g": 1.5, "e": 1.5}, {"h": 1.5, "i": 1.5}, 0.0)  # four times 3
    [prediction] = decoded([[first, second]], [LETTERS], DecodingSettings())
    assert [span.text for span in prediction.n_best] == ["bc", "b", "abc", "efgh", "efghi", "gh", "ghi", "ab"]


def test_scores_are_added_in_float64() -> None:
    big, small = float(np.float32(16777216.0)), 1.0  # in float32, 16777216 + 1 == 16777216
    window = letters(0, {"a": big, "b": big}, {"b": small, "c": 0.0}, 0.0)
    window = replace(
        window, start_logits=[big, *window.start_logits[1:]], end_logits=[1.0, *window.end_logits[1:]]
    )
    [prediction] = decoded([[window]], [LETTERS], DecodingSettings())
    assert [span.score - big for span in prediction.n_best] == [1.0, 1.0, 0.0, 0.0]
    assert prediction.null_score - big == 1.0


def test_nothing_found_is_an_empty_n_best() -> None:
    no_passage = ReferenceWindow([1.0, 9.0, 9.0], [2.0, 9.0, 9.0], [(0, 0)] * 3, 2, 2, 0)
    only_backwards = letters(0, {"d": 1.0}, {"b": 1.0}, null=3.0)
    predictions = decoded([[no_passage], [], [only_backwards], []], ["", "", LETTERS, ""], DecodingSettings())
    assert predictions == [
        Prediction("q0", (), 3.0),
        Prediction("q1", (), inf),
        Prediction("q2", (), 3.0),
        Prediction("q3", (), inf),
    ]
    assert all(prediction.null_odds == inf for prediction in predictions)
    assert decoded([], [], DecodingSettings()) == []
    assert decoded([[], []], ["a", "b"], DecodingSettings()) == [
        Prediction("q0", (), inf),
        Prediction("q1", (), inf),
    ]


@dataclass(frozen=True)
class RandomQuestion:
    context: str
    windows: list[ReferenceWindow]


def random_question(rng: np.random.Generator, decimals: int | None, masked: float) -> RandomQuestion:
    """A passage of repeated words with gaps between them, in overlapping windows; random logits."""
    pieces, context = [], ""
    for _ in range(rng.integers(0, 40)):
        context += " " * rng.integers(0, 3)
        piece = str(rng.choice(["a", "b", "ab", "é😀", ""], p=[0.3, 0.3, 0.2, 0.15, 0.05]))
        pieces.append((len(context), len(context) + len(piece)))
        context += piece
    size, step, question = int(rng.integers(3, 20)), int(rng.integers(1, 8)), int(rng.integers(0, 6))
    step = min(step, size)
    firsts = [0]
    while firsts[-1] + size < len(pieces):
        firsts.append(firsts[-1] + step)

    def logits(count: int) -> list[float]:
        values = rng.normal(0, 2, count).astype(np.float32)
        values = values if decimals is None else np.round(values, decimals)
        values[rng.random(count) < masked] = -inf
        return [float(value) for value in values]

    windows = []
    for first in firsts:
        passage = pieces[first : first + size]
        offsets = [(0, 0)] * (question + 2) + passage + [(0, 0)]
        start, end = logits(len(offsets)), logits(len(offsets))
        windows.append(ReferenceWindow(start, end, offsets, question + 2, question + 2 + len(passage), first))
    return RandomQuestion(context, windows if rng.random() > 0.02 else [])


@pytest.mark.parametrize("max_pairs", [1, 700, 2_000_000])
@pytest.mark.parametrize("max_context", [False, True])
def test_equals_the_reference_procedure(
    monkeypatch: pytest.MonkeyPatch, max_pairs: int, max_context: bool
) -> None:
    monkeypatch.setattr(qa.decoding.candidates, "MAX_PAIRS", max_pairs)
    rng = np.random.default_rng(max_pairs + max_context)
    seen: Counter[str] = Counter()
    cases = itertools.product((None, 1, 0), (0.0, 0.3), (1, 2, 4, 20), (1, 3, 30), MODES)
    for decimals, masked, size, longest, duplicates in cases:
        questions = [random_question(rng, decimals, masked) for _ in range(6)]
        settings = DecodingSettings(size, longest, max_context, duplicates)  # type: ignore[arg-type]
        contexts = [question.context for question in questions]
        predictions = decoded([question.windows for question in questions], contexts, settings)
        for question, prediction in zip(questions, predictions, strict=True):
            expected, null_score = reference_n_best(
                question.windows,
                question.context,
                n_best_size=size,
                max_answer_length=longest,
                max_context=max_context,
                duplicates=duplicates,
            )
            assert n_best(prediction) == [(span.start, span.end, span.text, span.score) for span in expected]
            assert prediction.null_score == null_score
            values = [span.score for span in expected]
            seen["questions"] += 1
            seen["several windows"] += len(question.windows) > 1
            seen["empty"] += not expected
            seen["ties"] += len(set(values)) < len(values)
    assert seen["questions"] == 1296
    assert seen["several windows"] > 800
    assert seen["ties"] > 100
    assert seen["empty"] > 50


def test_an_n_best_list_reads_like_a_tuple_of_spans() -> None:
    window = letters(0, {"a": 3.0, "b": 1.0}, {"b": 2.0, "c": 0.5}, null=0.0)
    one, two = decoded([[window], [window]], [LETTERS, LETTERS], DecodingSettings())
    spans = one.n_best
    expected = (
        Span(0, 2, "ab", 5.0),
        Span(0, 3, "abc", 3.5),
        Span(1, 2, "b", 3.0),
        Span(1, 3, "bc", 1.5),
    )
    assert isinstance(spans, SpanView)
    assert len(spans) == 4
    assert tuple(spans) == expected
    assert spans == expected
    assert expected == spans
    assert spans != expected[:3]
    assert spans != list(expected)
    assert (spans[0], spans[-1], spans[1:3], spans[::-2]) == (
        expected[0],
        expected[3],
        expected[1:3],
        (expected[3], expected[1]),
    )
    assert [type(value) for value in (spans[1].start, spans[1].end, spans[1].score)] == [int, int, float]
    with pytest.raises(IndexError):
        spans[4]
    with pytest.raises(IndexError):
        spans[-5]
    assert spans.index(expected[2]) == 2
    assert expected[1] in spans
    assert repr(spans) == repr(expected)
    assert hash(one) == hash(Prediction("q0", expected, 0.0))
    assert one == Prediction("q0", expected, 0.0)
    assert two.n_best == spans
    assert two != one
    assert bool(decoded([[]], [""], DecodingSettings())[0].n_best) is False


def test_an_n_best_list_cannot_be_changed_and_is_pickled_without_its_neighbours() -> None:
    window = letters(0, {"a": 3.0}, {"b": 2.0}, null=0.0)
    one, *_ = decoded([[window]] * 500, [LETTERS + "x" * 5000] * 500, DecodingSettings())
    assert isinstance(one.n_best, SpanView)
    with pytest.raises(ValueError, match="read-only"):
        one.n_best.scores[0] = 9.0
    with pytest.raises(TypeError):
        one.n_best[0] = one.n_best[0]  # type: ignore[index]
    with pytest.raises(AttributeError):
        one.n_best.scores = one.n_best.scores  # type: ignore[misc]
    packed = pickle.dumps(one)
    assert len(packed) < 500
    assert pickle.loads(packed) == one


def test_columns_of_an_n_best_list_are_those_of_its_spans() -> None:
    rng = np.random.default_rng(3)
    questions = [random_question(rng, None, 0.3) for _ in range(30)]
    predictions = decoded(
        [question.windows for question in questions],
        [question.context for question in questions],
        DecodingSettings(),
    )
    assert sum(len(prediction.n_best) for prediction in predictions) > 200
    for prediction in predictions:
        spans = tuple(prediction.n_best)
        for kind in (prediction.n_best, spans):
            assert span_scores(kind).tolist() == [span.score for span in spans]
            assert span_scores(kind).dtype == np.float64
            assert span_texts(kind) == [span.text for span in spans]
            assert span_texts(kind, 3) == [span.text for span in spans[:3]]


def test_texts_whose_keys_collide_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    questions = [random_question(rng, 1, 0.0) for _ in range(20)]
    windows, contexts = [q.windows for q in questions], [q.context for q in questions]
    expected = decoded(windows, contexts, DecodingSettings())
    # Base 1: anagrams collide. Base 0: all texts do.
    for base in (1, 0):
        monkeypatch.setattr(qa.decoding.duplicates, "_BASE", base)
        keys = qa.decoding.duplicates.TextKeys(["abba"])
        spans = qa.decoding.candidates.Candidates(
            *(np.array(column) for column in ([0, 0], [0, 2], [2, 4], [1.0, 0.5]))
        )
        assert len(set(keys(spans).tolist())) == 1
        assert decoded(windows, contexts, DecodingSettings()) == expected


def test_tokens_far_into_a_long_window_are_measured_in_wider_numbers() -> None:
    # Differences of tokens beyond 16,384 and of what marks an impossible one do not fit into 16 bits.
    size = 40_000
    offsets = [(place, place + 1) for place in range(size)]
    start, end = np.full(size, -inf), np.full(size, -inf)
    start[[100, 39_000]], end[[90, 102, 39_003, 38_000]] = (2.0, 1.0), (5.0, 1.0, 0.5, 4.0)
    window = ReferenceWindow(start.tolist(), end.tolist(), offsets, 1, size, 0)
    context = "x" * size
    [prediction] = decoded([[window]], [context], DecodingSettings(duplicates="keep"))
    assert [(span.start, span.end, span.score) for span in prediction.n_best] == [
        (100, 103, 3.0),
        (39_000, 39_004, 1.5),
    ]


def test_settings_name_the_choices() -> None:
    with pytest.raises(InputError, match=r"duplicates is 'txt': give one of keep, text, overlap"):
        DecodingSettings(duplicates="txt")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="n_best_size is 0"):
        DecodingSettings(n_best_size=0)
    with pytest.raises(InputError, match="max_answer_length is -1"):
        DecodingSettings(max_answer_length=-1)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    table, scores = table_of([[ONE_WINDOW]]), scores_of([[ONE_WINDOW]], 5)
    settings = DecodingSettings(n_best_size=5)
    with pytest.raises(ValueError, match="2 contexts for 1 ids"):
        decode(scores, table, [CONTEXT, CONTEXT], ["q"], settings)
    with pytest.raises(ValueError, match="scores of 2 windows for a table of 1"):
        decode(scores_of([[ONE_WINDOW, ONE_WINDOW]], 5), table, [CONTEXT], ["q"], settings)
    with pytest.raises(ValueError, match="a window of example 0, but there are 0 examples"):
        decode(scores, table, [], [], settings)
    with pytest.raises(ValueError, match="best 5 of each window, too few for n_best_size 6"):
        decode(scores, table, [CONTEXT], ["q"], DecodingSettings(n_best_size=6))
    with pytest.raises(ValueError, match="beyond its context"):
        decode(scores, table, [CONTEXT[:10]], ["q"], settings)
    with pytest.raises(ValueError, match="behind their window's end"):
        decode(top_k(np.ones((1, 20)), np.arange(20.0)[None], 5), table, [CONTEXT], ["q"], settings)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        assert len(decoded([[ONE_WINDOW]], [CONTEXT], DecodingSettings())) == 1
        assert gc.isenabled() == enabled
        unhashable: Any = [["a list, no text"] * 99]  # noticed only where texts are compared
        with pytest.raises(TypeError):
            decode(
                scores_of([[ONE_WINDOW]], 20), table_of([[ONE_WINDOW]]), unhashable, ["q"], DecodingSettings()
            )
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()

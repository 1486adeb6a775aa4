"""Golds -> token positions, against loops that read like the definition."""

from __future__ import annotations

import numpy as np
import pytest

from qa.errors import InputError
from qa.windows.labels import (
    candidate_golds,
    candidate_token_spans,
    ragged_arange,
    random_gold,
    stable_hash,
    token_spans,
    window_labels,
)

CONTEXT = "Ada wrote to Babbage. Adas notes: Ada, 1843."


def test_candidates_by_choice_of_gold() -> None:
    texts, starts = ["Ada", "1843", "Ada"], [34, 39, 34]
    assert candidate_golds("first", "q", CONTEXT, texts, starts) == [(34, 37)]
    assert candidate_golds("random", "q", CONTEXT, texts, starts) == [(34, 37), (39, 43), (34, 37)]
    # "Adas" at 22 is another word.
    assert candidate_golds("all", "q", CONTEXT, texts, starts) == [(0, 3), (34, 37), (39, 43)]
    for gold in ("first", "all", "random"):
        assert candidate_golds(gold, "q", CONTEXT, [], []) == []


def test_all_keeps_an_annotated_part_of_a_word_and_finds_chinese_words() -> None:
    assert candidate_golds("all", "q", "rewrote wrote", ["wrote"], [2]) == [(2, 7), (8, 13)]
    assert candidate_golds("all", "q", "我住北京。北京很大", ["北京"], [2]) == [(2, 4), (5, 7)]
    assert candidate_golds("all", "q", "aa aaa", ["aa"], [0]) == [(0, 2)]
    assert candidate_golds("all", "q", "- - -", ["- -"], [0]) == [(0, 3), (2, 5)]
    assert candidate_golds("all", "q", "some text", [""], [4]) == [(4, 4)]


@pytest.mark.parametrize(("text", "start"), [("Ada", 1), ("Ada", -3), ("1843.", 40), ("Ada", 99)])
def test_an_answer_that_is_not_there_is_an_error(text: str, start: int) -> None:
    with pytest.raises(
        InputError, match=f"example q7: the answer '{text}' does not stand at character {start} "
    ):
        candidate_golds("first", "q7", CONTEXT, [text], [start])


def test_token_spans_by_hand() -> None:
    # Two passages: "New York!" as New, York, ! and "a\x07\x07 b" as a, b.
    offsets = np.array([[0, 3], [4, 8], [8, 9], [0, 1], [4, 5]], dtype=np.int32)
    row_splits = np.array([0, 3, 5])
    cases = [
        (0, 0, 3, (0, 0)),
        (0, 4, 8, (1, 1)),
        (0, 0, 9, (0, 2)),
        (0, 5, 6, (1, 1)),  # inside a token: the token
        (0, 3, 8, (1, 1)),  # leading space
        (0, 3, 4, (-1, -1)),  # the space alone
        (0, 5, 5, (-1, -1)),  # empty, inside a token
        (0, 9, 12, (-1, -1)),  # behind the last token
        (1, 0, 5, (0, 1)),
        (1, 1, 4, (-1, -1)),  # control characters, which have no token
        (1, 1, 5, (1, 1)),
    ]
    rows, starts, ends = (np.array([case[place] for case in cases]) for place in range(3))
    first, last = token_spans(offsets, row_splits, rows, starts, ends)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [case[3] for case in cases]


def test_token_spans_equal_a_loop_over_tokens() -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        counts = random.integers(0, 12, size=5)
        passages = []
        for count in counts:
            # Gaps, neighbours without a gap, several tokens for one character and tokens of no width.
            edges = np.sort(random.integers(0, 30, size=2 * count)).reshape(-1, 2)
            passages.append(edges)
        offsets = np.concatenate([*passages, np.empty((0, 2), dtype=int)]).astype(np.int32)
        row_splits = np.concatenate([[0], np.cumsum(counts)])
        rows = random.integers(0, 5, size=40)
        starts = random.integers(0, 34, size=40)
        ends = starts + random.integers(0, 8, size=40)
        first, last = token_spans(offsets, row_splits, rows, starts, ends)
        for span in range(40):
            start, end = starts[span], ends[span]
            tokens = [
                place for place, (low, high) in enumerate(passages[rows[span]]) if high > start and low < end
            ]
            expected = (tokens[0], tokens[-1]) if tokens and start < end else (-1, -1)
            assert (first[span], last[span]) == expected


def test_a_token_that_points_back_to_character_0_misleads_nobody() -> None:
    offsets = np.array([[0, 2], [3, 5], [0, 0], [6, 8]], dtype=np.int32)
    first, last = token_spans(offsets, np.array([0, 4]), np.array([0, 0]), np.array([0, 6]), np.array([2, 8]))
    assert (first.tolist(), last.tolist()) == ([0, 3], [0, 3])


def test_candidates_without_tokens_fall_out_and_are_counted() -> None:
    offsets = np.array([[0, 2], [3, 5], [0, 4]], dtype=np.int32)
    golds = [
        [(0, 2), (2, 3), (3, 5)],  # the middle one is a space
        [],  # unanswerable
        [(2, 3)],  # a space alone
        [(0, 1), (0, 2), (3, 4)],  # two spans of one token
    ]
    passages = np.array([0, 0, 0, 0])
    row_splits = np.array([0, 2, 3])
    unique = candidate_token_spans(golds, passages, offsets, row_splits, unique=True)
    assert unique.first.tolist() == [0, 1, -1, -1, 0, 1]
    assert unique.last.tolist() == [0, 1, -1, -1, 0, 1]
    assert unique.row_splits.tolist() == [0, 2, 3, 4, 6]
    assert unique.without_tokens.tolist() == [1, 0, 1, 0]
    assert unique.answer_spans.tolist() == [2, 0, 0, 2]
    repeated = candidate_token_spans(golds, passages, offsets, row_splits, unique=False)
    assert repeated.first.tolist() == [0, 1, -1, -1, 0, 0, 1]
    assert repeated.row_splits.tolist() == [0, 2, 3, 4, 7]


def test_window_labels_by_hand() -> None:
    # One passage of 10 tokens, windows of tokens 0-5 and 4-9, which begin at token 3 of the input.
    golds = candidate_token_spans(
        [[(0, 1), (4, 6), (5, 7), (9, 10)]],
        np.array([0]),
        np.stack([np.arange(10), np.arange(1, 11)], axis=1),
        np.array([0, 10]),
        unique=False,
    )
    starts, ends, counts = window_labels(
        golds, np.array([0, 0]), np.array([0, 4]), np.array([6, 6]), np.array([3, 3])
    )
    assert counts.tolist() == [4, 4]
    # Tokens 5-6 are cut by the first window, 0 and 9 lie in one window each.
    assert starts.tolist() == [3, 7, 0, 0, 0, 3, 4, 8]
    assert ends.tolist() == [3, 8, 0, 0, 0, 4, 5, 8]


def test_ragged_arange() -> None:
    assert ragged_arange(np.array([5, 0, 7]), np.array([2, 0, 3])).tolist() == [5, 6, 7, 8, 9]
    assert ragged_arange(np.array([], dtype=int), np.array([], dtype=int)).tolist() == []


def test_hash_is_fixed_for_ever() -> None:
    # SplitMix64's first output for seed 0; another hash would break resuming old runs.
    assert int(stable_hash(0)) == 0xE220A8397B1DCDAF
    assert stable_hash(1, np.array([2, 3])).tolist() == [int(stable_hash(1, 2)), int(stable_hash(1, 3))]
    assert int(stable_hash(1, 2)) != int(stable_hash(2, 1))


def test_random_golds_are_uniform_and_change_with_epoch_and_seed() -> None:
    examples = np.arange(30_000)
    for golds in (2, 3, 5):
        drawn = random_gold(42, 1, examples, golds)
        share = np.bincount(drawn, minlength=golds) / len(examples)
        assert np.abs(share - 1 / golds).max() < 0.01  # 3.5 standard deviations
    one, other = random_gold(42, 1, examples, 3), random_gold(42, 2, examples, 3)
    assert abs(np.mean(one == other) - 1 / 3) < 0.01
    assert abs(np.mean(one == random_gold(43, 1, examples, 3)) - 1 / 3) < 0.01
    assert random_gold(42, 1, examples, 1).max() == 0
    assert random_gold(0, 0, np.array([0, 1, 2, 3]), np.array([3, 3, 1, 2])).tolist()[2] == 0

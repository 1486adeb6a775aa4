"""From gold answers to token positions: which golds, which tokens, in which windows. NumPy only, pure.

Ends of character spans are exclusive, ends of token spans inclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

import numpy as np
import numpy.typing as npt

from qa.errors import InputError

IntArray = npt.NDArray[np.integer]


def candidate_golds(
    gold: str, example_id: str, context: str, texts: Sequence[str], starts: Sequence[int]
) -> list[tuple[int, int]]:
    """Character spans that may train one example.

    Args:
        gold: `first`: the first annotated answer. `random`: all annotated answers, repeated where annotators
            agree. `all`: the annotated answers and every further occurrence of their texts as whole words,
            each span once, by position (for the marginal likelihood of Clark and Gardner 2018, section 3.2).
        texts, starts: parallel, as annotated; empty for an unanswerable question.

    Returns:
        (start, end) pairs, end exclusive; empty for an unanswerable question.

    Raises:
        InputError: an answer does not stand at its offset.
    """
    for text, start in zip(texts, starts, strict=True):
        if start < 0 or context[start : start + len(text)] != text:
            raise InputError(
                f"example {example_id}: the answer {text!r} does not stand at character {start} of its"
                " context; read the file with --on_bad_record repair or drop."
            )
    annotated = [(start, start + len(text)) for text, start in zip(texts, starts, strict=True)]
    if gold == "first":
        return annotated[:1]
    if gold == "random":
        return annotated
    found = {span for text in set(texts) for span in _whole_word_occurrences(context, text)}
    return sorted(found.union(annotated))


def _whole_word_occurrences(context: str, text: str) -> list[tuple[int, int]]:
    """Spans of `text` in `context` that neither begin nor end inside a word ("in" is not in "within")."""
    spans = []
    start = context.find(text) if text else -1
    while start >= 0:
        end = start + len(text)
        begins_inside = start > 0 and _one_word(context[start - 1], text[0])
        ends_inside = end < len(context) and _one_word(text[-1], context[end])
        if not begins_inside and not ends_inside:
            spans.append((start, end))
        start = context.find(text, start + 1)
    return spans


def _one_word(left: str, right: str) -> bool:
    """Whether two neighbours belong to one word. East Asian scripts write no spaces: never."""
    return (
        left.isalnum()
        and right.isalnum()
        and not {east_asian_width(left), east_asian_width(right)} & {"W", "F"}
    )


def token_spans(
    offsets: IntArray, row_splits: IntArray, rows: IntArray, starts: IntArray, ends: IntArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The tokens that overlap character spans: first token whose end > start to last token whose start < end.

    Args:
        offsets: (tokens, 2) characters of all passages one after another, end exclusive.
        row_splits: (passages + 1,) passage p has the tokens `offsets[row_splits[p]:row_splits[p + 1]]`.
        rows: (spans,) the passage of each span.
        starts, ends: (spans,) characters, end exclusive.

    Returns:
        first, last: (spans,) token index within the passage, inclusive; -1, -1 where no token overlaps: an
            empty
        span, or characters that the tokenizer drops (white space, control characters).
    """
    # One search over all passages: keys grow from passage to passage because no offset reaches `stride`. The
    # running maximum keeps keys sorted where a token of no width carries offset 0,0 inside a passage.
    stride = 1 + max(int(offsets.max(initial=0)), int(ends.max(initial=0)))
    base = np.repeat(np.arange(len(row_splits) - 1, dtype=np.int64), np.diff(row_splits)) * stride
    start_keys = np.maximum.accumulate(base + offsets[:, 0]) if len(base) else base
    end_keys = np.maximum.accumulate(base + offsets[:, 1]) if len(base) else base
    rows = rows.astype(np.int64)
    first = np.searchsorted(end_keys, rows * stride + starts, side="right")
    last = np.searchsorted(start_keys, rows * stride + ends, side="left") - 1
    exists = (first <= last) & (starts < ends)
    passage = row_splits[rows]
    return np.where(exists, first - passage, -1), np.where(exists, last - passage, -1)


@dataclass(frozen=True)
class Candidates:
    """Candidate token spans of a batch of examples, all one after another.

    first, last: (spans,) token index in the passage, inclusive; -1 stands for "no answer".
    row_splits: (examples + 1,) example e has the spans `row_splits[e]:row_splits[e + 1]`, never none.
    without_tokens: (examples,) golds that no token covers.
    """

    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    row_splits: npt.NDArray[np.int64]
    without_tokens: npt.NDArray[np.int64]

    @property
    def answer_spans(self) -> npt.NDArray[np.int64]:
        """(examples,) number of candidates that are an answer."""
        return np.add.reduceat(self.first >= 0, self.row_splits[:-1], dtype=np.int64)


def candidate_token_spans(
    golds: Sequence[Sequence[tuple[int, int]]],
    passages: IntArray,
    offsets: IntArray,
    row_splits: IntArray,
    *,
    unique: bool,
) -> Candidates:
    """Token spans of each example's golds; golds without tokens fall out and are counted.

    Args:
        golds: per example, character spans (end exclusive).
        passages: (examples,) the row of each example's passage in `row_splits`.
        offsets, row_splits: as in `token_spans`.
        unique: keep equal token spans of one example once, so that a sum over candidates counts none twice.
    """
    examples = np.repeat(np.arange(len(golds)), [len(spans) for spans in golds])
    flat = np.array([span for spans in golds for span in spans], dtype=np.int64).reshape(-1, 2)
    first, last = token_spans(offsets, row_splits, passages[examples], flat[:, 0], flat[:, 1])
    lost = np.bincount(examples[first < 0], minlength=len(golds))
    keep = first >= 0
    if unique:
        once = np.zeros(len(first), dtype=bool)
        once[np.unique(np.stack([examples, first, last]), axis=1, return_index=True)[1]] = True
        keep &= once
    examples, first, last = examples[keep], first[keep], last[keep]
    empty = np.setdiff1d(np.arange(len(golds)), examples)
    order = np.argsort(np.concatenate([examples, empty]), kind="stable")
    none = np.full(len(empty), -1)
    counts = np.maximum(np.bincount(examples, minlength=len(golds)), 1)
    return Candidates(
        first=np.concatenate([first, none])[order],
        last=np.concatenate([last, none])[order],
        row_splits=np.concatenate([[0], np.cumsum(counts)]),
        without_tokens=lost,
    )


def ragged_arange(starts: IntArray, lengths: IntArray) -> npt.NDArray[np.int64]:
    """`[start, start + 1, ... start + length - 1]` of every row, one row after another: (sum of lengths,)."""
    before = np.cumsum(lengths, dtype=np.int64) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()), dtype=np.int64)


def window_labels(
    candidates: Candidates,
    example: IntArray,
    document_start: IntArray,
    tokens: IntArray,
    passage_start: IntArray,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Labels of every candidate in every window: its tokens where it lies wholly inside, else 0, 0 (`[CLS]`).

    Args:
        example: (windows,) row in `candidates`.
        document_start: (windows,) index of the window's first passage token among those of the passage.
        tokens: (windows,) number of passage tokens in the window.
        passage_start: (windows,) index of the first passage token in the window.

    Returns:
        start_positions, end_positions: flat, inclusive; counts: (windows,) candidates per window.
    """
    counts = np.diff(candidates.row_splits)[example]
    pick = ragged_arange(candidates.row_splits[example], counts)
    window = np.repeat(np.arange(len(example)), counts)
    first = candidates.first[pick] - document_start[window]
    last = candidates.last[pick] - document_start[window]
    inside = (candidates.first[pick] >= 0) & (first >= 0) & (last < tokens[window])
    shift = passage_start[window]
    starts = np.where(inside, first + shift, 0).astype(np.int32)
    ends = np.where(inside, last + shift, 0).astype(np.int32)
    return starts, ends, counts


def stable_hash(*keys: IntArray | int) -> npt.NDArray[np.uint64]:
    """A hash of integer tuples, the same in every process and version (Python's own is not meant to last).

    Each key goes through the finaliser of SplitMix64 (Steele, Lea and Flood 2014, figure 18).

    Args:
        keys: integers or arrays that broadcast together.
    """
    mixed = np.zeros(np.broadcast_shapes(*(np.shape(key) for key in keys)), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            mixed = mixed + np.asarray(key).astype(np.int64).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed


def random_gold(
    seed: int, epoch: IntArray | int, example_index: IntArray | int, golds: IntArray | int
) -> npt.NDArray[np.int64]:
    """Which of `golds` candidates trains in an epoch: one in all windows, on all ranks, after a resume.

    epoch, example_index, golds broadcast together.
    """
    draws = stable_hash(seed, epoch, example_index)
    return (draws % np.asarray(golds).astype(np.uint64)).astype(np.int64)

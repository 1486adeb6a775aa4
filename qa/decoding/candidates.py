"""From window scores to candidate spans: the half of decoding that runs over arrays, all windows at once.

The procedure is that of BERT (Devlin et al. 2019, section 4.2) as SpanBERT (Joshi et al. 2020) and the
Hugging Face scripts use it: the best k starts x the best k ends of every window. NumPy only, pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise

import numpy as np
import numpy.typing as npt

from qa.decoding.window_scores import BoolArray, FloatArray, IntArray, WindowScores, WindowTable

MAX_PAIRS = 2_000_000
"""Start-end pairs looked at in one go: it bounds the memory of a search, whatever the data set's size."""

_NO_START, _NO_END = 1 << 29, -(1 << 29)  # far enough apart that every length made of one of them is negative


@dataclass(frozen=True, eq=False)
class Candidates:
    """Valid spans of some examples: `example` ascends, and within one example the best comes first.

    example: (spans,) row of the example; start, end: (spans,) characters, end exclusive;
    score: (spans,) start + end logit, float64.
    """

    example: IntArray
    start: IntArray
    end: IntArray
    score: FloatArray

    def __len__(self) -> int:
        return len(self.example)

    def at(self, index: npt.NDArray[np.generic]) -> Candidates:
        """The candidates chosen by an index array or a mask, in its order."""
        return Candidates(self.example[index], self.start[index], self.end[index], self.score[index])


def search_candidates(
    scores: WindowScores, windows: WindowTable, *, n_best_size: int, max_answer_length: int, max_context: bool
) -> Iterator[Candidates]:
    """Every valid span of every example, sorted, in groups of whole examples of bounded size.

    A span is a start and an end among the best `n_best_size` of one window, both in the passage, with
    end >= start, at most `max_answer_length` tokens and at least one character; `max_context`: see
    `max_context_starts`. Logits are added in float64, as BERT and SpanBERT add Python floats: that is exact
    for float32 logits of ordinary size, so that scores tie only where the sums do. Equal scores keep the
    order window, rank of the start, rank of the end.
    """
    most_windows = max(1, MAX_PAIRS // min(n_best_size, max(1, scores.start_logits.shape[1])) ** 2)
    for first, last in _groups(windows.example_index, most_windows):
        starts = scores.start_tokens[first:last, :n_best_size].astype(np.int32)
        ends = scores.end_tokens[first:last, :n_best_size].astype(np.int32)
        passage_start = windows.passage_start[first:last, None]
        passage_end = windows.passage_end[first:last, None]
        possible = (starts >= passage_start) & (starts < passage_end)
        if max_context:
            possible &= max_context_starts(windows, first, last, starts)
        starts = np.where(possible, starts, _NO_START)
        ends = np.where((ends >= passage_start) & (ends < passage_end), ends, _NO_END)
        # A single example may have more windows than fit: its pairs are searched in parts and pooled.
        parts = []
        for part in range(first, last, most_windows):
            rows = slice(part - first, part - first + most_windows)
            parts.append(_pairs(scores, windows, part, starts[rows], ends[rows], max_answer_length))
        yield _sorted_by_score(parts[0] if len(parts) == 1 else _join(parts))


def _groups(example_index: IntArray, most_windows: int) -> Iterator[tuple[int, int]]:
    """Ranges of windows that hold whole examples: a single one, or as many as fit.

    Several fit where their number x the windows of the longest <= `most_windows`: a rectangle with a row for
    each is small, too.
    """
    bounds = np.flatnonzero(np.diff(example_index, prepend=-1, append=np.iinfo(np.int64).max)).tolist()
    opened, longest = 0, 0
    for example, (start, end) in enumerate(pairwise(bounds)):
        longest = max(longest, end - start)
        if example > opened and (example + 1 - opened) * longest > most_windows:
            yield bounds[opened], start
            opened, longest = example, end - start
    if bounds[opened] < len(example_index):
        yield bounds[opened], len(example_index)


def _pairs(
    scores: WindowScores,
    windows: WindowTable,
    first: int,
    starts: IntArray,
    ends: IntArray,
    max_answer_length: int,
) -> Candidates:
    """The valid spans of the windows from `first` on, in the order window, start rank, end rank.

    starts, ends: (windows, k) tokens; `_NO_START`, `_NO_END` where there is none in the passage.
    """
    distance = ends[:, None, :] - starts[:, :, None]
    window, start_rank, end_rank = np.nonzero((distance >= 0) & (distance < max_answer_length))
    start_token, end_token = starts[window, start_rank], ends[window, end_rank]
    window += first
    row = windows.row_splits[window]
    start, end = windows.offsets[row + start_token, 0], windows.offsets[row + end_token, 1]
    score = scores.start_logits[window, start_rank].astype(np.float64) + scores.end_logits[window, end_rank]
    spans = Candidates(windows.example_index[window], start, end, score)
    # Tokens without characters exist (a lone space of a byte-level tokenizer); "" would mean "no answer".
    visible = start < end
    return spans if visible.all() else spans.at(visible)


def _join(parts: list[Candidates]) -> Candidates:
    names = ("example", "start", "end", "score")
    return Candidates(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _sorted_by_score(spans: Candidates) -> Candidates:
    """Each example's spans by descending score, equal scores in the order they came.

    One short sort per example, as rows of a matrix, takes a fifth of the time of one long sort of all spans.
    """
    first = np.flatnonzero(np.diff(spans.example, prepend=-1))
    counts = np.diff(first, append=len(spans))
    filled = np.arange(counts.max(initial=0)) < counts[:, None]
    keys = np.full(filled.shape, np.inf)
    keys[filled] = -spans.score
    order = np.argsort(keys, axis=1, kind="stable")
    return spans.at((order + first[:, None])[filled])


def max_context_starts(windows: WindowTable, first: int, last: int, starts: IntArray) -> BoolArray:
    """BERT's and SpanBERT's rule: a token may start an answer only in the window that shows most around it.

    A window's score for a token is min(passage tokens to its left, to its right) + 0.01 * the window's
    passage length; the highest wins, the first window on ties (`_check_is_max_context` in BERT's
    run_squad.py).

    first, last: a range of windows that holds whole examples.
    starts: (last - first, k) token indices. Returns (last - first, k), False outside the passage.
    """
    example = windows.example_index[first:last]
    begin = windows.document_start[first:last].astype(np.int64)[:, None]
    size = (windows.passage_end[first:last] - windows.passage_start[first:last])[:, None]
    position = begin + starts - windows.passage_start[first:last, None]
    own = _context_score(position, begin, size)
    wins = own >= 0
    for step in count(1):
        before, after = slice(None, -step), slice(step, None)
        meet = (example[after] == example[before])[:, None] & (begin[after] < (begin + size)[before])
        if not meet.any():  # windows ascend, so that those further apart do not meet either
            return wins
        wins[before] &= ~(meet & (_context_score(position[before], begin[after], size[after]) > own[before]))
        wins[after] &= ~(meet & (_context_score(position[after], begin[before], size[before]) >= own[after]))
    raise AssertionError("unreachable")


def _context_score(position: IntArray, begin: IntArray, size: IntArray) -> FloatArray:
    """Score of a window for document positions (windows, k); -1 where the window does not hold them."""
    around = np.minimum(position - begin, begin + size - 1 - position)
    return np.where(around >= 0, around + 0.01 * size, -1.0)

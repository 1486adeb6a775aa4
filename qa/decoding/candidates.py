"""From window scores to candidate spans: the half of decoding that runs over arrays, all windows at once.

The procedure is that of BERT (Devlin et al. 2019, section 4.2) as SpanBERT (Joshi et al. 2020) and the
Hugging Face scripts use it: the best k starts x the best k ends of every window. NumPy only, pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

import numpy as np
import numpy.typing as npt

from qa.decoding.window_scores import BoolArray, FloatArray, IntArray, WindowScores, WindowTable

MAX_PAIRS = 1 << 18
"""Start-end pairs looked at in one go: few enough that they stay in a processor's cache, and that the memory
of a search does not grow with the data set."""

_FAR = 1 << 14  # tokens of this distance make no span; differences of two such numbers fit into 16 bits


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

    @classmethod
    def join(cls, parts: Sequence[Candidates]) -> Candidates:
        """All of them, one part after another; none where there is no part."""
        nothing = np.zeros(0, np.int32)
        none = cls(nothing, nothing, nothing, np.zeros(0))
        parts = [none, *parts]
        return cls(
            np.concatenate([part.example for part in parts]),
            np.concatenate([part.start for part in parts]),
            np.concatenate([part.end for part in parts]),
            np.concatenate([part.score for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class CandidateSearch:
    """Every valid span of every example, found window by window.

    A span is a start and an end among the best `k` of one window, both in the passage, with end >= start, at
    most `max_answer_length` tokens and at least one character; `max_context`: see `max_context_starts`.
    Logits are added in float64, as BERT and SpanBERT add Python floats: that is exact for float32 logits of
    ordinary size, so that scores tie only where the sums do. Equal scores keep the order window, rank of the
    start, rank of the end.
    """

    scores: WindowScores
    windows: WindowTable
    k: int
    max_answer_length: int
    max_context: bool

    @property
    def _windows_at_once(self) -> int:
        return max(1, MAX_PAIRS // max(1, self.k) ** 2)

    def groups(self) -> Iterator[IntArray]:
        """The windows, in groups of whole examples of bounded size."""
        for first, last in _groups(self.windows.example_index, self._windows_at_once):
            yield np.arange(first, last)

    def best(self, rows: IntArray, depth: int) -> tuple[Candidates, IntArray]:
        """At most the best `depth` pairs of each example that hold a character.

        rows: windows, ascending: all of each example's. Returns: the spans, and the examples that may have
        more pairs than were looked at.
        """
        table = self.windows
        starts, ends = self.scores.start_tokens[rows, : self.k], self.scores.end_tokens[rows, : self.k]
        begin, stop = table.passage_start[rows, None], table.passage_end[rows, None]
        start_ok, end_ok = (starts >= begin) & (starts < stop), (ends >= begin) & (ends < stop)
        if self.max_context:
            start_ok &= max_context_starts(table, rows, starts)
        start_logits, end_logits = (
            logits[rows, : self.k] for logits in (self.scores.start_logits, self.scores.end_logits)
        )
        places, cut = [], []
        # A single example may have more windows than fit: its pairs are searched in parts and pooled.
        for at in range(0, len(rows), self._windows_at_once):
            part = slice(at, at + self._windows_at_once)
            valid = _valid(starts[part], ends[part], start_ok[part], end_ok[part], self.max_answer_length)
            found, more = _highest(start_logits[part], end_logits[part], valid, depth)
            places.append(found + at * self.k**2)
            cut.append(more)
        pair = np.concatenate(places)
        start = pair // self.k  # in an array (rows, k), like `end`
        window = start // self.k
        end = window * self.k + pair % self.k
        score = start_logits.reshape(-1)[start].astype(np.float64) + end_logits.reshape(-1)[end]
        example = table.example_index[rows]
        order, longer = _best_first(example[window], score, depth)
        window, start, end = window[order], start[order], end[order]
        first_token = table.row_splits[rows][window]
        spans = Candidates(
            example[window],
            table.offsets[first_token + starts.reshape(-1)[start], 0],
            table.offsets[first_token + ends.reshape(-1)[end], 1],
            score[order],
        )
        # Tokens without characters exist (a lone space of a byte-level tokenizer); "" would mean "no answer".
        visible = spans.start < spans.end
        return spans if visible.all() else spans.at(visible), np.union1d(example[np.concatenate(cut)], longer)


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


def _valid(
    starts: IntArray, ends: IntArray, start_ok: BoolArray, end_ok: BoolArray, max_answer_length: int
) -> BoolArray:
    """(windows, k, k) which starts make a span with which ends.

    starts, ends, start_ok, end_ok: (windows, k) tokens, and whether they may be one.
    """
    longest = max(starts.max(initial=0), ends.max(initial=0))
    signed, unsigned, far = ("int16", "uint16", _FAR) if longest < _FAR else ("int64", "uint64", 1 << 40)
    starts = np.where(start_ok, starts.astype(signed), far)
    ends = np.where(end_ok, ends.astype(signed), -far)
    # Without a sign, a negative distance is longer than any answer: one comparison in place of two.
    distance: IntArray = (ends[:, None, :] - starts[:, :, None]).view(unsigned)
    return distance < min(max_answer_length, far)


def _highest(
    start_logits: FloatArray, end_logits: FloatArray, valid: BoolArray, depth: int
) -> tuple[IntArray, BoolArray]:
    """Places in (windows, k, k) of each window's `depth` highest valid pairs, of equal ones all, ascending.

    start_logits, end_logits: (windows, k). Returns the places, and (windows,) whether a window may have more.

    Sums are rounded here, which may make them equal but never turns their order round.
    """
    pairs = valid.shape[1] * valid.shape[2]
    if depth >= pairs:
        return np.flatnonzero(valid), np.zeros(len(valid), bool)
    with np.errstate(over="ignore"):
        sums = np.where(valid, start_logits[:, :, None] + end_logits[:, None, :], -np.inf)
    sums = sums.reshape(-1, pairs)
    least = np.partition(sums, pairs - depth, axis=1)[:, pairs - depth, None]
    return np.flatnonzero((sums >= least) & valid.reshape(-1, pairs)), least[:, 0] > -np.inf


def _best_first(example: IntArray, score: FloatArray, depth: int) -> tuple[IntArray, IntArray]:
    """The rows of each example's `depth` best scores, best first, equal ones in the order they came.

    example: (pairs,) ascending. Returns the rows, and the examples that have more.

    One short sort per example, as rows of a matrix, takes a fifth of the time of one long sort of all pairs.
    """
    first = starts_of_runs(example)
    counts = np.diff(first, append=len(example))
    filled = np.arange(counts.max(initial=0)) < counts[:, None]
    keys = np.full(filled.shape, np.inf)
    keys[filled] = -score
    order = np.argsort(keys, axis=1, kind="stable") + first[:, None]
    return order[:, :depth][filled[:, :depth]], example[first[counts > depth]]


def starts_of_runs(numbers: IntArray) -> IntArray:
    """Where runs of equal numbers begin. numbers: not negative."""
    return np.flatnonzero(np.diff(numbers, prepend=-1))


def max_context_starts(windows: WindowTable, rows: IntArray, starts: IntArray) -> BoolArray:
    """BERT's and SpanBERT's rule: a token may start an answer only in the window that shows most around it.

    A window's score for a token is min(passage tokens to its left, to its right) + 0.01 * the window's
    passage length; the highest wins, the first window on ties (`_check_is_max_context` in BERT's
    run_squad.py).

    rows: windows, ascending: all of each example's.
    starts: (rows, k) token indices. Returns (rows, k), False outside the passage.
    """
    example = windows.example_index[rows]
    begin = windows.document_start[rows].astype(np.int64)[:, None]
    size = (windows.passage_end[rows] - windows.passage_start[rows])[:, None]
    position = begin + starts - windows.passage_start[rows, None]
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

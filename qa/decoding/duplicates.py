"""Which candidate spans repeat a better one: by place, by text, or by a shared character. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from qa.decoding.candidates import Candidates, starts_of_runs
from qa.decoding.window_scores import BoolArray, IntArray

Keys = npt.NDArray[np.integer]

_BASE = 0x9E3779B97F4A7C15  # odd, so that no power of it is 0 modulo 2^64


def places(spans: Candidates) -> Keys:
    """(spans,) one number for each pair of start and end."""
    return (spans.start.astype(np.int64) << 32) | spans.end.astype(np.int64)


class TextKeys:
    """A number for every text cut out of the contexts: equal texts have equal numbers.

    Different texts almost never do. Rolling hashes (Karp and Rabin 1987): the key of context[start:end] is
    the difference of two prefix sums of code point x base^position, times base^(all - start), modulo 2^64.
    """

    def __init__(self, contexts: Sequence[str]) -> None:
        # Data sets ask several questions about a passage.
        distinct: dict[str, int] = {}
        which = [distinct.setdefault(context, len(distinct)) for context in contexts]
        begins = np.cumsum([0, *map(len, distinct)])
        self.begin = begins[which]
        codes = np.frombuffer("".join(distinct).encode("utf-32-le", "surrogatepass"), np.uint32)
        powers = np.full(len(codes) + 1, _BASE, np.uint64)
        powers[0] = 1
        np.cumprod(powers, out=powers)
        self.sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(codes * powers[:-1], out=self.sums[1:])
        self.shifts = powers[::-1]

    def __call__(self, spans: Candidates) -> Keys:
        """(spans,) uint64."""
        begin = self.begin[spans.example]
        start = begin + spans.start
        return (self.sums[begin + spans.end] - self.sums[start]) * self.shifts[start]


Same = Callable[[IntArray, IntArray], list[bool]]
"""Whether spans, given by their rows, are the same as other ones, pair by pair."""


def same_text(spans: Candidates, contexts: Sequence[str]) -> Same:
    """Compares the texts themselves."""

    def same(one: IntArray, other: IntArray) -> list[bool]:
        columns = (spans.example[one], spans.start[one], spans.end[one], spans.start[other], spans.end[other])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [contexts[at][start:end] == contexts[at][first:last] for at, start, end, first, last in rows]

    return same


def is_new(spans: Candidates, keys: Keys, same: Same | None = None) -> BoolArray:
    """(spans,) whether no better span of the same example is the same.

    keys: (spans,) equal for spans that are the same. same: whether two spans of one example that have equal
    keys really are; None: they are.
    """
    first = starts_of_runs(spans.example)
    counts = np.diff(first, append=len(spans))
    filled = np.arange(counts.max(initial=0)) < counts[:, None]
    table = np.zeros(filled.shape, keys.dtype)
    table[filled] = keys
    # Stable, so that of equal keys the better span's stays in front; a row's empty places are its last.
    order = np.argsort(table, axis=1, kind="stable")
    table = np.take_along_axis(table, order, axis=1)
    both = (order[:, 1:] < counts[:, None]) & (order[:, :-1] < counts[:, None])
    row, place = np.nonzero((table[:, 1:] == table[:, :-1]) & both)
    better, worse = first[row] + order[row, place], first[row] + order[row, place + 1]
    new = np.ones(len(spans), bool)
    new[worse] = False
    if same is not None:
        differ = ~np.array(same(better, worse), bool)
        for example in np.unique(row[differ]).tolist():
            _settle(new, range(first[example], first[example] + counts[example]), same)
    return new


def _settle(new: BoolArray, rows: range, same: Same) -> None:
    """Mark an example whose keys collide, by comparing all its spans."""
    kept: list[int] = []
    for row in rows:
        new[row] = not any(same(np.array(kept, np.int64), np.full(len(kept), row)))
        if new[row]:
            kept.append(row)


def without_overlaps(spans: Candidates, most: int) -> Candidates:
    """Spans that share a character with a better kept one left out; at most `most` of each example.

    Greedy, in rounds for all examples at once: keep every example's best, drop what overlaps it, go on.
    """
    left = np.arange(len(spans))
    kept = [left[:0]]
    for _ in range(most):
        rest = spans.at(left)
        first = starts_of_runs(rest.example)
        kept.append(left[first])
        sizes = np.diff(first, append=len(rest))
        best_start, best_end = np.repeat(rest.start[first], sizes), np.repeat(rest.end[first], sizes)
        left = left[(rest.end <= best_start) | (rest.start >= best_end)]
        if not len(left):
            break
    return spans.at(np.sort(np.concatenate(kept)))

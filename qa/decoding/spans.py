"""N-best lists that stay arrays until somebody looks: a `Span` is made, and its text cut out, on access.

Data sets have hundreds of thousands of spans, and most are never looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from qa.decoding.window_scores import IntArray
from qa.records import Span


@dataclass(frozen=True, eq=False)
class SpanArrays:
    """The spans of many questions, one question after another, each question's best first.

    start, end: (spans,) characters, end exclusive. score: (spans,) start + end logit, float64.
    """

    start: IntArray
    end: IntArray
    score: npt.NDArray[np.float64]


class SpanView(Sequence[Span]):
    """One question's spans: to read like a tuple of `Span`s, which it equals, hashes and pickles as.

    Nothing can be changed through it. Slices are tuples.
    """

    __slots__ = ("_arrays", "_begin", "_context", "_stop")

    def __init__(self, arrays: SpanArrays, context: str, begin: int, stop: int) -> None:
        """The spans `begin` to `stop` (exclusive) of `arrays`, all of this context."""
        self._arrays, self._context, self._begin, self._stop = arrays, context, begin, stop

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """(spans,) float64, descending; not to be written to."""
        return self._arrays.score[self._begin : self._stop]

    def texts(self, most: int | None = None) -> list[str]:
        """The first `most` texts; None: all."""
        stop = self._stop if most is None else min(self._stop, self._begin + most)
        starts, ends = (
            array[self._begin : stop].tolist() for array in (self._arrays.start, self._arrays.end)
        )
        return [self._context[start:end] for start, end in zip(starts, ends, strict=True)]

    def _spans(self, part: slice) -> Iterator[Span]:
        arrays = self._arrays
        columns = (array[part].tolist() for array in (arrays.start, arrays.end, arrays.score))
        for start, end, score in zip(*columns, strict=True):
            yield Span(start, end, self._context[start:end], score)

    def __len__(self) -> int:
        return self._stop - self._begin

    def __iter__(self) -> Iterator[Span]:
        return self._spans(slice(self._begin, self._stop))

    @overload
    def __getitem__(self, index: int) -> Span: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Span, ...]: ...

    def __getitem__(self, index: int | slice) -> Span | tuple[Span, ...]:
        places = range(self._begin, self._stop)[index]
        if isinstance(places, range):
            return tuple(self[place - self._begin] for place in places)
        start, end = int(self._arrays.start[places]), int(self._arrays.end[places])
        return Span(start, end, self._context[start:end], float(self._arrays.score[places]))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SpanView | tuple):
            return len(self) == len(other) and tuple(self) == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # The arrays of a whole data set, and a context for a few words, do not belong in a pickle.
        return tuple, (tuple(self),)


def span_scores(spans: Sequence[Span]) -> npt.NDArray[np.float64]:
    """(spans,) float64 scores of an n-best list, of whatever kind."""
    if isinstance(spans, SpanView):
        return spans.scores
    return np.array([span.score for span in spans], np.float64)


def span_texts(spans: Sequence[Span], most: int | None = None) -> list[str]:
    """The first `most` texts of an n-best list, of whatever kind; None: all."""
    return spans.texts(most) if isinstance(spans, SpanView) else [span.text for span in spans[:most]]

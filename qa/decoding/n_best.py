"""Logits -> n-best spans -> Predictions: the one decoder of evaluation, prediction and the predictor.

The procedure of BERT (Devlin et al. 2019, sections 4.2 and 4.3) and SpanBERT (Joshi et al. 2020): the best
starts x the best ends of every window, the windows of a question pooled and sorted by the sum of two logits,
duplicates removed. Pure: arrays and strings in, records out; NumPy and the standard library only.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from qa.decoding.candidates import Candidates, search_candidates
from qa.decoding.window_scores import FloatArray, WindowScores, WindowTable, top_k
from qa.errors import InputError
from qa.records import Prediction, Span

__all__ = ["DecodingSettings", "Duplicates", "WindowScores", "WindowTable", "decode", "top_k"]

Duplicates = Literal["keep", "text", "overlap"]


@dataclass(frozen=True)
class DecodingSettings:
    """How spans are searched. The defaults are SpanBERT's and BERT's, but for the max-context rule."""

    _argument_group_name: ClassVar[str] = "decoding"

    n_best_size: int = field(
        default=20,
        metadata={"help": "Starts and ends looked at in each window, and spans kept for each question."},
    )
    max_answer_length: int = field(default=30, metadata={"help": "Longest answer in tokens (word pieces)."})
    max_context: bool = field(
        default=False,
        metadata={
            "help": "An answer may start at a token only in the window that shows most around it (BERT, "
            "SpanBERT; off in the Hugging Face scripts). Questions with one window do not care."
        },
    )
    duplicates: Duplicates = field(
        default="text",
        metadata={
            "help": "What goes below a better span. text: spans of the same text (BERT, SpanBERT). overlap: "
            "spans that share a character with it. keep: only the same characters, seen by two windows."
        },
    )

    def __post_init__(self) -> None:
        for name in ("n_best_size", "max_answer_length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give a whole number of at least 1")
        if self.duplicates not in get_args(Duplicates):
            choices = ", ".join(get_args(Duplicates))
            raise InputError(f"duplicates is {self.duplicates!r}: give one of {choices}")


def decode(
    scores: WindowScores,
    windows: WindowTable,
    contexts: Sequence[str],
    ids: Sequence[str],
    settings: DecodingSettings,
) -> list[Prediction]:
    """The best spans of every question and its null score, in the order of `ids`.

    scores: the best k logits of each window with k >= `settings.n_best_size`, or all of a window's tokens.
    windows: the same windows in the same order.
    contexts, ids: one per example; `windows.example_index` points into them. A list is fastest.

    Spans are sorted by score; spans of equal score keep the order window, rank of the start logit, rank of
    the end logit, where equal logits rank by token index. The null score is the minimum over the question's
    windows. A question without a valid span has an empty n-best; one without any window has an infinite
    null score, too. Raises ValueError where the arguments do not belong together.
    """
    _check_match(scores, windows, contexts, ids, settings.n_best_size)
    n_best: list[tuple[Span, ...]] = [()] * len(ids)
    context_lengths = np.fromiter(map(len, contexts), np.int64, len(contexts))
    groups = search_candidates(
        scores,
        windows,
        n_best_size=settings.n_best_size,
        max_answer_length=settings.max_answer_length,
        max_context=settings.max_context,
    )
    for spans in groups:
        if np.any(spans.end > context_lengths[spans.example]):
            raise ValueError(
                "a window's offsets reach beyond its context: the windows belong to other examples"
            )
        if settings.duplicates == "overlap":
            spans = _without_overlaps(spans, settings.n_best_size)
        bounds = [*_first_of_each_example(spans).tolist(), len(spans)]
        with _collector_paused():
            for lo, hi in pairwise(bounds):
                example = int(spans.example[lo])
                n_best[example] = _distinct(spans, lo, hi, contexts[example], settings)
    null_scores = _null_scores(scores, windows, len(ids)).tolist()
    return [Prediction(*fields) for fields in zip(ids, n_best, null_scores, strict=True)]


def _check_match(
    scores: WindowScores, windows: WindowTable, contexts: Sequence[str], ids: Sequence[str], n_best_size: int
) -> None:
    if len(contexts) != len(ids):
        raise ValueError(f"{len(contexts)} contexts for {len(ids)} ids")
    if len(scores) != len(windows):
        raise ValueError(f"scores of {len(scores)} windows for a table of {len(windows)} windows")
    if len(windows) == 0:
        return
    if windows.example_index[-1] >= len(ids):
        raise ValueError(
            f"a window of example {windows.example_index[-1]}, but there are {len(ids)} examples"
        )
    width = scores.start_logits.shape[1]
    if width < n_best_size and width < windows.lengths.max():
        raise ValueError(
            f"scores hold the best {width} of each window, too few for n_best_size {n_best_size}"
        )
    last_token = np.maximum(scores.start_tokens.max(axis=1), scores.end_tokens.max(axis=1))
    if np.any(last_token >= windows.lengths):
        raise ValueError(
            "scores name tokens behind their window's end: they belong to other windows, or to padding"
        )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Hundreds of thousands of small records in a row set off full collections that find nothing to free.

    Beside a loaded model they take as long as all the rest of decoding.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _first_of_each_example(spans: Candidates) -> np.ndarray:
    """Indices of every example's best span."""
    return np.flatnonzero(np.diff(spans.example, prepend=-1))


def _without_overlaps(spans: Candidates, n_best_size: int) -> Candidates:
    """Spans that share a character with a better kept one left out; at most n_best_size of each example.

    Greedy, in rounds for all examples at once: keep every example's best, drop what overlaps it, go on.
    """
    left = np.arange(len(spans))
    kept = [left[:0]]
    for _ in range(n_best_size):
        rest = spans.at(left)
        first = _first_of_each_example(rest)
        kept.append(left[first])
        sizes = np.diff(first, append=len(rest))
        best_start, best_end = np.repeat(rest.start[first], sizes), np.repeat(rest.end[first], sizes)
        left = left[(rest.end <= best_start) | (rest.start >= best_end)]
        if not len(left):
            break
    return spans.at(np.sort(np.concatenate(kept)))


def _distinct(
    spans: Candidates, lo: int, hi: int, context: str, settings: DecodingSettings
) -> tuple[Span, ...]:
    """The first n_best_size spans of `spans[lo:hi]` that differ in text, or in place, as the settings say."""
    size = settings.n_best_size
    kept: dict[object, Span] = {}
    # Blocks, because hundreds of spans follow that nobody needs unless the first ones hold duplicates.
    for block in range(lo, hi, size):
        part = slice(block, min(block + size, hi))
        starts, ends, scores = (
            spans.start[part].tolist(),
            spans.end[part].tolist(),
            spans.score[part].tolist(),
        )
        texts = [context[start:end] for start, end in zip(starts, ends, strict=True)]
        keys: list[Any] = texts if settings.duplicates == "text" else list(zip(starts, ends, strict=True))
        for key, span in zip(keys, map(Span, starts, ends, texts, scores), strict=True):
            kept.setdefault(key, span)
        if len(kept) >= size:
            break
    return tuple(islice(kept.values(), size))


def _null_scores(scores: WindowScores, windows: WindowTable, examples: int) -> FloatArray:
    """(examples,) minimum over an example's windows; infinite where it has none."""
    null_scores = np.full(examples, np.inf)
    np.minimum.at(null_scores, windows.example_index, scores.null_scores.astype(np.float64))
    return null_scores

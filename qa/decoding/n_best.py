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
from itertools import repeat
from typing import ClassVar, Literal, get_args

import numpy as np

from qa.decoding.candidates import Candidates, CandidateSearch, starts_of_runs
from qa.decoding.duplicates import TextKeys, is_new, places, same_text, without_overlaps
from qa.decoding.spans import SpanArrays, SpanView
from qa.decoding.window_scores import BoolArray, FloatArray, IntArray, WindowScores, WindowTable, top_k
from qa.errors import InputError
from qa.records import Prediction

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
    search = CandidateSearch(
        scores,
        windows,
        k=min(settings.n_best_size, scores.start_logits.shape[1]),
        max_answer_length=settings.max_answer_length,
        max_context=settings.max_context,
    )
    choose = _Chooser(contexts, settings)
    spans = Candidates.join([choose(search, rows) for rows in search.groups()])
    null_scores = _null_scores(scores, windows, len(ids)).tolist()
    with _collector_paused():
        return _predictions(spans, contexts, ids, null_scores)


def _predictions(
    spans: Candidates, contexts: Sequence[str], ids: Sequence[str], null_scores: list[float]
) -> list[Prediction]:
    arrays = SpanArrays(spans.start, spans.end, spans.score.astype(np.float64, copy=False))
    arrays.score.flags.writeable = False
    bounds = np.searchsorted(spans.example, np.arange(len(ids) + 1)).tolist()
    views = map(SpanView, repeat(arrays), contexts, bounds[:-1], bounds[1:])
    return list(map(Prediction, ids, views, null_scores))


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
    """Tens of thousands of small records in a row set off collections that find nothing to free.

    A full one, beside a loaded model, takes as long as all the rest of decoding.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Chooser:
    """Takes each example's n-best out of its candidates."""

    def __init__(self, contexts: Sequence[str], settings: DecodingSettings) -> None:
        self.contexts, self.most, self.duplicates = contexts, settings.n_best_size, settings.duplicates
        self.lengths = np.fromiter(map(len, contexts), np.int64, len(contexts))
        self.text_keys = TextKeys(contexts) if self.duplicates == "text" else None

    def __call__(self, search: CandidateSearch, rows: IntArray) -> Candidates:
        """The best spans of the examples that these windows belong to.

        Hundreds of pairs follow that nobody needs unless the first ones hold duplicates: examples that come
        short are looked at again, deeper.
        """
        if self.duplicates == "overlap":
            spans, _ = search.best(rows, len(rows) * search.k**2)
            return without_overlaps(self._checked(spans), self.most)
        depth, found = self.most + self.most // 4, []
        while len(rows):
            spans, deeper = search.best(rows, depth)
            spans = self._checked(spans)
            spans = spans.at(self._is_new(spans))
            first = starts_of_runs(spans.example)
            sizes = np.diff(first, append=len(spans))
            deeper = np.setdiff1d(deeper, spans.example[first[sizes >= self.most]])
            place = np.arange(len(spans)) - np.repeat(first, sizes)
            found.append(spans.at((place < self.most) & ~np.isin(spans.example, deeper)))
            rows, depth = rows[np.isin(search.windows.example_index[rows], deeper)], 8 * depth
        if len(found) == 1:
            return found[0]
        spans = Candidates.join(found)
        return spans.at(np.argsort(spans.example, kind="stable"))

    def _checked(self, spans: Candidates) -> Candidates:
        if np.any(spans.end > self.lengths[spans.example]):
            raise ValueError(
                "a window's offsets reach beyond its context: the windows belong to other examples"
            )
        return spans

    def _is_new(self, spans: Candidates) -> BoolArray:
        if self.text_keys is None:
            return is_new(spans, places(spans))
        return is_new(spans, self.text_keys(spans), same_text(spans, self.contexts))


def _null_scores(scores: WindowScores, windows: WindowTable, examples: int) -> FloatArray:
    """(examples,) minimum over an example's windows; infinite where it has none."""
    null_scores = np.full(examples, np.inf)
    np.minimum.at(null_scores, windows.example_index, scores.null_scores.astype(np.float64))
    return null_scores

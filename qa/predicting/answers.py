"""Predictions -> results as the removed pipeline gave them: dicts with score, start, end and answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from qa.predicting.options import Options
from qa.records import Example, Prediction, Span

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

MARGIN = 100
"""Characters looked at on each side of a span to find the ends of its words."""


class Result(TypedDict):
    """One answer: score is its probability; start, end: characters of the context, end exclusive.

    "The passage does not tell" is the answer "" from 0 to 0.
    """

    score: float
    start: int
    end: int
    answer: str


class RankedResult(Result):
    """A result over several contexts. context: the index of its context; None for "no answer"."""

    context: int | None


def results(example: Example, prediction: Prediction, options: Options, words: Words) -> list[Result]:
    """The best `top_k` answers to a question about one context: see `ranked_results`."""
    sources = [0] * len(prediction.n_best)
    ranked = ranked_results([example.context], prediction, sources, options, words)
    return [Result(score=r["score"], start=r["start"], end=r["end"], answer=r["answer"]) for r in ranked]


def unwrapped(found: list[Result]) -> Result | list[Result]:
    """A single answer stands for itself."""
    return found[0] if len(found) == 1 else found


@dataclass(frozen=True)
class Words:
    """Word boundaries as the tokenizer sees them. backend: without truncation and padding."""

    backend: Tokenizer

    def aligned(self, contexts: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Spans stretched to whole words. contexts: the context of each.

        Only the neighbourhood of a span is tokenized, from white space to white space: no word holds any.
        """
        pieces = [
            _neighbourhood(context, start, end) for context, (start, end) in zip(contexts, spans, strict=True)
        ]
        texts = [context[begin:stop] for context, (begin, stop) in zip(contexts, pieces, strict=True)]
        encodings = self.backend.encode_batch(texts, add_special_tokens=False)
        stretched = []
        for (start, end), (begin, _), encoding in zip(spans, pieces, encodings, strict=True):
            start, end = _whole_words(start - begin, end - begin, encoding.offsets, encoding.word_ids)
            stretched.append((start + begin, end + begin))
        return stretched


def _neighbourhood(context: str, start: int, end: int) -> tuple[int, int]:
    begin = max(0, start - MARGIN)
    stop = min(len(context), end + MARGIN)
    while begin < start and not context[start - 1 : start].isspace():
        start -= 1
    while end < stop and not context[end].isspace():
        end += 1
    return start, end


def _whole_words(
    start: int, end: int, offsets: Sequence[tuple[int, int]], words: Sequence[int | None]
) -> tuple[int, int]:
    touched = {
        word
        for (s, e), word in zip(offsets, words, strict=True)
        if word is not None and s < end and e > start
    }
    covered = [place for place, word in zip(offsets, words, strict=True) if word in touched]
    if not covered:
        return start, end
    return min(start, min(s for s, _ in covered)), max(end, max(e for _, e in covered))


def pooled(predictions: Iterable[Prediction], options: Options) -> tuple[Prediction, list[int]]:
    """Predictions of one question about several contexts as if these were one document.

    Returns: the best spans of all, and for each the index of its context. The null score is the least, as it
    is over the windows of one document; with one context, everything is as it was.
    """
    best: list[tuple[Span, int]] = []
    null_score = math.inf
    for index, prediction in enumerate(predictions):
        null_score = min(null_score, prediction.null_score)
        both = [*best, *((span, index) for span in prediction.n_best)]
        best = sorted(both, key=lambda pair: -pair[0].score)[: options.decoding.n_best_size]
    whole = Prediction("", tuple(span for span, _ in best), null_score)
    return whole, [index for _, index in best]


def ranked_results(
    contexts: Sequence[str], prediction: Prediction, sources: Sequence[int], options: Options, words: Words
) -> list[RankedResult]:
    """The best `top_k` answers over contexts that are read as one document, best first; never none.

    Scores are shares of one softmax over the best spans of the whole document and "no answer" (unless the
    reader's temperature was fitted without it): together at most 1. Where "no answer" is offered, the
    threshold decides whether it comes before the best span. Spans that become the same words count once, with
    the best one's score. Where there is nothing to answer with, the only answer is "".
    sources: of each span, the index of its context.
    """
    shares, null_share = options.probabilities(prediction)
    found = [
        RankedResult(score=share, start=start, end=end, answer=contexts[source][start:end], context=source)
        for source, start, end, share in _distinct(contexts, prediction, sources, shares, options, words)
    ]
    offered = options.may_be_empty
    if offered or not found:
        place = 0
        if found and not options.withholds(prediction):
            place = max(1, sum(result["score"] >= null_share for result in found))
        score = null_share if offered else 0.0
        found.insert(place, RankedResult(score=score, start=0, end=0, answer="", context=None))
    return found[: options.top_k]


def _distinct(
    contexts: Sequence[str],
    prediction: Prediction,
    sources: Sequence[int],
    shares: np.ndarray,
    options: Options,
    words: Words,
) -> list[tuple[int, int, int, float]]:
    """Source, start, end, share of the best `top_k` places, stretched to whole words where that is wanted.

    Spans may become one, or come to overlap, when they are stretched: `duplicates` holds after it.
    """
    rule, spans = options.decoding.duplicates, prediction.n_best
    kept = dict[tuple[object, ...], tuple[int, int, int, float]]()
    for at in range(0, len(spans), options.top_k):
        block = slice(at, at + options.top_k)
        places = [(span.start, span.end) for span in spans[block]]
        if options.align_to_words:
            places = words.aligned([contexts[source] for source in sources[block]], places)
        for source, (start, end), share in zip(sources[block], places, shares[block].tolist(), strict=True):
            if rule == "overlap" and any(overlap((source, start, end), place[:3]) for place in kept.values()):
                continue
            key = (source, contexts[source][start:end]) if rule == "text" else (source, start, end)
            kept.setdefault(key, (source, start, end, share))
        if len(kept) >= options.top_k:
            break
    return list(kept.values())


def overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    """Whether two places, each (context, start, end), share a character."""
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def apart(ranked: Sequence[RankedResult]) -> list[RankedResult]:
    """Results, best first, without those that overlap a better one: other answers, not other cuts of one."""
    kept: list[RankedResult] = []
    for result in ranked:
        place = _place(result)
        if place is None or not any(
            overlap(place, other) for other in map(_place, kept) if other is not None
        ):
            kept.append(result)
    return kept


def _place(result: RankedResult) -> tuple[int, int, int] | None:
    source = result["context"]
    return None if source is None else (source, result["start"], result["end"])

"""The reference decoding procedure, one question at a time, in plain Python loops: slow and obviously right.

Written from the description of BERT's and SpanBERT's post-processing (Devlin et al. 2019, sections 4.2 and
4.3; Joshi et al. 2020), independently of `qa.decoding`: it reads full logits and knows nothing of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class ReferenceWindow:
    """One window of a question's passage. One logit and one pair of characters (end exclusive) per token."""

    start_logits: Sequence[float]
    end_logits: Sequence[float]
    offsets: Sequence[tuple[int, int]]
    passage_start: int
    passage_end: int  # exclusive
    document_start: int


@dataclass(frozen=True)
class ReferenceSpan:
    start: int
    end: int
    text: str
    score: float


def best_indexes(logits: Sequence[float], n_best_size: int) -> list[int]:
    """Indices of the highest logits, best first; Python's sort is stable: equal ones stay in their order."""
    ranked = sorted(range(len(logits)), key=lambda token: logits[token], reverse=True)
    return [token for token in ranked[:n_best_size] if logits[token] != -inf]


def is_max_context(windows: Sequence[ReferenceWindow], mine: int, token: int) -> bool:
    """Whether window `mine` is the first of those that give its token `token` the highest context score."""
    position = windows[mine].document_start + token - windows[mine].passage_start
    best_score, best_window = -inf, -1
    for number, window in enumerate(windows):
        length = window.passage_end - window.passage_start
        left = position - window.document_start
        right = window.document_start + length - 1 - position
        if left < 0 or right < 0:
            continue
        score = min(left, right) + 0.01 * length
        if score > best_score:
            best_score, best_window = score, number
    return best_window == mine


def reference_n_best(
    windows: Sequence[ReferenceWindow],
    context: str,
    *,
    n_best_size: int,
    max_answer_length: int,
    max_context: bool,
    duplicates: str,
) -> tuple[list[ReferenceSpan], float]:
    """The n-best spans and the null score of one question."""
    spans: list[ReferenceSpan] = []
    null_score = inf
    for number, window in enumerate(windows):
        null_score = min(null_score, window.start_logits[0] + window.end_logits[0])
        ends = best_indexes(window.end_logits, n_best_size)
        for start in best_indexes(window.start_logits, n_best_size):
            for end in ends:
                if not window.passage_start <= start < window.passage_end:
                    continue
                if not window.passage_start <= end < window.passage_end:
                    continue
                if end < start or end - start + 1 > max_answer_length:
                    continue
                if max_context and not is_max_context(windows, number, start):
                    continue
                first, last = window.offsets[start][0], window.offsets[end][1]
                if first >= last:
                    continue
                score = window.start_logits[start] + window.end_logits[end]
                spans.append(ReferenceSpan(first, last, context[first:last], score))
    spans.sort(key=lambda span: span.score, reverse=True)
    kept: list[ReferenceSpan] = []
    for span in spans:
        if not any(is_duplicate(span, better, duplicates) for better in kept):
            kept.append(span)
        if len(kept) == n_best_size:
            break
    return kept, null_score


def is_duplicate(span: ReferenceSpan, better: ReferenceSpan, duplicates: str) -> bool:
    if duplicates == "text":
        return span.text == better.text
    if duplicates == "overlap":
        return bool(set(range(span.start, span.end)) & set(range(better.start, better.end)))
    return (span.start, span.end) == (better.start, better.end)

"""Decoding as a plain loop over questions, windows, starts and ends: what `qa.decoding` is measured against.

It does what such loops do (the transformers example among them): sort each window's logits, go through all
pairs, keep those that can be an answer, sort, cut out texts. The result is the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qa.decoding import DecodingSettings, WindowTable
from qa.records import Prediction, Span


def decode_question_by_question(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    table: WindowTable,
    contexts: Sequence[str],
    ids: Sequence[str],
    settings: DecodingSettings,
) -> list[Prediction]:
    """start_logits, end_logits: (windows, seq_len), minus infinity where no answer may begin or end.

    Duplicates of a text are dropped; `max_context` is not looked at.
    """
    windows_of: dict[int, list[int]] = {}
    for window, example in enumerate(table.example_index.tolist()):
        windows_of.setdefault(example, []).append(window)
    predictions = []
    for example, (key, context) in enumerate(zip(ids, contexts, strict=True)):
        spans = []
        null_score = float("inf")
        for window in windows_of.get(example, []):
            starts, ends = start_logits[window], end_logits[window]
            offsets = table.offsets[table.row_splits[window] : table.row_splits[window + 1]].tolist()
            passage = range(int(table.passage_start[window]), int(table.passage_end[window]))
            null_score = min(null_score, float(starts[0]) + float(ends[0]))
            best_starts = np.argsort(-starts, kind="stable")[: settings.n_best_size].tolist()
            best_ends = np.argsort(-ends, kind="stable")[: settings.n_best_size].tolist()
            for start in best_starts:
                for end in best_ends:
                    if start not in passage or end not in passage:
                        continue
                    if end < start or end - start + 1 > settings.max_answer_length:
                        continue
                    first, last = offsets[start][0], offsets[end][1]
                    score = float(starts[start]) + float(ends[end])
                    spans.append(Span(first, last, context[first:last], score))
        spans.sort(key=lambda span: -span.score)
        kept: dict[str, Span] = {}
        for span in spans:
            if span.text:
                kept.setdefault(span.text, span)
            if len(kept) == settings.n_best_size:
                break
        predictions.append(Prediction(key, tuple(kept.values()), null_score))
    return predictions

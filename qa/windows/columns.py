"""A batch of examples -> the columns of its windows: NumPy over flat arrays, no Python per token."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qa.tokenizers import PairTemplate, pair_template
from qa.windows.labels import (
    Candidates,
    IntArray,
    candidate_golds,
    candidate_token_spans,
    ragged_arange,
    window_labels,
)
from qa.windows.slices import tokenize

if TYPE_CHECKING:
    import datasets
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from qa.windows import WindowSettings

PASSAGE_CACHE_TOKENS = 1 << 22
"""Passage tokens kept between batches, 12 bytes each: enough for SQuAD's 2.9 million in any order."""

COLUMN_TYPES = {
    "input_ids": pa.list_(pa.int32()),
    "token_type_ids": pa.list_(pa.int8()),
    "offsets": pa.list_(pa.int32()),
    "passage_start": pa.int32(),
    "passage_end": pa.int32(),
    "document_start": pa.int32(),
    "example_index": pa.int32(),
    "start_positions": pa.list_(pa.int32()),
    "end_positions": pa.list_(pa.int32()),
    "length": pa.int32(),
}
"""The windows table."""

BOOKKEEPING_TYPES = {
    "question_tokens": pa.int32(),
    "answer_spans": pa.int32(),
    "answers_without_tokens": pa.int32(),
}
"""About the window's whole example, so that counts survive in the cache: the question's length before it is
cut, candidates that are an answer (0: unanswerable), golds that no token covers."""


def window_features() -> datasets.Features:
    """Features of the cache: the windows table and the bookkeeping columns."""
    import datasets

    return datasets.Features.from_arrow_schema(pa.schema(COLUMN_TYPES | BOOKKEEPING_TYPES))


@dataclass(frozen=True)
class Passages:
    """Tokens of several passages, one after another: passage p has `row_splits[p]:row_splits[p + 1]`.

    ids: (tokens,); offsets: (tokens, 2) characters, end exclusive; row_splits: (passages + 1,).
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int32]
    row_splits: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Where the windows of a batch lie. All arrays (windows,).

    example: row in the batch; document_start: first passage token within the whole passage; question,
        passage: number
    of tokens of each in the window.
    """

    example: IntArray
    document_start: IntArray
    question: IntArray
    passage: IntArray


def layout_windows(
    question: IntArray, passage: IntArray, special_tokens: int, settings: WindowSettings
) -> Layout:
    """Cut passages into windows: the first starts at token 0, the last is the first one to reach the end.

    Neighbouring starts differ by `room - doc_stride` (overlap) or by `min(room, doc_stride)` (step, the rule
    of BERT's `convert_examples_to_features` in run_squad.py), where `room` is what a question leaves of
    `max_seq_length`. A passage without tokens gets one window.

    Args:
        question, passage: (examples,) number of tokens; questions already cut.
    """
    question, passage = question.astype(np.int64), passage.astype(np.int64)
    room = settings.max_seq_length - special_tokens - question
    step = np.minimum(room, settings.doc_stride)
    if settings.stride_meaning == "overlap":
        step = room - settings.doc_stride
    windows = 1 + -(-np.maximum(passage - room, 0) // step)
    example = np.repeat(np.arange(len(question)), windows)
    start = ragged_arange(np.zeros(len(windows), dtype=np.int64), windows) * step[example]
    return Layout(example, start, question[example], np.minimum(room[example], passage[example] - start))


@dataclass
class WindowColumns:
    """Callable for `datasets.Dataset.map` in Arrow format, good for one tokenizer and one set of settings."""

    backend: Tokenizer
    template: PairTemplate
    settings: WindowSettings
    _kept: OrderedDict[str, tuple[IntArray, IntArray]] = field(default_factory=OrderedDict)
    _kept_tokens: int = 0

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, settings: WindowSettings) -> WindowColumns:
        """Derive the template and check that the settings leave room.

        Raises:
            InputError: they do not, or the tokenizer is not of BERT's kind.
        """
        template = pair_template(tokenizer)
        settings.validate(template.special_tokens)
        # A copy: calling the tokenizer elsewhere leaves that call's truncation and padding behind in its
        # backend.
        backend = copy.deepcopy(tokenizer.backend_tokenizer)
        backend.no_truncation()
        backend.no_padding()
        return cls(
            backend, template if settings.segments == "bert" else template.without_segments(), settings
        )

    @property
    def content(self) -> str:
        """Everything about the tokenizer that decides what the windows are."""
        return f"{self.backend.to_str()} {self.template}"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict(), "_kept_tokens": 0}

    def __call__(self, batch: pa.Table, indices: Sequence[int]) -> pa.Table:
        """Columns of the windows of a batch of examples.

        Args:
            batch: columns id, question, context, answers.
            indices: (examples,) rows of the batch in the examples table, ascending and adjacent.
        """
        contexts = batch["context"].to_pylist()
        places = {context: place for place, context in enumerate(dict.fromkeys(contexts))}
        passage = np.array([places[context] for context in contexts])
        passages = self._passages(list(places))
        question_ids, question_splits = self._questions(batch["question"].to_pylist())
        question_tokens = np.diff(question_splits)
        layout = layout_windows(
            np.minimum(question_tokens, self.settings.max_question_length),
            np.diff(passages.row_splits)[passage],
            self.template.special_tokens,
            self.settings,
        )
        candidates = candidate_token_spans(
            self._golds(batch, contexts),
            passage,
            passages.offsets,
            passages.row_splits,
            unique=self.settings.gold == "all",
        )
        columns = self._token_columns(
            layout,
            question_ids,
            question_splits[layout.example],
            passages,
            passages.row_splits[passage[layout.example]],
        )
        columns |= self._label_columns(layout, candidates)
        columns["example_index"] = np.asarray(indices)[layout.example]
        columns["question_tokens"] = question_tokens[layout.example]
        types = COLUMN_TYPES | BOOKKEEPING_TYPES
        return pa.table(
            {name: _arrow(columns[name], kind) for name, kind in types.items()}, schema=pa.schema(types)
        )

    def _questions(self, questions: list[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Uncut token ids of all questions, and (questions + 1,) row splits."""
        encodings = self.backend.encode_batch_fast(questions, add_special_tokens=False)
        splits = _splits([len(encoding) for encoding in encodings])
        ids = chain.from_iterable(encoding.ids for encoding in encodings)
        return np.fromiter(ids, dtype=np.int32, count=splits[-1]), splits

    def _passages(self, contexts: list[str]) -> Passages:
        """Tokens of distinct passages; those met before come out of memory."""
        new = [context for context in contexts if context not in self._kept]
        for context, (ids, offsets) in zip(new, tokenize(self.backend, new), strict=True):
            self._kept[context] = ids, offsets
            self._kept_tokens += len(ids)
        for context in contexts:
            self._kept.move_to_end(context)
        found = [self._kept[context] for context in contexts]
        while self._kept_tokens > PASSAGE_CACHE_TOKENS:
            self._kept_tokens -= len(self._kept.popitem(last=False)[1][0])
        return Passages(
            ids=np.concatenate([ids for ids, _ in found]),
            offsets=np.concatenate([offsets for _, offsets in found]),
            row_splits=_splits([len(ids) for ids, _ in found]),
        )

    def _golds(self, batch: pa.Table, contexts: list[str]) -> list[list[tuple[int, int]]]:
        texts = pc.struct_field(batch["answers"], "text").to_pylist()
        starts = pc.struct_field(batch["answers"], "answer_start").to_pylist()
        rows = zip(batch["id"].to_pylist(), contexts, texts, starts, strict=True)
        return [candidate_golds(self.settings.gold, *row) for row in rows]

    def _token_columns(
        self,
        layout: Layout,
        question_ids: IntArray,
        question_start: IntArray,
        passages: Passages,
        passage_row: IntArray,
    ) -> dict[str, Any]:
        """input_ids, token_type_ids, offsets and their places.

        Args:
            question_start, passage_row: (windows,) where the window's question begins in `question_ids`, and
                its whole passage in `passages`.
        """
        template = self.template
        lengths = template.special_tokens + layout.question + layout.passage
        splits = np.concatenate([[0], np.cumsum(lengths)])
        row = splits[:-1]
        question_at = row + len(template.prefix)
        middle_at = question_at + layout.question
        passage_at = middle_at + len(template.middle)
        suffix_at = passage_at + layout.passage
        ids = np.empty(splits[-1], dtype=np.int32)
        types = np.full(splits[-1], template.passage_type, dtype=np.int8)
        for start, tokens, segments in (
            (row, template.prefix, template.prefix_types),
            (middle_at, template.middle, template.middle_types),
            (suffix_at, template.suffix, template.suffix_types),
        ):
            for place, (token, segment) in enumerate(zip(tokens, segments, strict=True)):
                ids[start + place] = token
                types[start + place] = segment
        questions = ragged_arange(question_at, layout.question)
        ids[questions] = question_ids[ragged_arange(question_start, layout.question)]
        types[questions] = template.question_type
        target = ragged_arange(passage_at, layout.passage)
        source = ragged_arange(passage_row + layout.document_start, layout.passage)
        ids[target] = passages.ids[source]
        offsets = np.zeros((splits[-1], 2), dtype=np.int32)
        offsets[target] = passages.offsets[source]
        return {
            "input_ids": (ids, splits),
            "token_type_ids": (types, splits),
            "offsets": (offsets.reshape(-1), 2 * splits),
            "passage_start": passage_at - row,
            "passage_end": suffix_at - row,
            "document_start": layout.document_start,
            "length": lengths,
        }

    def _label_columns(self, layout: Layout, candidates: Candidates) -> dict[str, Any]:
        passage_start = len(self.template.prefix) + layout.question + len(self.template.middle)
        starts, ends, counts = window_labels(
            candidates, layout.example, layout.document_start, layout.passage, passage_start
        )
        splits = np.concatenate([[0], np.cumsum(counts)])
        return {
            "start_positions": (starts, splits),
            "end_positions": (ends, splits),
            "answer_spans": candidates.answer_spans[layout.example],
            "answers_without_tokens": candidates.without_tokens[layout.example],
        }


def _splits(lengths: Sequence[int] | IntArray) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))])


def _arrow(column: Any, kind: pa.DataType) -> pa.Array:
    """A column of numbers, or of lists given as (flat values, row splits)."""
    if pa.types.is_list(kind):
        values, splits = column
        return pa.ListArray.from_arrays(
            pa.array(splits, type=pa.int32()), pa.array(values, type=kind.value_type)
        )
    return pa.array(column, type=kind)

"""Examples -> predictions: windows in batches of like length, logits reduced at once, memory bounded.

Questions are read a group at a time, so that memory does not grow with their number, and windows of all the
group's questions share batches. A document of any length is one question's windows: of each, only its tokens
(13 bytes each) and its best logits are kept.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qa.batching import WindowCollator, longest_first, token_batches
from qa.datasets.table import examples_features, record_batches
from qa.decoding import DecodingSettings, WindowScores, WindowTable, decode
from qa.losses import candidate_mask
from qa.models import forward_keys
from qa.predicting.loading import Reader
from qa.predicting.options import Options
from qa.records import Example, Prediction, Span
from qa.reduction import reduce_logits
from qa.windows.columns import WindowColumns
from qa.windows.reading import lists, numbers

if TYPE_CHECKING:
    import pyarrow as pa

QUESTIONS_AT_ONCE = 1024
CHARACTERS_AT_ONCE = 1 << 20
WINDOWS_AT_ONCE = 64
TOKENS_PER_BATCH = {"cpu": 1 << 12}
TOKENS_PER_GPU_BATCH = 1 << 15
"""Padded tokens in a batch where no batch_size was given. On a CPU larger batches are no faster."""


@dataclass(frozen=True)
class WindowSet:
    """The windows of a group of examples as flat arrays.

    ids, types: (tokens,) all windows one after another; table: what the decoder needs to know about them.
    """

    ids: np.ndarray
    types: np.ndarray
    table: WindowTable

    def row(self, window: int) -> dict[str, Any]:
        """One window as `qa.batching.WindowCollator` takes it; it carries no gold."""
        part = slice(self.table.row_splits[window], self.table.row_splits[window + 1])
        return {
            "input_ids": self.ids[part],
            "token_type_ids": self.types[part],
            "passage_start": self.table.passage_start[window],
            "passage_end": self.table.passage_end[window],
            "start_positions": [0],
            "end_positions": [0],
            "window_index": window,
        }


class WindowMaker:
    """Cuts examples into windows for one call: a context is tokenized once, however many questions it has."""

    def __init__(self, reader: Reader, options: Options, columns: WindowColumns) -> None:
        self.settings = options.windows
        template = columns.template
        template = template if self.settings.segments == "bert" else template.without_segments()
        # Its own memory of passages, which is freed with the call.
        self.columns = WindowColumns(columns.backend, template, self.settings)

    def __call__(self, examples: list[Example]) -> WindowSet:
        """Windows of a group, `example_index` counting within it. Warns of questions that are cut."""
        import pyarrow as pa

        schema = examples_features().arrow_schema
        table = pa.Table.from_batches(list(record_batches(examples)), schema=schema)
        columns = self.columns(table, range(len(examples)))
        self._warn_of_cuts(columns, examples)
        places = ("example_index", "passage_start", "passage_end", "document_start")
        return WindowSet(
            ids=lists(columns, "input_ids")[0],
            types=lists(columns, "token_type_ids")[0],
            table=WindowTable.from_columns(
                **{name: numbers(columns, name) for name in places},
                offsets=lists(columns, "offsets")[0],
                length=numbers(columns, "length"),
            ),
        )

    def _warn_of_cuts(self, columns: pa.Table, examples: list[Example]) -> None:
        tokens, example = numbers(columns, "question_tokens"), numbers(columns, "example_index")
        cut = np.unique(example[tokens > self.settings.max_question_length])
        if len(cut):
            first = examples[cut[0]].question
            longest = int(tokens[example == cut[0]][0])
            warnings.warn(
                f"{len(cut)} of {len(examples)} questions were cut to max_question_len, "
                f"{self.settings.max_question_length} tokens; the first has {longest}: {first[:60]!r}...",
                stacklevel=2,
            )


def read(
    reader: Reader,
    examples: Iterable[Example],
    options: Options,
    make_windows: WindowMaker,
    *,
    streamed: bool,
) -> Iterator[tuple[Example, Prediction]]:
    """The n-best spans and null score of every example, in their order.

    streamed: the first groups are small, so that first answers come soon; with a batch_size of 1 every answer
        comes before the next question is taken.
    """
    for group in _groups(examples, streamed, one_by_one=options.batch_size == 1):
        windows = make_windows(group)
        scores = score_windows(reader, windows, options)
        yield from zip(group, find_spans(scores, windows.table, group, options.decoding), strict=True)


def find_spans(
    scores: WindowScores, windows: WindowTable, group: list[Example], settings: DecodingSettings
) -> list[Prediction]:
    """`qa.decoding.decode`, but for a long document a stretch of windows at a time.

    Its candidates would otherwise grow with the document, where all starts meet all ends. The best spans of
    the whole are among those of the stretches, unless windows have a say in each other (`max_context`) or
    spans in those they overlap.
    """
    contexts, ids = [example.context for example in group], [example.id for example in group]
    longest = int(np.bincount(windows.example_index, minlength=1).max())
    if longest <= WINDOWS_AT_ONCE or settings.max_context or settings.duplicates == "overlap":
        return decode(scores, windows, contexts, ids, settings)
    found = [Prediction(key, (), math.inf) for key in ids]
    for at in range(0, len(windows), WINDOWS_AT_ONCE):
        part = slice(at, at + WINDOWS_AT_ONCE)
        first, last = (int(windows.example_index[part][place]) for place in (0, -1))
        here = slice(first, last + 1)
        partial = decode(
            _rows_of(scores, part), _part_of(windows, part, first), contexts[here], ids[here], settings
        )
        found[here] = [merged(one, two, settings) for one, two in zip(found[here], partial, strict=True)]
    return found


def merged(one: Prediction, other: Prediction, settings: DecodingSettings) -> Prediction:
    """The best spans of two stretches of the same document; `one` comes first where scores are equal."""
    kept: dict[object, Span] = {}
    for span in sorted((*one.n_best, *other.n_best), key=lambda span: -span.score):
        kept.setdefault(span.text if settings.duplicates == "text" else (span.start, span.end), span)
    best = tuple(islice(kept.values(), settings.n_best_size))
    return Prediction(one.id, best, min(one.null_score, other.null_score))


def _rows_of(scores: WindowScores, part: slice) -> WindowScores:
    return WindowScores(*(getattr(scores, field.name)[part] for field in fields(scores)))


def _part_of(windows: WindowTable, part: slice, first_example: int) -> WindowTable:
    splits = windows.row_splits[part.start : part.stop + 1]
    return WindowTable(
        windows.example_index[part] - first_example,
        windows.passage_start[part],
        windows.passage_end[part],
        windows.document_start[part],
        windows.offsets[splits[0] : splits[-1]],
        splits - splits[0],
    )


def _groups(examples: Iterable[Example], streamed: bool, one_by_one: bool) -> Iterator[list[Example]]:
    group: list[Example] = []
    characters, most = 0, 1 if streamed else QUESTIONS_AT_ONCE
    for example in examples:
        group.append(example)
        characters += len(example.context)
        if len(group) >= most or characters >= CHARACTERS_AT_ONCE:
            yield group
            group, characters = [], 0
            most = most if one_by_one and streamed else min(2 * most, QUESTIONS_AT_ONCE)
    if group:
        yield group


def score_windows(reader: Reader, windows: WindowSet, options: Options) -> WindowScores:
    """Run all windows through the reader, longest first, and keep the best logits of each."""
    count = len(windows.table)
    k = min(options.decoding.n_best_size, int(windows.table.lengths.max(initial=1)))
    logits = np.full((2, count, k), -np.inf, np.float32)
    tokens = np.full((2, count, k), -1, np.int32)
    null_scores = np.zeros(count, np.float64)
    keys = forward_keys(reader.model)
    for rows in batches(windows.table.lengths, reader, options):
        batch = collate(reader, windows, rows, options)
        with torch.inference_mode():
            output = reader.model(**{key: batch[key] for key in keys})
            mask = candidate_mask(batch, reader.loss)  # as in evaluation: one question gets one answer
            reduced = reduce_logits(output.start_logits, output.end_logits, mask, k)
        arrays = [array.cpu().numpy() for array in reduced]
        logits[:, rows], tokens[:, rows] = np.stack(arrays[0:4:2]), np.stack(arrays[1:4:2])
        null_scores[rows] = arrays[4]
    return WindowScores(logits[0], tokens[0], logits[1], tokens[1], null_scores)


def batches(lengths: np.ndarray, reader: Reader, options: Options) -> list[list[int]]:
    """Windows of like length together, longest first: `batch_size` of them, or a budget of padded tokens."""
    budget = TOKENS_PER_BATCH.get(reader.device.type, TOKENS_PER_GPU_BATCH)
    size = options.batch_size or (options.pad_to and max(1, budget // options.pad_to))
    if not size:
        return token_batches(lengths, budget)
    order = longest_first(lengths)
    return [order[at : at + size] for at in range(0, len(order), size)]


def collate(reader: Reader, windows: WindowSet, rows: list[int], options: Options) -> dict[str, torch.Tensor]:
    """A padded batch of windows on the reader's device."""
    collator = WindowCollator(reader.tokenizer.pad_token_id or 0, pad_to_multiple_of=options.pad_to)
    batch = collator([windows.row(row) for row in rows])
    return {name: tensor.to(reader.device) for name, tensor in batch.items()}

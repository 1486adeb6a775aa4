"""Reading a windows table: columns as arrays, the decoder's view, which windows train, a window as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qa.decoding import WindowTable
from qa.errors import InputError
from qa.windows.labels import stable_hash

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    from transformers import PreTrainedTokenizerFast

EXCERPT_TOKENS = 40
"""Passage tokens that `describe_window` shows before and after the golds."""


def numbers(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """A column of numbers as one array, without a copy where the table has one chunk."""
    column = table[name]
    return _joined([chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks], column.type)


def lists(table: pa.Table, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """A column of lists as flat values (no copy where the table has one chunk) and (rows + 1,) row splits."""
    column = table[name]
    # flatten() respects the slice that a chunk may be; the child array `values` does not.
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    lengths = [chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    row_splits = np.concatenate([[0], np.cumsum(np.concatenate([*lengths, np.empty(0, dtype=np.int64)]))])
    return _joined(values, column.type.value_type), row_splits.astype(np.int64)


def _joined(arrays: list[npt.NDArray[Any]], kind: pa.DataType) -> npt.NDArray[Any]:
    if not arrays:
        return np.empty(0, dtype=kind.to_pandas_dtype())
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def arrow_columns(windows: datasets.Dataset, columns: list[str]) -> pa.Table:
    """Some columns, after any selection of rows that the data set remembers as indices."""
    table: pa.Table = windows.select_columns(columns).with_format("arrow")[:]
    return table


def window_lengths(windows: datasets.Dataset) -> npt.NDArray[np.int32]:
    """(windows,) number of tokens of each window."""
    return numbers(arrow_columns(windows, ["length"]), "length")


def holds_answer(windows: datasets.Dataset) -> npt.NDArray[np.bool_]:
    """(windows,) whether the window holds any candidate gold; the others are labelled `[CLS]`."""
    starts, splits = lists(arrow_columns(windows, ["start_positions"]), "start_positions")
    held = np.concatenate([[0], np.cumsum(starts > 0)])
    return held[splits[1:]] > held[splits[:-1]]


def keep_negative_windows(windows: datasets.Dataset, share: float, seed: int) -> npt.NDArray[np.int64]:
    """Which windows train if only a share of those without the answer does.

    Only questions that have an answer in some window lose windows. Unanswerable questions keep all of theirs:
    their `[CLS]` label says something about the passage, that of the others only where it was cut. The choice
    hashes the seed and the window's place, so a larger share keeps what a smaller one keeps, on every rank
    and after a resume.

    Args:
        share: 0 (none) to 1 (all).

    Returns:
        (kept,) ascending row indices, for `windows.select`.

    Raises:
        InputError: the share lies outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise InputError(f"negative_share is {share}; it must lie between 0 and 1.")
    table = arrow_columns(windows, ["example_index", "document_start"])
    example, start = numbers(table, "example_index"), numbers(table, "document_start")
    held = holds_answer(windows)
    answered = np.isin(example, example[held])
    drawn = (stable_hash(seed, example, start) >> np.uint64(11)) * 2.0**-53 < share
    return np.flatnonzero(held | ~answered | drawn)


def window_table(windows: datasets.Dataset) -> WindowTable:
    """What the decoder needs to know about the windows, from the Arrow buffers.

    Raises:
        ValueError: the windows of one example are not adjacent and in order (a shuffled table).
    """
    places = ("example_index", "passage_start", "passage_end", "document_start")
    table = arrow_columns(windows, [*places, "offsets", "length"])
    return WindowTable.from_columns(
        **{name: numbers(table, name) for name in places},
        offsets=lists(table, "offsets")[0],
        length=numbers(table, "length"),
    )


def describe_window(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> str:
    """A window as a person can read it: what the model sees, golds in [[ ]], the length and the label.

    Args:
        row: one row of the windows table.
    """

    def text(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens)).strip()

    ids = [int(token) for token in row["input_ids"]]
    start, end = row["passage_start"], row["passage_end"]
    golds = sorted(
        {(s, e) for s, e in zip(row["start_positions"], row["end_positions"], strict=True) if s > 0}
    )
    shown = max(start, golds[0][0] - EXCERPT_TOKENS) if golds else start
    stop = min(end, max((e + 1 for _, e in golds), default=start) + EXCERPT_TOKENS)
    pieces, place = [], shown
    for first, last in golds:
        if first >= place:  # overlapping golds: the first one is marked
            pieces += [text(ids[place:first]), f"[[{text(ids[first : last + 1])}]]"]
            place = last + 1
    pieces.append(text(ids[place:stop]))
    passage = " ".join(piece for piece in pieces if piece)
    label = ", ".join(f"tokens {s} to {e}" for s, e in golds) or "[CLS] (no answer in this window)"
    return (
        f"question  {text(ids[:start])}\n"
        f"passage   {'... ' * (shown > start)}{passage}{' ...' * (stop < end)}\n"
        f"length    {len(ids)} tokens; {end - start} of the passage, from token {row['document_start']} on\n"
        f"label     {label}"
    )

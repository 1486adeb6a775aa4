"""Windows -> batches: which windows share a batch, on which rank, and how they are padded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch

from qa.errors import InputError
from qa.packing import PLACES
from qa.windows.labels import IntArray, random_gold
from qa.windows.reading import lists, numbers, window_lengths

if TYPE_CHECKING:
    import datasets

Grouping = Literal["grouped", "sorted", "padded", "packed", "sequential"]

MEGA_BATCHES = 50
"""Global batches that are sorted by length together: more means less padding, fewer more random batches."""

LIST_COLUMNS = ("input_ids", "token_type_ids", "start_positions", "end_positions")
NUMBER_COLUMNS = ("passage_start", "passage_end", "example_index")


class Pick(NamedTuple):
    """One row of a batch. The epoch travels with the row: worker processes cannot draw for another one.

    row: the window's row in the table. weight: of its loss, 0.0 for a filler. epoch: when it is drawn.
    """

    row: int
    weight: float
    epoch: int


class WindowBatches(torch.utils.data.Dataset[dict[str, Any]]):
    """The rows of a windows table for a DataLoader, read a batch at a time as NumPy views of Arrow buffers.

    Indices are row numbers of the table (evaluation) or `Pick`s (training). A row is a dict of the columns
    that a batch needs, and `window_index`, `weight` and `epoch`. Offsets are left out:
    `qa.windows.reading.window_table` has them. `lengths`: (windows,) tokens, for the samplers.
    """

    def __init__(self, windows: datasets.Dataset) -> None:
        self.lengths = window_lengths(windows)
        self.windows = windows.select_columns([*LIST_COLUMNS, *NUMBER_COLUMNS]).with_format("arrow")

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, pick: int | Pick) -> dict[str, Any]:
        return self.__getitems__([pick])[0]

    def __getitems__(self, picks: Sequence[int | Pick]) -> list[dict[str, Any]]:
        """Rows in the order of `picks`."""
        marked = [pick if isinstance(pick, Pick) else Pick(int(pick), 1.0, 0) for pick in picks]
        # Rows come as one chunk each; joining them at once is four times as fast as reading chunk by chunk.
        table = self.windows[[pick.row for pick in marked]].combine_chunks()
        columns: dict[str, Any] = {name: numbers(table, name) for name in NUMBER_COLUMNS}
        for name in LIST_COLUMNS:
            values, splits = lists(table, name)
            columns[name] = [values[splits[row] : splits[row + 1]] for row in range(len(marked))]
        columns |= {
            "window_index": [pick.row for pick in marked],
            "weight": [pick.weight for pick in marked],
        }
        columns["epoch"] = [pick.epoch for pick in marked]
        return [{name: column[row] for name, column in columns.items()} for row in range(len(marked))]


@dataclass
class WindowCollator:
    """Rows -> one padded batch.

    gold: `random` draws one candidate per example and epoch: a hash of seed, epoch and example, so that all
        windows of an example, all ranks and a resumed run draw the same one. Otherwise the batch carries
        every candidate.
    pad_to_multiple_of: round the padded length up to a multiple (8 for tensor cores).
    packed: say where the real tokens lie, so that the model reads them without the padding.
    """

    pad_token_id: int
    gold: Literal["first", "all", "random"] = "first"
    seed: int = 0
    pad_to_multiple_of: int | None = None
    packed: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad to the longest row.

        Returns:
            input_ids, attention_mask, token_type_ids: (batch, seq_len) long.
            passage_mask: (batch, seq_len) bool, true on passage tokens.
            start_positions, end_positions: (batch, golds) long, inclusive, 0 = not in this window; -1 where
                a row has fewer candidates than another. golds is 1 for `first` and `random`.
            window_index: (batch,) long, the row in the windows table.
            example_weight: (batch,) float, 1.0, or 0.0 for a filler that must not count.
            token_places, where packed: (tokens,) long, the places of real tokens in the flattened batch.
        """
        lengths = np.array([len(row["input_ids"]) for row in rows])
        multiple = self.pad_to_multiple_of or 1
        longest = -(-int(lengths.max()) // multiple) * multiple
        place = np.arange(longest)
        start, end = (
            np.array([row[name] for row in rows])[:, None] for name in ("passage_start", "passage_end")
        )
        starts, ends = (
            [np.asarray(row[name]) for row in rows] for name in ("start_positions", "end_positions")
        )
        if self.gold == "random":
            epochs = np.array([row.get("epoch", 0) for row in rows])
            examples = np.array([row["example_index"] for row in rows])
            counts = np.array([len(candidates) for candidates in starts])
            chosen = random_gold(self.seed, epochs, examples, counts)
            starts = [
                candidates[choice : choice + 1] for candidates, choice in zip(starts, chosen, strict=True)
            ]
            ends = [candidates[choice : choice + 1] for candidates, choice in zip(ends, chosen, strict=True)]
        golds = max(len(candidates) for candidates in starts)
        real = place < lengths[:, None]
        batch = {
            "input_ids": _padded([row["input_ids"] for row in rows], longest, self.pad_token_id),
            "attention_mask": torch.from_numpy(real.astype(np.int64)),
            "token_type_ids": _padded([row["token_type_ids"] for row in rows], longest, 0),
            "passage_mask": torch.from_numpy((place >= start) & (place < end)),
            "start_positions": _padded(starts, golds, -1),
            "end_positions": _padded(ends, golds, -1),
            "window_index": torch.tensor([row["window_index"] for row in rows]),
            "example_weight": torch.tensor([row.get("weight", 1.0) for row in rows], dtype=torch.float32),
        }
        return batch | ({PLACES: torch.from_numpy(np.flatnonzero(real))} if self.packed else {})


def _padded(rows: Sequence[Any], length: int, filler: int) -> torch.Tensor:
    """(rows, length) long."""
    padded = np.full((len(rows), length), filler, dtype=np.int64)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)


class LengthGroupedBatchSampler(torch.utils.data.Sampler[list[Pick]]):
    """Training batches, by default of like length, already dealt out to the ranks.

    A global batch, `batch_size * world_size` windows, is drawn the same on every rank from seed and epoch
    alone and dealt out so that the ranks' token counts balance. Over all ranks every window comes exactly
    once per epoch. Only the last global batch may be smaller; ranks that come short there get a filler of
    weight 0, so that all ranks have the same number of rows in every batch (at least one).

    grouping: `grouped`: windows are shuffled, sorted by length within stretches of up to 50 global batches,
        and the batches shuffled. `sorted`: sorted once over the whole set, so batches are the same in every
        epoch and only their order is drawn (SpanBERT's recipe). `padded`, `packed`: random batches, the same
        ones. `sequential`: in the table's order.

    Give it to a DataLoader as `batch_sampler`, with `WindowBatches` as its data set and `WindowCollator` as
    its `collate_fn`; do not let accelerate prepare that loader, which would shard it once more. Call
    `set_epoch` before iterating; skipping the first batches of an epoch resumes exactly.

    Raises:
        InputError: no windows, or an unknown grouping.
        ValueError: a batch size below 1, or a rank outside the world.
    """

    def __init__(
        self,
        lengths: Sequence[int] | IntArray,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        seed: int = 0,
        grouping: Grouping = "grouped",
    ) -> None:
        if grouping not in get_args(Grouping):
            raise InputError(
                f"batching: no choice {grouping!r}; choose from {', '.join(get_args(Grouping))}."
            )
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"batch_size {batch_size}, rank {rank} of {world_size}")
        if not len(lengths):
            raise InputError(
                "there are no windows to train on; check the training file and --max_train_samples."
            )
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.world_size = world_size
        self.rank = rank
        self.seed = seed
        self.grouping = grouping
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of another epoch from the next iteration on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[Pick]]:
        epoch = self.epoch
        for batch in self.global_batches(epoch):
            yield self._deal(batch, epoch)

    def global_batches(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Windows of each global batch of an epoch, over all ranks."""
        count, size = len(self.lengths), self.batch_size * self.world_size
        random = np.random.default_rng([self.seed, epoch])
        order = np.arange(count)
        if self.grouping in ("grouped", "padded", "packed"):
            order = random.permutation(count)
        if self.grouping == "grouped":
            # A small set is cut into at least four stretches; sorted whole, its batches would hardly change.
            stretch = size * max(1, min(MEGA_BATCHES, count // (4 * size)))
            order = order[np.lexsort((self.lengths[order], np.arange(count) // stretch))]
        elif self.grouping == "sorted":
            order = np.argsort(self.lengths, kind="stable")
        batches = [order[at : at + size] for at in range(0, count, size)]
        if self.grouping in ("grouped", "sorted"):
            full = count // size
            batches = [batches[place] for place in random.permutation(full)] + batches[full:]
        return batches

    def tokens_until(self, epoch: float) -> int:
        """Tokens of the batches up to a point of training, over all ranks, padding left out."""
        epochs, batches = divmod(round(epoch * len(self)), len(self))
        begun = self.global_batches(epochs)[:batches]
        return epochs * int(self.lengths.sum()) + sum(int(self.lengths[batch].sum()) for batch in begun)

    def _deal(self, batch: npt.NDArray[np.int64], epoch: int) -> list[Pick]:
        """This rank's rows of a global batch: longest first, dealt to and fro (0 1 2, 2 1 0, 0 ...)."""
        longest_first = np.argsort(-self.lengths[batch], kind="stable")
        turn, seat = np.divmod(np.arange(len(batch)), self.world_size)
        owner = np.where(turn % 2 == 0, seat, self.world_size - 1 - seat)
        mine = batch[np.sort(longest_first[owner == self.rank])]
        picks = [Pick(index, 1.0, epoch) for index in mine.tolist()]
        missing = -(-len(batch) // self.world_size) - len(picks)
        return picks + [Pick(int(batch[longest_first[-1]]), 0.0, epoch)] * missing


def longest_first(lengths: Sequence[int] | IntArray) -> list[int]:
    """Rows by falling length: little padding, and a lack of memory shows in the first batch.

    Rows of equal length keep their order; `window_index` restores the order of all.
    """
    return np.argsort(-np.asarray(lengths), kind="stable").tolist()


def token_batches(lengths: Sequence[int] | IntArray, budget: int, multiple_of: int = 1) -> list[list[int]]:
    """Rows longest first, in batches of about equally many tokens.

    budget: tokens of a batch, padding to its longest row included; a batch has a row more than that only
        where it would have none. multiple_of: of rows, in every batch but the last; their budget is that
        many times as large.
    """
    order, batches, at = longest_first(lengths), [], 0
    while at < len(order):
        size = max(1, budget // int(lengths[order[at]])) * multiple_of
        batches.append(order[at : at + size])
        at += size
    return batches


class EvaluationBatchSampler(torch.utils.data.Sampler[list[Pick]]):
    """Every window once over all ranks, longest first, in batches of about equally many tokens.

    A batch holds as many tokens as `batch_size` of the longest windows, so shorter windows come more at a
    time. All ranks have as many batches, and as many rows in each: where the last does not divide, fillers of
    weight 0 stand in.
    """

    def __init__(
        self, lengths: Sequence[int] | IntArray, batch_size: int, world_size: int = 1, rank: int = 0
    ) -> None:
        longest = int(np.max(lengths, initial=1))
        self.batches = token_batches(lengths, batch_size * longest, world_size)
        self.world_size = world_size
        self.rank = rank

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Pick]]:
        for batch in self.batches:
            # Neighbours are of like length, so that dealing them in turn balances the tokens.
            picks = [Pick(row, 1.0, 0) for row in batch[self.rank :: self.world_size]]
            missing = -(-len(batch) // self.world_size) - len(picks)
            yield picks + [Pick(batch[-1], 0.0, 0)] * missing


def padding_share(lengths: Sequence[int] | IntArray, batches: Iterable[Sequence[int] | IntArray]) -> float:
    """Share of padding, 0 to 1, among all tokens of batches that are padded to their longest window each.

    Args:
        lengths: (windows,) tokens. batches: rows of each batch.
    """
    lengths = np.asarray(lengths)
    real = total = 0
    for batch in batches:
        tokens = lengths[np.asarray(batch)]
        real += int(tokens.sum())
        total += int(tokens.max()) * len(tokens)
    return 1 - real / total

"""Batches: every window once per epoch over all ranks, exact on resume, little padding, exact tensors."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from accelerate import skip_first_batches
from torch.utils.data import DataLoader

from qa.batching import (
    EvaluationBatchSampler,
    Grouping,
    LengthGroupedBatchSampler,
    Pick,
    WindowBatches,
    WindowCollator,
    longest_first,
    padding_share,
    token_batches,
)
from qa.errors import InputError
from qa.windows.labels import random_gold

GROUPINGS: tuple[Grouping, ...] = ("grouped", "sorted", "padded", "packed", "sequential")


def lengths_like_squad(count: int, seed: int = 0) -> np.ndarray:
    """Log-normal with SQuAD's mean of about 170 tokens, cut at 384."""
    drawn = np.random.default_rng(seed).lognormal(mean=5.05, sigma=0.42, size=count)
    return np.clip(drawn, 40, 384).astype(int)


def ranks(
    lengths: Any, batch_size: int, world_size: int, epoch: int = 0, **settings: Any
) -> list[list[list[Pick]]]:
    """The batches of every rank."""
    samplers = [
        LengthGroupedBatchSampler(lengths, batch_size, world_size, rank, **settings)
        for rank in range(world_size)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_every_window_once_per_epoch(batch_size: int, world_size: int, grouping: Grouping) -> None:
    size = batch_size * world_size
    for count in sorted({1, 2, 3, 7, size - 1, size, size + 1, 3 * size - 1, 97, 1000} - {0}):
        lengths = lengths_like_squad(count)
        dealt = ranks(lengths, batch_size, world_size, epoch=3, grouping=grouping)
        real = [pick.row for batches in dealt for batch in batches for pick in batch if pick.weight == 1.0]
        assert sorted(real) == list(range(count))
        fillers = [pick for batches in dealt for batch in batches for pick in batch if pick.weight != 1.0]
        assert {pick.weight for pick in fillers} <= {0.0}
        # Rows of the last global batch, rounded up to what the ranks share.
        last = count - (count - 1) // size * size
        assert len(fillers) == -last % world_size
        steps = {len(batches) for batches in dealt}
        assert (
            steps == {-(-count // size)} == {len(LengthGroupedBatchSampler(lengths, batch_size, world_size))}
        )
        for step in range(max(steps)):
            rows = {len(batches[step]) for batches in dealt}
            assert rows == ({batch_size} if step < max(steps) - 1 else {-(-last // world_size)})
            assert {pick.epoch for batches in dealt for pick in batches[step]} == {3}


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_batches_depend_on_seed_and_epoch_alone(grouping: Grouping) -> None:
    lengths = lengths_like_squad(501)

    def batches(epoch: int, seed: int = 5) -> list[list[int]]:
        sampler = LengthGroupedBatchSampler(lengths, 8, seed=seed, grouping=grouping)
        sampler.set_epoch(epoch)
        return [[pick.row for pick in batch] for batch in sampler]

    assert batches(2) == batches(2)
    sampler = LengthGroupedBatchSampler(lengths, 8, seed=5, grouping=grouping)
    list(sampler)
    sampler.set_epoch(2)
    assert [[pick.row for pick in batch] for batch in sampler] == batches(2)
    if grouping == "sequential":
        assert (
            list(chain.from_iterable(batches(0)))
            == list(range(501))
            == list(chain.from_iterable(batches(1, 6)))
        )
    else:
        assert batches(2) != batches(3)
        assert batches(2) != batches(2, seed=6)
    same_batches = {tuple(sorted(batch)) for batch in batches(2)} == {
        tuple(sorted(batch)) for batch in batches(3)
    }
    assert same_batches == (grouping in ("sorted", "sequential"))


def test_grouped_batches_of_a_small_set_still_change() -> None:
    lengths = lengths_like_squad(256)
    sampler = LengthGroupedBatchSampler(lengths, 16)
    epochs = [
        {tuple(sorted(batch.tolist())) for batch in sampler.global_batches(epoch)} for epoch in range(2)
    ]
    assert len(epochs[0] & epochs[1]) == 0


def test_global_batches_are_the_same_for_any_split_into_ranks() -> None:
    lengths = lengths_like_squad(333)
    whole = [sorted(pick.row for pick in batch) for batch in ranks(lengths, 12, 1)[0]]
    for world_size in (2, 3, 4):
        dealt = ranks(lengths, 12 // world_size, world_size)
        joined = [
            sorted(pick.row for batch in step for pick in batch if pick.weight)
            for step in zip(*dealt, strict=True)
        ]
        assert joined == whole


def test_padding_is_a_few_percent_instead_of_half() -> None:
    lengths = lengths_like_squad(20_000)

    def share(grouping: Grouping, world_size: int = 1) -> float:
        dealt = ranks(lengths, 32, world_size, grouping=grouping)
        return padding_share(lengths, [[pick.row for pick in batch] for batch in chain.from_iterable(dealt)])

    assert share("padded") > 0.4
    assert share("grouped") < 0.03
    assert share("grouped", world_size=2) < 0.03
    assert share("sorted") < 0.002
    assert padding_share([3, 1, 2, 2], [[0, 1], [2, 3]]) == pytest.approx(2 / 10)


def test_ranks_have_like_numbers_of_tokens() -> None:
    lengths = lengths_like_squad(4000)
    groupings: tuple[Grouping, ...] = ("grouped", "padded", "packed")
    for grouping in groupings:
        one, other = (
            np.array([lengths[[pick.row for pick in batch]].sum() for batch in batches])
            for batches in ranks(lengths, 16, 2, grouping=grouping)
        )
        assert np.mean(np.abs(one - other) / (one + other)) < 0.01


def test_sampler_refuses_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match="no windows to train on"):
        LengthGroupedBatchSampler([], 4)
    with pytest.raises(InputError, match="choose from grouped, sorted, padded, packed, sequential"):
        LengthGroupedBatchSampler([1], 4, grouping="dense")  # type: ignore[arg-type]
    for batch_size, world_size, rank in ((0, 1, 0), (1, 2, 2), (1, 0, 0)):
        with pytest.raises(ValueError, match="rank"):
            LengthGroupedBatchSampler([1], batch_size, world_size, rank)


def test_packed_batches_are_the_padded_ones() -> None:
    """What shares a step is as random in both, so that the two differ by rounding alone."""
    lengths = lengths_like_squad(300)
    assert ranks(lengths, 8, 2, epoch=1, grouping="packed") == ranks(
        lengths, 8, 2, epoch=1, grouping="padded"
    )


def test_tokens_until_a_point_of_training() -> None:
    sampler = LengthGroupedBatchSampler([1, 10, 100, 1000, 10000], 2, grouping="sequential")
    assert [sampler.tokens_until(batches / 3) for batches in range(6)] == [
        *(0, 11, 1111, 11111),
        *(11122, 12222),
    ]


def test_longest_first() -> None:
    assert longest_first([3, 9, 3, 12, 9]) == [3, 1, 4, 0, 2]


def test_batches_of_about_equally_many_tokens() -> None:
    assert token_batches([3, 9, 3, 12, 9, 1], 24) == [[3, 1], [4, 0], [2, 5]]
    assert token_batches([3, 9, 3, 12, 9, 1], 18) == [[3], [1, 4], [0, 2, 5]]
    assert token_batches([3, 9, 3, 12, 9, 1], 5) == [[3], [1], [4], [0], [2], [5]]
    assert token_batches([3, 9, 3, 12, 9, 1], 12, multiple_of=2) == [[3, 1], [4, 0], [2, 5]]
    assert token_batches([], 5) == []


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 997])
def test_every_window_is_evaluated_once_within_the_budget(count: int, world_size: int) -> None:
    lengths = lengths_like_squad(count)
    samplers = [EvaluationBatchSampler(lengths, 4, world_size, rank) for rank in range(world_size)]
    dealt = [list(sampler) for sampler in samplers]
    assert {len(batches) for batches in dealt} == {len(samplers[0])}
    picks = [pick for batches in dealt for batch in batches for pick in batch]
    assert sorted(pick.row for pick in picks if pick.weight == 1.0) == list(range(count))
    fillers = [pick for pick in picks if pick.weight != 1.0]
    assert len(fillers) < world_size
    assert {pick.weight for pick in fillers} <= {0.0}
    seen = [lengths[pick.row] for pick in dealt[0][0]]
    assert seen[0] == lengths.max()
    for step in zip(*dealt, strict=True):
        # What ranks gather has to have one shape.
        assert len({len(batch) for batch in step}) == 1
        for batch in step:
            tokens = [int(lengths[pick.row]) for pick in batch]
            assert tokens == sorted(tokens, reverse=True)
            assert max(tokens) * len(tokens) <= 4 * lengths.max()


def test_short_windows_are_evaluated_more_at_a_time() -> None:
    lengths = lengths_like_squad(2000)
    sizes = [len(batch) for batch in EvaluationBatchSampler(lengths, 8)]
    assert sizes[0] == 8
    assert max(sizes) > 30
    assert len(sizes) < 0.6 * -(-2000 // 8)
    assert len(EvaluationBatchSampler([], 8)) == 0


def windows() -> datasets.Dataset:
    """Five windows of two examples and one, written out."""
    rows: list[dict[str, Any]] = [
        {"input_ids": [101, 7, 102, 8, 9, 102], "places": (3, 5), "example": 0, "golds": ([3, 0], [4, 0])},
        {"input_ids": [101, 7, 102, 9, 102], "places": (3, 4), "example": 0, "golds": ([0, 3], [0, 3])},
        {"input_ids": [101, 6, 6, 102, 5, 102], "places": (4, 5), "example": 1, "golds": ([4], [4])},
        {"input_ids": [101, 4, 102, 102], "places": (3, 3), "example": 2, "golds": ([0], [0])},
        {
            "input_ids": [101, 102, 3, 3, 3, 3, 3, 102],
            "places": (2, 7),
            "example": 3,
            "golds": ([2, 3, 5], [2, 4, 6]),
        },
    ]
    columns = {
        "input_ids": [row["input_ids"] for row in rows],
        "token_type_ids": [
            [0] * row["places"][0] + [1] * (len(row["input_ids"]) - row["places"][0]) for row in rows
        ],
        "offsets": [[0, 0] * len(row["input_ids"]) for row in rows],
        "passage_start": [row["places"][0] for row in rows],
        "passage_end": [row["places"][1] for row in rows],
        "example_index": [row["example"] for row in rows],
        "start_positions": [row["golds"][0] for row in rows],
        "end_positions": [row["golds"][1] for row in rows],
        "length": [len(row["input_ids"]) for row in rows],
    }
    kinds = {
        name: datasets.List(datasets.Value("int8" if name == "token_type_ids" else "int32"))
        if isinstance(values[0], list)
        else datasets.Value("int32")
        for name, values in columns.items()
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def test_batch_values() -> None:
    picks = [Pick(0, 1.0, 0), Pick(3, 1.0, 0), Pick(1, 0.0, 0)]
    batch = WindowCollator(pad_token_id=99, gold="all")(WindowBatches(windows()).__getitems__(picks))
    expected = {
        "input_ids": [[101, 7, 102, 8, 9, 102], [101, 4, 102, 102, 99, 99], [101, 7, 102, 9, 102, 99]],
        "attention_mask": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]],
        "token_type_ids": [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0]],
        "passage_mask": [
            [False, False, False, True, True, False],
            [False] * 6,
            [False, False, False, True, False, False],
        ],
        "start_positions": [[3, 0], [0, -1], [0, 3]],
        "end_positions": [[4, 0], [0, -1], [0, 3]],
        "window_index": [0, 3, 1],
        "example_weight": [1.0, 1.0, 0.0],
    }
    assert {name: tensor.tolist() for name, tensor in batch.items()} == expected
    kinds = {name: tensor.dtype for name, tensor in batch.items()}
    assert kinds.pop("passage_mask") == torch.bool
    assert kinds.pop("example_weight") == torch.float32
    assert set(kinds.values()) == {torch.int64}


def test_places_of_real_tokens() -> None:
    rows = WindowBatches(windows()).__getitems__([1, 3])
    batch = WindowCollator(pad_token_id=99, packed=True)(rows)
    assert batch.pop("token_places").tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    batch = WindowCollator(pad_token_id=99, packed=True, pad_to_multiple_of=8)(rows)
    places = batch["token_places"]
    assert places.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert batch["input_ids"].flatten()[places].tolist() == [101, 7, 102, 9, 102, 101, 4, 102, 102]


def test_padding_to_a_multiple() -> None:
    collator = WindowCollator(pad_token_id=0, pad_to_multiple_of=8)
    rows = WindowBatches(windows())
    assert collator([rows[3]])["input_ids"].shape == (1, 8)
    assert collator([rows[4]])["input_ids"].shape == (1, 8)
    assert collator([rows[3]])["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]
    assert WindowCollator(pad_token_id=0)([rows[3]])["input_ids"].shape == (1, 4)


def test_rows_of_plain_lists_collate_alike() -> None:
    table = windows()
    lists = [{**table[row], "window_index": row} for row in (4, 2)]
    plain = WindowCollator(pad_token_id=0, gold="all")(lists)
    fast = WindowCollator(pad_token_id=0, gold="all")(WindowBatches(table).__getitems__([4, 2]))
    assert {name: tensor.tolist() for name, tensor in plain.items()} == {
        name: tensor.tolist() for name, tensor in fast.items()
    }


def test_random_gold_is_one_per_example_and_epoch() -> None:
    rows = WindowBatches(windows())
    seen: Counter[tuple[int, int]] = Counter()
    for epoch in range(300):
        batch = WindowCollator(pad_token_id=0, gold="random", seed=11)(
            rows.__getitems__([Pick(row, 1.0, epoch) for row in (0, 1, 4, 2)])
        )
        assert batch["start_positions"].shape == batch["end_positions"].shape == (4, 1)
        first = int(random_gold(11, epoch, 0, 2))
        # Both windows of example 0 follow the same gold: it lies in one of them.
        assert batch["start_positions"][:2, 0].tolist() == ([3, 0] if first == 0 else [0, 3])
        assert batch["end_positions"][:2, 0].tolist() == ([4, 0] if first == 0 else [0, 3])
        seen[(int(batch["start_positions"][2, 0]), int(batch["end_positions"][2, 0]))] += 1
        assert batch["start_positions"][3, 0] == 4
    assert set(seen) == {(2, 2), (3, 4), (5, 6)}
    assert min(seen.values()) > 70


def test_rows_of_selected_tables_keep_their_place() -> None:
    table = windows()
    chosen = WindowBatches(table.select([4, 0, 2]))
    assert len(chosen) == 3
    rows = chosen.__getitems__([2, 0, 0])
    assert [row["window_index"] for row in rows] == [2, 0, 0]
    assert [row["input_ids"].tolist() for row in rows] == [table[place]["input_ids"] for place in (2, 4, 4)]
    assert [row["example_index"] for row in rows] == [1, 3, 3]
    assert {row["weight"] for row in rows} == {1.0}


def test_a_loader_resumes_in_the_middle_of_an_epoch() -> None:
    table = windows()
    sampler = LengthGroupedBatchSampler([len(ids) for ids in table["input_ids"]], 2, seed=3)
    loader = DataLoader(
        WindowBatches(table), batch_sampler=sampler, collate_fn=WindowCollator(pad_token_id=0)
    )
    sampler.set_epoch(1)
    whole = [batch["window_index"].tolist() for batch in loader]
    assert sorted(chain.from_iterable(whole)) == [0, 1, 2, 3, 4]
    resumed = skip_first_batches(loader, 1)
    assert [batch["window_index"].tolist() for batch in resumed] == whole[1:]


def test_worker_processes_know_the_epoch() -> None:
    table = windows()
    collator = WindowCollator(pad_token_id=0, gold="random", seed=11)
    sampler = LengthGroupedBatchSampler([8] * 5, 5, grouping="sequential")
    loader = DataLoader(
        WindowBatches(table),
        batch_sampler=sampler,
        collate_fn=collator,
        num_workers=1,
        persistent_workers=True,
    )
    for epoch in range(4):
        sampler.set_epoch(epoch)
        (batch,) = loader
        gold = int(random_gold(11, epoch, 3, 3))
        assert batch["start_positions"][4, 0] == [2, 3, 5][gold]
    assert len({int(random_gold(11, epoch, 3, 3)) for epoch in range(4)}) > 1


def test_evaluation_loader_returns_every_window() -> None:
    table = WindowBatches(windows())
    lengths = table.lengths
    assert lengths.tolist() == [6, 5, 6, 4, 8]
    sampler = EvaluationBatchSampler(lengths, batch_size=2)
    loader = DataLoader(table, batch_sampler=sampler, collate_fn=WindowCollator(pad_token_id=0))
    assert [batch["window_index"].tolist() for batch in loader] == [[4, 0], [2, 1], [3]]
    assert [batch["input_ids"].shape[1] for batch in loader] == [8, 6, 4]
    assert [batch["example_weight"].tolist() for batch in loader] == [[1, 1], [1, 1], [1]]

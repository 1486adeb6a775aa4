"""The best k of each window: equal to the NumPy reduction and to a brute force, ties included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from qa.decoding import WindowScores, top_k
from qa.reduction import best_positions, in_window_order, reduce_logits


def _brute_force(row: list[float], mask: list[bool], k: int) -> tuple[list[float], list[int]]:
    """Sorted by falling logit, then rising index; filled up with (-inf, -1)."""
    candidates = [(-value, index) for index, value in enumerate(row) if mask[index] and value != -math.inf]
    best = sorted(candidates)[:k]
    missing = k - len(best)
    return [-value for value, _ in best] + [-math.inf] * missing, [i for _, i in best] + [-1] * missing


def _random_logits(generator: torch.Generator, kind: str, shape: tuple[int, int]) -> torch.Tensor:
    logits = torch.randn(shape, generator=generator) * 4
    if kind == "ties":
        return logits.round()
    if kind == "constant":
        return torch.zeros(shape)
    if kind == "infinities":
        return logits.masked_fill(torch.rand(shape, generator=generator) < 0.3, -math.inf)
    return logits.to({"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[kind])


KINDS = ["float32", "bfloat16", "float16", "ties", "constant", "infinities"]


@pytest.mark.parametrize("kind", KINDS)
def test_best_positions_equals_brute_force(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    for seq_len, k in ((1, 1), (1, 4), (5, 5), (7, 20), (40, 20), (60, 3)):
        logits = _random_logits(generator, kind, (16, seq_len))
        mask = torch.rand(16, seq_len, generator=generator) < 0.6
        mask[0] = False
        mask[1] = True
        values, tokens = best_positions(logits, mask, k)
        assert values.shape == tokens.shape == (16, k)
        assert (values.dtype, tokens.dtype) == (torch.float32, torch.int64)
        for row in range(16):
            expected = _brute_force(logits[row].float().tolist(), mask[row].tolist(), k)
            assert (values[row].tolist(), tokens[row].tolist()) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_reduce_logits_equals_the_numpy_reduction(kind: str) -> None:
    generator = torch.Generator().manual_seed(2)
    for seq_len, k in ((3, 20), (17, 4), (64, 20)):
        start = _random_logits(generator, kind, (12, seq_len))
        end = _random_logits(generator, kind, (12, seq_len))
        start[:, 0], end[:, 0] = torch.randn(2, 12, generator=generator)
        mask = torch.rand(12, seq_len, generator=generator) < 0.7
        mask[:, 0] = True
        ours = WindowScores(*(array.numpy() for array in reduce_logits(start, end, mask, k)))
        masked_start, masked_end = (
            logits.float().masked_fill(~mask, -math.inf).numpy() for logits in (start, end)
        )
        theirs = top_k(masked_start, masked_end, k)
        for field in ("start_logits", "start_tokens", "end_logits", "end_tokens", "null_scores"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


def test_a_padded_batch_gives_what_each_window_gives_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    lengths = [4, 30, 11]
    start, end = torch.randn(2, 3, 30, generator=generator)
    mask = torch.arange(30)[None] < torch.tensor(lengths)[:, None]
    batch = reduce_logits(start, end, mask, 20)
    for row, length in enumerate(lengths):
        cut = slice(row, row + 1), slice(0, length)
        for ours, theirs in zip(batch, reduce_logits(start[cut], end[cut], mask[cut], 20), strict=True):
            assert ours[row : row + 1].tolist() == theirs.tolist()


def test_null_scores_are_exact_and_read_cls_whatever_the_mask_says() -> None:
    start, end = torch.tensor([[16_777_216.0, 5.0]]), torch.tensor([[1.0, 5.0]])
    *_, null_scores = reduce_logits(start, end, torch.tensor([[False, True]]), 1)
    assert null_scores.dtype == torch.float64
    assert null_scores.tolist() == [16_777_217.0]  # float32 would round it to 16,777,216


def test_a_nan_is_kept_for_the_decoder_to_refuse() -> None:
    logits = torch.tensor([[1.0, float("nan"), 2.0]])
    values, tokens = best_positions(logits, torch.ones(1, 3, dtype=torch.bool), 2)
    assert values[0].isnan().any()
    assert tokens[0, 0] == 1


def test_windows_come_back_in_order_without_fillers() -> None:
    index = np.array([2, 0, -1, 3, 1, -1])
    losses, scores = in_window_order([index, index * 1.5, torch.tensor([[i, -i] for i in index])], 4, "dev")
    assert losses.tolist() == [0.0, 1.5, 3.0, 4.5]
    assert scores.tolist() == [[0, 0], [1, -1], [2, -2], [3, -3]]
    for wrong in ([0, 1, 1, -1], [0, 2, -1, -1], [0, 1, 2, 4]):
        with pytest.raises(RuntimeError, match=r"dev: \d windows came back for 4: lost or doubled"):
            in_window_order([np.array(wrong), np.zeros(4)], 4, "dev")

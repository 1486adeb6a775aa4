"""The loss: values computed by hand or by brute force, and the same for a window in any batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from qa.losses import answer_mask, candidate_mask, mask_logits, softmax_mask, span_loss

if TYPE_CHECKING:
    from transformers import BertForQuestionAnswering

SEED = 7


def _positions(*rows: list[int]) -> Tensor:
    """(batch, golds), padded with -1."""
    width = max(map(len, rows))
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows])


def _log_softmax(logits: list[float], allowed: list[bool]) -> list[float]:
    """An oracle in plain Python floats."""
    total = math.log(sum(math.exp(x) for x, keep in zip(logits, allowed, strict=True) if keep))
    return [x - total if keep else -math.inf for x, keep in zip(logits, allowed, strict=True)]


def test_answer_mask_is_the_passage_and_cls() -> None:
    passage = torch.tensor([[False, False, True, True, False], [False] * 5])
    expected = [[True, False, True, True, False], [True, False, False, False, False]]
    assert answer_mask(passage).tolist() == expected
    assert not passage[0, 0]  # the batch's own column is left alone


def test_masks_by_loss() -> None:
    batch = {
        "passage_mask": torch.tensor([[False, False, True, False, False]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0]]),
    }
    for mask in (softmax_mask(batch, "passage"), candidate_mask(batch, "passage")):
        assert mask is not None
        assert mask.tolist() == [[True, False, True, False, False]]
    assert softmax_mask(batch, "bert") is None
    # Padding takes part in BERT's softmax, but is nothing to answer with.
    assert candidate_mask(batch, "bert").tolist() == [[True, True, True, True, False]]


def test_a_loss_computed_by_hand() -> None:
    # The 9s are the question; [CLS] and two passage tokens remain.
    start = torch.tensor([[0.0, 9.0, 9.0, math.log(2), math.log(5)]])  # probabilities 1/8, 2/8, 5/8
    end = torch.tensor([[math.log(3), 9.0, 9.0, 0.0, 0.0]])  # 3/5, 1/5, 1/5
    mask = torch.tensor([[True, False, False, True, True]])
    loss = span_loss(start, end, _positions([3]), _positions([4]), mask)
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(0.5 * (math.log(8 / 2) + math.log(5)), abs=1e-6)
    nowhere = span_loss(start, end, _positions([0]), _positions([0]), mask)
    assert nowhere.item() == pytest.approx(0.5 * (math.log(8) + math.log(5 / 3)), abs=1e-6)
    assert span_loss(start, end, _positions([1]), _positions([4]), mask).item() == math.inf  # in the question


def test_label_smoothing_computed_by_hand() -> None:
    start = torch.tensor([[0.0, 9.0, math.log(2), math.log(5)]])  # 1/8, 2/8, 5/8
    end = torch.zeros(1, 4)  # 1/3 each
    mask = torch.tensor([[True, False, True, True]])
    loss = span_loss(start, end, _positions([2]), _positions([3]), mask, label_smoothing=0.3)
    target = 0.5 * (math.log(8 / 2) + math.log(3))
    spread = 0.5 * ((math.log(8) + math.log(8 / 2) + math.log(8 / 5)) / 3 + math.log(3))
    assert loss.item() == pytest.approx(0.7 * target + 0.3 * spread, abs=1e-6)


def test_label_smoothing_is_torchs_where_nothing_is_masked() -> None:
    generator = torch.Generator().manual_seed(SEED)
    start, end = torch.randn(2, 6, 11, generator=generator)
    starts, ends = torch.randint(1, 11, (2, 6, 1), generator=generator)
    ours = span_loss(start, end, starts, ends, torch.ones(6, 11, dtype=torch.bool), label_smoothing=0.1)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(ours, (theirs(start, starts[:, 0]) + theirs(end, ends[:, 0])) / 2)


def test_marginal_likelihood_equals_brute_force() -> None:
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(50):
        seq_len = int(torch.randint(3, 12, (), generator=generator))
        start, end = torch.randn(2, 1, seq_len, generator=generator) * 3
        passage = torch.rand(1, seq_len, generator=generator) < 0.7
        passage[0, 1] = True
        tokens = passage[0].nonzero()[:, 0].tolist()
        tokens = [token for token in tokens if token > 0]
        pairs = torch.randint(len(tokens), (4, 2), generator=generator).tolist()
        golds = [(tokens[min(pair)], tokens[max(pair)]) for pair in pairs]
        mask = answer_mask(passage)
        start_log = _log_softmax(start[0].tolist(), mask[0].tolist())
        end_log = _log_softmax(end[0].tolist(), mask[0].tolist())
        likelihood = sum(math.exp(start_log[s] + end_log[e]) for s, e in set(golds))
        starts, ends = _positions([s for s, _ in golds]), _positions([e for _, e in golds])
        assert span_loss(start, end, starts, ends, mask).item() == pytest.approx(
            -0.5 * math.log(likelihood), rel=1e-5, abs=1e-6
        )


def test_golds_that_do_not_change_the_likelihood() -> None:
    start, end = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(SEED))
    mask = answer_mask(torch.arange(8)[None] >= 3)
    alone = span_loss(start, end, _positions([4]), _positions([6]), mask)
    for starts, ends in (
        ([4, -1, -1], [6, -1, -1]),  # padding
        ([0, 4], [0, 6]),  # another gold is not in this window
        ([0, 0, 4, -1], [0, 0, 6, -1]),
        ([4, 4, 4], [6, 6, 6]),  # the same span again
        ([4, 0, 4], [6, 0, 6]),
    ):
        same = span_loss(start, end, _positions(starts), _positions(ends), mask)
        torch.testing.assert_close(same, alone, rtol=0, atol=0)
    nowhere = span_loss(start, end, _positions([0]), _positions([0]), mask)
    for starts, ends in (([0, 0], [0, 0]), ([0, -1], [0, -1]), ([-1, -1], [-1, -1])):
        same = span_loss(start, end, _positions(starts), _positions(ends), mask)
        torch.testing.assert_close(same, nowhere, rtol=0, atol=0)
    # Two spans with one start, or one end, are two spans.
    both = span_loss(start, end, _positions([4, 4]), _positions([6, 7]), mask)
    assert both.item() < alone.item()
    both = span_loss(start, end, _positions([4, 5]), _positions([6, 6]), mask)
    assert both.item() < alone.item()


def _loss_and_gradient(
    window: int, neighbours: list[int], padding: int, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients (of start and end logits) of a window, in a batch with others, padded further."""
    lengths, golds = [9, 23, 14, 5], [[(4, 6)], [(0, 0), (20, 22), (5, 5)], [(0, 0)], [(0, 0), (0, 0)]]
    batch = sorted({window, *neighbours})
    width = max(lengths[w] for w in batch) + padding
    # Padding and question hold logits that would dominate any softmax they got into.
    start = torch.full((len(batch), width), 50.0)
    end = torch.full((len(batch), width), 60.0)
    passage = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, w in enumerate(batch):
        values = torch.randn(2, lengths[w], generator=torch.Generator().manual_seed(w))
        start[row, : lengths[w]], end[row, : lengths[w]] = values
        if w != 3:  # window 3 has a passage without a token: [CLS] alone
            passage[row, 3 : lengths[w] - 1] = True
    start.requires_grad_(), end.requires_grad_()
    starts = _positions(*([s for s, _ in golds[w]] for w in batch))
    ends = _positions(*([e for _, e in golds[w]] for w in batch))
    losses = span_loss(start, end, starts, ends, answer_mask(passage), label_smoothing=smoothing)
    losses.sum().backward()
    row = batch.index(window)
    assert start.grad is not None
    assert end.grad is not None
    assert not start.grad[row, lengths[window] :].any()
    assert not end.grad[row, lengths[window] :].any()
    return losses[row].detach(), start.grad[row, : lengths[window]], end.grad[row, : lengths[window]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("window", [0, 1, 2, 3])
def test_a_windows_loss_does_not_depend_on_its_batch(window: int, smoothing: float) -> None:
    alone = _loss_and_gradient(window, [], 0, smoothing)
    for neighbours in ([0, 1], [1, 2, 3], [0, 1, 2, 3]):
        for padding in (0, 1, 100):
            there = _loss_and_gradient(window, neighbours, padding, smoothing)
            for ours, theirs in zip(there, alone, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_passage_without_tokens_costs_nothing_and_breaks_nothing(smoothing: float) -> None:
    start, end = torch.randn(2, 1, 6, requires_grad=True)
    mask = answer_mask(torch.zeros(1, 6, dtype=torch.bool))
    loss = span_loss(start, end, _positions([0]), _positions([0]), mask, label_smoothing=smoothing)
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss.sum(), [start, end]):
        assert gradient.tolist() == [[0.0] * 6]


def test_gradients_stay_finite_where_logits_are_extreme() -> None:
    values = torch.tensor([[0.0, 1e4, -1e4, 30.0, -math.inf, 3e38]], requires_grad=True)
    mask = torch.tensor([[True, False, True, True, False, False]])
    loss = span_loss(values, values, _positions([2, 3]), _positions([3, 3]), mask, label_smoothing=0.1)
    assert loss.isfinite().all()
    (gradient,) = torch.autograd.grad(loss.sum(), values)
    assert gradient.isfinite().all()
    assert gradient[0, [1, 4, 5]].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_handled_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(SEED)
    start, end = (torch.randn(2, 4, 300, generator=generator) * 5).to(dtype).unbind()
    mask = answer_mask(torch.arange(300)[None].expand(4, -1) >= 10)
    starts, ends = _positions([0], [20], [30], [299]), _positions([0], [21], [31], [299])
    low = span_loss(start, end, starts, ends, mask)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, span_loss(start.float(), end.float(), starts, ends, mask), rtol=0, atol=0)
    assert mask_logits(start, mask).dtype == torch.float32


def test_without_a_mask_it_is_berts_own_loss(tiny_bert: Callable[..., BertForQuestionAnswering]) -> None:
    model = tiny_bert()
    generator = torch.Generator().manual_seed(SEED)
    input_ids = torch.randint(1, 60, (3, 20), generator=generator)
    attention_mask = (torch.arange(20)[None] < torch.tensor([[20], [12], [7]])).long()
    starts, ends = torch.tensor([4, 0, 5]), torch.tensor([19, 0, 6])
    output = model(input_ids, attention_mask, start_positions=starts, end_positions=ends)
    ours = span_loss(output.start_logits, output.end_logits, starts[:, None], ends[:, None], mask=None)
    torch.testing.assert_close(ours.mean(), output.loss)
    ours_gradient = torch.autograd.grad(ours.mean(), model.qa_outputs.weight, retain_graph=True)
    theirs_gradient = torch.autograd.grad(output.loss, model.qa_outputs.weight)
    torch.testing.assert_close(ours_gradient, theirs_gradient)

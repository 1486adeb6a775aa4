"""Dropout from few random numbers: its share, its mean, its gradient, and what a seed repeats."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from qa.cpu.dropout import CpuDropout, dropout


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.9])
def test_the_share_that_is_dropped_and_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    count = 1 << 20
    found = dropout(torch.ones(count), probability)
    dropped = int((found == 0).sum())
    # Five standard deviations of a binomial.
    assert abs(dropped - probability * count) < 5 * (probability * (1 - probability) * count) ** 0.5
    share = round(probability * 65536) / 65536
    kept = found[found != 0]
    assert torch.equal(kept, torch.full_like(kept, 1 / (1 - share)))


def test_elements_are_dropped_independently_of_their_neighbours() -> None:
    """Four of them come from one random number."""
    torch.manual_seed(0)
    kept = (dropout(torch.ones(1 << 20), 0.5) != 0).view(-1, 4).long()
    patterns = torch.bincount(kept @ torch.tensor([1, 2, 4, 8]), minlength=16).double()
    expected = len(kept) / 16
    chi_square = float(((patterns - expected) ** 2 / expected).sum())
    assert chi_square < 37.7  # 15 degrees of freedom, one in a thousand
    across = (kept[:-1, 3] == kept[1:, 0]).double().mean()
    assert float(across) == pytest.approx(0.5, abs=0.005)


def test_a_quarter_of_the_random_bits_decides_exactly() -> None:
    """With 2 of 65,536 values dropped, the elements are those whose 16 bits are the lowest."""
    states = torch.ones(1 << 18)
    torch.manual_seed(3)
    words = torch.empty(1 << 16, dtype=torch.int64).random_(-(2**63), None)
    torch.manual_seed(3)
    assert torch.equal(dropout(states, 2 / 65536) == 0, words.view(torch.int16) < -32766)


def test_gradient_and_output_share_their_mask() -> None:
    torch.manual_seed(0)
    states = torch.randn(7, 33, dtype=torch.double).requires_grad_()
    output = dropout(states, 0.25)
    (gradient,) = torch.autograd.grad(output.sum(), states)
    assert torch.equal(output, states * gradient)
    assert set(gradient.unique().tolist()) == {0.0, 4 / 3}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 0, 4), (2, 3, 4)])
def test_shapes_and_precisions_stay(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    states = torch.ones(shape, dtype=dtype)
    found = dropout(states, 0.5)
    assert (found.shape, found.dtype) == (states.shape, dtype)
    assert set(found.flatten().tolist()) <= {0.0, 2.0}
    assert torch.equal(dropout(states, 0.0), states)
    assert torch.equal(dropout(states, 1.0), torch.zeros_like(states))


def test_a_seed_repeats_the_masks_and_the_next_call_has_others() -> None:
    def twice() -> tuple[Tensor, Tensor]:
        torch.manual_seed(5)
        return dropout(torch.ones(1000), 0.5), dropout(torch.ones(1000), 0.5)

    first, second = twice()
    again, _ = twice()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_checkpointed_layers_draw_the_same_mask_again() -> None:
    layer = CpuDropout(0.5)
    states = torch.randn(100).requires_grad_()
    output = torch.utils.checkpoint.checkpoint(layer, states, use_reentrant=False)
    (gradient,) = torch.autograd.grad(output.sum(), states)
    assert torch.equal(output, states * gradient)


def test_nothing_is_dropped_outside_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    states = torch.randn(50)
    layer = CpuDropout(0.5)
    assert not torch.equal(layer(states), states)
    assert torch.equal(layer.eval()(states), states)
    # A compiler draws numbers of its own.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.manual_seed(0)
    found = layer.train()(states)
    torch.manual_seed(0)
    assert torch.equal(found, nn.functional.dropout(states, 0.5))

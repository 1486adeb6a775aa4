"""Gradients that are not finite never reach the weights, whoever notices when."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from qa.errors import NotFiniteError
from qa.gradients import GradientCheck, OptimizerStep

STEP = OptimizerStep(number=7, rank=1, windows=[torch.tensor([5, 3]), torch.tensor([3])])
MESSAGE = r"step 7: the gradients are no longer finite \(nan\); .* rank 1: \[3, 5\]\. Lower"


def trained(kind: Any, **settings: Any) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    """A weight and its optimiser after a healthy step."""
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = kind([weight], lr=0.1, **settings)
    weight.grad = torch.tensor([0.5, -0.5])
    check = GradientCheck()
    check.before_step(weight.grad.norm(), optimizer, STEP)
    optimizer.step()
    check.settle()
    assert weight.tolist() != [1.0, 2.0]
    return weight, optimizer


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_fused_optimiser_skips_the_step_and_the_norm_is_read_later(bad: float) -> None:
    weight, optimizer = trained(torch.optim.AdamW, fused=True)
    kept = weight.detach().clone()
    moments = {name: value.clone() for name, value in optimizer.state[weight].items()}
    weight.grad = torch.tensor([bad, 1.0])
    check = GradientCheck()
    check.before_step(weight.grad.norm(), optimizer, STEP)
    optimizer.step()
    assert torch.equal(weight, kept)
    assert all(torch.equal(optimizer.state[weight][name], value) for name, value in moments.items())
    with pytest.raises(NotFiniteError, match=MESSAGE.replace("nan", str(bad))):
        check.settle()
    check.settle()  # Told once.
    check.before_step(weight.grad.norm(), optimizer, STEP)
    with pytest.raises(NotFiniteError, match="step 7"):
        check.before_step(torch.tensor(1.0), optimizer, OptimizerStep(8, 1, []))


def test_a_healthy_step_after_a_skipped_one_is_taken() -> None:
    weight, optimizer = trained(torch.optim.AdamW, fused=True)
    kept = weight.detach().clone()
    check = GradientCheck()
    check.before_step(torch.tensor(math.nan), optimizer, STEP)
    optimizer.step()
    assert torch.equal(weight, kept)
    with pytest.raises(NotFiniteError):
        check.settle()
    check.before_step(torch.tensor(1.0), optimizer, STEP)
    optimizer.step()
    assert not torch.equal(weight, kept)


def test_other_optimisers_are_held_up() -> None:
    weight, optimizer = trained(torch.optim.SGD)
    kept = weight.detach().clone()
    with pytest.raises(NotFiniteError, match=MESSAGE):
        GradientCheck().before_step(torch.tensor(math.nan), optimizer, STEP)
    assert torch.equal(weight, kept)


def test_engines_that_tell_a_number_or_nothing() -> None:
    _, optimizer = trained(torch.optim.SGD)
    check = GradientCheck()
    check.before_step(None, optimizer, STEP)
    check.before_step(1.5, optimizer, STEP)
    with pytest.raises(NotFiniteError, match=MESSAGE):
        check.before_step(math.nan, optimizer, STEP)

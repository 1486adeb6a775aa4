"""Dropout (Srivastava et al. 2014) on a CPU with few random numbers.

torch draws one number for every element, in one thread, which takes a sixth of a training step or more. Here
the same generator's numbers are used to the last bit: 64 of them decide about four elements.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_STEPS = 1 << 16  # an element is kept or not by 16 random bits


def dropout(states: Tensor, probability: float) -> Tensor:
    """Elements set to 0 with a probability, the others scaled up so that the mean stays.

    probability: 0 to 1, rounded to a multiple of 2^-16 (0.1 becomes 0.10001); the scale follows it.
    Masks come from torch's default generator: a seed, a resumed run and checkpointed layers repeat them.
    On other devices than a CPU and in compiled graphs, which draw their own numbers, it is torch's dropout.
    """
    dropped = round(probability * _STEPS)
    ours = states.device.type == "cpu" and not torch.compiler.is_compiling()
    if not ours or not 0 < dropped < _STEPS or states.numel() == 0:
        return nn.functional.dropout(states, probability)
    return _Dropout.apply(states, dropped)  # type: ignore[no-any-return]


class CpuDropout(nn.Dropout):
    """nn.Dropout through `dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape."""
        return dropout(input, self.p) if self.training else input


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, dropped: int) -> Tensor:
        kept = _random_16_bits(states.shape) >= dropped - _STEPS // 2
        ctx.save_for_backward(kept)
        ctx.scale = _STEPS / (_STEPS - dropped)
        return _scaled(states, kept, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _scaled(gradient, kept, ctx.scale), None


def _random_16_bits(shape: torch.Size) -> Tensor:
    """Signed, each number equally likely."""
    count = shape.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.int16)[:count].view(shape)


def _scaled(states: Tensor, kept: Tensor, scale: float) -> Tensor:
    """states x kept x scale, in one go: it is what the operator computes, whatever it is called."""
    return torch.ops.aten.native_dropout_backward(states, kept, scale)  # type: ignore[no-any-return]

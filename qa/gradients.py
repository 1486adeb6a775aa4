"""Gradients that are no longer finite end a run before they reach the weights, with no wait in every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qa.errors import NotFiniteError


@dataclass(frozen=True)
class OptimizerStep:
    """What an error says about the step. number: from 1. windows: rows of the windows table, per batch."""

    number: int
    rank: int
    windows: Sequence[Tensor]

    def refuse(self, norm: float) -> None:
        """Raise NotFiniteError where the norm of its gradients is not finite."""
        if not math.isfinite(norm):
            windows = sorted({int(index) for batch in self.windows for index in batch})
            raise NotFiniteError(
                f"step {self.number}: the gradients are no longer finite ({norm}); the weights were not "
                f"touched. Windows of this step on rank {self.rank}: {windows}. "
                "Lower --learning_rate, raise --warmup_steps, or use --precision fp32."
            )


@dataclass(frozen=True)
class _Underway:
    """A gradient norm on its way from the device. arrived: on CUDA, when it is there."""

    norm: Tensor
    arrived: torch.cuda.Event | None
    step: OptimizerStep


class GradientCheck:
    """Looks at the gradient norm of every optimiser step: nan or infinity is an end, not a step.

    A fused optimiser is told on the device (`found_inf`, which torch's GradScaler sets under fp16) and skips
    the step there. Its norm is read when the next step's gradients are asked for, when it has long arrived,
    and by `settle` before anything is logged, scored or saved. With any other optimiser, or with weights
    sharded over ranks (FSDP2), the norm is waited for before the step. Either way the weights stay as they
    were. DeepSpeed alone steps before it tells its norm: the run stops all the same, with nothing saved.
    """

    def __init__(self) -> None:
        self._underway: _Underway | None = None

    def before_step(self, norm: Any, optimizer: Any, step: OptimizerStep) -> None:
        """Check the norm of the gradients that `optimizer` is about to take.

        norm: float or scalar tensor; None where an engine does not tell it. optimizer: torch's, or
        accelerate's around it. Raises: NotFiniteError for this step, or for the one before it.
        """
        self.settle()
        if norm is None:
            return
        optimizer = getattr(optimizer, "optimizer", optimizer)
        if not isinstance(norm, Tensor) or not _skips_on_device(optimizer):
            step.refuse(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))
            return
        norm = norm.detach()
        optimizer.found_inf = norm.isfinite().logical_not().float()
        arrived = None
        if norm.is_cuda:
            # An ordinary copy would hold the host up until the device has come this far.
            norm = torch.empty((), dtype=norm.dtype, pin_memory=True).copy_(norm, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._underway = _Underway(norm, arrived, step)

    def settle(self) -> None:
        """Read the last norm, if nobody did yet. Raises: NotFiniteError where it is not finite."""
        underway, self._underway = self._underway, None
        if underway is not None:
            if underway.arrived is not None:
                underway.arrived.synchronize()
            underway.step.refuse(float(underway.norm))


def _skips_on_device(optimizer: Any) -> bool:
    """Whether `found_inf` makes it leave weights and moments alone: torch's fused ones, on whole tensors."""
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return False
    return not any(hasattr(p, "device_mesh") for group in optimizer.param_groups for p in group["params"][:1])

"""Linear layers in float32 through oneDNN, where the BLAS that torch calls leaves half of the CPU idle.

torch hands float32 products to Intel's MKL. On AMD's CPUs with AVX-512, MKL runs its AVX2 kernels; oneDNN,
which torch carries for convolutions and bfloat16, uses the whole width: about twice the rate (`make bench`,
part `cpu`). Both add up in float32, in another order: results agree within rounding.

Source of the operator: torch's compiler calls it for linear layers
(torch/_inductor/fx_passes/mkldnn_fusion.py).
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

KERNELS_KEPT = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


@cache
def onednn_is_faster() -> bool:
    """Whether this CPU is of the kind above, and this torch has the operator. Asked of the machine once."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and _vendor() == "AuthenticAMD"
    )


def keep_few_kernels() -> None:
    """Tell oneDNN, and torch's layer above it, to keep the code of the last products only.

    Code is written for every size of product, and that of 1,024 is kept, half a megabyte or more each.
    Batches without padding have another size in every step, so that most is never called again. Call it
    before the first product: both ask once (oneDNN's developer guide, "Primitive Cache"; ideep,
    `lru_cache.hpp`). A user's own settings win.
    """
    for name in KERNELS_KEPT:
        os.environ.setdefault(name, "64")


def _vendor() -> str:
    """As the CPU names its maker; empty where the system does not tell."""
    told = Path("/proc/cpuinfo")
    if sys.platform != "linux" or not told.is_file():
        return ""
    lines = told.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


class OneDnnLinear(nn.Linear):
    """nn.Linear whose float32 products, forward and backward, oneDNN computes; the same parameters.

    Autocast, other precisions and devices, and compiled or exported graphs take torch's own way.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        tensors = (input, self.weight)
        ours = all(each.dtype == torch.float32 and each.device.type == "cpu" for each in tensors)
        if not ours or not input.numel() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(input)
        rows = _Linear.apply(input.reshape(-1, self.in_features), self.weight, self.bias)
        return rows.view(*input.shape[:-1], self.out_features)  # type: ignore[no-any-return]


class _Linear(torch.autograd.Function):
    """Keeps for the backward pass what that needs: beside frozen weights no input, as torch's own layer."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        wanted, weight_wanted, _ = ctx.needs_input_grad
        ctx.save_for_backward(rows if weight_wanted else None, weight if wanted else None)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows = None if weight is None else _product(gradient, weight.t())
        of_weight = None if rows is None else _product(gradient.t(), rows.t())
        return of_rows, of_weight, gradient.sum(0) if ctx.needs_input_grad[2] else None


def _product(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(rows, in), (out, in), (out,) -> (rows, out). Transposed views are read as they lie."""
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")  # type: ignore[no-any-return]

"""Parts `cpu-products` and `cpu-dropout`: layers of `qa.cpu` against torch's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from experiments.bench.measuring import Contender, Part, Values, alternate, compare
from qa.cpu.dropout import CpuDropout
from qa.cpu.products import OneDnnLinear, onednn_is_faster

Say = Callable[[str], None]
TOKENS = 2720  # 16 windows of 170
REPEATS = 20
SHAPES = ((384, 384), (384, 1536), (1536, 384), (768, 3072), (3072, 768))
"""Input and output width of the layers in the packaged encoder, and of SpanBERT-base's widest."""


def layers(rounds: int, say: Say) -> Iterator[Part]:
    """Forward and backward pass of linear layers and of dropout, in float32 on the CPU."""
    yield _products(rounds, say)
    yield _dropout(rounds, say)


def _products(rounds: int, say: Say) -> Part:
    def contender(kind: type[nn.Linear]) -> Contender:
        def once(number: int) -> Values:
            rates = {}
            for width, out in SHAPES:
                torch.manual_seed(number)
                layer, states = kind(width, out), torch.randn(TOKENS, width, requires_grad=True)
                seconds = _step_seconds(layer, states, torch.randn(TOKENS, out))
                rates[f"{width} to {out}"] = 3 * 2 * TOKENS * width * out / seconds / 1e9
            return {"GFLOP/s": sum(rates.values()) / len(rates)} | rates

        return once

    found = alternate({"torch's layer": contender(nn.Linear), "ours": contender(OneDnnLinear)}, rounds, say)
    used = "Runs on this CPU use ours." if onednn_is_faster() else "Runs on this CPU leave torch's layer."
    return compare(
        "cpu-products",
        "linear layers on a CPU",
        found,
        "GFLOP/s",
        ["torch's layer"],
        settings={"tokens": TOKENS, "rounds": rounds},
        notes=(
            f"float32, {TOKENS:,} tokens, forward and backward pass; GFLOP/s: mean over the layers, input to "
            f"output width. {used}",
        ),
    )


def _dropout(rounds: int, say: Say) -> Part:
    sizes = {"hidden states": (TOKENS, 384), "attention weights": (12, 170, 170)}

    def contender(kind: type[nn.Dropout]) -> Contender:
        def once(number: int) -> Values:
            torch.manual_seed(number)
            spent, done = 0.0, 0
            for shape in sizes.values():
                states = torch.randn(shape, requires_grad=True)
                spent += _step_seconds(kind(0.1), states, torch.randn(shape))
                done += states.numel()
            return {"million elements/s": done / spent / 1e6}

        return once

    found = alternate({"torch's layer": contender(nn.Dropout), "ours": contender(CpuDropout)}, rounds, say)
    told = ", ".join(f"{name} {shape}" for name, shape in sizes.items())
    return compare(
        "cpu-dropout",
        "dropout on a CPU",
        found,
        "million elements/s",
        ["torch's layer"],
        settings={"rounds": rounds},
        notes=(f"{told}; forward and backward pass.",),
    )


def _step_seconds(layer: nn.Module, states: Tensor, gradient: Tensor) -> float:
    """Of one forward and backward pass, on average."""
    started = 0.0
    for number in range(REPEATS + 2):
        if number == 2:
            started = time.perf_counter()
        layer.zero_grad()
        states.grad = None
        layer(states).backward(gradient)
    return (time.perf_counter() - started) / REPEATS

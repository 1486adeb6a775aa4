"""Part `profile`: which kinds of work the time of a training step goes to."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from experiments.bench.measuring import Part, Row
from experiments.bench.steps import Setup, ours

KINDS = {
    "matrix products": r"(add)?mm|bmm|baddbmm|_?linear\w*|matmul|mkldnn_\w+|einsum",
    "attention": r"\w*scaled_dot_product\w*|\w*flash_attention\w*|\w*_attn\w*|_?softmax\w*|_softmax_\w+",
    "activation": r"(gelu|tanh|relu|silu)\w*",
    "normalisation": r"native_layer_norm\w*|layer_norm\w*",
    "dropout": r"_?\w*dropout\w*|bernoulli\w*|random_",
    "optimiser and clipping": r"_fused_adam\w*|_foreach_\w+|linalg_vector_norm|addcmul_|addcdiv_",
    "embeddings": r"embedding\w*",
    "copies and casts": (
        r"copy_|_to_copy|clone|cat|stack|index_\w+|index|gather|scatter\w*|pad|constant_pad_nd|fill_|zero_|"
        r"contiguous|repeat\w*|nested_\w+"
    ),
    "sums and products of elements": r"(add|mul|sub|div|sum|neg|mean|where|masked_\w+|pow|exp|log\w*)_?",
}
"""Kind of work -> names of operators, without namespace, in small letters; the first that fits."""
OTHERS = "other operators"
OUTSIDE = "outside of operators (Python, reading batches)"


def kind_of(operator: str) -> str:
    """The kind of work an operator does, by its name."""
    name = operator.rpartition("::")[2].lower()
    return next((kind for kind, names in KINDS.items() if re.fullmatch(names, name)), OTHERS)


class Profiler(TrainerCallback):
    """Profiles the steps after the first few. seconds: kind of work -> seconds; wall: of all these steps."""

    def __init__(self, warmup: int, last: int) -> None:
        self.warmup, self.last = warmup, last
        self.seconds: dict[str, float] = {}
        self.wall = 0.0
        on_gpu = torch.cuda.is_available()
        self._gpu = on_gpu
        self._profile = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])], acc_events=True
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start after the warm-up, stop after the last step."""
        if state.global_step == self.warmup:
            self._profile.start()
            self.wall = -time.perf_counter()
        elif state.global_step == self.last:
            if self._gpu:
                torch.cuda.synchronize()
            self.wall += time.perf_counter()
            self._profile.stop()
            self._sum()

    def _sum(self) -> None:
        for event in self._profile.key_averages():
            # An operator's time on a GPU is that of the kernels it started, which are events of their own.
            if event.device_type != DeviceType.CPU:
                continue
            microseconds = event.self_device_time_total if self._gpu else event.self_cpu_time_total
            kind = kind_of(event.key)
            self.seconds[kind] = self.seconds.get(kind, 0.0) + microseconds / 1e6


def profiled(setup: Setup, batchings: Sequence[str], say: Callable[[str], None]) -> Part:
    """A share of each kind of work in our steps, with each way of batching."""
    shares: dict[str, dict[str, float]] = {}
    for batching in batchings:
        profiler = Profiler(setup.warmup, setup.warmup + setup.steps)
        ours(setup, 0, ["--batching", batching], profiler)
        within = sum(profiler.seconds.values())
        seconds = profiler.seconds | {OUTSIDE: max(profiler.wall - within, 0.0)}
        say(f"  {batching}: {profiler.wall / setup.steps:.3f} s a step")
        whole = sum(seconds.values())
        for kind in (*KINDS, OTHERS, OUTSIDE):
            share = 100 * seconds.get(kind, 0.0) / whole
            shares.setdefault(kind, {})[f"{batching}, % of a step"] = share
    return Part(
        "profile",
        "where a training step's time goes",
        tuple(Row(kind, values) for kind, values in shares.items()),
        settings=setup.settings,
        notes=(
            f"{setup.model}, {setup.precision}, batches of {setup.batch_size}, {setup.steps} steps: self "
            "times of torch's profiler, forward and backward together.",
        ),
    )

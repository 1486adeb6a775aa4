"""Parts `training`, `strategies`, `compile` and `gpu`: steps of training, taken in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch._inductor.config

from experiments.bench.machine import matrix_rate
from experiments.bench.measuring import Contender, Part, Values, alternate, compare
from experiments.bench.steps import BEST, FIXED, SHAPES, Setup, ours, plain

Say = Callable[[str], None]
STRATEGIES = Path(__file__).resolve().parents[1] / "strategies"


def training(setup: Setup, batchings: Sequence[str], rounds: int, say: Say) -> Part:
    """Our steps against the transformers example's default settings and its best ones."""
    contenders = {FIXED: _plain(setup, grouped=False), BEST: _plain(setup, grouped=True)}
    for batching in batchings:
        contenders[f"ours, {batching}"] = _ours(setup, ["--batching", batching])
    found = alternate(contenders, rounds, say)
    return compare(
        "training",
        "training",
        found,
        "tokens/s",
        [FIXED, BEST],
        settings=setup.settings | {"rounds": rounds},
        notes=(setup.described,),
    )


def strategies(setup: Setup, names: Sequence[str], batching: str, rounds: int, say: Say) -> Part:
    """Every file of experiments/strategies against full fine-tuning, with the same batches."""
    files = {path.stem: path for path in sorted(STRATEGIES.glob("*.yaml"))}
    chosen = ["full", *(name for name in (names or files) if name != "full")]
    contenders = {
        name: _ours(setup, ["--config", str(files[name]), "--batching", batching]) for name in chosen
    }
    found = alternate(contenders, rounds, say)
    return compare(
        "strategies",
        "strategy",
        found,
        "tokens/s",
        ["full"],
        settings=setup.settings | {"rounds": rounds, "batching": batching},
        notes=(
            setup.described + " Memory is what the process took at its highest, beyond what it had before.",
        ),
    )


def compiled(setup: Setup, batchings: Sequence[str], rounds: int, say: Say) -> Part:
    """Our steps through torch.compile against the same without, and what the first ones cost."""
    pairs = {f"{batching}, as it comes": _ours(setup, ["--batching", batching]) for batching in batchings}
    for batching in batchings:
        words = ["--batching", batching, "--torch_compile", "true"]
        pairs[f"{batching}, torch.compile"] = _afresh(_ours(setup, words))
    found = alternate(pairs, rounds, say)
    return compare(
        "compile",
        "torch.compile",
        found,
        "tokens/s",
        [name for name in pairs if name.endswith("as it comes")],
        settings=setup.settings | {"rounds": rounds},
        notes=(setup.described + " The first steps are those to warm up; nothing compiled earlier is used.",),
    )


def gpu(setup: Setup, batchings: Sequence[str], rounds: int, say: Say) -> Iterator[Part]:
    """Readers of SpanBERT's sizes: share of the card's matrix rate, and seconds for two epochs."""
    if not torch.cuda.is_available():
        say("  left out: there is no GPU here")
        return
    rate = matrix_rate()
    lengths = setup.questions.lengths.astype(float)
    epochs = 2 * float(lengths.sum())
    for shape, (hidden, layers) in SHAPES.items():
        part = training(replace(setup, model=shape, precision="bf16", use_cpu=False), batchings, rounds, say)
        per_token = model_flops(hidden, layers, float((lengths**2).sum() / lengths.sum()))
        rows = []
        for row in part.rows:
            speed = row.values["tokens/s"]
            more = {
                "TFLOP/s": speed * per_token / 1e12,
                "% of matrix rate": 100 * speed * per_token / rate,
                "seconds for two epochs": epochs / speed,
            }
            rows.append(replace(row, values=row.values | more))
        size = shape.removeprefix("shape:")
        told = f"Two epochs are {epochs:,.0f} tokens. Measured bf16 matrix rate: {rate / 1e12:.0f} TFLOP/s."
        yield replace(
            part,
            name=f"gpu-{size}",
            title=f"training, SpanBERT-{size} shape",
            rows=tuple(rows),
            settings=part.settings | {"matrix_flops": rate},
            notes=(f"{part.notes[0]} {told}",),
        )


def model_flops(hidden: int, layers: int, keys: float) -> float:
    """Floating-point operations that a token's forward and backward pass needs, embeddings left out.

    keys: mean number of tokens that a token attends to, its own window's. A multiply-add counts as two, the
    backward pass as twice the forward (Kaplan et al. 2020, arXiv:2001.08361, table 1): a layer has
    12 hidden^2 weights; scores and weighted values take 4 x hidden x keys forward.
    """
    return layers * (6 * 12 * hidden**2 + 3 * 4 * hidden * keys)


def _ours(setup: Setup, words: Sequence[str]) -> Contender:
    return lambda number: ours(setup, number, words)


def _afresh(contender: Contender) -> Contender:
    """The contender with nothing compiled yet, as in the first run on a machine."""

    def run(number: int) -> Values:
        torch.compiler.reset()
        with torch._inductor.config.patch(force_disable_caches=True):
            return contender(number)

    return run


def _plain(setup: Setup, *, grouped: bool) -> Contender:
    return lambda number: plain(setup, number, grouped=grouped)

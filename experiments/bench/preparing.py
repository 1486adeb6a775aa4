"""Parts `windows`, `padding` and `startup`: what happens before the first step."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.bench.measuring import Contender, Part, Row, Values, alternate, compare
from experiments.bench.questions import SETTINGS, Questions
from qa.batching import LengthGroupedBatchSampler, padding_share
from qa.windows import build_windows

Say = Callable[[str], None]
ROOT = Path(__file__).resolve().parents[2]
BATCH = 1000
"""Questions in a call of the tokenizer: what `datasets.map` hands over, too."""


def windows(questions: Questions, rounds: int, say: Say) -> Part:
    """Windows with labels and offsets, against the tokenizer alone on the same questions."""
    texts, contexts = questions.examples["question"][:], questions.examples["context"][:]
    tokenizer, count = questions.tokenizer, len(texts)

    def bare(number: int) -> Values:
        started = time.perf_counter()
        for at in range(0, count, BATCH):
            tokenizer(
                texts[at : at + BATCH],
                contexts[at : at + BATCH],
                truncation="only_second",
                max_length=SETTINGS.max_seq_length,
                stride=SETTINGS.doc_stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
        return _speed(started, count)

    def ours(number: int) -> Values:
        started = time.perf_counter()
        build_windows(questions.examples, tokenizer, SETTINGS, cache_dir=None)
        return _speed(started, count)

    found = alternate({"tokenizer alone": bare, "ours, with labels": ours}, rounds, say)
    return compare(
        "windows",
        "building windows",
        found,
        "questions/s",
        ["tokenizer alone"],
        ratio_of="speed",
        settings={"questions": count},
        notes=("The tokenizer's call is the one of the transformers example; it finds no labels yet.",),
    )


def _speed(started: float, count: int) -> Values:
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "questions/s": count / seconds}


def padding(lengths: np.ndarray, batch_size: int, batchings: Sequence[str]) -> Part:
    """Share of padding among the tokens that the model is given, over one epoch."""
    from transformers.trainer_pt_utils import LengthGroupedSampler

    longest = SETTINGS.max_seq_length
    shares = {f"padded to {longest}": 1 - float(lengths.mean()) / longest}
    grouped = list(LengthGroupedSampler(batch_size, lengths=lengths.tolist()))
    batches = [grouped[at : at + batch_size] for at in range(0, len(grouped), batch_size)]
    shares["transformers, group_by_length"] = padding_share(lengths, batches)
    for batching in batchings:
        sampler = LengthGroupedBatchSampler(lengths, batch_size, grouping=batching)  # type: ignore[arg-type]
        share = padding_share(lengths, sampler.global_batches(0))
        shares[f"ours, {batching}"] = 0.0 if batching == "packed" else share
    return Part(
        "padding",
        "padding",
        tuple(Row(name, {"% of tokens": 100 * share}) for name, share in shares.items()),
        settings={"windows": len(lengths), "batch_size": batch_size, "mean_tokens": float(lengths.mean())},
        notes=(
            f"{len(lengths):,} windows of {lengths.mean():.0f} tokens on average, {batch_size} in a batch.",
        ),
    )


def ranks(lengths: np.ndarray, batch_size: int, counts: Sequence[int] = (2, 8)) -> Part:
    """Share of a step's time that ranks wait for the one with the most tokens, over an epoch of `packed`."""
    rows = []
    ways = {"a batch for each, as it comes": _as_it_comes, "ours, dealt out by length": _dealt}
    for name, deal in ways.items():
        values = {}
        for count in counts:
            tokens = deal(lengths, batch_size, count)
            busy = tokens.sum() / (count * tokens.max(axis=1).sum())
            values[f"% waiting, {count} ranks"] = 100 * float(1 - busy)
        rows.append(Row(name, values))
    return Part(
        "ranks",
        "tokens of ranks",
        tuple(rows),
        settings={"windows": len(lengths), "batch_size": batch_size},
        notes=(
            f"{batch_size} windows for each rank, drawn at random; steps are taken to last as long as the "
            "most tokens. Counted, not timed.",
        ),
    )


def _as_it_comes(lengths: np.ndarray, batch_size: int, count: int) -> np.ndarray:
    """(steps, ranks) tokens, where accelerate gives every rank the next batch of a common sampler."""
    batches = LengthGroupedBatchSampler(lengths, batch_size * count, grouping="packed").global_batches(0)
    whole = [batch for batch in batches if len(batch) == batch_size * count]
    return lengths[np.array(whole)].reshape(len(whole), count, batch_size).sum(axis=2)


def _dealt(lengths: np.ndarray, batch_size: int, count: int) -> np.ndarray:
    """(steps, ranks) tokens as `qa.batching` deals them out."""
    whole, tokens = len(lengths) // (batch_size * count), []
    for rank in range(count):
        sampler = LengthGroupedBatchSampler(lengths, batch_size, count, rank, grouping="packed")
        tokens.append([lengths[[pick.row for pick in batch]].sum() for batch in sampler][:whole])
    return np.array(tokens).T


COMMANDS = {
    "run_qa.py --help": ["run_qa.py", "--help"],
    "import torch, transformers.Trainer": ["-c", "import torch; from transformers import Trainer"],
}


def startup(rounds: int, say: Say, commands: Mapping[str, list[str]] = COMMANDS) -> Part:
    """Seconds until `--help` is there, and what importing torch and transformers would cost."""

    def contender(words: list[str]) -> Contender:
        def once(number: int) -> Values:
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True, timeout=300)
            return {"seconds": time.perf_counter() - started}

        return once

    found = alternate({name: contender(words) for name, words in commands.items()}, rounds, say)
    return compare("startup", "start-up", found, "seconds")

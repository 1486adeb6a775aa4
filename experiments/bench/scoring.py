"""Parts `decoding` and `memory`: from logits to n-best lists, and what an evaluation keeps until then."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch

from experiments.bench.measuring import Part, Ratio, Row, Values, alternate, compare
from experiments.bench.per_question import decode_question_by_question
from experiments.bench.questions import Questions
from qa.decoding import DecodingSettings, WindowScores, WindowTable, decode
from qa.reduction import reduce_logits
from qa.windows.reading import window_table

Say = Callable[[str], None]
BEST = DecodingSettings().n_best_size


def decoding(questions: Questions, rounds: int, say: Say) -> Part:
    """The n-best lists of every question, from the same logits; the results are made sure to be equal."""
    table = window_table(questions.windows.table)
    contexts, ids = questions.examples["context"][:], questions.examples["id"][:]
    start = likely_logits(table, questions.windows.table["start_positions"][:], seed=0)
    end = likely_logits(table, questions.windows.table["end_positions"][:], seed=1)
    settings = DecodingSettings()

    def reduced() -> WindowScores:
        logits = torch.from_numpy(start), torch.from_numpy(end)
        allowed = torch.ones(start.shape, dtype=torch.bool)
        fields = reduce_logits(*logits, allowed, settings.n_best_size)
        return WindowScores(*(field.numpy() for field in fields))

    scores = reduced()
    expected = decode_question_by_question(start, end, table, contexts, ids, settings)
    if decode(scores, table, contexts, ids, settings) != expected:
        raise RuntimeError("decoding: the n-best lists differ from those of the loop over questions")
    found = alternate(
        {
            "loop over questions": _timed(
                lambda: decode_question_by_question(start, end, table, contexts, ids, settings)
            ),
            "ours": _timed(lambda: decode(scores, table, contexts, ids, settings)),
            "ours, from full logits": _timed(lambda: decode(reduced(), table, contexts, ids, settings)),
            "ours, every span read": _timed(
                lambda: [tuple(p.n_best) for p in decode(scores, table, contexts, ids, settings)]
            ),
        },
        rounds,
        say,
    )
    spans = sum(len(prediction.n_best) for prediction in expected)
    return compare(
        "decoding",
        "decoding",
        found,
        "seconds",
        ["loop over questions"],
        smaller=True,
        ratio_of="speed",
        settings={"questions": len(ids), "windows": len(table), "spans": spans},
        notes=(
            f"{len(ids):,} questions in {len(table):,} windows of at most 384 tokens, {spans:,} spans, all "
            "equal. The loop sorts each window's logits itself; evaluation and prediction do that on the "
            "device (`ours`), on a CPU it is counted in `from full logits`. `ours` holds spans as arrays "
            "until they are looked at; `every span read` makes all of them.",
        ),
    )


def likely_logits(table: WindowTable, positions: list[list[int]], seed: int) -> np.ndarray:
    """(windows, seq_len) float32: noise, a peak at the first gold, minus infinity outside the passage."""
    random = np.random.default_rng(seed)
    place = np.arange(int(table.lengths.max()))
    logits = random.normal(-4.0, 2.0, (len(table), len(place))).astype(np.float32)
    logits[np.arange(len(table)), [golds[0] for golds in positions]] += 10
    outside = (place < table.passage_start[:, None]) | (place >= table.passage_end[:, None])
    logits[outside & (place > 0)] = -np.inf
    return logits


def _timed(work: Callable[[], object]) -> Callable[[int], Values]:
    def once(number: int) -> Values:
        started = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - started}

    return once


def memory(windows: int) -> Part:
    """Bytes that an evaluation keeps of each window, for windows of several lengths."""
    rows = []
    for seq_len in (128, 384, 512):
        logits = torch.zeros(windows, seq_len)
        full = _bytes_kept(lambda logits: [logits.numpy().copy(), logits.numpy().copy()], logits) / windows
        ours = _bytes_kept(_reduced, logits) / windows
        ratio = Ratio(full / ours, full / ours, full / ours, rounds=1)
        rows.append(Row(f"{seq_len} tokens", {"full logits": full, "ours": ours}, {"full logits": ratio}))
    return Part(
        "memory",
        "bytes kept of a window of",
        tuple(rows),
        bases=("full logits",),
        ratio_of="bytes",
        settings={"windows": windows, "n_best_size": BEST},
        notes=(
            "Of each window the best 20 starts and ends and the null score are kept, whatever its length.",
        ),
    )


def _reduced(logits: torch.Tensor) -> list[np.ndarray]:
    allowed = torch.ones(logits.shape, dtype=torch.bool)
    return [field.numpy().copy() for field in reduce_logits(logits, logits, allowed, BEST)]


def _bytes_kept(make: Callable[[torch.Tensor], list[np.ndarray]], logits: torch.Tensor) -> float:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = make(logits)
        after, _ = tracemalloc.get_traced_memory()
        assert kept
        return float(after - before)
    finally:
        tracemalloc.stop()

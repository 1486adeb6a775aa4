"""Measure, print tables, keep the record.

    make bench                                     the quick parts: twenty minutes on two cores
    make bench PARTS=all                           all parts, every strategy among them
    python -m experiments.bench decoding windows   some parts, whole data
    python -m experiments.bench --print            the tables of the committed records
    python -m experiments.bench --readme           the same, into experiments/bench/README.md

Expected: ratios above 1, with their spread. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.bench.measuring import Part
from experiments.bench.record import (
    README,
    RESULTS,
    BenchRecord,
    merged,
    read,
    readme,
    slug,
    summary,
    tables,
    write,
)
from qa.errors import InputError, run_program
from qa.files import write_text

QUICK = (
    *("startup", "padding", "ranks", "windows", "decoding", "memory", "cpu"),
    *("evaluation", "training", "profile"),
)
PARTS = (*QUICK, "strategies", "compile", "gpu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts named, write their record, print its tables."""
    told = _parser().parse_args(arguments)
    if told.print or told.readme:
        records = [read(path) for path in sorted(told.results.glob("*.json"))]
        print("\n\n".join(f"{tables(record)}\n\n{summary(record)}" for record in records))
        if told.readme:
            write_text(README, readme(README.read_text(encoding="utf-8"), records))
        return
    names = _chosen(told.parts)
    parts = list(_measured(names, told, _say))
    from experiments.bench.questions import data_folder, describe
    from qa.results import describe_environment

    environment = describe_environment(1)
    path = told.results / f"{slug(environment)}.json"
    record = BenchRecord(environment, describe(data_folder()), tuple(parts))
    if told.keep:
        record = merged(read(path) if path.is_file() else None, record)
    write(path, record)
    print(f"{tables(record)}\n\nwritten to {path}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _chosen(named: Sequence[str]) -> tuple[str, ...]:
    wanted = {"quick": QUICK, "all": PARTS}
    names = [part for name in named or ["quick"] for part in wanted.get(name, (name,))]
    for name in names:
        if name not in PARTS:
            raise InputError(f"{name}: no such part; choose from {', '.join((*PARTS, *wanted))}")
    return tuple(part for part in PARTS if part in names)


def _measured(names: Sequence[str], told: argparse.Namespace, say: Callable[[str], None]) -> Iterator[Part]:
    import torch
    from transformers.utils import logging

    from experiments.bench import evaluating, layers, preparing, profiling, scoring, training
    from experiments.bench.questions import Questions, data_folder
    from experiments.bench.steps import Setup

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if told.threads:
        torch.set_num_threads(told.threads)
    folder = data_folder()
    train = Questions("train", told.questions, folder)
    dev = Questions(
        "validation", told.questions if told.questions and not folder else told.dev_questions, folder
    )
    on_gpu = torch.cuda.is_available() and not told.use_cpu
    setup = Setup(
        questions=train,
        model=told.model,
        batch_size=told.batch_size,
        steps=told.steps,
        warmup=told.warmup,
        precision=told.precision or ("bf16" if on_gpu else "fp32"),
        use_cpu=not on_gpu,
    )
    rounds, batchings = told.rounds, told.batching
    for name in names:
        say(f"{name}:")
        if name == "startup":
            yield preparing.startup(rounds, say)
        elif name == "padding":
            yield preparing.padding(train.lengths, told.batch_size, ["padded", "sorted", *batchings])
        elif name == "ranks":
            yield preparing.ranks(train.lengths, told.batch_size)
        elif name == "windows":
            yield preparing.windows(train, rounds, say)
        elif name == "decoding":
            yield scoring.decoding(dev, rounds, say)
        elif name == "memory":
            yield scoring.memory(1000)
        elif name == "cpu":
            yield from layers.layers(rounds, say)
        elif name == "evaluation":
            asked = Questions("validation", told.evaluated, folder)
            yield evaluating.evaluation(replace(setup, questions=asked), rounds, say)
        elif name == "training":
            yield training.training(setup, batchings, rounds, say)
        elif name == "profile":
            yield profiling.profiled(setup, batchings, say)
        elif name == "strategies":
            yield training.strategies(setup, told.strategies, batchings[0], told.strategy_rounds, say)
        elif name == "compile":
            yield training.compiled(setup, batchings, told.strategy_rounds, say)
        else:
            yield from training.gpu(setup, batchings, rounds, say)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench",
        description="Speed and memory beside what others do, on the same data in one run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; quick: all but the last three; all")
    parser.add_argument("--print", action="store_true", help="print the tables of all records and stop")
    parser.add_argument("--readme", action="store_true", help="the same, into this folder's README.md")
    parser.add_argument("--keep", action="store_true", help="keep the record's other parts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    parser.add_argument(
        "--strategy-rounds", type=int, default=2, help="the same, of `strategies` and `compile`"
    )
    parser.add_argument("--steps", type=int, default=8, help="timed steps in a round")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--batch-size", type=int, default=16, help="windows in a step")
    parser.add_argument("--batching", nargs="+", default=["grouped", "packed"], help="ours to compare")
    parser.add_argument("--model", default="packaged:all-MiniLM-L6-v2", help="or shape:base, shape:large")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: bf16 on a GPU, else fp32")
    parser.add_argument("--questions", type=int, default=8000, help="questions that windows are made of")
    parser.add_argument("--dev-questions", type=int, help="questions that are decoded; default: all")
    parser.add_argument("--evaluated", type=int, default=400, help="questions of part `evaluation`")
    parser.add_argument(
        "--strategies", nargs="*", default=[], help="files of experiments/strategies; default all"
    )
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice")
    parser.add_argument("--use-cpu", action="store_true", help="leave the GPU alone")
    return parser


if __name__ == "__main__":
    run_program(main, "experiments.bench")

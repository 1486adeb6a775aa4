"""Some steps of training, timed: by this project's trainer, and by a plain `transformers.Trainer`."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import BertConfig, BertForQuestionAnswering, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from experiments.bench.machine import Memory, malloc_as_a_run_sets_it, malloc_as_it_comes
from experiments.bench.measuring import Values
from experiments.bench.questions import SETTINGS, Questions
from qa.arguments import parse_settings
from qa.batching import WindowBatches, WindowCollator
from qa.model_sizes import count_parameters
from qa.models import ModelArguments, load_reader
from qa.trainer import QATrainer

SHAPES = {"shape:base": (768, 12), "shape:large": (1024, 24)}
"""Encoders of SpanBERT's two sizes with random weights, which serve for speed: hidden size, layers."""


FIRST_SECONDS = "first steps, s"


@dataclass(frozen=True)
class Setup:
    """What all contenders share.

    model: as `--model_name_or_path`, or one of `SHAPES`. precision: `fp32`, `bf16`. warmup: steps before the
    clock starts.
    """

    questions: Questions
    model: str
    batch_size: int
    steps: int
    warmup: int
    precision: str
    use_cpu: bool

    @property
    def settings(self) -> dict[str, Any]:
        """For the record."""
        return {
            "model": self.model,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "warmup_steps": self.warmup,
            "precision": self.precision,
            "windows": len(self.questions.lengths),
        }

    @property
    def described(self) -> str:
        """The same for a reader."""
        lengths = self.questions.lengths
        return (
            f"{self.model}, {self.precision}, batches of {self.batch_size} drawn from {len(lengths):,} "
            f"windows of {lengths.mean():.0f} tokens on average; {self.steps} steps a round after "
            f"{self.warmup} to warm up. Tokens are real ones, padding left out; windows are of the average "
            "length."
        )

    def reader(self) -> Any:
        """A fresh reader, the same one every time."""
        torch.manual_seed(0)
        if self.model not in SHAPES:
            return load_reader(ModelArguments(), self.model)
        hidden, layers = SHAPES[self.model]
        return BertForQuestionAnswering(
            BertConfig(
                vocab_size=max(28_996, len(self.questions.tokenizer)),
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=hidden // 64,
                intermediate_size=4 * hidden,
            )
        )


@dataclass
class Counted:
    """tokens: real ones of each batch, in the order batches are made."""

    tokens: list[int] = field(default_factory=list)


class Clock(TrainerCallback):
    """Times the first few steps, and those after them; the device has finished whenever it looks."""

    def __init__(self, warmup: int, last: int) -> None:
        self.warmup, self.last = warmup, last
        self.looks: dict[int, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in (self.warmup, self.last):
            self._look(state.global_step)

    def _look(self, step: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.looks[step] = time.perf_counter()

    @property
    def first_seconds(self) -> float:
        """Of the steps to warm up."""
        return self.looks[self.warmup] - self.looks[0]

    @property
    def seconds(self) -> float:
        """Of the steps after them."""
        return self.looks[self.last] - self.looks[self.warmup]


def run(make: Callable[[Counted, Clock, str], tuple[Trainer, int]], setup: Setup) -> Values:
    """Train a little and say how fast it went, and how much memory it took at its highest."""
    counted, clock = Counted(), Clock(setup.warmup, setup.warmup + setup.steps)
    gc.collect()
    memory = Memory.start()
    with tempfile.TemporaryDirectory() as folder:
        trainer, trained = make(counted, clock, folder)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    peak = memory.peak()
    # Batches are made ahead of their step, so that there may be more of them than steps.
    timed = slice(setup.warmup, setup.warmup + setup.steps)
    speed = sum(counted.tokens[timed]) / clock.seconds
    del trainer
    gc.collect()
    return {
        "tokens/s": speed,
        "windows/s": speed / float(setup.questions.lengths.mean()),
        FIRST_SECONDS: clock.first_seconds,
        "peak MB": peak / 1e6,
        "trained parameters": float(trained),
    }


@dataclass
class CountingCollator(WindowCollator):
    """The project's, which counts."""

    counted: Counted = field(default_factory=Counted)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch."""
        self.counted.tokens.append(sum(len(row["input_ids"]) for row in rows))
        return super().__call__(rows)


def ours(setup: Setup, number: int, words: Sequence[str], *watching: TrainerCallback) -> Values:
    """words: settings as on the command line, `--batching packed` or a strategy's file."""

    def make(counted: Counted, clock: Clock, folder: str) -> tuple[Trainer, int]:
        settings = parse_settings([*_words(setup, number, folder), *words])
        model = settings.strategy.adapt(setup.reader())
        trainer = QATrainer(
            args=settings.training,
            model=model,
            train_dataset=WindowBatches(setup.questions.windows.table),
            collator=CountingCollator(
                setup.questions.tokenizer.pad_token_id, "first", number, counted=counted
            ),
            decoding=settings.decoding,
            callbacks=[*settings.strategy.callbacks(model), clock, *watching],
            undecayed=settings.strategy.undecayed,
            penalty=settings.strategy.penalty,
        )
        return trainer, count_parameters(model).trainable

    malloc_as_a_run_sets_it()
    return run(make, setup)


def _words(setup: Setup, number: int, folder: str) -> list[str]:
    told: dict[str, Any] = {
        "dataset_name": "sample",  # has to be named; the windows are the setup's own
        "max_seq_length": SETTINGS.max_seq_length,
        "doc_stride": SETTINGS.doc_stride,
        "output_dir": folder,
        "max_steps": setup.warmup + setup.steps,
        "per_device_train_batch_size": setup.batch_size,
        "precision": setup.precision,
        "seed": number,
        "save_strategy": "no",
        "eval_strategy": "no",
        "load_best_model_at_end": "false",
        "logging_strategy": "no",
        "disable_tqdm": "true",
        "report_to": "none",
        "use_cpu": str(setup.use_cpu).lower(),
    }
    return ["--do_train", *(word for name, value in told.items() for word in (f"--{name}", str(value)))]


def plain(setup: Setup, number: int, *, grouped: bool) -> Values:
    """The transformers example's way: a plain Trainer, the model's own loss.

    grouped: dynamic padding and batches of like length, the example's best settings; else every window is
    padded to 384 tokens, its defaults.
    """

    def make(counted: Counted, clock: Clock, folder: str) -> tuple[Trainer, int]:
        args = TrainingArguments(
            output_dir=folder,
            max_steps=setup.warmup + setup.steps,
            per_device_train_batch_size=setup.batch_size,
            bf16=setup.precision == "bf16",
            seed=number,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to="none",
            use_cpu=setup.use_cpu,
            train_sampling_strategy="group_by_length" if grouped else "random",
        )
        model = setup.reader()
        trainer = Trainer(
            model=model,
            args=args,
            train_dataset=_PlainWindows(setup.questions, None if grouped else SETTINGS.max_seq_length),
            data_collator=_plain_collator(setup.questions.tokenizer, counted, grouped),
            callbacks=[clock],
        )
        return trainer, count_parameters(model).trainable

    malloc_as_it_comes()
    return run(make, setup)


class _PlainWindows(torch.utils.data.Dataset):
    """Windows as the example's features: lists in memory, padded to `width` where it is given."""

    def __init__(self, questions: Questions, width: int | None) -> None:
        names = ["input_ids", "token_type_ids", "start_positions", "end_positions"]
        self.columns = {name: questions.windows.table[name][:] for name in names}
        self.pad, self.width = questions.tokenizer.pad_token_id, width

    def __len__(self) -> int:
        return len(self.columns["input_ids"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        ids, types = list(self.columns["input_ids"][row]), list(self.columns["token_type_ids"][row])
        more = 0 if self.width is None else self.width - len(ids)
        return {
            "input_ids": ids + [self.pad] * more,
            "token_type_ids": types + [0] * more,
            "attention_mask": [1] * len(ids) + [0] * more,
            "start_positions": self.columns["start_positions"][row][0],
            "end_positions": self.columns["end_positions"][row][0],
        }


def _plain_collator(tokenizer: Any, counted: Counted, grouped: bool) -> Callable[[list[dict[str, Any]]], Any]:
    from transformers import DataCollatorWithPadding, default_data_collator

    collate = DataCollatorWithPadding(tokenizer) if grouped else default_data_collator

    def counting(rows: list[dict[str, Any]]) -> Any:
        counted.tokens.append(sum(sum(row["attention_mask"]) for row in rows))
        return collate(rows)

    return counting

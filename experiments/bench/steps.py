"""Some steps of training, timed: by this project's trainer, and by a plain `transformers.Trainer`."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForQuestionAnswering, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from experiments.bench.machine import Memory, malloc_as_a_run_sets_it, malloc_as_it_comes
from experiments.bench.measuring import Values
from experiments.bench.plain import PlainWindows, plain_collator
from experiments.bench.questions import SETTINGS, Questions
from qa.arguments import parse_settings
from qa.batching import LengthGroupedBatchSampler, WindowBatches, WindowCollator
from qa.errors import InputError
from qa.model_sizes import count_parameters
from qa.models import ModelArguments, load_reader
from qa.settings import Settings
from qa.trainer import QATrainer

SHAPES = {"shape:base": (768, 12), "shape:large": (1024, 24)}
"""Encoders of SpanBERT's two sizes with random weights, which serve for speed: hidden size, layers."""


FIXED, BEST = f"plain Trainer, padded to {SETTINGS.max_seq_length}", "plain Trainer, grouped by length"
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
            f"{self.model}, {self.precision}. {self.steps} batches of {self.batch_size}, spread evenly over "
            f"the sizes of an epoch's ({len(lengths):,} windows of {lengths.mean():.0f} tokens on average); "
            f"the {self.warmup} largest came before the clock started. Tokens are real ones, padding left "
            "out; windows are of the average length."
        )

    def chosen(self, batches: Sequence[Sequence[int] | np.ndarray]) -> list[list[int]]:
        """The batches to train on, of all batches of an epoch: those to warm up, then those that are timed.

        A few batches drawn at random would differ between contenders by more than the contenders do. So the
        whole ones are sorted by their tokens and taken at even distances, in mixed order.
        """
        lengths = self.questions.lengths
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        if len(whole) < self.steps:
            raise InputError(
                f"questions: their windows fill {len(whole)} batches of {self.batch_size}, too few for "
                f"{self.steps} steps; raise --questions, or lower --batch-size or --steps"
            )
        sizes = np.array([lengths[np.asarray(batch)].sum() for batch in whole])
        by_size = np.argsort(sizes, kind="stable")
        places = (2 * np.arange(self.steps) + 1) * len(whole) // (2 * self.steps)
        timed = by_size[places][np.random.default_rng(0).permutation(self.steps)]
        first = by_size[::-1][: self.warmup]
        return [[int(row) for row in whole[place]] for place in (*first, *timed)]

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


class _ChosenBatches(LengthGroupedBatchSampler):
    """The project's sampler, cut down to `Setup.chosen`."""

    setup: Setup

    def __len__(self) -> int:
        return self.setup.warmup + self.setup.steps

    def global_batches(self, epoch: int) -> list[np.ndarray]:
        """Of the epoch's batches."""
        return [np.array(batch) for batch in self.setup.chosen(super().global_batches(epoch))]


class _OursTrainer(QATrainer):
    setup: Setup

    def get_train_dataloader(self) -> Any:
        """The project's own, of the chosen batches."""
        super().get_train_dataloader()
        whole = self.sampler
        self.sampler = _ChosenBatches(
            whole.lengths, whole.batch_size, seed=whole.seed, grouping=whole.grouping
        )
        self.sampler.setup = self.setup
        return self._loader(self.train_dataset, self.sampler)


def ours(setup: Setup, number: int, words: Sequence[str], *watching: TrainerCallback) -> Values:
    """words: settings as on the command line, `--batching packed` or a strategy's file."""

    def make(counted: Counted, clock: Clock, folder: str) -> tuple[Trainer, int]:
        settings = own_settings(setup, number, folder, words)
        model = settings.strategy.adapt(setup.reader())
        trainer = _OursTrainer(
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
        trainer.setup = setup
        return trainer, count_parameters(model).trainable

    malloc_as_a_run_sets_it()
    return run(make, setup)


def own_settings(setup: Setup, number: int, folder: str, words: Sequence[str]) -> Settings:
    """As a command line sets them. words: further ones."""
    told: dict[str, Any] = {
        "dataset_name": "sample",  # has to be named; the windows are the setup's own
        "max_seq_length": SETTINGS.max_seq_length,
        "doc_stride": SETTINGS.doc_stride,
        "output_dir": folder,
        "max_steps": setup.warmup + setup.steps,
        "per_device_train_batch_size": setup.batch_size,
        "per_device_eval_batch_size": setup.batch_size,
        "bootstrap_samples": 0,
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
    common = [word for name, value in told.items() for word in (f"--{name}", str(value))]
    return parse_settings(["--do_train", *common, *words])


class _PlainTrainer(Trainer):
    setup: Setup

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer's own order, of the chosen batches."""
        order = list(super()._get_train_sampler(*args, **kwargs))  # type: ignore[arg-type]
        size = self.setup.batch_size
        batches = [order[at : at + size] for at in range(0, len(order), size)]
        return [row for batch in self.setup.chosen(batches) for row in batch]


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
        trainer = _PlainTrainer(
            model=model,
            args=args,
            train_dataset=PlainWindows(setup.questions, None if grouped else SETTINGS.max_seq_length),
            data_collator=plain_collator(setup.questions.tokenizer, grouped, counted.tokens),
            callbacks=[clock],
        )
        trainer.setup = setup
        return trainer, count_parameters(model).trainable

    malloc_as_it_comes()
    return run(make, setup)

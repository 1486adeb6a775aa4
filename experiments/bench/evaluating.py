"""Part `evaluation`: from questions to n-best lists, by this project's trainer and by a plain `Trainer`."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from experiments.bench.machine import Memory, malloc_as_a_run_sets_it, malloc_as_it_comes
from experiments.bench.measuring import Contender, Part, Values, alternate, compare
from experiments.bench.per_question import decode_question_by_question
from experiments.bench.plain import PlainWindows, plain_collator
from experiments.bench.questions import SETTINGS
from experiments.bench.steps import FIXED, Setup, own_settings
from qa.batching import WindowCollator
from qa.decoding import DecodingSettings
from qa.evaluation import find_spans
from qa.losses import answer_mask
from qa.questions import QuestionSet
from qa.records import Prediction
from qa.trainer import QATrainer
from qa.windows.reading import window_table

Say = Callable[[str], None]
DYNAMIC = "plain Trainer, padded to the longest"


def evaluation(setup: Setup, rounds: int, say: Say) -> Part:
    """Forward passes, logits, n-best lists. setup: its questions are the ones asked; ours are scored, too."""
    found: dict[str, list[Prediction]] = {}
    contenders = {
        FIXED: _plain(setup, found, pads=False),
        DYNAMIC: _plain(setup, found, pads=True),
        "ours, grouped": _ours(setup, found, "grouped"),
        "ours, packed": _ours(setup, found, "packed"),
    }
    timed = alternate(contenders, rounds, say)
    agreeing = same_answers(found[DYNAMIC], found["ours, grouped"])
    count, total = len(setup.questions.lengths), len(found[DYNAMIC])
    return compare(
        "evaluation",
        "evaluation",
        timed,
        "windows/s",
        [FIXED, DYNAMIC],
        settings=setup.settings | {"rounds": rounds, "questions": total, "same best answer": agreeing},
        notes=(
            f"{setup.model} with an untrained head, {setup.precision}: {total:,} questions of the dev set in "
            f"{count:,} windows of {setup.questions.lengths.mean():.0f} tokens on average, "
            f"{setup.batch_size} of the longest in a batch. The plain Trainer takes windows in the order of "
            "the file and keeps all logits, which a loop over questions decodes; ours are scored, too. "
            f"{agreeing:,} of {total:,} best answers are the same; rounding decides between near ones.",
        ),
    )


def same_answers(one: Sequence[Prediction], other: Sequence[Prediction]) -> int:
    """How many questions have the same best answer in both."""
    pairs = zip(one, other, strict=True)
    return sum([span.text for span in a.n_best[:1]] == [span.text for span in b.n_best[:1]] for a, b in pairs)


def _ours(setup: Setup, found: dict[str, list[Prediction]], batching: str) -> Contender:
    questions = QuestionSet("validation", setup.questions.loaded, setup.questions.windows)

    def once(number: int) -> Values:
        malloc_as_a_run_sets_it()

        def keep(*arguments: Any) -> list[Prediction]:
            found[f"ours, {batching}"] = find_spans(*arguments)
            return found[f"ours, {batching}"]

        with tempfile.TemporaryDirectory() as folder:
            settings = own_settings(setup, number, folder, ["--batching", batching])
            trainer = QATrainer(
                args=settings.training,
                model=setup.reader().eval(),
                eval_dataset=questions,
                collator=WindowCollator(setup.questions.tokenizer.pad_token_id),
                decoding=settings.decoding,
                find_spans=keep,
            )
            trainer.remove_callback(PrinterCallback)
            return _timed(setup, lambda: trainer.evaluate(questions))  # type: ignore[arg-type]

    return once


def _plain(setup: Setup, found: dict[str, list[Prediction]], *, pads: bool) -> Contender:
    questions = setup.questions
    windows = PlainWindows(questions, None if pads else SETTINGS.max_seq_length)
    table = window_table(questions.windows.table)
    contexts, ids = questions.examples["context"][:], questions.examples["id"][:]

    def once(number: int) -> Values:
        malloc_as_it_comes()
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                model=setup.reader().eval(),
                args=TrainingArguments(
                    output_dir=folder,
                    per_device_eval_batch_size=setup.batch_size,
                    bf16=setup.precision == "bf16",
                    disable_tqdm=True,
                    report_to="none",
                    use_cpu=setup.use_cpu,
                ),
                data_collator=plain_collator(questions.tokenizer, pads),
            )

            def work() -> None:
                start, end = trainer.predict(windows).predictions[:2]  # type: ignore[arg-type]
                logits = [_masked(each, table) for each in (start, end)]
                found[DYNAMIC if pads else FIXED] = decode_question_by_question(
                    *logits, table, contexts, ids, DecodingSettings()
                )

            return _timed(setup, work)

    return once


def _masked(logits: np.ndarray, table: Any) -> np.ndarray:
    """Minus infinity where our loss leaves logits untrained, so that both ways look at the same ones."""
    place = np.arange(logits.shape[1])
    passage = (place >= table.passage_start[:, None]) & (place < table.passage_end[:, None])
    allowed = answer_mask(torch.from_numpy(passage)).numpy()
    return np.where(allowed, logits.astype(np.float32), -np.inf)


def _timed(setup: Setup, work: Callable[[], object]) -> Values:
    gc.collect()
    memory = Memory.start()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {
        "windows/s": len(setup.questions.lengths) / seconds,
        "seconds": seconds,
        "peak MB": memory.peak() / 1e6,
    }

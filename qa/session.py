"""The stages of one run: questions, reader, training, scores, files. `run_qa.py` says in which order."""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Literal

import yaml

from qa import tracking
from qa.adapters import SAVED_SETTINGS
from qa.batching import WindowBatches, WindowCollator
from qa.checkpoints import ResumePoint, prepare_output_dir, set_aside
from qa.confidence.final_answers import CALIBRATION_NAME, Calibration, read_calibration
from qa.configuration import nearest
from qa.cpu.allocation import keep_freed_memory
from qa.datasets import example_from_row
from qa.errors import InputError
from qa.evaluation import METRIC_NAMES
from qa.files import write_json
from qa.hub import reader_folder
from qa.model_sizes import count_parameters, estimate_training_bytes
from qa.models import load_reader, max_positions, resolve_checkpoint
from qa.questions import QuestionSet, Split, load_question_set
from qa.reporting import data_report
from qa.reporting.model_card import write_model_card
from qa.reporting.predictions import show_answer, write_predictions
from qa.results import (
    RECORD_NAME,
    RunRecord,
    Scores,
    describe_environment,
    finite,
    peak_memory_bytes,
    public_path,
    write_record,
)
from qa.run_settings import NEWEST
from qa.settings import Settings
from qa.tokenizers import load_tokenizer
from qa.tracking.answers import log_answers
from qa.trainer import QATrainer
from qa.windows.reading import describe_window, keep_negative_windows

Stage = Literal["before", "eval", "predict"]
_SPLIT_OF: dict[str, Split] = {"before": "validation", "eval": "validation", "predict": "test"}


class Session:
    """One run in progress. Every method is one stage; each rank goes through all, the main one writes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.args = settings.training
        self.output_dir = Path(self.args.output_dir or ".")
        self.checkpoint = str(settings.model.model_name_or_path)
        self.resolved = _plain(settings.to_dict())
        self.questions: dict[Split, QuestionSet] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, Scores] = {}
        self.training: dict[str, Any] = {}
        self.resume = ResumePoint(None)
        self.tracked: tracking.TrackedRun | None = None
        self.is_main = self.args.process_index == 0

    def say(self, text: str = "") -> None:
        """Print on the main process only."""
        if self.is_main:
            print(text, flush=True)

    def prepare_output(self) -> None:
        """Settle what an earlier run in the same folder means. Nothing has been written before this."""
        with self.args.main_process_first(desc="looking at the output folder"):
            self.resume = prepare_output_dir(
                self.output_dir,
                training=self.args.do_train,
                resume=self.args.resume_from_checkpoint,
                overwrite=self.args.overwrite_output_dir and self.is_main,
                newest=NEWEST,
            )
        for checkpoint, fault in self.resume.passed_over:
            if self.is_main:
                self.say(f"{checkpoint} is passed over: {fault}; set aside as {set_aside(checkpoint).name}")
        if self.args.resume_from_checkpoint:
            where = self.resume.checkpoint or "the start: there is no whole checkpoint yet"
            self.say(f"Going on from {where}")
        if self.is_main:
            data_report.save(self.output_dir, self.reports, list(self.questions.values()))

    def load_questions(self) -> None:
        """Tokenizer, then every split that this run needs."""
        model, data = self.settings.model, self.settings.data
        self.tokenizer = load_tokenizer(
            resolve_checkpoint(self.checkpoint),
            revision=model.model_revision,
            trust_remote_code=model.trust_remote_code,
        )
        with self.args.main_process_first(desc="reading the questions"):
            for split in self.settings.needed_splits():
                windows = self.settings.windows
                # The first gold is what every evaluation loss is taken against, whatever trains.
                windows = windows if split == "train" else dataclasses.replace(windows, gold="first")
                found = load_question_set(split, data, windows, self.tokenizer)
                if found is not None:
                    self.questions[split] = found

    def report_data(self) -> None:
        """Print what the questions are."""
        self.reports = {str(split): data_report.describe(found) for split, found in self.questions.items()}
        self.say(data_report.render(self.reports) + "\n")

    def load_reader(self) -> None:
        """The checkpoint with its head, adapted by the strategy; too long windows are refused."""
        if self.args.device.type == "cpu":
            keep_freed_memory()
        trains = self.args.do_train or self.args.dry_run
        has_adapter = self.settings.strategy.reader_folder is not None
        model = load_reader(self.settings.model, self.checkpoint, expect_head=not trains and not has_adapter)
        longest, limit = self.settings.windows.max_seq_length, max_positions(model)
        if limit is not None and longest > limit:
            raise InputError(
                f"max_seq_length: {longest}, but {self.checkpoint} reads at most {limit} tokens; lower it"
            )
        first_rows = (found.windows.table[0]["token_type_ids"] for found in self.questions.values())
        if getattr(model.config, "type_vocab_size", 2) == 1 and any(max(row) > 0 for row in first_rows):
            raise InputError(f"segments: {self.checkpoint} knows a single one; add --segments zeros")
        self.model = self.settings.strategy.adapt(model)
        self.parameters = count_parameters(self.model)
        self.say(
            f"{self.checkpoint}, strategy {self.args.strategy}: {self.parameters.trainable:,} of "
            f"{self.parameters.total:,} parameters train ({self.parameters.share:.1%})\n"
        )

    def show_dry_run(self) -> None:
        """What the run would be: settings, three windows as a person reads them, memory."""
        self.say(yaml.safe_dump(self.resolved, sort_keys=True, allow_unicode=True))
        for questions in self.questions.values():
            for index in range(min(3, len(questions))):
                self.say(describe_window(questions.windows.table[index], self.tokenizer) + "\n")
            break
        batch, longest = self.args.per_device_train_batch_size, self.settings.windows.max_seq_length
        gigabytes = estimate_training_bytes(self.model, batch, longest) / 1e9
        self.say(
            f"A training step takes about {gigabytes:.1f} GB (float32, batch of {batch} x {longest} tokens)."
        )

    def make_trainer(self) -> QATrainer:
        """The trainer, with the windows that train and the calibration saved with the reader."""
        best = (self.args.metric_for_best_model or "f1").removeprefix("eval_")
        if best not in METRIC_NAMES:
            raise InputError(f"metric_for_best_model: {best}: no such metric; {nearest(best, METRIC_NAMES)}")
        tracks = tracking.wants_wandb(self.args.report_to)
        if tracks and self.is_main:
            self.tracked = self._start_tracking()
        train = self.questions.get("train")
        windows = None
        if train is not None:
            table = train.windows.table
            if self.args.negative_share < 1:
                table = table.select(keep_negative_windows(table, self.args.negative_share, self.args.seed))
                self.say(f"{len(table):,} of {len(train):,} windows train (negative_share)\n")
            windows = WindowBatches(table)
        strategy = self.settings.strategy
        trainer = QATrainer(
            args=self.args,
            model=self.model,
            train_dataset=windows,
            eval_dataset=self.questions.get("validation"),
            collator=WindowCollator(
                self.tokenizer.pad_token_id or 0, self.settings.windows.gold, self.args.seed
            ),
            decoding=self.settings.decoding,
            processing_class=self.tokenizer,
            calibration=None if self._fits_calibration else self._saved_calibration(),
            callbacks=strategy.callbacks(self.model),
            undecayed=strategy.undecayed,
            penalty=strategy.penalty,
            saved_with={SAVED_SETTINGS: yaml.safe_dump(_plain(self.settings.reader_settings()))},
        )
        if tracks:
            from qa.tracking.following import follow

            follow(trainer, self.tracked)
        return trainer

    def _start_tracking(self) -> tracking.TrackedRun | None:
        """A run at wandb: in the group of its table, or else of its questions, tagged by its strategy."""
        split = next(iter(self.settings.needed_splits()))
        return tracking.start(
            self.resolved,
            name=self.output_dir.resolve().name,
            output_dir=self.output_dir,
            group=public_path(self.settings.data.named(split) or "", Path.cwd()) or None,
            tags=[self.args.strategy],
            job_type="training" if self.args.do_train else "evaluation",
            resumed=self.args.resume_from_checkpoint is not None,
        )

    def train(self, trainer: QATrainer) -> None:
        """Train, keep the best checkpoint's weights, and save the reader with all it needs."""
        started = time.perf_counter()
        result = trainer.train(
            resume_from_checkpoint=None if self.resume.checkpoint is None else str(self.resume.checkpoint)
        )
        history = trainer.state.log_history
        self.training = {
            "steps": trainer.state.global_step,
            "epochs": trainer.state.epoch,
            "seconds": round(time.perf_counter() - started, 1),
            "tokens": trainer.trained_tokens,
            "resumed_from": None if self.resume.checkpoint is None else self.resume.checkpoint.name,
            "train_loss": result.training_loss,
            "best_metric": trainer.state.best_metric,
            "loss_curve": [[row["step"], row["loss"]] for row in history if "loss" in row],
            "evaluations": [finite(row) for row in history if "eval_f1" in row],
        }
        trainer.save_model()

    def evaluate(self, trainer: QATrainer, stage: Stage) -> None:
        """Score a split. Threshold and temperatures that are fitted on dev are saved, too."""
        questions = self.questions[_SPLIT_OF[stage]]
        metrics = trainer.evaluate(questions, metric_key_prefix=stage)  # type: ignore[arg-type]
        evaluation = trainer.evaluation
        assert evaluation is not None
        self.scores[stage] = Scores(
            metrics={name.removeprefix(f"{stage}_"): value for name, value in finite(metrics).items()},
            signature=f"{evaluation.signature}|softmax:{self.args.loss}",
            intervals=evaluation.intervals,
        )
        if stage == "before":
            return
        if self.tracked is not None:
            log_answers(self.tracked, stage, questions.table, evaluation, trainer.state.global_step)
        if stage == "eval" and self._fits_calibration:
            trainer.calibration = evaluation.calibration
            if self.is_main:
                write_json(self.output_dir / CALIBRATION_NAME, evaluation.calibration.to_dict())
        if self.is_main:
            write_predictions(self.output_dir / stage, evaluation)
            count = min(self.args.show_predictions, len(questions.table))
            # From all over the set: neighbours mostly ask about one passage.
            for index in (number * len(questions.table) // count for number in range(count)):
                example = example_from_row(questions.table[index])
                self.say(f"\n{show_answer(example, evaluation.answers[index])}")

    def finish(self, trainer: QATrainer) -> None:
        """Write the record and the model card, print the scores and where everything lies."""
        if self.is_main:
            record = self._record()
            name = RECORD_NAME if self.args.do_train else f"evaluation-{RECORD_NAME}"
            write_record(self.output_dir / name, record)
            if self.args.do_train:
                write_model_card(self.output_dir, record)
            self.say("\n" + self._summary())
            if self.tracked is not None:
                self.tracked.finish(record, self.output_dir / name)
        trainer.end()

    @property
    def _fits_calibration(self) -> bool:
        return self.args.do_train or self.args.fit_calibration

    def _saved_calibration(self) -> Calibration | None:
        adapter, revision = self.settings.strategy.reader_folder, self.settings.model.model_revision
        path = (Path(adapter) if adapter else reader_folder(self.checkpoint, revision)) / CALIBRATION_NAME
        return read_calibration(path) if path.is_file() else None

    def _record(self) -> RunRecord:
        return RunRecord(
            name=self.output_dir.resolve().name,
            strategy=self.args.strategy,
            model=self.checkpoint,
            command=shlex.join(["run_qa.py", *sys.argv[1:]]),
            settings=self.resolved,
            data=dict(self.reports),
            scores=self.scores,
            training={**self.training, "peak_memory_bytes": peak_memory_bytes()},
            parameters={"total": self.parameters.total, "trainable": self.parameters.trainable},
            environment=describe_environment(self.args.world_size),
        )

    def _summary(self) -> str:
        names = {"before": "before training", "eval": "evaluation", "predict": "prediction"}
        lines = [f"{'':16}{'exact match':>12}{'F1':>8}   F1, 95 % interval"]
        scored = {stage: scores for stage, scores in self.scores.items() if "f1" in scores.metrics}
        lines = lines if scored else ["no answers came with the questions: nothing to score"]
        for stage, scores in scored.items():
            low_high = scores.intervals.get("f1")
            interval = f"   {low_high[0]:.1f} to {low_high[1]:.1f}" if low_high else ""
            exact, f1 = scores.metrics["exact_match"], scores.metrics["f1"]
            lines.append(f"{names[stage]:16}{exact:12.2f}{f1:8.2f}{interval}")
        lines += ["", *(f"{names[stage]}: {scores.signature}" for stage, scores in scored.items())]
        lines += [
            "",
            f"Everything lies in {self.output_dir}: "
            + ", ".join(sorted(p.name for p in self.output_dir.iterdir())),
        ]
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Settings as YAML and JSON can hold them: no enums, no infinities."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)

"""QATrainingArguments: what Trainer is told, checked before anything is read. Imports torch: seconds."""

from __future__ import annotations

import argparse
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_type_hints

import torch
from transformers import TrainingArguments

from qa.errors import InputError
from qa.run_settings import MonitoringSettings, OptimizationSettings, RunSettings

_INF = math.inf
# Name -> lowest and highest value, and whether each end is allowed.
_INTERVALS: dict[str, tuple[float, float, str]] = {
    "negative_share": (0, 1, "[]"),
    "layerwise_lr_decay": (0, 1, "(]"),
    "label_smoothing_factor": (0, 1, "[)"),
    "learning_rate": (0, _INF, "[)"),
    "head_learning_rate": (0, _INF, "[)"),
    "weight_decay": (0, _INF, "[)"),
    "max_grad_norm": (0, _INF, "[)"),
    "warmup_steps": (0, _INF, "[)"),
    "num_train_epochs": (0, _INF, "()"),
    "per_device_train_batch_size": (1, _INF, "[)"),
    "per_device_eval_batch_size": (1, _INF, "[)"),
    "gradient_accumulation_steps": (1, _INF, "[)"),
    "early_stopping_patience": (1, _INF, "[)"),
    "save_total_limit": (1, _INF, "[)"),
    "eval_steps": (0, _INF, "()"),
    "save_steps": (0, _INF, "()"),
    "logging_steps": (0, _INF, "()"),
    "bootstrap_samples": (0, _INF, "[)"),
    "show_predictions": (0, _INF, "[)"),
    "seed": (0, 2**32, "[)"),
}

# Settings of transformers that windows, samplers and scores here leave no room for: their value, and why.
_FIXED: dict[str, tuple[Any, str]] = {
    "remove_unused_columns": (False, "the windows' columns are this project's own"),
    "logging_nan_inf_filter": (False, "a loss that is not finite stops the run"),
    "train_sampling_strategy": ("random", "use --batching grouped, packed, padded or sorted"),
    "dataloader_drop_last": (False, "every window trains once an epoch"),
    "prediction_loss_only": (False, "evaluations score answers"),
    "batch_eval_metrics": (False, "answers are scored when all windows of a question are known"),
    "include_for_metrics": ([], "the post-processing hooks see everything"),
    "eval_do_concat_batches": (True, "logits are reduced before they are joined"),
    "eval_on_start": (False, "use --eval_before_training"),
    "label_names": (None, "they are start_positions and end_positions"),
}


@dataclass
class QATrainingArguments(RunSettings, OptimizationSettings, MonitoringSettings, TrainingArguments):
    """The settings of `qa.run_settings` and every other one of transformers' TrainingArguments.

    Raises InputError, one sentence, for values and pairs that cannot be; also for what transformers refuses.
    """

    _argument_group_name: ClassVar[str] = "transformers.TrainingArguments"

    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay false."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Must stay false."})

    def __post_init__(self) -> None:
        if self.ddp_find_unused_parameters is None:
            # Every trained parameter is used in every step; looking for others costs a walk of the graph.
            self.ddp_find_unused_parameters = False
        self._check_values()
        self._check_pairs()
        self._choose_precision()
        if self.metric_for_best_model is None and (
            self.load_best_model_at_end or self.save_strategy == "best"
        ):
            self.metric_for_best_model = "f1"
        do_eval = self.do_eval
        try:
            super().__post_init__()
        except (ValueError, TypeError, OSError, ImportError, NotImplementedError) as error:
            raise InputError(" ".join(str(error).split())) from error
        if self.batching == "packed" and self.n_gpu > 1:
            raise InputError(
                "batching: packed needs a process for each GPU; start with torchrun or accelerate launch"
            )
        # transformers sets it wherever there is an eval_strategy; here it asks for the final evaluation only.
        self.do_eval = do_eval
        if self.precision == "fp32":
            # The launcher's ACCELERATE_MIXED_PRECISION must not overrule what was asked for.
            self.mixed_precision = "no"

    def _check_values(self) -> None:
        for name, (low, high, ends) in _INTERVALS.items():
            check_interval(name, getattr(self, name), low, high, ends)
        for name, (value, reason) in _FIXED.items():
            given = getattr(self, name)
            if given != value and not (given is None and value == []):
                raise InputError(f"{name}: cannot be changed here ({reason}); leave it out")
        if self.null_score_diff_threshold is not None and math.isnan(self.null_score_diff_threshold):
            raise InputError("null_score_diff_threshold: nan is no threshold; give a number")

    def _check_pairs(self) -> None:
        if self.batching == "packed" and self.loss == "bert":
            raise InputError(
                "loss: bert takes its softmax over padding too, of which packed batches have none; use "
                "--batching grouped, or --loss passage"
            )
        if self.fit_calibration and not self.do_eval:
            raise InputError(
                "fit_calibration: fits on the questions that are scored; add --do_eval and --validation_file"
            )
        if self.overwrite_output_dir and self.resume_from_checkpoint:
            raise InputError(
                "overwrite_output_dir: deletes what resume_from_checkpoint goes on from; drop one of the two"
            )
        if self.save_only_model and self.resume_from_checkpoint:
            raise InputError(
                "save_only_model: such checkpoints cannot be resumed; drop it or resume_from_checkpoint"
            )
        wants_scores = [
            name
            for name, wanted in {
                "early_stopping_patience": self.early_stopping_patience is not None,
                "load_best_model_at_end": self.load_best_model_at_end,
                "save_strategy best": self.save_strategy == "best",
            }.items()
            if wanted
        ]
        if wants_scores and self.eval_strategy == "no":
            raise InputError(
                f"{wants_scores[0]}: needs evaluations while it trains; add --eval_strategy steps or epoch"
            )
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise InputError(
                "early_stopping_patience: keeps the last reader, not the best; add --load_best_model_at_end"
            )
        if self.load_best_model_at_end and self.save_strategy not in (self.eval_strategy, "best"):
            raise InputError(
                "load_best_model_at_end: needs a checkpoint at every evaluation, but eval_strategy is "
                f"{_text(self.eval_strategy)} and save_strategy {_text(self.save_strategy)}; make them equal"
            )

    def _choose_precision(self) -> None:
        """Settle `auto`, and refuse fp16 where the hardware has none; any CPU computes bf16, some fast."""
        has_gpu = not self.use_cpu and torch.cuda.is_available()
        if self.precision != "auto" and (self.bf16 or self.fp16):
            raise InputError("precision: give either --precision or --bf16 / --fp16, not both")
        if self.precision == "auto":
            by_hand = self.bf16 or self.fp16
            # Without the argument, GPUs that only emulate bf16 (slowly) say yes.
            self.bf16 = self.bf16 or (
                has_gpu and not by_hand and torch.cuda.is_bf16_supported(including_emulation=False)
            )
        elif self.precision != "fp32":
            setattr(self, self.precision, True)
        if self.bf16 and not torch.cuda.is_available():
            self.use_cpu = True  # transformers takes bf16 on a CPU from those only who say so
        if self.fp16 and not (has_gpu or (not self.use_cpu and torch.backends.mps.is_available())):
            raise InputError("fp16: needs a GPU; use --precision fp32 on a CPU")


def check_interval(name: str, value: float | None, low: float, high: float, ends: str) -> None:
    """Raise InputError where a value lies outside an interval. ends: as in mathematics, `[` includes one."""
    if value is None:
        return
    above = value >= low if ends[0] == "[" else value > low
    below = value <= high if ends[1] == "]" else value < high
    if not (above and below):
        bounds = [f"{'at least' if ends[0] == '[' else 'above'} {low:g}"]
        if high != _INF:
            bounds.append(f"{'at most' if ends[1] == ']' else 'below'} {high:g}")
        raise InputError(f"{name}: {value:g} is out of range; give a number {' and '.join(bounds)}")


def remaining_group() -> type:
    """The settings of QATrainingArguments that `qa.run_settings` does not name, as a dataclass."""
    own = {
        f.name
        for group in (RunSettings, OptimizationSettings, MonitoringSettings)
        for f in dataclasses.fields(group)
    }
    hints = get_type_hints(QATrainingArguments)
    rest = [
        (f.name, hints[f.name], _copy(f))
        for f in dataclasses.fields(QATrainingArguments)
        if f.init and f.name not in own
    ]
    namespace = {"_argument_group_name": QATrainingArguments._argument_group_name}
    return dataclasses.make_dataclass("RemainingTrainingArguments", rest, namespace=namespace)


def _copy(original: dataclasses.Field[Any]) -> Any:
    metadata = dict(original.metadata)
    if original.name in _FIXED:
        metadata["help"] = argparse.SUPPRESS
    if original.default_factory is not dataclasses.MISSING:
        return field(default_factory=original.default_factory, metadata=metadata)
    return field(default=original.default, metadata=metadata)


def _text(choice: Any) -> str:
    return str(getattr(choice, "value", choice))

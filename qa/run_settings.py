"""What a run does, reads and trains with: the settings that matter here, known without waiting for torch.

`qa.training_arguments.QATrainingArguments` is three of these groups and all the rest of transformers'
TrainingArguments. Names that both know keep transformers' meaning and defaults, but for `output_dir`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from qa.errors import InputError
from qa.strategies import STRATEGIES

NEWEST = "newest"
DATA_DIR_VARIABLE = "QA_DATA_DIR"
Split = Literal["train", "validation", "test"]
_WHEN = ("no", "steps", "epoch")


@dataclass
class RunSettings:
    """What is done, where it is written, on what it runs."""

    _argument_group_name: ClassVar[str] = "run"

    do_train: bool = field(default=False, metadata={"help": "Train on the questions of the train split."})
    do_eval: bool = field(default=False, metadata={"help": "Score the reader on the validation split."})
    do_predict: bool = field(default=False, metadata={"help": "Answer the questions of the test split."})
    dry_run: bool = field(
        default=False, metadata={"help": "Print settings, data report, three windows, sizes; train nothing."}
    )
    output_dir: str | None = field(
        default="outputs/run", metadata={"help": "Folder that everything of the run is written to."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Start anew in a folder that holds a run: it is deleted first."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "Go on from this checkpoint; without a value, from the newest that is whole.",
            "nargs": "?",
            "const": NEWEST,
        },
    )
    eval_before_training: bool = field(
        default=False, metadata={"help": "Also score the reader before its first step."}
    )
    bootstrap_samples: int = field(
        default=1000, metadata={"help": "Resamples behind the final scores' confidence intervals; 0: none."}
    )
    null_score_diff_threshold: float | None = field(
        default=None,
        metadata={
            "help": "Answer `the passage does not tell` where null score - best score (logits) exceeds this. "
            "Without it: the threshold saved with the reader, else the one fitted on the evaluated questions."
        },
    )
    fit_calibration: bool = field(
        default=False,
        metadata={
            "help": "Fit a finished reader's no-answer threshold and temperatures on the questions that "
            "--do_eval scores, and save them as calibration.json. Without it: those saved with the reader."
        },
    )
    show_predictions: int = field(
        default=0, metadata={"help": "Print this many answered questions at the end."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of the new head, dropout and the windows' order."})
    precision: Literal["auto", "fp32", "bf16", "fp16"] = field(
        default="auto",
        metadata={
            "help": "auto: bf16 on a GPU that computes in it, else fp32. A CPU with AVX512-BF16 or AMX is "
            "faster in bf16 too, but has to be asked for it."
        },
    )
    use_cpu: bool = field(default=False, metadata={"help": "Run on the CPU also where there is a GPU."})
    # HfArgumentParser takes the second member of the union for the type of a word.
    report_to: None | str | list[str] = field(  # noqa: RUF036
        default="none",
        metadata={"help": "Trackers beside the run's own record: wandb, tensorboard, ... or none."},
    )


@dataclass(frozen=True)
class DataArguments:
    """Where questions come from and how strictly they are read."""

    _argument_group_name: ClassVar[str] = "data"

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "Hub data set (squad, squad_v2, ...) or `sample`, the questions in the box."},
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of the hub data set."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the hub data set."}
    )
    train_file: str | None = field(
        default=None, metadata={"help": "Questions to train on, in any known form: it is detected."}
    )
    validation_file: str | None = field(default=None, metadata={"help": "Questions to evaluate on."})
    test_file: str | None = field(default=None, metadata={"help": "Questions to predict."})
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder where relative files are looked for that are not in the current one; without it, "
            f"the one that the environment variable {DATA_DIR_VARIABLE} names."
        },
    )
    on_bad_record: Literal["fail", "drop", "repair"] = field(
        default="fail",
        metadata={"help": "What a record that cannot be right leads to; all are counted and listed."},
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on this many questions at most (questions, not windows)."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on this many questions at most."}
    )
    max_predict_samples: int | None = field(
        default=None, metadata={"help": "Predict this many questions at most."}
    )
    sample_seed: int | None = field(
        default=None,
        metadata={"help": "Draw those questions at random with this seed; without it, the first ones."},
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Where Arrow tables are kept between runs."}
    )
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "Processes that build windows."}
    )

    def __post_init__(self) -> None:
        cuts = ("max_train_samples", "max_eval_samples", "max_predict_samples")
        for name in (*cuts, "preprocessing_num_workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: {value} is out of range; give 1 or more, or leave it out")

    def source(self, split: Split) -> str | None:
        """File or data set of a split; None where nothing was named for it.

        A relative file that is not in the current folder is looked for in `data_dir`. Raises InputError where
        it is in neither.
        """
        file = self._file(split)
        return self.dataset_name if file is None else self._located(file, f"{split}_file")

    def named(self, split: Split) -> str | None:
        """The same in the user's own words, wherever it lies."""
        return self._file(split) or self.dataset_name

    def _file(self, split: Split) -> str | None:
        return {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}[split]

    def _located(self, named: str, setting: str) -> str:
        folder = self.data_dir or os.environ.get(DATA_DIR_VARIABLE)
        path = os.path.expanduser(named)
        if not folder or os.path.isabs(path) or os.path.exists(path) or "://" in named:
            return path
        beside = os.path.join(os.path.expanduser(folder), path)
        if os.path.exists(beside):
            return beside
        raise InputError(
            f"{setting}: {named} is neither in the current folder ({Path.cwd()}) nor in {folder}, which "
            f"{'data_dir' if self.data_dir else DATA_DIR_VARIABLE} names; check the path"
        )

    def max_samples(self, split: Split) -> int | None:
        """How many questions of a split are used at most."""
        return {
            "train": self.max_train_samples,
            "validation": self.max_eval_samples,
            "test": self.max_predict_samples,
        }[split]


@dataclass
class OptimizationSettings:
    """What trains, on which batches, at which rate."""

    _argument_group_name: ClassVar[str] = "training"

    strategy: str = field(
        default="full", metadata={"help": "What of the reader trains.", "choices": tuple(STRATEGIES)}
    )
    loss: Literal["passage", "bert"] = field(
        default="passage",
        metadata={
            "help": "passage: softmax over [CLS] and the passage, the same in any batch. bert: over the "
            "padded batch (Devlin et al. 2019's code), for replication."
        },
    )
    batching: Literal["grouped", "packed", "padded", "sorted"] = field(
        default="grouped",
        metadata={
            "help": "grouped: windows of like length share a batch, drawn anew each epoch. packed: random "
            "batches without padding, in training and evaluation. padded: the same random batches, padded to "
            "their longest window, as all but packed ones are on a GPU. sorted: fixed batches by length, in "
            "shuffled order (SpanBERT's code)."
        },
    )
    negative_share: float = field(
        default=1.0,
        metadata={
            "help": "Share of the windows without the answer that train, for questions that have one: 0 to 1."
        },
    )
    num_train_epochs: float = field(default=3.0, metadata={"help": "Passes over the training windows."})
    max_steps: int = field(
        default=-1, metadata={"help": "Optimiser steps, where positive: instead of epochs."}
    )
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Windows in a training batch."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches in an optimiser step."})
    learning_rate: float = field(
        default=5e-5, metadata={"help": "Peak learning rate (Devlin et al. 2019, A.3: 2e-5 to 5e-5)."}
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the span head; without it, --learning_rate."}
    )
    layerwise_lr_decay: float = field(
        default=1.0,
        metadata={
            "help": "Learning rate of each layer as a multiple of the one above it, above 0 to 1 (Howard and "
            "Ruder 2018, section 3.2)."
        },
    )
    warmup_steps: float = field(
        default=0, metadata={"help": "Steps of rising learning rate; below 1: as a share of all steps."}
    )
    weight_decay: float = field(
        default=0.0, metadata={"help": "Weight decay of all but biases and LayerNorms."}
    )
    label_smoothing_factor: float = field(
        default=0.0,
        metadata={"help": "Share of the target spread over the softmax's positions: 0 to below 1."},
    )
    max_grad_norm: float = field(
        default=1.0, metadata={"help": "Gradients are clipped to this norm; 0: never."}
    )


@dataclass
class MonitoringSettings:
    """When a run in training is scored, saved and stopped."""

    _argument_group_name: ClassVar[str] = "while it trains"

    eval_strategy: str = field(
        default="no", metadata={"help": "When the validation split is scored.", "choices": _WHEN}
    )
    eval_steps: float | None = field(
        default=None, metadata={"help": "Steps between evaluations; below 1: a share of all steps."}
    )
    per_device_eval_batch_size: int = field(
        default=8,
        metadata={
            "help": "Windows of the longest length in an evaluation batch; shorter ones come more at a time, "
            "with as many tokens together."
        },
    )
    save_strategy: str = field(
        default="steps", metadata={"help": "When a checkpoint is written.", "choices": (*_WHEN, "best")}
    )
    save_steps: float = field(
        default=500, metadata={"help": "Steps between checkpoints; below 1: a share of all steps."}
    )
    save_total_limit: int | None = field(
        default=None, metadata={"help": "Checkpoints that are kept; the best one always is."}
    )
    load_best_model_at_end: bool = field(
        default=False, metadata={"help": "Finish with the best checkpoint's weights instead of the last."}
    )
    metric_for_best_model: str | None = field(
        default=None, metadata={"help": "What best means: any metric of an evaluation; without it, f1."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many evaluations without a better --metric_for_best_model."},
    )
    logging_steps: float = field(
        default=500, metadata={"help": "Steps between logged losses; below 1: a share of all steps."}
    )

"""Values and pairs of the training settings that cannot be, and what is made of those that can."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from settings_words import TRAIN, refused, train
from transformers import TrainingArguments

from qa.decoding import DecodingSettings
from qa.errors import InputError
from qa.models import ModelArguments
from qa.run_settings import DataArguments, MonitoringSettings, OptimizationSettings, RunSettings
from qa.strategies import STRATEGIES
from qa.training_arguments import QATrainingArguments, check_interval
from qa.windows import WindowSettings

TRAINING_GROUPS = (RunSettings, OptimizationSettings, MonitoringSettings)
pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--learning_rat 3",
            "learning_rat: no such setting (on the command line); did you mean learning_rate",
        ),
        ("--learning_rate abc", "learning_rate: 'abc' is not a number"),
        ("--learning-rate=abc", "learning_rate: 'abc' is not a number"),
        ("--learning_rate nan", "learning_rate: 'nan' is not a number"),
        ("--learning_rate", "learning_rate: expected one argument"),
        ("--max_steps 1.5", "max_steps: '1.5' is not a whole number"),
        ("--do_eval maybe", "do_eval: 'maybe' is not true or false"),
        ("--eval_strategy epochs", "eval_strategy: epochs: no such choice; did you mean epoch?"),
        (
            "--save_strategy sometimes",
            "save_strategy: sometimes: no such choice; there is best, epoch, no, steps",
        ),
        ("--lr_scheduler_type linea", "lr_scheduler_type: linea: no such choice; did you mean linear?"),
        ("--optim adamw_troch", "optim: adamw_troch: no such choice; did you mean adamw_torch"),
        ("--on_bad_record skip", "on_bad_record: skip: no such choice; there is drop, fail, repair"),
        ("--precision fp61", "precision: fp61: no such choice; did you mean fp16"),
        ("--strategy lora_", "strategy: lora_: no such choice; "),
        ('--lr_scheduler_kwargs {"a":', "lr_scheduler_kwargs: '{\"a\":' is not JSON (Expecting value"),
        (
            "--trained_layers 2",
            "trained_layers: a setting of strategy top_layers (on the command line), but this run's is full",
        ),
        ("--trained-layers=2", "trained_layers: a setting of strategy top_layers"),
        ("--strategy top_layers --trained_layers -1", "trained_layers: -1 is out of range; give 0 or more"),
        (
            "--seed 1 quick.yaml",
            "quick.yaml: this word belongs to no setting; settings files come after --config",
        ),
        ("--config", "config: expected at least one argument"),
        (
            "--warmup_ratio 0.1",
            "warmup_ratio: no such setting (on the command line); here it is warmup_steps",
        ),
        (
            "--evaluation_strategy epoch",
            "evaluation_strategy: no such setting (on the command line); did you mean eval_",
        ),
        ("--version_2_with_negative", "version_2_with_negative: no such setting"),
        (
            "--negative_share 1.5",
            "negative_share: 1.5 is out of range; give a number at least 0 and at most 1",
        ),
        (
            "--layerwise_lr_decay 0",
            "layerwise_lr_decay: 0 is out of range; give a number above 0 and at most 1",
        ),
        (
            "--label_smoothing_factor 1",
            "label_smoothing_factor: 1 is out of range; give a number at least 0 and below 1",
        ),
        ("--learning_rate -1", "learning_rate: -1 is out of range; give a number at least 0"),
        ("--num_train_epochs 0", "num_train_epochs: 0 is out of range; give a number above 0"),
        (
            "--per_device_train_batch_size 0",
            "per_device_train_batch_size: 0 is out of range; give a number at least 1",
        ),
        ("--early_stopping_patience 0", "early_stopping_patience: 0 is out of range"),
        ("--null_score_diff_threshold nan", "null_score_diff_threshold: 'nan' is not a number"),
        ("--dropout 1", "dropout: 1.0 is no probability"),
        ("--max_train_samples 0", "max_train_samples: 0 is out of range; give 1 or more, or leave it out"),
        ("--n_best_size 0", "n_best_size"),
        ("--doc_stride -1", "doc_stride"),
        (
            "--load_best_model_at_end",
            "load_best_model_at_end: needs evaluations while it trains; add --eval_strategy",
        ),
        (
            "--load_best_model_at_end --eval_strategy epoch",
            "load_best_model_at_end: needs a checkpoint at every evaluation, but eval_strategy is epoch and "
            "save_strategy steps; make them equal",
        ),
        ("--early_stopping_patience 2", "early_stopping_patience: needs evaluations while it trains"),
        (
            "--early_stopping_patience 2 --eval_strategy epoch",
            "early_stopping_patience: keeps the last reader, not the best; add --load_best_model_at_end",
        ),
        ("--save_strategy best", "save_strategy best: needs evaluations while it trains"),
        (
            "--resume_from_checkpoint --overwrite_output_dir",
            "overwrite_output_dir: deletes what resume_from_checkpoint",
        ),
        ("--resume_from_checkpoint --save_only_model", "save_only_model: such checkpoints cannot be resumed"),
        ("--do_train no --do_eval --resume_from_checkpoint", "resume_from_checkpoint: nothing is trained"),
        (
            "--label_smoothing_factor 0.1 --gold all",
            "label_smoothing_factor: smooths a single gold, but gold is all",
        ),
        ("--precision bf16 --bf16", "precision: give either --precision or --bf16 / --fp16, not both"),
        ("--precision fp16", "fp16: needs a GPU; use --precision fp32 on a CPU"),
        ("--remove_unused_columns", "remove_unused_columns: cannot be changed here"),
        ("--logging_nan_inf_filter", "logging_nan_inf_filter: cannot be changed here"),
        (
            "--train_sampling_strategy group_by_length",
            "train_sampling_strategy: cannot be changed here (use --batching",
        ),
        ("--dataloader_drop_last", "dataloader_drop_last: cannot be changed here"),
        ("--include_for_metrics inputs", "include_for_metrics: cannot be changed here"),
        # Refused by transformers, in its own words.
        ("--save_steps 2.5", "--save_steps must be an integer"),
        ("--torch_empty_cache_steps 0", "`torch_empty_cache_steps` must be an integer bigger than 0"),
        ("--lr_scheduler_type reduce_lr_on_plateau", "requires an eval strategy"),
        ("--dataloader_prefetch_factor 2", "--dataloader_prefetch_factor can only be set"),
        ("--accelerator_config missing.json", "missing.json"),
        ('--accelerator_config {"bad":1}', "unexpected keyword argument 'bad'"),
        (
            "--load_best_model_at_end --eval_strategy steps --eval_steps 3 --save_steps 4",
            "saving steps to be a round multiple",
        ),
    ],
)
def test_refused_on_the_command_line(words: str, message: str) -> None:
    assert message in refused(*TRAIN, *words.split())


@pytest.mark.parametrize(
    ("value", "ends", "inside"),
    [
        (0, "[]", True),
        (0, "(]", False),
        (1, "[]", True),
        (1, "[)", False),
        (0.5, "()", True),
        (-1, "[]", False),
    ],
)
def test_check_interval(value: float, ends: str, inside: bool) -> None:
    if inside:
        check_interval("x", value, 0, 1, ends)
    else:
        with pytest.raises(InputError, match=r"x: .* is out of range"):
            check_interval("x", value, 0, 1, ends)


def test_best_means_f1_unless_told() -> None:
    best = ("--eval_strategy", "epoch", "--save_strategy", "epoch", "--load_best_model_at_end")
    assert train().training.metric_for_best_model is None
    assert (train(*best).training.metric_for_best_model, train(*best).training.greater_is_better) == (
        "f1",
        True,
    )
    told = train(*best, "--metric_for_best_model", "loss")
    assert (told.training.metric_for_best_model, told.training.greater_is_better) == ("loss", False)
    assert train("--eval_strategy", "epoch", "--save_strategy", "best").training.metric_for_best_model == "f1"


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (train().training.bf16, train().training.mixed_precision) == (False, "no")
    assert train("--precision", "bf16").training.mixed_precision == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert train().training.mixed_precision == "bf16"
    assert train("--precision", "fp32").training.mixed_precision == "no"


def test_every_setting_of_ours_says_what_it_is() -> None:
    groups = [
        ModelArguments,
        DataArguments,
        WindowSettings,
        DecodingSettings,
        *TRAINING_GROUPS,
        *STRATEGIES.values(),
    ]
    for group in groups:
        assert group._argument_group_name  # type: ignore[attr-defined]
        for f in dataclasses.fields(group):  # type: ignore[arg-type]
            assert f.metadata["help"].endswith("."), f"{group.__name__}.{f.name}"
    names = [f.name for group in groups[:7] for f in dataclasses.fields(group)]  # type: ignore[arg-type]
    assert len(names) == len(set(names))


def test_defaults_are_those_of_transformers() -> None:
    theirs = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
    ours = {f.name: f.default for group in TRAINING_GROUPS for f in dataclasses.fields(group)}
    changed = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert changed == {"output_dir"}
    # Both sides name most of what matters: a renamed setting of transformers would leave ours without effect.
    own = {
        "fit_calibration",
        "dry_run",
        "overwrite_output_dir",
        "eval_before_training",
        "bootstrap_samples",
        "null_score_diff_threshold",
    }
    own |= {
        "show_predictions",
        "precision",
        "strategy",
        "loss",
        "batching",
        "negative_share",
        "head_learning_rate",
    }
    own |= {"layerwise_lr_decay", "early_stopping_patience"}
    assert ours.keys() - theirs.keys() == own


def test_without_the_command_line(empty_folder: Path) -> None:
    """Trainer asks nobody whether to train, so `do_train` changes nothing in the arguments themselves."""
    told = QATrainingArguments(output_dir=str(empty_folder), use_cpu=True, eval_strategy="epoch", loss="bert")
    assert (told.eval_strategy, told.do_eval, told.loss) == ("epoch", False, "bert")
    assert told.remove_unused_columns is False
    assert told.logging_nan_inf_filter is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU does")
@pytest.mark.parametrize("asked", [{"precision": "bf16"}, {"bf16": True}])
def test_bf16_that_was_asked_for_runs_on_a_cpu(asked: dict[str, Any]) -> None:
    args = QATrainingArguments(output_dir="unused", **asked)
    assert args.bf16
    assert args.device.type == "cpu"
    assert not QATrainingArguments(output_dir="unused").bf16, "auto never takes it on a CPU"

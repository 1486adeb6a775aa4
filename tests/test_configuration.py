"""Text to values: what a settings file may hold, how its faults are told, and what the help shows."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pytest
from settings_words import TRAIN, refused, train

from qa.arguments import parse_settings
from qa.configuration import SettingsParser, read_yaml
from qa.strategies import STRATEGIES
from qa.training_arguments import QATrainingArguments
from qa.windows import WindowSettings

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("empty_folder")


def test_values_of_files_are_read_as_if_they_were_typed(settings_file: Callable[..., str]) -> None:
    told = train(
        "--config",
        settings_file(
            """
            learning_rate: 3e-5           # text to YAML 1.1, which wants 3.0e-5
            num_train_epochs: 2
            eval_steps: 0.25
            eval_strategy: no             # false to YAML 1.1
            do_eval: yes
            max_context: TRUE
            model_revision: 00123         # octal to YAML 1.1
            head_learning_rate: null
            dropout: ~
            dataset_config_name:
            report_to: [tensorboard]
            lr_scheduler_type: cosine_with_min_lr
            lr_scheduler_kwargs: {min_lr: 1e-6, num_cycles: 0.5, name: cosine}
            optim: adamw_torch
            warmup_steps: 0.1
            """
        ),
    )
    training = told.training
    assert training.learning_rate == 3e-5
    assert (training.num_train_epochs, training.eval_steps, training.warmup_steps) == (2.0, 0.25, 0.1)
    assert training.eval_strategy == "no"
    assert (training.do_eval, told.decoding.max_context) == (True, True)
    assert told.model.model_revision == "00123"
    assert (training.head_learning_rate, told.model.dropout, told.data.dataset_config_name) == (
        None,
        None,
        None,
    )
    assert training.report_to == ["tensorboard"]
    assert training.lr_scheduler_kwargs == {"min_lr": 1e-6, "num_cycles": 0.5, "name": "cosine"}
    assert training.lr_scheduler_type == "cosine_with_min_lr"
    assert training.optim == "adamw_torch"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seeed: 1", "seeed: no such setting (in config.yaml); did you mean seed?"),
        ("config: [b.yaml]", "config: no such setting (in config.yaml)"),
        ("help: true", "help: no such setting (in config.yaml)"),
        ("learning_rate: abc", "config.yaml: learning_rate: 'abc' is not a number"),
        ("max_steps: 2.5", "config.yaml: max_steps: '2.5' is not a whole number"),
        ("max_steps: true", "config.yaml: max_steps: 'true' is not a whole number"),
        ("do_eval: 2", "config.yaml: do_eval: '2' is not true or false"),
        ("eval_strategy: epochs", "config.yaml: eval_strategy: epochs: no such choice; did you mean epoch?"),
        ("gold: last", "config.yaml: gold: last: no such choice; there is all, first, random"),
        ("strategy: heed", "strategy: heed: no such choice; did you mean head?"),
        ("trained_layers: 2", "trained_layers: a setting of strategy top_layers (in config.yaml), but this"),
        ("learning_rate: [1, 2]", "config.yaml: learning_rate: takes one value, not a list"),
        ("learning_rate: {a: 1}", "config.yaml: learning_rate: takes one value, not a mapping"),
        ("learning_rate:", "config.yaml: learning_rate: has no value; give one or take the line out"),
        ("learning_rate: null", "config.yaml: learning_rate: has no value"),
        ("report_to: [[a]]", "config.yaml: report_to: ['a']: a list holds single values only"),
        ("seed: 1\nseed: 2", "config.yaml: not a settings file: line 2: key 'seed' is given twice"),
        (
            "lr_scheduler_kwargs:\n  a: 1\n  a: 2",
            "config.yaml: not a settings file: line 3: key 'a' is given twice",
        ),
        ("? [a]\n: 1", "config.yaml: not a settings file: line 1: a key that is no text"),
        ("a: [", "config.yaml: not a settings file: line 1"),
        ("- a", "config.yaml: holds no settings; write `key: value` lines"),
        ("just text", "config.yaml: holds no settings"),
        ("seed: !!python/object:os.system 1", "config.yaml: not a settings file"),
    ],
)
def test_refused_in_a_file(content: str, message: str, settings_file: Callable[..., str]) -> None:
    if content.startswith("seed: !!"):
        # Scalars are text whatever their tag: nothing is ever built from one.
        assert train("--config", settings_file(content)).training.seed == 1
    else:
        assert message in refused(*TRAIN, "--config", settings_file(content))


def test_files_that_cannot_be_read(settings_file: Callable[..., str], tmp_path: Path) -> None:
    settings_file("seed: 1", "squad1.yaml")
    assert refused("--config", "squad2.yaml") == (
        "squad2.yaml: there is no such settings file; did you mean squad1.yaml?"
    )
    assert (
        refused("--config", "no/squad2.yaml")
        == "no/squad2.yaml: there is no such settings file; check the path"
    )
    assert refused("--config", ".") == ".: cannot be read (Is a directory); name a YAML file"
    (tmp_path / "latin.yaml").write_bytes(b"seed: \xff")
    assert refused("--config", "latin.yaml") == "latin.yaml: is not UTF-8 text; name a YAML file"
    assert read_yaml(Path(settings_file("", "empty.yaml"))) == {}
    assert read_yaml(Path(settings_file("\ufeffseed: 1", "mark.yaml"))) == {"seed": "1"}


def test_parser_without_groups_reads_words() -> None:
    parser = SettingsParser([WindowSettings])
    assert parser.names() == set(get_type_hints(WindowSettings)) - {"_argument_group_name"}
    assert parser.parse(["--max_seq_length", "5"]).max_seq_length == 5


def help_text(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        parse_settings(list(words))
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_is_grouped(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text("--help", capsys=capsys)
    titles = [line[:-1] for line in text.splitlines() if line and line[0] not in " -" and line.endswith(":")]
    ours = ["options", "run", "model", "data", "windows", "decoding", "training", "while it trains"]
    strategies = [f"strategy {name}" for name, kind in STRATEGIES.items() if dataclasses.fields(kind)]
    assert [title for title in titles if title in (*ours, *strategies)] == [*ours, *strategies]
    assert "--learning_rate NUMBER" in text
    assert "--resume_from_checkpoint [TEXT]" in text
    assert "--gold {first,all,random}" in text
    assert "--max-seq-length" not in text
    assert "--torch_compile" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_help_of_one_strategy_and_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--trained_layers" not in help_text("--help", "--strategy", "head", capsys=capsys)
    assert "--trained_layers" in help_text("-h", "--strategy", "top_layers", capsys=capsys)
    everything = help_text("--help_all", capsys=capsys)
    assert everything.index("strategy top_layers:") < everything.index("transformers.TrainingArguments:")
    flags = {word.strip(",") for word in everything.split() if word.startswith("--")}
    hidden = {
        "remove_unused_columns",
        "logging_nan_inf_filter",
        "train_sampling_strategy",
        "dataloader_drop_last",
    }
    hidden |= {"prediction_loss_only", "batch_eval_metrics", "include_for_metrics", "eval_do_concat_batches"}
    hidden |= {"eval_on_start", "label_names"}
    expected = {f.name for f in dataclasses.fields(QATrainingArguments) if f.init} - hidden
    assert {f"--{name}" for name in expected} <= flags
    assert not {f"--{name}" for name in hidden} & flags


def test_help_does_not_wait_for_torch() -> None:
    code = """
import sys
from qa.arguments import parse_settings
try:
    parse_settings(["--help"])
except SystemExit:
    heavy = {"torch", "accelerate", "datasets", "peft", "sklearn", "scipy", "pandas", "pyarrow", "wandb"}
    print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.splitlines()[-1] == "[]"

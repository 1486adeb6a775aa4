"""What wins among files, command line and saved settings, and what a run lacks or must not be given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from settings_words import TRAIN, refused, train

from qa.adapters import SAVED_SETTINGS
from qa.arguments import parse_settings
from qa.decoding import DecodingSettings
from qa.models import DEFAULT_ENCODER, ModelArguments
from qa.run_settings import DATA_DIR_VARIABLE, NEWEST, DataArguments
from qa.strategies import STRATEGIES, Full, TopLayers
from qa.windows import WindowSettings

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("empty_folder")


def test_a_run_needs_no_more_than_three_flags() -> None:
    settings = parse_settings(["--do_train", "--do_eval", "--dataset_name", "sample"])
    assert settings.model == ModelArguments(model_name_or_path=DEFAULT_ENCODER)
    assert settings.data == DataArguments(dataset_name="sample")
    assert settings.windows == WindowSettings()
    assert settings.decoding == DecodingSettings()
    assert settings.strategy == Full()
    assert settings.training.output_dir == "outputs/run"
    assert settings.training.report_to == []
    assert not settings.training.fp16
    assert settings.needed_splits() == {"train": "do_train", "validation": "do_eval"}


def test_later_files_win_and_the_command_line_over_all(settings_file: Callable[..., str]) -> None:
    first = settings_file("learning_rate: 1e-5\nseed: 1\nmax_seq_length: 128\nn_best_size: 5", "first.yaml")
    second = settings_file("learning_rate: 2e-5\nseed: 2", "second.yaml")
    told = train("--config", first, second, "--seed", "3")
    assert (told.training.learning_rate, told.training.seed) == (2e-5, 3)
    assert (told.windows.max_seq_length, told.decoding.n_best_size) == (128, 5)
    assert train("--config", second, first).training.learning_rate == 1e-5
    # Given twice, --config goes on where it was.
    assert train("--config", second, "--config", first).training.learning_rate == 1e-5
    assert train("--seed", "3", "--config", first).training.seed == 3


def test_command_line_forms(settings_file: Callable[..., str]) -> None:
    told = train(
        "--do-eval", "true", "--learning-rate=2e-5", "--do_predict", "no", "--lr_scheduler_kwargs", '{"a": 1}'
    )
    assert (told.training.do_eval, told.training.do_predict, told.training.learning_rate) == (
        True,
        False,
        2e-5,
    )
    assert told.training.lr_scheduler_kwargs == {"a": 1}
    assert not train("--no_dataloader_pin_memory").training.dataloader_pin_memory
    # A file's value is taken back by null.
    file = settings_file("head_learning_rate: 1e-3\nattn_implementation: eager")
    told = train("--config", file, "--head_learning_rate", "null", "--attn_implementation", "null")
    assert (told.training.head_learning_rate, told.model.attn_implementation) == (None, None)
    assert train("--null_score_diff_threshold", "-1.5").training.null_score_diff_threshold == -1.5


def test_resume_with_and_without_a_value() -> None:
    assert train().training.resume_from_checkpoint is None
    assert train("--resume_from_checkpoint").training.resume_from_checkpoint == NEWEST
    assert train("--resume_from_checkpoint", "--seed", "1").training.resume_from_checkpoint == NEWEST
    assert (
        train("--resume_from_checkpoint", "out/checkpoint-3").training.resume_from_checkpoint
        == "out/checkpoint-3"
    )


def test_strategy_is_built_with_its_own_settings(settings_file: Callable[..., str]) -> None:
    file = settings_file("strategy: top_layers\ntrained_layers: 2")
    assert train("--config", file).strategy == TopLayers(trained_layers=2)
    assert train("--config", file, "--train_embeddings").strategy == TopLayers(2, train_embeddings=True)
    assert (
        train("--config", settings_file("seed: 1", "seed.yaml"), "--strategy=head").strategy
        == STRATEGIES["head"]()
    )


def test_evaluation_while_training_does_not_ask_for_the_final_one() -> None:
    told = train("--eval_strategy", "epoch")
    assert (told.training.do_eval, told.training.eval_strategy) == (False, "epoch")
    assert told.needed_splits() == {"train": "do_train", "validation": "eval_strategy"}


def test_files_of_an_experiment_also_evaluate_its_reader(settings_file: Callable[..., str]) -> None:
    file = settings_file(
        "do_train: true\neval_strategy: epoch\nsave_strategy: epoch\nload_best_model_at_end: true\n"
        "early_stopping_patience: 2\neval_before_training: true\nmodel_name_or_path: some/encoder"
    )
    told = parse_settings(
        ["--use_cpu", "--config", file, "--do_train", "false", "--do_predict", "--test_file", "q.json"]
    )
    assert told.needed_splits() == {"test": "do_predict"}
    assert (told.training.eval_strategy, told.training.load_best_model_at_end) == ("no", False)
    assert (told.training.early_stopping_patience, told.training.do_eval) == (None, False)


@pytest.fixture
def finished_runs(tmp_path: Path) -> tuple[str, str]:
    """Two finished readers, in `old` and `new`, with windows of 64 and 96 tokens."""
    for name, length in (("old", 64), ("new", 96)):
        (tmp_path / name).mkdir()
        saved = {
            **dataclasses.asdict(WindowSettings(max_seq_length=length)),
            "n_best_size": 7,
            "loss": "bert",
        }
        (tmp_path / name / SAVED_SETTINGS).write_text(yaml.safe_dump(saved), encoding="utf-8")
    return "old", "new"


def length_and_loss(*words: str) -> tuple[int, str]:
    told = parse_settings(["--use_cpu", "--dataset_name", "sample", *words])
    return told.windows.max_seq_length, told.training.loss


def test_a_finished_reader_is_asked_with_its_own_settings(
    finished_runs: tuple[str, str], settings_file: Callable[..., str]
) -> None:
    assert length_and_loss("--do_eval", "--output_dir", "old") == (64, "bert")
    assert length_and_loss("--do_eval", "--output_dir", "x", "--model_name_or_path", "new") == (96, "bert")
    assert length_and_loss("--do_eval", "--output_dir", "old", "--model_name_or_path", "new") == (96, "bert")
    told = (
        "--do_eval",
        "--output_dir",
        "old",
        "--config",
        settings_file("max_seq_length: 200\ndo_train: false"),
    )
    assert length_and_loss(*told) == (200, "bert")
    assert length_and_loss("--do_eval", "--output_dir", "old", "--loss", "passage") == (64, "passage")
    settings = parse_settings(
        ["--use_cpu", "--dataset_name", "sample", "--do_predict", "--output_dir", "old"]
    )
    assert settings.model.model_name_or_path == "old"
    assert settings.decoding.n_best_size == 7


def test_a_new_training_does_not_inherit_from_the_folder_it_writes_to(
    finished_runs: tuple[str, str], settings_file: Callable[..., str]
) -> None:
    assert length_and_loss("--do_train", "--output_dir", "old") == (384, "passage")
    assert length_and_loss("--output_dir", "old", "--config", settings_file("do_train: true")) == (
        384,
        "passage",
    )
    assert length_and_loss("--do_train", "--output_dir", "old", "--model_name_or_path", "new") == (96, "bert")
    settings = parse_settings([*TRAIN, "--output_dir", "old"])
    assert settings.model.model_name_or_path == DEFAULT_ENCODER


def test_faults_of_a_saved_file_name_it(finished_runs: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "old" / SAVED_SETTINGS).write_text("max_seq_lenght: 3")
    message = refused("--do_eval", "--dataset_name", "sample", "--output_dir", "old")
    assert (
        message == f"max_seq_lenght: no such setting (in old/{SAVED_SETTINGS}); did you mean max_seq_length?"
    )


def test_reader_settings_survive_their_file(tmp_path: Path) -> None:
    words = (
        "--max_seq_length",
        "128",
        "--gold",
        "random",
        "--max_context",
        "--loss",
        "bert",
        "--duplicates",
        "keep",
    )
    told = train(*words)
    saved = told.reader_settings()
    assert set(saved) == {
        f.name for kind in (WindowSettings, DecodingSettings) for f in dataclasses.fields(kind)
    } | {"loss"}
    (tmp_path / "outputs/run").mkdir(parents=True)
    (tmp_path / "outputs/run" / SAVED_SETTINGS).write_text(yaml.safe_dump(saved))
    again = parse_settings(["--do_eval", "--dataset_name", "sample", "--use_cpu"])
    assert (again.windows, again.decoding) == (told.windows, told.decoding)
    assert again.training.loss == "bert"


def test_record_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.json").touch()
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "data"))
    told = parse_settings(
        [
            "--use_cpu",
            "--do_train",
            "--train_file",
            "train.json",
            "--strategy",
            "top_layers",
            "--hub_token",
            "secret",
        ]
    )
    record = told.to_dict()
    assert told.data.source("train") == str(tmp_path / "data/train.json")
    assert (record["train_file"], record["data_dir"]) == ("train.json", None)
    assert (record["strategy"], record["trained_layers"], record["eval_strategy"]) == ("top_layers", 3, "no")
    assert "secret" not in str(record)
    assert str(tmp_path) not in str(record)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "do_train, do_eval, do_predict: none is set, so nothing would be done; add one of them"),
        ("--do_train", "do_train: no questions named; add --train_file FILE or --dataset_name NAME"),
        (
            "--do_predict --dataset_name sample --fit_calibration",
            "fit_calibration: fits on the questions that are scored; add --do_eval and --validation_file",
        ),
        ("--do_predict --output_dir .", "do_predict: no questions named; add --test_file FILE"),
        (
            "--do_train --train_file a --eval_strategy epoch",
            "eval_strategy: no questions named; add --validation_file",
        ),
        ("--do_train --train_file a --eval_before_training", "eval_before_training: no questions named"),
        (
            "--do_eval --dataset_name sample",
            "model_name_or_path: nothing trains and outputs/run holds no reader; name one, or add --do_train",
        ),
    ],
)
def test_refused_for_what_is_lacking(words: str, message: str) -> None:
    assert message in refused("--use_cpu", *words.split())


def test_overwriting_never_deletes_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "out/reader").mkdir(parents=True)
    (tmp_path / "out/train.json").touch()
    overwrite = ("--use_cpu", "--do_train", "--overwrite_output_dir", "--output_dir")
    named = ("--dataset_name", "sample")
    message = "overwrite_output_dir: it would delete out, which holds the"
    assert refused(*overwrite, "out", *named, "--model_name_or_path", "out/reader").startswith(
        f"{message} model_name_or_path (out/reader)"
    )
    assert refused(*overwrite, "out", "--train_file", "out/train.json").startswith(f"{message} train_file")
    roundabout = str(tmp_path / "other" / ".." / "out" / "train.json")
    (tmp_path / "other").mkdir()
    assert refused(*overwrite, "out", "--train_file", roundabout).startswith(f"{message} train_file")
    assert "holds the current folder" in refused(*overwrite, ".", *named)
    assert "holds the current folder" in refused(*overwrite, str(tmp_path.parent), *named)
    assert (
        parse_settings(
            [*overwrite, "other", *named, "--model_name_or_path", "out/reader"]
        ).training.output_dir
        == "other"
    )


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "experiments/recipes").glob("*.yaml")), ids=lambda p: p.name
)
def test_recipes_are_understood(path: Path) -> None:
    assert parse_settings(["--use_cpu", "--config", str(path), "--dataset_name", "sample"]).training.do_train


@pytest.mark.parametrize(
    "strategy", sorted((REPOSITORY / "experiments/strategies").glob("*.yaml")), ids=lambda p: p.name
)
def test_experiments_are_sums_of_files(strategy: Path) -> None:
    files = [str(REPOSITORY / "experiments" / name) for name in ("base.yaml", "datasets/squad1.yaml")]
    told = parse_settings(["--use_cpu", "--config", *files, str(strategy)])
    name = {"p_tuning_v2": "prefix"}.get(strategy.stem, strategy.stem.split("-")[0])
    assert told.training.strategy == name
    assert told.data.dataset_name == "squad"

"""Whole runs of `run_qa.main` with adapters: resume, best checkpoint, what lies in the folders, going on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from settings_words import refused, train
from test_distributed import launch

import run_qa
from qa.adapters import SAVED_SETTINGS
from qa.arguments import parse_settings
from qa.configuration import read_yaml
from qa.errors import InputError
from qa.models import DEFAULT_ENCODER
from qa.results import RunRecord, read_record
from qa.strategies import STRATEGIES, Lora

EXPERIMENTS = Path(run_qa.__file__).parent / "experiments"
QUESTIONS = [
    *(
        "--dataset_name",
        "sample",
        "--max_train_samples",
        "5",
        "--max_eval_samples",
        "3",
        "--cache_dir",
        "cache",
    ),
    *("--use_cpu", "--bootstrap_samples", "0", "--disable_tqdm", "true", "--per_device_eval_batch_size", "3"),
]
WINDOWS = ["--max_seq_length", "64", "--doc_stride", "16", "--max_question_length", "24"]
TRAINING = [
    *("--do_train", "--do_eval", "--max_steps", "4", "--logging_steps", "1", "--learning_rate", "0.01"),
    *("--save_strategy", "steps", "--save_steps", "2", "--per_device_train_batch_size", "4", "--seed", "7"),
]
# The checkpoint of step 2, which is worse than that of step 4, counts as the best one.
WORST_IS_BEST = [
    *("--eval_strategy", "steps", "--eval_steps", "2", "--load_best_model_at_end"),
    *("--metric_for_best_model", "loss", "--greater_is_better", "true"),
]
STRATEGY_WORDS = {
    "lora": ["--strategy", "lora", "--lora_dropout", "0.1"],
    "dora": ["--strategy", "lora", "--dora", "--lora_targets", "all-linear"],
    "adalora": [
        "--strategy",
        "adalora",
        "--initial_rank",
        "4",
        "--target_rank",
        "2",
        "--allocation_interval",
        "1",
    ],
    "ia3": ["--strategy", "ia3"],
    "adapter": ["--strategy", "adapter", "--adapter_style", "houlsby"],
    "bitfit": ["--strategy", "bitfit"],
    "layernorm": ["--strategy", "layernorm"],
    "prompt": ["--strategy", "prompt"],
    "p_tuning": ["--strategy", "p_tuning", "--prompt_network", "lstm", "--prompt_network_dropout", "0.3"],
    "prefix": ["--strategy", "prefix"],
    "prefix-projection": ["--strategy", "prefix", "--prefix_projection"],
}
WITH_NETWORK = {"p_tuning", "prefix-projection"}
Run = Callable[..., RunRecord]


@pytest.fixture
def run(tiny_reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `run_qa.main` in an empty folder that holds the tiny reader under the name `tiny`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(tiny_reader)

    def go(name: str, *words: str) -> RunRecord:
        run_qa.main([*QUESTIONS, *words, "--output_dir", name])
        return read_record(Path(name) / ("run.json" if "--do_train" in words else "evaluation-run.json"))

    return go


def adapter(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "adapter_model.safetensors")


def test_all_strategies_with_adapters_run_here() -> None:
    whole = {"full", "head", "top_layers"}
    assert {words[1] for words in STRATEGY_WORDS.values()} | whole == set(STRATEGIES)


@pytest.mark.parametrize("name", STRATEGY_WORDS)
def test_resume_best_checkpoint_and_evaluation_from_the_folder(name: str, run: Run, tmp_path: Path) -> None:
    reloads = [] if name == "adalora" else WORST_IS_BEST
    words = [*TRAINING, *WINDOWS, *STRATEGY_WORDS[name], *reloads, "--model_name_or_path", "tiny"]
    whole = run("whole", *words)
    if reloads:
        first, last = (row["eval_loss"] for row in whole.training["evaluations"])
        assert first > last
        assert whole.scores["eval"].metrics["loss"] == whole.training["best_metric"] == first
        best, saved = adapter("whole/checkpoint-2"), adapter("whole")
        assert all(torch.equal(best[key], saved[key]) for key in best)
    else:
        # Two of four ranks are left on average; those given up are zeros.
        ranks = [tensor for key, tensor in adapter("whole").items() if "lora_E" in key]
        assert sum(int((tensor != 0).sum()) for tensor in ranks) == 2 * len(ranks) < sum(map(len, ranks))

    shutil.copytree("whole/checkpoint-2", "cut/checkpoint-2")
    resumed = run("cut", *words, "--resume_from_checkpoint")
    assert resumed.training["resumed_from"] == "checkpoint-2"
    assert resumed.training["loss_curve"] == whole.training["loss_curve"]
    one, other = adapter("whole/checkpoint-4"), adapter("cut/checkpoint-4")
    assert all(torch.equal(one[key], other[key]) for key in one)

    again = run("again", "--do_eval", "--model_name_or_path", "whole")
    assert again.scores["eval"].metrics["loss"] == pytest.approx(
        whole.scores["eval"].metrics["loss"], rel=1e-6
    )
    assert again.settings["max_seq_length"] == 64
    assert (again.model, again.strategy) == ("tiny", STRATEGY_WORDS[name][1])

    own = {"adapter_config.json", "adapter_model.safetensors", "README.md", "settings.yaml"}
    own |= {"prompt_encoder.safetensors"} if name in WITH_NETWORK else set()
    words_of_it = {"tokenizer.json", "tokenizer_config.json"}
    state = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "manifest.json"}
    state |= {"rank_allocation.safetensors"} if name == "adalora" else set()
    assert {path.name for path in Path("whole/checkpoint-2").iterdir()} == own | words_of_it | state
    run_files = {"run.json", "calibration.json", "data_report.json", ".qa-run"}
    assert {path.name for path in Path("whole").iterdir() if path.is_file()} == own | words_of_it | run_files
    for path in Path("whole").rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes(), path


def test_adapters_go_on_stand_beside_each_other_and_are_chosen(run: Run) -> None:
    short = [*TRAINING, *WINDOWS, "--max_steps", "2", "--save_steps", "2"]
    first = run("one", *short, "--strategy", "lora", "--lora_rank", "4", "--model_name_or_path", "tiny")
    # Windows, strategy and rank come with the adapter; its base is found by name.
    on = run("on", *TRAINING, "--max_steps", "2", "--adapter_name_or_path", "one", "--eval_before_training")
    assert (on.strategy, on.settings["lora_rank"], on.model) == ("lora", 4, "tiny")
    loss = first.scores["eval"].metrics["loss"]
    assert on.scores["before"].metrics["loss"] == pytest.approx(loss, rel=1e-6)
    assert on.scores["eval"].metrics["loss"] < loss
    second = run(
        "two", *TRAINING, "--adapter_name_or_path", "one", "--adapter_name", "two", "--lora_rank", "8"
    )
    assert (
        adapter("two")["base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"].shape[0]
        == 8
    )
    assert {path.name for path in Path("two").iterdir() if path.is_dir()} == {
        "checkpoint-2",
        "checkpoint-4",
        "eval",
    }
    both = ["--do_eval", "--adapter_name_or_path", "one", "two"]
    for chosen, expected in (([], first), (["--adapter_name", "two"], second)):
        found = run("both", *both, *chosen)
        assert found.scores["eval"].metrics["loss"] == pytest.approx(
            expected.scores["eval"].metrics["loss"], rel=1e-6
        )
    with pytest.raises(
        InputError, match="adapter_name: three: no such adapter, and nothing trains; there is one, two"
    ):
        run("both", *both, "--adapter_name", "three")
    resumed_words = [*TRAINING, "--adapter_name_or_path", "one", "--adapter_name", "two", "--lora_rank", "8"]
    shutil.copytree("two/checkpoint-2", "cut/checkpoint-2")
    resumed = run("cut", *resumed_words, "--resume_from_checkpoint")
    assert resumed.training["loss_curve"] == second.training["loss_curve"]


def saved_adapter(folder: Path, base: str = DEFAULT_ENCODER, **settings: Any) -> str:
    """The files that settings look at."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    lines = [f"{key}: {value}" for key, value in ({"strategy": "lora", "lora_rank": 4} | settings).items()]
    (folder / SAVED_SETTINGS).write_text("\n".join(lines))
    return str(folder)


@pytest.mark.usefixtures("empty_folder")
def test_an_adapters_folder_stands_for_base_strategy_and_settings(tmp_path: Path) -> None:
    place = saved_adapter(tmp_path / "outputs" / "run", max_seq_length=100)
    asked = ["--do_eval", "--use_cpu", "--dataset_name", "sample"]
    expected = Lora(lora_rank=4, adapter_name_or_path=[place])
    by_model = parse_settings([*asked, "--model_name_or_path", place])
    assert (by_model.strategy, by_model.model.model_name_or_path) == (expected, DEFAULT_ENCODER)
    assert (by_model.training.strategy, by_model.windows.max_seq_length) == ("lora", 100)
    assert parse_settings([*asked, "--adapter_name_or_path", place]).strategy == expected
    # Where nothing is named, it is the reader in the output folder: the default one, here.
    found = parse_settings(asked)
    assert found.strategy == Lora(lora_rank=4, adapter_name_or_path=["outputs/run"])
    assert train("--output_dir", "new").strategy == STRATEGIES["full"]()
    assert train("--model_name_or_path", place, "--output_dir", "new").strategy == expected
    beside = train("--adapter_name_or_path", place, "--adapter_name", "b", "--lora_rank", "8")
    assert beside.strategy == Lora(lora_rank=8, adapter_name_or_path=[place], adapter_name="b")
    assert beside.reader_settings()["model_name_or_path"] == DEFAULT_ENCODER
    assert not {"adapter_name", "adapter_name_or_path"} & set(beside.reader_settings())


@pytest.mark.usefixtures("empty_folder")
def test_what_adapters_cannot_be_together_with(tmp_path: Path) -> None:
    place, other = saved_adapter(tmp_path / "one"), saved_adapter(tmp_path / "two", strategy="bitfit")
    train_words = ["--do_train", "--use_cpu", "--dataset_name", "sample", "--output_dir", "new"]
    asked = ["--do_eval", "--use_cpu", "--dataset_name", "sample", "--output_dir", "new"]
    loads = ["--adapter_name_or_path", place]
    for strategy in ("full", "head", "top_layers"):
        assert "is an adapter of strategy lora" in refused(*train_words, "--strategy", strategy, *loads)
        message = refused(*train_words, "--strategy", strategy, "--adapter_name", "b")
        assert message.startswith("adapter_name: a setting of strategy lora or adalora or ia3")
        assert message.endswith(f"but this run's is {strategy}; add --strategy lora or take it out")
    assert "lora_rank: 8, but" in refused(*train_words, *loads, "--lora_rank", "8")
    assert "have not the same strategy (lora, bitfit)" in refused(*train_words, *loads, other)
    assert "holds no adapter" in refused(*train_words, "--adapter_name_or_path", "nowhere")
    assert f"is an adapter of {DEFAULT_ENCODER}" in refused(
        *train_words, *loads, "--model_name_or_path", "org/other"
    )
    assert "is an adapter, too" in refused(*train_words, *loads, "--model_name_or_path", other)
    assert "adds an untrained adapter" in refused(
        *asked, "--strategy", "lora", "--model_name_or_path", "org/x"
    )
    lost = saved_adapter(tmp_path / "lost", base="elsewhere")
    assert "name it: --model_name_or_path MODEL" in refused(*asked, "--model_name_or_path", lost)
    init = ["--adapter_name", "b", "--lora_init", "pissa"]
    assert "lora_init: pissa rewrites the base" in refused(*train_words, *loads, *init)
    same = saved_adapter(tmp_path / "deeper" / "one")
    assert "two of these folders have the same name" in refused(*train_words, *loads, same)
    deleted = ["--do_train", "--use_cpu", "--dataset_name", "sample", "--output_dir", place]
    assert "would delete" in refused(*deleted, *loads, "--overwrite_output_dir", "true")


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize(
    ("strategy", "words", "message"),
    [
        ("prefix", ["--activation_checkpointing"], "activation_checkpointing: computes layers anew without"),
        ("prefix", ["--gradient_checkpointing"], "activation_checkpointing: computes layers anew without"),
        ("prefix", ["--prefix_network_size", "8"], "prefix_network_size: there is no network"),
        (
            "adalora",
            ["--load_best_model_at_end", "--eval_strategy", "epoch", "--save_strategy", "epoch"],
            "load_best_model_at_end: ranks are given up",
        ),
        ("adalora", ["--adapter_name", "b"], "AdaLoRA moves the ranks of one adapter"),
        ("adalora", ["--initial_rank", "8"], "initial_rank: 8 is not above target_rank 8"),
        ("adalora", ["--initial_share", "0.6"], "leave no steps between them"),
        ("adalora", ["--orthogonality", "-1"], "orthogonality: -1.0 is out of range"),
        ("lora", ["--lora_rank", "0"], "lora_rank: 0 is out of range"),
        ("lora", ["--lora_dropout", "1"], "lora_dropout: 1.0 is out of range"),
        ("lora", ["--lora_targets", "all-linear", "query"], "all-linear means all of them"),
        ("lora", ["--adapter_name", "a.b"], "adapter_name: 'a.b' is no name"),
        ("adapter", ["--reduction_factor", "0"], "reduction_factor: 0 is out of range"),
        ("prompt", ["--virtual_tokens", "0"], "virtual_tokens: 0 is out of range"),
        ("bitfit", ["--lora_rank", "4"], "lora_rank: a setting of strategy lora"),
    ],
)
def test_impossible_pairs_and_values(strategy: str, words: list[str], message: str) -> None:
    base = ["--do_train", "--use_cpu", "--dataset_name", "sample", "--output_dir", "new"]
    assert message in refused(*base, "--strategy", strategy, *words)


@pytest.mark.parametrize(
    "file", sorted((EXPERIMENTS / "strategies").glob("*.yaml")), ids=lambda path: path.stem
)
@pytest.mark.usefixtures("empty_folder")
def test_every_experiment_of_a_strategy_can_be_run_and_says_where_it_comes_from(file: Path) -> None:
    told = train("--config", str(file), "--output_dir", "new")
    values = read_yaml(file)
    assert told.training.strategy == values["strategy"]
    assert told.training.learning_rate == float(values["learning_rate"])
    assert file.read_text(encoding="utf-8").startswith("# ")


def test_every_strategy_has_an_experiment_of_its_name() -> None:
    assert set(STRATEGIES) <= {path.stem for path in (EXPERIMENTS / "strategies").glob("*.yaml")}


@pytest.mark.parametrize(
    "name",
    [name if name == "adalora" else pytest.param(name, marks=pytest.mark.slow) for name in STRATEGY_WORDS],
)
def test_two_ranks_train_as_one(name: str, run: Run, tmp_path: Path, tiny_reader: Path) -> None:
    words = [*TRAINING, *WINDOWS, *STRATEGY_WORDS[name], "--save_strategy", "no"]
    words += ["--lora_dropout", "0"] if name == "lora" else []
    words += ["--prompt_network_dropout", "0"] if name == "p_tuning" else []
    words += ["--dropout", "0", "--model_name_or_path", str(tiny_reader)]
    single = run("one", *words)
    half = [*QUESTIONS, *words, "--per_device_train_batch_size", "2", "--output_dir", str(tmp_path / "two")]
    half[half.index("--cache_dir") + 1] = str(tmp_path / "cache")
    assert launch(half, ranks=2).wait(240) == 0
    double = read_record(tmp_path / "two" / "run.json")
    assert double.environment["processes"] == 2
    curves = [[loss for _, loss in record.training["loss_curve"]] for record in (single, double)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    one, two = adapter("one"), adapter("two")
    assert set(one) == set(two)

"""Adapters and readers by their names on the hub, which here is a folder of repositories."""

from __future__ import annotations

import fnmatch
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors
from safetensors.torch import load_file
from settings_words import refused, train

import run_qa
from qa import hub
from qa.arguments import parse_settings
from qa.confidence.final_answers import Calibration
from qa.errors import InputError
from qa.models import ModelArguments, load_reader
from qa.predicting.loading import load
from qa.results import read_record
from qa.strategies import Lora

CALIBRATION = Calibration(threshold=1.5, temperature=2.0, fitted_on="dev", questions=9)
SETTINGS = "max_seq_length: 96\ndoc_stride: 24\nmax_answer_length: 7\nstrategy: lora\nlora_rank: 4\n"
EVALUATION = ["--do_eval", "--dataset_name", "sample", "--max_eval_samples", "3", "--use_cpu"]


class Hub:
    """Stands for `huggingface_hub.snapshot_download`: repositories below `served`, fetched into `cache`."""

    def __init__(self, root: Path) -> None:
        self.served, self.cache = root / "served", root / "cache"
        self.fault: Exception | None = None
        self.asked: list[tuple[str, str | None]] = []

    def repository(self, name: str) -> Path:
        folder = self.served / name
        folder.mkdir(parents=True)
        return folder

    def download(self, name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append((name, revision))
        if self.fault is not None:
            raise self.fault
        if not (self.served / name).is_dir():
            raise missing(errors.RepositoryNotFoundError)
        if revision not in (None, "v1"):
            raise missing(errors.RevisionNotFoundError)
        target = self.cache / f"models--{name.replace('/', '--')}" / "snapshots" / "0123abc"
        target.mkdir(parents=True, exist_ok=True)
        for path in (self.served / name).iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, target)
        return str(target)


def missing(kind: Any) -> Exception:
    """The hub's error, without the response that it is made from: its type differs between versions."""
    error: Exception = kind.__new__(kind)
    error.args = ("404 Client Error.\nmore",)
    return error


@pytest.fixture
def served(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    stub = Hub(empty_folder / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stub.download)
    hub._snapshot.cache_clear()
    yield stub
    hub._snapshot.cache_clear()


@pytest.fixture
def adapter(served: Hub, tiny_reader: Path) -> Path:
    """`me/reader` on the hub: a LoRA of rank 4 on a model that lies in `tiny`, with settings, calibration."""
    shutil.copytree(tiny_reader, "tiny")
    folder = served.repository("me/reader")
    model: Any = Lora(lora_rank=4).adapt(load_reader(ModelArguments(), "tiny"))
    model.save_pretrained(folder)
    (folder / "settings.yaml").write_text(SETTINGS)
    (folder / "calibration.json").write_text(json.dumps(CALIBRATION.to_dict()))
    (folder / "notes.txt").write_text("nobody needs it")
    return folder


def test_names_of_the_hub_and_of_folders(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = served.repository("me/reader")
    (repository / "settings.yaml").write_text("")
    Path("me/local").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(Path.cwd()))
    for local in ("me/local", "~/me/local", ".", "/", "reader", "one/two/three", "gone\\x", ""):
        assert hub.adapter_folder(local) == Path(local).expanduser()
        assert hub.reader_folder(local) == Path(local).expanduser()
    assert served.asked == []
    found = hub.adapter_folder("me/reader")
    assert [path.name for path in found.iterdir()] == ["settings.yaml"]
    assert hub.adapter_folder("me/reader@v1") == hub.reader_folder("me/reader", "v1") == found
    assert hub.reader_folder("me/reader") == found
    assert served.asked == [("me/reader", None), ("me/reader", "v1")]
    assert [hub.short_name(name) for name in ("me/reader@v1", "me/local", "me/reader")] == [
        *("reader", "local", "reader"),
    ]
    assert hub.at_revision("me/reader", "v1") == hub.at_revision("me/reader@v1", "v2") == "me/reader@v1"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            missing(errors.RepositoryNotFoundError),
            "is no folder here and no repository of the hub; check the name",
        ),
        (missing(errors.RevisionNotFoundError), "the hub has me/gone, but no such branch, tag or commit"),
        (missing(errors.GatedRepoError), "the hub gives it to those alone who were granted access"),
        (
            errors.LocalEntryNotFoundError("Cannot find it: set HF_HUB_OFFLINE=0.\nx"),
            r"cannot be fetched from the hub \(Cannot find it: set HF_HUB_OFFLINE=0\)",
        ),
        (ConnectionError("no route to host"), r"cannot be fetched from the hub \(no route to host\)"),
        (OSError(), r"cannot be fetched from the hub \(OSError\); check the name and the network"),
    ],
)
def test_whatever_the_hub_refuses_is_one_sentence(served: Hub, fault: Exception, message: str) -> None:
    served.fault = fault
    with pytest.raises(InputError, match=f"me/gone@v7: .*{message}"):
        hub.adapter_folder("me/gone@v7")
    # A model may have none of these files: what cannot be fetched is not there.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hub.reader_folder("me/gone") == Path("me/gone")
    text = refused("--do_eval", "--dataset_name", "sample", "--adapter_name_or_path", "me/gone")
    assert text.startswith("me/gone: ")


def test_files_that_are_known_to_be_missing_are_told(served: Hub) -> None:
    served.fault = errors.LocalEntryNotFoundError("The cached snapshot is incomplete: calibration.json")
    with pytest.warns(UserWarning, match="me/reader: The cached snapshot is incomplete: calibration.json"):
        hub.reader_folder("me/reader")


def test_this_version_of_the_hub_speaks_as_the_stub_does(tmp_path: Path) -> None:
    """Offline, as all tests are: the real library, its real error."""
    hub._snapshot.cache_clear()
    with pytest.raises(
        InputError, match=r"cannot be fetched from the hub \(Cannot find an appropriate cached"
    ):
        hub.adapter_folder("nobody-here/no-such-adapter")


def test_a_run_is_told_by_the_adapters_name_all_that_it_is(adapter: Path, served: Hub) -> None:
    settings = parse_settings([*EVALUATION, "--adapter_name_or_path", "me/reader@v1"])
    assert isinstance(settings.strategy, Lora)
    assert settings.strategy.lora_rank == 4
    assert settings.strategy.adapter_name_or_path == ["me/reader@v1"]
    assert settings.strategy.saved_adapters() == {"default": str(hub.adapter_folder("me/reader@v1"))}
    assert (settings.windows.max_seq_length, settings.model.model_name_or_path) == (96, "tiny")
    as_model = parse_settings([*EVALUATION, "--model_name_or_path", "me/reader", "--model_revision", "v1"])
    assert as_model.strategy == settings.strategy
    # The revision was the adapter's, and says nothing of its base.
    assert (as_model.model.model_name_or_path, as_model.model.model_revision) == ("tiny", None)
    shutil.copytree(adapter, "local")
    two = parse_settings(
        [*EVALUATION, "--adapter_name_or_path", "local", "me/reader", "--adapter_name", "reader"]
    )
    assert list(two.strategy.saved_adapters()) == ["local", "reader"]  # type: ignore[attr-defined]
    assert served.asked == [("me/reader", "v1"), ("me/reader", None)]


def test_what_a_training_is_asked_does_not_depend_on_the_hub(adapter: Path, served: Hub) -> None:
    settings = train("--model_name_or_path", "me/reader")
    assert (settings.training.strategy, settings.windows.max_seq_length) == ("full", 384)
    assert served.asked == []


def test_a_run_goes_on_with_an_adapter_of_the_hub_and_evaluates_it(adapter: Path, served: Hub) -> None:
    windows = ["--max_question_length", "24", "--bootstrap_samples", "0", "--disable_tqdm", "true"]
    run_qa.main([*EVALUATION, *windows, "--adapter_name_or_path", "me/reader", "--output_dir", "out"])
    record = read_record(Path("out/evaluation-run.json"))
    assert record.settings["adapter_name_or_path"] == ["me/reader"]
    assert record.strategy == "lora"
    # The one that was saved with it, not the one that fits these questions.
    assert record.scores["eval"].metrics["temperature"] == 2.0
    training = ["--do_train", "--max_train_samples", "4", "--max_steps", "1", "--learning_rate", "0.1"]
    run_qa.main(
        [*EVALUATION, *windows, *training, "--adapter_name_or_path", "me/reader", "--output_dir", "on"]
    )
    before, after = (
        load_file(adapter / "adapter_model.safetensors"),
        load_file("on/adapter_model.safetensors"),
    )
    assert before.keys() == after.keys()
    assert any(not before[name].equal(after[name]) for name in before)
    assert {path.name for path in served.cache.rglob("*") if path.is_file()} == {
        *("adapter_config.json", "adapter_model.safetensors", "settings.yaml", "calibration.json")
    }


def test_pickled_weights_need_a_word(adapter: Path, served: Hub) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    words = [*EVALUATION, "--adapter_name_or_path", "me/reader"]
    message = refused(*words)
    assert message.startswith(
        "adapter_name_or_path: me/reader: holds no adapter_model.safetensors; if it has"
    )
    assert message.endswith("add --allow_pickle_weights")
    with pytest.raises(InputError, match=r"me/reader: holds no adapter_model\.safetensors"):
        load("me/reader")
    assert list(served.cache.rglob("*.bin")) == []
    settings = parse_settings([*words, "--allow_pickle_weights"])
    folder = Path(settings.strategy.reader_folder or "")
    assert (folder / "adapter_model.bin").is_file()
    # The same of folders.
    shutil.copytree(adapter, "local")
    assert refused(*EVALUATION, "--adapter_name_or_path", "local").startswith(
        "adapter_name_or_path: local: holds no adapter_model.safetensors; if it has pickled weights"
    )


def test_what_is_no_adapter_is_told(served: Hub) -> None:
    served.repository("me/model").joinpath("config.json").write_text("{}")
    assert refused(*EVALUATION, "--adapter_name_or_path", "me/model").startswith(
        "adapter_name_or_path: me/model: holds no adapter (adapter_config.json); name the folder"
    )


def test_a_predictor_reads_an_adapter_of_the_hub(adapter: Path) -> None:
    reader = load("me/reader", arguments=ModelArguments(model_revision="v1"))
    assert reader.evaluated
    assert (reader.name, reader.windows.max_seq_length, reader.decoding.max_answer_length) == (
        "me/reader",
        96,
        7,
    )
    assert (reader.calibration.threshold, reader.calibration.temperature) == (1.5, 2.0)
    assert reader.model.peft_config["reader"].r == 4


def test_a_model_of_the_hub_brings_its_settings_and_calibration(
    served: Hub, tiny_reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are transformers' to fetch: here it is already there as an object."""
    repository = served.repository("me/model")
    (repository / "config.json").write_text("{}")
    (repository / "settings.yaml").write_text("max_seq_length: 96\ndoc_stride: 24\n")
    (repository / "calibration.json").write_text(json.dumps(CALIBRATION.to_dict()))
    model = load_reader(ModelArguments(), str(tiny_reader))
    model.config._name_or_path = "me/model"
    model.name_or_path = "me/model"
    reader = load(model, str(tiny_reader))
    assert (reader.evaluated, reader.windows.max_seq_length, reader.calibration.threshold) == (True, 96, 1.5)
    settings = parse_settings([*EVALUATION, "--model_name_or_path", "me/model"])
    assert (settings.windows.max_seq_length, settings.windows.doc_stride) == (96, 24)

"""`python -m qa.readers.pack`, and the name by which what it packed is known."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from huggingface_hub import ModelCard
from reader_cases import FILES, wrong_sums

import qa.pipeline
from qa import QuestionAnswerer, ask
from qa.arguments import parse_settings
from qa.confidence import Calibration, read_calibration
from qa.decoding import DecodingSettings
from qa.errors import InputError
from qa.models import DEFAULT_ENCODER, DEFAULT_READER, PACKAGED_READERS, ModelArguments, load_reader
from qa.readers import pack
from qa.results import RunRecord, Scores, read_record, write_record
from qa.windows import WindowSettings

ROOT = Path(__file__).resolve().parents[1]
ASKED = {"question": "Who came?", "context": "Ole Rømer came to Paris in 1672."}
LORA: dict[str, Any] = {"lora_rank": 1, "lora_alpha": 16.0, "lora_dropout": 0.0, "lora_targets": ["query"]}
LORA |= {"lora_init": "zero", "rslora": False, "dora": False}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder as training leaves it, but that nothing was trained."""
    from peft import LoraConfig

    from qa.peft_methods.attaching import attach

    folder = tmp_path_factory.mktemp("finished") / "run"
    torch.manual_seed(0)
    config = LoraConfig(task_type="QUESTION_ANS", r=1, lora_alpha=16, target_modules=["query"])
    reader = attach(load_reader(ModelArguments(), DEFAULT_ENCODER), "default", config=config)
    reader.save_pretrained(str(folder))
    windows = dataclasses.asdict(WindowSettings(max_seq_length=96, doc_stride=32, max_question_length=32))
    settings = (
        windows | dataclasses.asdict(DecodingSettings()) | LORA | {"loss": "passage", "strategy": "lora"}
    )
    settings["model_name_or_path"] = DEFAULT_ENCODER
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    calibration = Calibration(0.5, 1.5, "validation", 40, 0.1, 0.2)
    (folder / "calibration.json").write_text(json.dumps(calibration.to_dict()), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    write_record(folder / "run.json", make_record(settings))
    return folder


def make_record(settings: dict[str, Any], **changes: Any) -> RunRecord:
    report = {"source": "squad/dev-v2.0.json.gz", "questions": 40, "unanswerable": 8, "fingerprint": "0" * 64}
    record = RunRecord(
        name="run",
        strategy="lora",
        model=DEFAULT_ENCODER,
        command="run_qa.py --config experiments/recipes/default-reader.yaml",
        settings=settings,
        data={"train": report | {"source": "squad/train.json"}, "validation": report},
        scores={"eval": Scores({"exact_match": 50.0, "f1": 60.0}, "squad2|n:40")},
        training={"steps": 2, "seconds": 1.0},
        # A and B of six layers, and the head of two rows and two biases.
        parameters={"total": 1000, "trainable": 6 * 2 * 384 + 2 * 384 + 2},
        environment={"packages": {"torch": "2"}, "hardware": {"cpu": "Some CPU", "cores": 2}},
    )
    return dataclasses.replace(record, **changes)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_is_packed_with_its_record(run: Path, tmp_path: Path) -> None:
    later = make_record(
        yaml.safe_load((run / "settings.yaml").read_text()) | {"adapter_name_or_path": [DEFAULT_READER]},
        command="run_qa.py --do_eval --output_dir /home/ada/outputs/on-squad1",
        data={"validation": make_record({}).data["validation"] | {"source": "squad/dev-v1.1.json.gz"}},
        scores={"eval": Scores({"exact_match": 61.5, "f1": 72.25}, "squad1|n:40")},
    )
    write_record(tmp_path / "evaluation-run.json", later)
    target = tmp_path / "box" / "default"
    target.mkdir(parents=True)
    (target / "older.json").write_text("{}", encoding="utf-8")
    files = pack.pack(run, target, [tmp_path / "evaluation-run.json"])
    assert {path.name for path in files} == FILES | {"evaluation-dev-v1.1.json"}
    assert list(target.parent.iterdir()) == [target]
    assert wrong_sums(target) == []
    for name in pack.COPIED:
        assert (target / name).read_bytes() == (run / name).read_bytes()
    assert read_record(target / "run.json") == read_record(run / "run.json")
    card = ModelCard.load(target / "README.md")
    assert [r.metric_value for r in card.data.eval_results if r.metric_type == "f1"] == [60.0, 72.25]
    assert 'QuestionAnswerer("packaged:default-reader")' in card.text
    assert "/ada/" not in card.text


@pytest.fixture
def boxed(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run in a box of its own, under the name that the reader in the box has."""
    pack.pack(finished, tmp_path / "boxed")
    monkeypatch.setitem(PACKAGED_READERS, DEFAULT_READER, str(tmp_path / "boxed"))
    return tmp_path / "boxed"


@pytest.fixture
def transformers_as_it_was() -> Iterator[None]:
    from transformers import pipelines

    before, former = dict(pipelines.REMOVED_TASKS), transformers.pipeline
    yield
    pipelines.REMOVED_TASKS.update(before)
    pipelines.SUPPORTED_TASKS.pop("question-answering", None)
    transformers.pipeline = pipelines.pipeline = former


def test_its_name_is_known_wherever_a_reader_is_named(
    boxed: Path, finished: Path, tmp_path: Path, capsys: Any, transformers_as_it_was: None
) -> None:
    expected = QuestionAnswerer(finished, device="cpu")(ASKED)
    named = QuestionAnswerer(DEFAULT_READER, device="cpu")
    assert named(ASKED) == expected
    assert named.calibration == read_calibration(finished / "calibration.json")
    qa.pipeline.register()
    for told in ({"model": DEFAULT_READER}, {"task": "question-answering"}):
        assert transformers.pipeline(device=-1, **told)(ASKED) == expected
    with pytest.raises(InputError, match="config: this reader brings its own"):
        transformers.pipeline("question-answering", DEFAULT_READER, object())
    with pytest.raises(InputError, match="fill-mask: packaged:default-reader is a reader"):
        transformers.pipeline("fill-mask", DEFAULT_READER)
    (tmp_path / "a.txt").write_text(ASKED["context"], encoding="utf-8")
    ask.main(["--context-file", str(tmp_path / "a.txt"), "--json", "--device", "cpu", ASKED["question"]])
    told = json.loads(capsys.readouterr().out)
    assert told["score"] == pytest.approx(
        ask.ask(named, ASKED["question"], [ASKED["context"]], top_k=1)[0]["score"]
    )


def test_a_run_evaluates_it_or_trains_it_on_by_its_name(boxed: Path) -> None:
    words = ["--model_name_or_path", DEFAULT_READER, "--dataset_name", "sample"]
    for what in ("--do_eval", "--do_train"):
        settings = parse_settings([what, *words])
        assert settings.model.model_name_or_path == DEFAULT_ENCODER
        assert settings.training.strategy == "lora"
        assert settings.strategy.reader_folder == str(boxed)
        assert settings.to_dict()["adapter_name_or_path"] == [DEFAULT_READER]
        assert settings.windows.max_seq_length == 96
        assert settings.strategy.adapter_settings() == LORA


def change(path: Path, key: str, value: Any) -> None:
    """Replace one value of a JSON or YAML file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content[key] = value
    path.write_text(json.dumps(content), encoding="utf-8")


SPOILT: dict[str, tuple[Any, str]] = {
    "no adapter": (lambda run: (run / "adapter_config.json").unlink(), "holds no adapter"),
    "no calibration": (lambda run: (run / "calibration.json").unlink(), "calibration.json is missing"),
    "no record": (lambda run: (run / "run.json").unlink(), "run.json is missing"),
    "other settings": (
        lambda run: change(run / "settings.yaml", "doc_stride", 31),
        "settings.yaml says doc_stride: 31, but run.json 32",
    ),
    "other strategy": (lambda run: change(run / "settings.yaml", "strategy", "ia3"), "says strategy: ia3"),
    "other size": (
        lambda run: change(run / "run.json", "parameters", {"total": 1000, "trainable": 5379}),
        "holds 5,378 parameters, but run.json tells of 5,379",
    ),
    "damaged": (
        lambda run: (run / "adapter_model.safetensors").write_bytes(b"\0" * 99),
        "adapter_model.safetensors: is damaged",
    ),
    "not fitted": (lambda run: change(run / "calibration.json", "fitted_on", ""), "fitted on nothing"),
    "a folder of this machine": (
        lambda run: change(run / "calibration.json", "fitted_on", "/home/ada/dev.json"),
        r"calibration.json: names a folder of this machine \(/home/ada/dev.json\)",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_run_that_does_not_fit_changes_nothing(case: str, run: Path, tmp_path: Path) -> None:
    spoil, message = SPOILT[case]
    spoil(run)
    target = tmp_path / "box" / "default"
    target.mkdir(parents=True)
    (target / "older.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        pack.pack(run, target)
    assert [path.relative_to(tmp_path / "box") for path in sorted(target.parent.rglob("*"))] == [
        Path("default"),
        Path("default/older.json"),
    ]


def test_what_is_too_large_or_on_another_base_is_refused(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pack, "MOST_WEIGHT_BYTES", 20_000)
        with pytest.raises(InputError, match=r"safetensors: [\d,]+ bytes, but at most 20,000"):
            pack.pack(run, tmp_path / "box")
        patch.setattr(pack, "MOST_WEIGHT_BYTES", 30_000)
        patch.setattr(pack, "MOST_BYTES", 25_000)
        with pytest.raises(InputError, match=r"all: [\d,]+ bytes, but at most 25,000"):
            pack.pack(run, tmp_path / "box")
    for file in ("settings.yaml", "run.json"):
        content = yaml.safe_load((run / file).read_text(encoding="utf-8"))
        (content if file == "settings.yaml" else content["settings"])["model_name_or_path"] = "ada/bert"
        (run / file).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match="stands on ada/bert, which does not come with the package"):
        pack.pack(run, tmp_path / "box")
    assert not (tmp_path / "box").exists()


def test_only_evaluations_of_this_reader_go_on_its_card(run: Path, tmp_path: Path) -> None:
    cases = {
        "is no evaluation": make_record({}),
        "holds no scores": make_record({}, scores={}),
        "another reader (strategy: ia3)": make_record({}, strategy="ia3"),
    }
    for message, record in cases.items():
        write_record(tmp_path / "evaluation-run.json", record)
        with pytest.raises(InputError, match=re.escape(message)):
            pack.pack(run, tmp_path / "box", [tmp_path / "evaluation-run.json"])


def test_an_interrupted_packing_leaves_the_old_reader(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    pack.pack(run, tmp_path / "box")
    before = wrong_sums(tmp_path / "box"), (tmp_path / "box" / "SHA256SUMS").read_bytes()
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise OSError("disk full")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    change(run / "calibration.json", "temperature", 3.0)
    with pytest.raises(OSError, match="disk full"):
        pack.pack(run, tmp_path / "box")
    assert (wrong_sums(tmp_path / "box"), (tmp_path / "box" / "SHA256SUMS").read_bytes()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"run", "box"}


def test_the_command_prints_what_it_wrote(
    finished: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setitem(PACKAGED_READERS, DEFAULT_READER, str(tmp_path / "box"))
    assert pack.main([str(finished)]) == 0
    *files, total = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in files} == FILES
    assert total.endswith("bytes in packaged:default-reader")


def test_the_box_is_part_of_the_package() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = content["tool"]["setuptools"]["package-data"]["qa"]
    assert f"{PACKAGED_READERS[DEFAULT_READER]}/*" in patterns

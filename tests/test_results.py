"""The run record: what goes in comes out, and nothing of the machine's folders is in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qa import results
from qa.errors import InputError
from qa.results import (
    RunRecord,
    Scores,
    describe_environment,
    finite,
    peak_memory_bytes,
    public_command,
    public_path,
    public_paths,
    public_record,
    read_record,
    write_record,
)

HERE = Path("/home/ada/project")

RECORD = RunRecord(
    name="first",
    strategy="full",
    model="packaged:all-MiniLM-L6-v2",
    command="run_qa.py --config experiments/quickstart.yaml",
    settings={
        "seed": 42,
        "learning_rate": 3e-5,
        "label_names": None,
        "train_file": "squad.json",
        "betas": [0.9, 0.999],
    },
    data={"train": {"source": "squad.json", "questions": 3, "fingerprint": "ab12"}},
    scores={
        "before": Scores({"exact_match": 0.0, "f1": 3.25}, "squad2|n:3"),
        "eval": Scores({"exact_match": 50.0, "f1": 61.5}, "squad2|n:3", {"f1": (55.0, 66.0)}),
    },
    training={"steps": 2, "seconds": 1.5, "loss_curve": [[1, 3.5], [2, 3.25]], "resumed_from": None},
    parameters={"total": 10, "trainable": 2},
    environment={"python": "3.11.0", "packages": {"torch": "2.13.0"}, "processes": 1},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_record(tmp_path / "run.json", RECORD)
    read = read_record(tmp_path / "run.json")
    assert read == RECORD
    assert read.scores["eval"].intervals == {"f1": (55.0, 66.0)}
    content = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert set(content) == {field.name for field in fields(RunRecord)}
    assert content["schema"] == 1
    write_record(tmp_path / "again.json", read)
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "run.json").read_bytes()


def _content(**changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(asdict(RECORD))), **changes}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file or directory"),
        ("", "Expecting value"),
        ('{"name": "half', "Unterminated string"),
        ("[" * 100_000, "recursion"),
        ("[]", "list indices must be integers"),
        ("3", "not subscriptable"),
        ("{}", "it has no schema"),
        ('{"loss": NaN}', "NaN is no JSON"),
        (json.dumps({"schema": 1}), "it has no scores"),
        (json.dumps({"schema": 1, "scores": {}}), "missing 9 required positional arguments: 'name', "),
        (json.dumps(_content(scores=[])), "'list' object has no attribute 'items'"),
        (json.dumps(_content(scores={"eval": {"metrics": {}}})), "it has no intervals"),
        (
            json.dumps(_content(scores={"eval": {"metrics": {}, "intervals": {"f1": [1]}}})),
            "not enough values",
        ),
        (json.dumps(_content(speed=3)), "unexpected keyword argument 'speed'"),
    ],
)
def test_what_is_no_record_is_refused_in_one_sentence(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "r.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as error:
        read_record(path)
    message = str(error.value)
    assert message.startswith(f"{path}: not a run record (")
    assert message.endswith("); name a run's run.json")
    assert reason in message
    assert "\n" not in message


def test_a_record_of_another_schema_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(_content(schema=2, unheard_of=1)))
    with pytest.raises(InputError, match="a record of schema 2, but 1 is what is read here; run it again"):
        read_record(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("path", "public"),
    [
        ("/home/ada/project/outputs/run", "outputs/run"),
        ("/home/ada/project/./outputs/../data/dev.json", "data/dev.json"),
        ("/home/ada/project", "."),
        ("/home/ada/project-two/dev.json", ".../project-two/dev.json"),
        ("/home/ada/project/../data/squad/dev.json", ".../squad/dev.json"),
        ("/mnt/disk/data/squad/dev.json", ".../squad/dev.json"),
        ("/dev.json", ".../dev.json"),
        ("../data/squad/dev.json", ".../squad/dev.json"),
        ("outputs/run", "outputs/run"),
        ("SpanBERT/spanbert-base-cased", "SpanBERT/spanbert-base-cased"),
        ("packaged:all-MiniLM-L6-v2", "packaged:all-MiniLM-L6-v2"),
        ("~/data/dev.json", "~/data/dev.json"),
        (".../squad/dev.json", ".../squad/dev.json"),
        ("and/or", "and/or"),
        ("", ""),
        ("linear", "linear"),
    ],
)
def test_public_path(path: str, public: str) -> None:
    assert public_path(path, HERE) == public
    assert public_path(public, HERE) == public


def test_public_paths_reach_into_nested_values() -> None:
    value = {"a": ["/x/y/z", {"b": ("/home/ada/project/c", 1, None, True, 0.5)}], "/x/y/z": "d"}
    expected = {"a": [".../y/z", {"b": ("c", 1, None, True, 0.5)}], "/x/y/z": "d"}
    assert public_paths(value, HERE) == expected


def test_public_command_keeps_its_words_apart() -> None:
    command = (
        "/opt/venv/bin/run_qa.py --config experiments/base.yaml /home/ada/project/my.yaml "
        "--train_file=/data/squad/train.json --validation_file '/data/my sets/squad/dev 1.json' "
        "--name 'a=/b c' --seed 3"
    )
    assert public_command(command, HERE) == (
        ".../bin/run_qa.py --config experiments/base.yaml my.yaml "
        "--train_file=.../squad/train.json --validation_file '.../squad/dev 1.json' --name 'a=/b c' --seed 3"
    )


def test_a_written_record_names_no_folder_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, elsewhere = tmp_path.resolve(), "/secret/home/ada"
    settings = {
        "output_dir": str(here / "outputs" / "run"),
        "cache_dir": f"{elsewhere}/cache",
        "train_file": f"{elsewhere}/data/squad/train.json",
        "config": [f"{elsewhere}/a.yaml"],
        "report_to": [],
    }
    record = replace(
        RECORD,
        model=f"{elsewhere}/models/bert",
        command=f"run_qa.py --train_file {elsewhere}/data/squad/train.json --output_dir {here}/outputs/run",
        settings=settings,
        data={"train": {"source": f"{elsewhere}/data/squad/train.json", "questions": 3}},
        training={"resumed_from": f"{here}/outputs/run/checkpoint-5"},
    )
    write_record(Path("run.json"), record)
    text = Path("run.json").read_text("utf-8")
    assert "secret" not in text
    assert str(here) not in text
    read = read_record(Path("run.json"))
    assert read == public_record(record, here) == public_record(read, here)
    assert read.command == "run_qa.py --train_file .../squad/train.json --output_dir outputs/run"
    assert read.model == ".../models/bert"
    assert read.settings["output_dir"] == "outputs/run"
    assert read.settings["cache_dir"] == ".../ada/cache"
    assert read.settings["config"] == [".../ada/a.yaml"]
    assert read.data["train"]["source"] == ".../squad/train.json"
    assert read.training["resumed_from"] == "outputs/run/checkpoint-5"
    assert record.settings is settings  # the caller's own is left alone
    assert settings["cache_dir"] == f"{elsewhere}/cache"


def test_the_environment_says_what_a_number_depends_on() -> None:
    found = describe_environment(2)
    assert set(found) == {"python", "system", "packages", "commit", "hardware", "processes"}
    assert found["processes"] == 2
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(found["packages"]) == set(results._PACKAGES)
    assert found["packages"]["numpy"] == np.__version__
    assert found["hardware"]["cpu"]
    assert 1 <= found["hardware"]["cores"] <= 10_000
    assert re.fullmatch(r"unknown|[0-9a-f]{40}( with local changes)?", found["commit"])
    assert json.loads(json.dumps(found)) == found


def test_a_package_that_is_not_there_is_said_to_be_absent() -> None:
    assert results._version("no-such-package-anywhere") == "not installed"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_this_projects_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        named = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments)
        return subprocess.run(named, check=True, capture_output=True, text=True).stdout.strip()

    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    module = tmp_path / "results.py"
    module.write_text("one")
    monkeypatch.setattr(results, "__file__", str(module))
    assert results._commit() == "unknown"
    git("init", "-q")
    (tmp_path / "other.py").write_text("theirs")
    git("add", "other.py")
    git("commit", "-q", "-m", "another project's repository")
    assert results._commit() == "unknown"  # it does not track this file
    git("add", "results.py")
    git("commit", "-q", "-m", "ours")
    head = git("rev-parse", "HEAD")
    assert results._commit() == head
    (tmp_path / "scratch.py").write_text("untracked")
    assert results._commit() == head
    module.write_text("two")
    assert results._commit() == f"{head} with local changes"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert results._commit() == "unknown"


def test_peak_memory_is_in_bytes() -> None:
    assert 10e6 < peak_memory_bytes() < 1e12


def test_finite_keeps_the_numbers() -> None:
    values = {
        "f1": 50,
        "loss": np.float32(0.5),
        "count": np.int64(3),
        "nan": float("nan"),
        "inf": np.float64("inf"),
        "text": "12",
        "none": None,
        "flag": True,
    }
    found = finite(values)
    assert found == {"f1": 50.0, "loss": 0.5, "count": 3.0}
    assert {type(value) for value in found.values()} == {float}


def test_reading_records_needs_neither_torch_nor_transformers() -> None:
    code = "import sys, qa.results; qa.results.describe_environment(1); qa.results.peak_memory_bytes(); "
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'datasets', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

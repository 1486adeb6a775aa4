"""wandb without a key, without a network, with its server away: the run goes on, with one warning."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wandb_files import read_offline_run

from qa import tracking
from qa.confidence.final_answers import Calibration, FinalAnswer
from qa.errors import InputError
from qa.evaluation import Evaluation
from qa.records import Span
from qa.results import RunRecord, Scores, read_record
from qa.tracking import runs as tracking_runs
from qa.tracking.answers import COLUMNS, answer_rows
from qa.tracking.deadlines import within

REPOSITORY = Path(__file__).resolve().parents[1]
INSTALLED = importlib.util.find_spec("wandb") is not None
needs_wandb = pytest.mark.skipif(not INSTALLED, reason="wandb is not installed")


@pytest.mark.parametrize(
    ("report_to", "wanted"),
    [
        ("wandb", True),
        (["wandb"], True),
        (["tensorboard", "wandb"], True),
        (("wandb",), True),
        ("all", INSTALLED),
        (["all"], INSTALLED),
        ("none", False),
        (["none"], False),
        ([], False),
        (None, False),
        ("tensorboard", False),
        ("wandbx", False),
    ],
)
def test_what_report_to_means(report_to: Any, wanted: bool) -> None:
    assert tracking.wants_wandb(report_to) is wanted


RUN = """
from pathlib import Path
from qa import tracking
from qa.results import RunRecord, Scores

tracked = tracking.start({"output_dir": "out", "learning_rate": 1e-3, "data_dir": "/some/where/else"},
    name="first", output_dir=Path("out"), group="seeds", tags=["lora"])
tracked.log({"train/loss": 2.5}, 10)
tracked.log_table("eval/answers", ["id", "right"], [["a", True], ["b", False]], 10)
record = Path("record.json")
record.write_text('{"f1": 61.5}')
scores = {"eval": Scores({"f1": 61.5}, "by hand")}
done = RunRecord("first", "lora", "m", "c", {}, {}, scores, {"seconds": 3.5}, {"trainable": 5}, {})
tracked.finish(done, record)
print("open", tracked.is_open)
tracked.finish(done, record)
"""


def run_real_wandb(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process with an empty home, no key and no terminal; `tmp_path` is its current folder."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(REPOSITORY), **variables}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


ELSEWHERE = {"WANDB_PROJECT": "mine", "WANDB_RUN_GROUP": "table", "WANDB_TAGS": "a,lora", "WANDB_NAME": "row"}


@needs_wandb
@pytest.mark.parametrize("wandb_dir", [None, "elsewhere"])
def test_without_a_key_a_run_is_tracked_offline_in_its_own_folder(
    tmp_path: Path, wandb_dir: str | None
) -> None:
    variables = {} if wandb_dir is None else {"WANDB_DIR": str(tmp_path / wandb_dir), **ELSEWHERE}
    began = time.monotonic()
    done = run_real_wandb(tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 60  # 3 seconds on an idle machine; a server that is waited for takes 90
    assert done.stdout.splitlines() == ["open False"]
    warnings = [line for line in done.stderr.splitlines() if line.startswith("wandb: there is no key")]
    folder = tmp_path / (wandb_dir or "out")
    assert warnings == [
        "wandb: there is no key (set WANDB_API_KEY or run `wandb login`); this run is tracked offline, in "
        f"{folder / 'wandb'}"
    ]
    found = read_offline_run(folder)
    assert json.loads((tmp_path / "out" / "wandb-run.json").read_text()) == {"id": found.run.pop("id")}
    if wandb_dir is None:
        expected = {"name": "first", "group": "seeds", "tags": ["lora"], "project": "spanbert-qa"}
    else:
        expected = {"name": "row", "group": "table", "tags": ["lora", "a"], "project": "mine"}
    assert found.run == {**expected, "job_type": "training"}
    config = {key: value for key, value in found.config.items() if not key.startswith("_")}
    assert config == {"output_dir": "out", "learning_rate": 1e-3, "data_dir": ".../where/else"}
    assert found.steps == {"train/global_step": "", "*": "train/global_step"}
    assert [row.get("train/loss") for row in found.history] == [2.5, None]
    assert [row["train/global_step"] for row in found.history] == [10, 10]
    (table,) = folder.glob("wandb/offline-run-*/files/media/table/eval/*.json")
    assert json.loads(table.read_text()) == {"columns": ["id", "right"], "data": [["a", True], ["b", False]]}
    finals = ("eval/f1", "training/seconds", "parameters/trainable")
    assert [found.summary[name] for name in finals] == [61.5, 3.5, 5]
    (name,) = [name for name, kind in found.artifacts.items() if kind == "run-record"]
    staged = [path.read_text() for path in (folder / "wandb" / "cache").glob("artifacts/staging/*")]
    assert name.startswith("record-")
    assert '{"f1": 61.5}' in staged
    assert found.exit_code == 0
    folders = {"home", "record.json", "out", *([wandb_dir] if wandb_dir else [])}
    assert {path.name for path in tmp_path.iterdir()} == folders
    assert list((tmp_path / "home").iterdir()) == []


class FakeRun:
    """Stands for an open run; `faults` says which of its methods raise, and what."""

    id = "abc"

    def __init__(self, faults: dict[str, Exception] | None = None) -> None:
        self.faults = faults or {}
        self.summary: dict[str, Any] = {}
        self.logged: list[dict[str, Any]] = []
        self.artifacts: list[Any] = []
        self.finished = 0

    def define_metric(self, name: str, **options: Any) -> None:
        self._fail("define_metric")

    def log(self, values: dict[str, Any]) -> None:
        self._fail("log")
        self.logged.append(values)

    def log_artifact(self, artifact: Any) -> None:
        self.artifacts.append(artifact)

    def finish(self) -> None:
        self._fail("finish")
        self.finished += 1

    def _fail(self, place: str) -> None:
        fault = self.faults.get(place)
        if isinstance(fault, TimeoutError):
            time.sleep(3)
        if fault is not None:
            raise fault


class FakeServer:
    """Takes the place of wandb's calls; `faults` says what happens in each mode (or at the login).

    hangs: places that do not come back within any time a test would wait.
    """

    def __init__(self, faults: dict[str, Exception], key: bool, hangs: tuple[str, ...]) -> None:
        self.faults, self.key, self.hangs = faults, key, hangs
        self.calls: list[str] = []
        self.options: dict[str, Any] = {}

    def login(self, **options: Any) -> bool:
        assert options == {"prompt": False}
        self._call("login")
        return self.key

    def init(self, *, mode: str, **options: Any) -> FakeRun:
        assert options["settings"].init_timeout == tracking_runs.START_SECONDS <= 15
        assert options["settings"].finish_timeout == tracking_runs.FINISH_SECONDS <= 60
        self.options = options
        self._call(mode)
        return FakeRun()

    def teardown(self) -> None:
        self._call("teardown")

    def _call(self, place: str) -> None:
        self.calls.append(place)
        if place in self.hangs:
            time.sleep(3)
        if place in self.faults:
            raise self.faults[place]


Connect = Callable[..., FakeServer]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Connect:
    wandb = pytest.importorskip("wandb")
    for name in os.environ:
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    # Set, so that start() has no variable to leave behind.
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))

    def make(
        faults: dict[str, Exception] | None = None, key: bool = True, hangs: tuple[str, ...] = ()
    ) -> FakeServer:
        server = FakeServer(faults or {}, key, hangs)
        for name in ("login", "init", "teardown"):
            monkeypatch.setattr(wandb, name, getattr(server, name))
        return server

    return make


def started(folder: Path, **options: Any) -> tracking.TrackedRun | None:
    return tracking.start({}, name="run", output_dir=folder, **options)


def faults_of_wandb() -> dict[str, Exception]:
    from wandb.errors import AuthenticationError, CommError, UsageError

    return {
        "away": CommError("Timed out while retrying: connection refused\nConsider increasing the timeout."),
        "late": TimeoutError("no answer"),
        "no key": UsageError("api_key not configured (no-tty)"),
        "wrong key": AuthenticationError("invalid key"),
        "silent": RuntimeError(""),
    }


@needs_wandb
@pytest.mark.parametrize("place", ["login", "online"])
@pytest.mark.parametrize("fault", ["away", "late", "no key", "wrong key", "silent"])
def test_a_server_that_cannot_be_used_costs_one_warning(
    connect: Connect, caplog: pytest.LogCaptureFixture, tmp_path: Path, place: str, fault: str
) -> None:
    error = faults_of_wandb()[fault]
    server = connect({place: error})
    with caplog.at_level(logging.INFO, logger="qa.tracking"):
        tracked = started(tmp_path)
    asked = ["login"] if place == "login" else ["login", "online"]
    assert server.calls == [*asked, "teardown", "offline"]
    assert tracked is not None
    assert tracked.is_open
    first_line = (str(error).splitlines() or ["RuntimeError"])[0].rstrip(".")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            f"wandb: the server cannot be used ({first_line}); this run is tracked offline, in "
            f"{tmp_path / 'wandb'}",
        )
    ]


@needs_wandb
@pytest.mark.parametrize("place", ["login", "online"])
def test_a_server_that_never_answers_is_left_after_its_time(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    place: str,
) -> None:
    monkeypatch.setattr(tracking_runs, "START_SECONDS", 0.1)
    monkeypatch.setattr(tracking_runs, "GRACE_SECONDS", 0.1)
    server = connect(hangs=(place, "teardown"))
    began = time.monotonic()
    assert started(tmp_path) is not None
    assert time.monotonic() - began < 1.5  # 0.3 seconds; each hang lasts 3
    assert server.calls[-1] == "offline"
    assert [record.getMessage() for record in caplog.records] == [
        "wandb: the server cannot be used (no answer within 0.2 seconds); this run is tracked offline, in "
        f"{tmp_path / 'wandb'}"
    ]


@needs_wandb
def test_a_server_that_answers_is_used_without_a_word(
    connect: Connect, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    server = connect()
    started(tmp_path, group="squad", tags=["lora"])
    assert server.calls == ["login", "online"]
    assert caplog.records == []
    chosen = {key: server.options[key] for key in ("project", "name", "group", "tags", "job_type")}
    expected = {"project": "spanbert-qa", "name": "run", "group": "squad", "tags": ["lora"]}
    assert chosen == {**expected, "job_type": "training"}
    assert "id" not in server.options


@needs_wandb
def test_a_resumed_training_goes_on_with_its_run_and_an_evaluation_has_its_own(
    connect: Connect, tmp_path: Path
) -> None:
    server = connect()
    started(tmp_path, resumed=True)
    assert "id" not in server.options
    started(tmp_path, resumed=True)
    assert (server.options["id"], server.options["resume"]) == ("abc", "allow")
    started(tmp_path)
    assert "id" not in server.options
    (tmp_path / "wandb-run.json").write_text('{"id": "of the training"}')
    started(tmp_path, job_type="evaluation")
    assert "id" not in server.options
    started(tmp_path, resumed=True)
    assert server.options["id"] == "of the training"
    (tmp_path / "wandb-run.json").write_text("[")
    started(tmp_path, resumed=True)
    assert "id" not in server.options


@needs_wandb
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_mode_that_was_asked_for_is_taken_without_a_word(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mode: str,
) -> None:
    server = connect()
    monkeypatch.setenv("WANDB_MODE", mode)
    started(tmp_path)
    assert server.calls == [mode]
    assert caplog.records == []


@needs_wandb
def test_where_not_even_offline_works_the_run_goes_on_untracked(
    connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = connect({"offline": OSError("disk full")})
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert started(tmp_path) is None
    assert server.calls == ["offline"]
    assert [record.getMessage() for record in caplog.records] == ["wandb: disk full; this run is not tracked"]


RECORD = RunRecord(
    name="run",
    strategy="lora",
    model="m",
    command="c",
    settings={},
    data={},
    scores={"eval": Scores({"f1": 61.5}, "by hand")},
    training={"seconds": 3.5, "resumed_from": None, "loss_curve": [[1, 2.0]]},
    parameters={"total": 50, "trainable": 5},
    environment={},
)


def test_final_numbers() -> None:
    assert tracking.final_numbers(RECORD) == {
        "eval/f1": 61.5,
        "training/seconds": 3.5,
        "parameters/total": 50,
        "parameters/trainable": 5,
    }


@needs_wandb
def test_a_finished_run_has_numbers_and_the_record(tmp_path: Path) -> None:
    run = FakeRun()
    (tmp_path / "evaluation-run.json").write_text("{}")
    tracked = tracking.TrackedRun(run, tmp_path)
    tracked.finish(RECORD, tmp_path / "evaluation-run.json")
    assert run.summary == tracking.final_numbers(RECORD)
    (artifact,) = run.artifacts
    assert (artifact.name, artifact.type) == ("record-abc", "run-record")
    assert list(artifact.manifest.entries) == ["run.json"]
    assert (run.finished, tracked.is_open) == (1, False)


@needs_wandb
@pytest.mark.parametrize("fault", [OSError("the service is gone"), TimeoutError("in the stub")])
def test_a_fault_at_the_end_does_not_fail_the_run(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Exception
) -> None:
    monkeypatch.setattr(tracking_runs, "FINISH_SECONDS", 0.1)
    monkeypatch.setattr(tracking_runs, "GRACE_SECONDS", 0.1)
    (tmp_path / "run.json").write_text("{}")
    began = time.monotonic()
    tracking.TrackedRun(FakeRun({"finish": fault}), tmp_path).finish(RECORD, tmp_path / "run.json")
    assert time.monotonic() - began < 1.5
    told = "no answer within 0.2 seconds" if isinstance(fault, TimeoutError) else "the service is gone"
    assert [record.getMessage() for record in caplog.records] == [
        f"wandb: {told}; all that it lacks is in {tmp_path}"
    ]


@needs_wandb
def test_a_fault_on_the_way_ends_the_tracking_with_one_warning(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    run = FakeRun({"log": BrokenPipeError("broken pipe")})
    tracked = tracking.TrackedRun(run, tmp_path)
    assert tracked.is_open
    for step in (1, 2):
        tracked.log({"train/loss": 1.0}, step)
        tracked.log_table("eval/answers", ["id"], [["a"]], step)
    tracked.finish(RECORD, tmp_path / "missing.json")
    assert (run.logged, run.finished, tracked.is_open) == ([], 0, False)
    assert [record.getMessage() for record in caplog.records] == [
        "wandb: broken pipe; from here on this run is not tracked"
    ]


def test_a_missing_wandb_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "unused"))
    with pytest.raises(InputError, match="report_to: wandb is not installed; run `pip install wandb`"):
        started(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_a_call_returns_or_raises_comes_through() -> None:
    assert within(5, lambda: 3) == 3
    with pytest.raises(KeyError, match="gone"):
        within(5, lambda: {}["gone"])


def test_names_of_what_trainer_logs() -> None:
    from qa.tracking.following import learning_rates, named

    logs = {"loss": 1.0, "grad_norm": 2.0, "eval_f1": 3.0, "before_f1": 4.0, "train_loss": 5.0}
    assert named({**logs, "total_flos": 6.0, "epoch": 7.0, "predict_HasAns_f1": 8.0}) == {
        "train/loss": 1.0,
        "train/grad_norm": 2.0,
        "eval/f1": 3.0,
        "before/f1": 4.0,
        "total/loss": 5.0,
        "total/flos": 6.0,
        "train/epoch": 7.0,
        "predict/HasAns_f1": 8.0,
    }

    groups = [{"initial_lr": 10 * rate, "lr": rate} for rate in (1e-3, 1e-5, 1e-4)]
    assert learning_rates(SimpleNamespace(param_groups=groups)) == {
        "train/lowest_learning_rate": 1e-5,
        "train/highest_learning_rate": 1e-3,
    }
    assert learning_rates(SimpleNamespace(param_groups=groups[:1] * 2)) == {}
    assert learning_rates(None) == {}


def evaluation_of(exact: list[float | None]) -> tuple[list[dict[str, Any]], Evaluation]:
    """One question for each mark; None: a question without golds."""
    answers = [
        FinalAnswer(str(i), "b", Span(500, 501, "b", 1.0), 0.25, 0.5) if i % 2 == 0 else no_answer(str(i))
        for i in range(len(exact))
    ]
    table = [
        {
            "id": str(i),
            "question": f"q{i}",
            "context": "a" * 500 + "b" + "c" * 500,
            "answers": {"text": ["b", "b", "bc"], "answer_start": [500, 500, 500]},
            "title": "",
        }
        for i in range(len(exact))
    ]
    marks = {str(i): (mark, mark / 2) for i, mark in enumerate(exact) if mark is not None}
    return table, Evaluation((), answers, {}, Calibration.unfitted(unanswerable=True), marks=marks)


def no_answer(key: str) -> FinalAnswer:
    return FinalAnswer(key, "", None, 0.75, 0.75)


def test_right_and_wrong_answers_are_shown_from_all_over_the_questions() -> None:
    table, evaluation = evaluation_of([1.0] * 7 + [0.0] * 2)
    rows = answer_rows(table, evaluation, of_a_kind=3)
    assert [(row[0], row[1]) for row in rows] == [
        *(("7", False), ("8", False)),
        *(("0", True), ("2", True), ("4", True)),
    ]
    eighth = dict(zip(COLUMNS, rows[1], strict=True))
    assert eighth == {
        "id": "8",
        "right": False,
        "question": "q8",
        "answer": "b",
        "gold": "b | bc",
        "exact_match": 0.0,
        "f1": 0.0,
        "probability": 0.25,
        "no_answer_probability": 0.5,
        "passage": "a" * 400 + "b" + "c" * 400,
    }
    assert rows[2][5:7] == [100.0, 50.0]
    assert rows[0][3] == ""
    assert rows[0][-1] == "a" * 400


def test_answers_without_golds_are_neither_right_nor_wrong() -> None:
    table, evaluation = evaluation_of([None] * 4)
    rows = answer_rows(table, evaluation, of_a_kind=2)
    assert [(row[0], row[1], row[5], row[6]) for row in rows] == [("0", None, None, None), ("2", *[None] * 3)]


@needs_wandb
def test_a_training_tells_all_of_itself(
    tiny_reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A real training, tracked offline by the real wandb, and read back from its file."""
    import wandb

    import run_qa

    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = tmp_path / "out"
    words = ["--dataset_name", "sample", "--max_train_samples", "8", "--max_eval_samples", "6", "--do_train"]
    words += ["--do_eval", "--strategy", "lora", "--max_steps", "2", "--logging_steps", "1", "--use_cpu"]
    words += ["--eval_strategy", "steps", "--eval_steps", "1", "--eval_before_training", "--disable_tqdm"]
    words += ["true", "--max_seq_length", "128", "--doc_stride", "32", "--max_question_length", "32"]
    words += ["--bootstrap_samples", "0", "--report_to", "wandb", "--head_learning_rate", "1e-2"]
    words += ["--model_name_or_path", str(tiny_reader), "--output_dir", str(out), "--warmup_steps", "0"]
    with caplog.at_level(logging.WARNING, logger="qa.tracking"):
        run_qa.main(words)
    wandb.teardown()
    assert [one.getMessage() for one in caplog.records if one.name.startswith("qa.")] == []
    record = read_record(out / "run.json")
    found = read_offline_run(out)
    assert {key: found.run[key] for key in ("name", "group", "tags", "job_type")} == {
        "name": "out",
        "group": "sample",
        "tags": ["lora"],
        "job_type": "training",
    }
    assert {"strategy": "lora", "lora_rank": 8, "max_steps": 2}.items() <= found.config.items()
    assert "peft_config" not in found.config
    by_step: dict[str, list[Any]] = {}
    for row in found.history:
        for name, value in row.items():
            by_step.setdefault(name, []).append((row["train/global_step"], value))
    assert [list(point) for point in by_step["train/loss"]] == record.training["loss_curve"]
    for name in ("learning_rate", "grad_norm", "peak_memory_gb", "lowest_learning_rate"):
        assert [step for step, _ in by_step[f"train/{name}"]] == [1, 2]
    assert by_step["train/highest_learning_rate"] == [(1, 1e-2), (2, 5e-3)]
    assert min(value for _, value in by_step["train/grad_norm"]) > 0
    evaluations = [(row["step"], row["eval_f1"]) for row in record.training["evaluations"]]
    final = (2, record.scores["eval"].metrics["f1"])
    assert by_step["eval/f1"] == [*evaluations, final]
    assert by_step["before/f1"] == [(0, record.scores["before"].metrics["f1"])]
    assert tracking.final_numbers(record).items() <= found.summary.items()
    (table,) = out.glob("wandb/offline-run-*/files/media/table/eval/*.json")
    shown = json.loads(table.read_text())
    marks = {
        row["id"]: row["exact_match"] for row in map(json.loads, (out / "eval" / "predictions.jsonl").open())
    }
    assert {row[0]: float(row[1]) for row in shown["data"]} == marks
    assert f"record-{found.run['id']}" in found.artifacts
    assert found.exit_code == 0

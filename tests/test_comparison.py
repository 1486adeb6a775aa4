"""Runs set side by side: which are found, what is shown of them, what a test and wandb say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qa.errors import InputError
from qa.metrics import paired_bootstrap
from qa.reporting.compared_runs import ComparedRun, beside_wandb, find_runs
from qa.reporting.comparison import (
    chosen_metrics,
    chosen_settings,
    comma_separated,
    compare_runs,
    markdown,
    paired_tests,
    plain,
    sort_runs,
)
from qa.results import RunRecord, Scores, write_record
from qa.tables.record import Marks, TableRecord, write_table_record
from qa.tracking.online import NotReachableError, OnlineRun, fetch_runs

SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "compare.py"


def record(name: str, f1: float = 50.0, strategy: str = "full", **settings: Any) -> RunRecord:
    return RunRecord(
        name=name,
        strategy=strategy,
        model="tiny",
        command="run_qa.py",
        settings=settings,
        data={},
        scores={"eval": Scores({"f1": f1, "exact_match": 25.0}, "squad2|n:4|thresh:1.5|boot:1000")},
        training={"seconds": 12.25, "peak_memory_bytes": 2_500_000_000},
        parameters={"total": 2000, "trainable": 1234},
        environment={},
    )


def write_run(folder: Path, one: RunRecord, f1: tuple[float, ...] = (), ids: str = "abcd") -> Path:
    """A finished run's folder, as far as a comparison looks at it."""
    path = folder / one.name / "run.json"
    write_record(path, one)
    if f1:
        rows = [
            {"id": key, "exact_match": float(mark == 1), "f1": mark}
            for key, mark in zip(ids, f1, strict=True)
        ]
        (path.parent / "eval").mkdir()
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (path.parent / "eval" / "predictions.jsonl").write_text(text)
    return path


def table_record(row: str, run: RunRecord, marks: Marks | None = None) -> TableRecord:
    place: dict[str, Any] = {"table": "strategies", "scale": "small", "row": row, "column": None, "seed": 42}
    return TableRecord(**place, settings_sha256="0", chosen={}, data_sha256={}, run=run, marks=marks)


def compared(name: str, **fields: Any) -> ComparedRun:
    return ComparedRun(name=name, **{"numbers": {}, "settings": {}, **fields})


def test_runs_are_found_by_their_records(tmp_path: Path) -> None:
    a = write_run(tmp_path / "outputs", record("a"), (1.0, 0.5, 0.0, 1.0))
    write_run(tmp_path / "outputs", record("b"))
    write_record(tmp_path / "outputs" / "b" / "evaluation-run.json", record("b"))
    write_record(tmp_path / "outputs" / "a" / "checkpoint-5" / "run.json", record("not"))
    (tmp_path / "outputs" / "a" / "metrics.json").write_text('{"f1": 3}\n')
    (tmp_path / "outputs" / "a" / "wandb-run.json").write_text('{"id": "xyz"}\n')
    marks = Marks("hash", (1, 0), (100.0, 50.0))
    kept = write_run(tmp_path / "outputs" / "tables", record("0123")).with_name("table-record.json")
    write_table_record(kept, table_record("lora", record("0123"), marks))
    write_table_record(tmp_path / "results" / "full-seed42.json", table_record("full", record("4567")))
    runs = {run.name: run for run in find_runs([tmp_path / "outputs", tmp_path / "results"])}
    assert set(runs) == {
        "a",
        "b",
        "evaluation-run",
        "strategies-small-lora-seed42",
        "strategies-small-full-seed42",
    }
    assert runs["a"].marks is not None
    assert runs["a"].marks.f1 == (100.0, 50.0, 0.0, 100.0)
    assert (runs["a"].wandb_id, runs["b"].wandb_id) == ("xyz", None)
    assert runs["strategies-small-lora-seed42"].marks == marks
    assert runs["a"].place == a
    assert runs["a"].settings == {"model_name_or_path": "tiny", "strategy": "full"}
    assert runs["a"].numbers == {
        "eval/f1": 50.0,
        "eval/exact_match": 25.0,
        "training/seconds": 12.25,
        "training/peak_memory_bytes": 2.5e9,
        "parameters/total": 2000,
        "parameters/trainable": 1234,
    }
    # The same file named twice is one run, and two of a name are called by their files.
    twins = [write_run(tmp_path / side, record("twin")) for side in ("left", "right")]
    assert [run.name for run in find_runs([*twins, twins[0].parent])] == [str(path) for path in twins]


def test_an_evaluation_in_the_same_folder_may_have_replaced_the_marks(tmp_path: Path) -> None:
    path = write_run(tmp_path, record("a"), (1.0, 1.0, 0.0, 1.0))
    write_record(path.with_name("evaluation-run.json"), record("a", f1=1.0))
    assert [run.marks for run in find_runs([path.parent])] == [None, None]


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "damaged.json").write_text('{"settings_sha256": 1, "schema": 1}')
    for place, message in {
        "gone": "there is no such file or folder; name records",
        "empty": r"holds no record of a run \(run.json\); train one",
        "other.json": "not a run record",
        "damaged.json": "not a record of a table",
    }.items():
        with pytest.raises(InputError, match=f"{place}: {message}"):
            find_runs([tmp_path / place])
    runs = [compared("a", numbers={"eval/f1": 1.0}, settings={"seed": 1})]
    with pytest.raises(InputError, match=r"metrics: f2: no run has it; there is eval/f1"):
        chosen_metrics(runs, ["f2"])
    with pytest.raises(InputError, match=r"settings: sed: no run has it; did you mean seed\?"):
        chosen_settings(runs, ["sed"])
    with pytest.raises(InputError, match=r"sort: sead: no run has it; did you mean seed\?"):
        sort_runs(runs, "sead")
    with pytest.raises(InputError, match=r"against: b: no such run; there is a"):
        paired_tests(runs, "b")


def test_settings_that_differ() -> None:
    lora = {
        "strategy": "lora",
        "lora_rank": 8,
        "lora_alpha": 16,
        "seed": 1,
        "output_dir": "a",
        "rates": [1, 2],
    }
    runs = [
        compared("a", settings=lora),
        compared("b", settings={**lora, "lora_rank": 16, "output_dir": "b"}),
        compared("c", settings={"strategy": "full", "seed": 1, "rates": [1, 2]}),
    ]
    assert chosen_settings(runs, None) == ["strategy", "lora_rank"]
    assert chosen_settings(runs[1:], None) == ["strategy"]
    assert chosen_settings(runs[:1], None) == []
    assert chosen_settings(runs, ["seed", "output_dir"]) == ["seed", "output_dir"]


def test_sorting() -> None:
    runs = [
        compared("low", numbers={"eval/f1": 1.0}, settings={"lora_rank": 16}),
        compared("none", settings={"lora_rank": None}),
        compared("high", numbers={"eval/f1": 3.0}, settings={"lora_rank": 8}),
    ]
    for key, ascending, names in [
        (None, False, ["high", "low", "none"]),
        ("f1", True, ["low", "high", "none"]),
        ("lora_rank", False, ["high", "low", "none"]),
    ]:
        assert [run.name for run in sort_runs(runs, key, ascending=ascending)] == names
    assert sort_runs([runs[1]], None) == [runs[1]]


FEW = [
    compared(
        "a", numbers={"eval/f1": 50.0, "parameters/trainable": 1234}, settings={"rates": [1, 2], "x": None}
    ),
    compared("b", numbers={"eval/f1": 61.256}, settings={"rates": [1], "x": 1e-5}),
]


def test_few_runs_stand_side_by_side() -> None:
    table = compare_runs(FEW, against=None, notes=["Said besides."])
    assert plain(table).splitlines() == [
        "run                       b       a",
        "eval/f1               61.26   50.00",
        "parameters/trainable          1,234",
        "rates                   [1]  [1, 2]",
        "x                     1e-05",
        "",
        "b against a: no test, because there are no marks of single questions of b and a.",
        "Said besides.",
    ]
    assert markdown(table).splitlines()[:3] == [
        "| run | b | a |",
        "| --- | ---: | ---: |",
        "| eval/f1 | 61.26 | 50.00 |",
    ]
    assert markdown(table).splitlines()[-1] == "- Said besides."
    assert comma_separated(table).splitlines() == [
        "run,eval/f1,parameters/trainable,rates,x",
        "b,61.256,,[1],1e-05",
        'a,50,1234,"[1, 2]",',
    ]


def test_many_runs_stand_below_one_another() -> None:
    runs = [
        compared(f"run{i}", numbers={"eval/f1": 10.0 * i, "training/peak_memory_bytes": 1e9})
        for i in range(5)
    ]
    lines = plain(compare_runs(runs)).splitlines()
    assert lines[0].split() == ["run", "eval/f1", "training/peak_memory_bytes"]
    assert lines[1].split() == ["run4", "40.00", "1.00", "GB"]
    assert len(lines) == 6


def test_the_paired_test_is_that_of_the_tables() -> None:
    good, bad = (100.0, 100.0, 100.0, 0.0) * 5, (0.0, 100.0, 0.0, 0.0) * 5
    runs = [
        compared("good", marks=Marks("ids", tuple(int(mark == 100) for mark in good), good)),
        compared("bad", marks=Marks("ids", tuple(int(mark == 100) for mark in bad), bad)),
        compared("others", marks=Marks("other ids", (1,), (100.0,))),
    ]
    expected = paired_bootstrap(good, bad)
    assert expected.difference == 50.0
    low, high = expected.interval
    lines = paired_tests(runs[:2], None)
    assert lines == [
        f"good against bad: {name} +50.00 [{low:+.2f}, {high:+.2f}], p = {expected.p_value:.3f} "
        "(paired bootstrap, 20 questions)."
        for name in ("f1", "exact_match")
    ]
    assert expected.p_value < 0.05
    assert paired_tests(runs, None) == []
    against = paired_tests(runs, "good")
    assert against[0].startswith("bad against good: f1 -50.00")
    assert against[2:] == ["others against good: no test, because they answered different questions."]


def test_scores_of_other_questions_are_called_so() -> None:
    alike = [compared("a", signature="s|n:4|thresh:1"), compared("b", signature="s|n:4|thresh:2")]
    assert compare_runs([*alike, compared("c")]).notes == ()
    other = compared("d", signature="s|n:5")
    assert compare_runs([*alike, other]).notes == (
        "The scores are not all comparable: s|n:4 (a, b); s|n:5 (d).",
    )


def test_wandb_is_compared_number_by_number() -> None:
    local = [
        compared("agrees", numbers={"eval/f1": 50.0, "training/seconds": 3.0}, wandb_id="1"),
        compared("differs", numbers={"eval/f1": 50.0, "eval/loss": 2.5, "training/seconds": 3.0}),
        compared("crashed", numbers={"eval/f1": 50.0}, wandb_id="3"),
        compared("unknown", wandb_id="9"),
        compared("twice", numbers={"eval/f1": 50.0}),
    ]
    online = [
        OnlineRun(
            "1", "renamed", "finished", {}, {"eval/f1": 50.0 + 1e-9, "training/seconds": 3.0, "more": 1}
        ),
        OnlineRun(
            "2", "differs", "finished", {}, {"eval/f1": 49.5, "eval/loss": 2.5, "training/seconds": 4.0}
        ),
        OnlineRun("3", "crashed", "crashed"),
        *(OnlineRun(key, "twice", "finished", {"seed": 1}, {"eval/f1": 1.0}) for key in "45"),
    ]
    beside = beside_wandb(local, online)
    assert beside.notes == (
        "wandb agrees with 1 of 3 runs that it knows.",
        "differs: eval/f1: 50 in the record, 49.5 at wandb.",
        "differs: training/seconds: 3 in the record, 4 at wandb.",
        "crashed: wandb (crashed) has no eval/f1.",
    )
    assert list(beside.runs[:5]) == local
    assert [run.name for run in beside.runs[5:]] == ["twice (4, wandb)", "twice (5, wandb)"]
    assert beside.runs[5].settings == {"seed": 1}


class FakeApi:
    """wandb's public interface, as far as it is asked."""

    def __init__(self, timeout: int) -> None:
        assert timeout <= 10

    def runs(self, project: str, order: str, lazy: bool) -> list[Any]:
        assert (project, order, lazy) == ("me/qa", "-created_at", False)
        summary = {"eval/f1": 50.0, "_step": 3, "table": {"rows": 1}, "name": "text"}
        return [
            SimpleNamespace(
                id=str(i), name=f"run{i}", state="finished", config={"_wandb": {}, "seed": i}, summary=summary
            )
            for i in range(300)
        ]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(module, "login", lambda prompt: True)
    monkeypatch.setattr(module, "Api", FakeApi)
    return module


def test_runs_at_wandb(wandb: Any) -> None:
    runs = fetch_runs("me/qa")
    assert len(runs) == 200
    assert runs[1] == OnlineRun("1", "run1", "finished", {"seed": 1}, {"eval/f1": 50.0, "_step": 3.0})
    for wrong in ("me", "me/", "a/b/c"):
        with pytest.raises(InputError, match=f"wandb: {wrong}: not a project; write it as entity/project"):
            fetch_runs(wrong)


def test_where_wandb_is_not_reachable_the_reason_is_told(wandb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "Api", lambda timeout: time.sleep(2))
    began = time.monotonic()
    with pytest.raises(NotReachableError, match=r"no answer within 0\.1 seconds"):
        fetch_runs("me/qa", seconds=0.1)
    assert time.monotonic() - began < 1.5
    monkeypatch.setattr(wandb, "Api", lambda timeout: 1 / 0)
    with pytest.raises(NotReachableError, match="division by zero"):
        fetch_runs("me/qa")
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    with pytest.raises(NotReachableError, match="there is no key"):
        fetch_runs("me/qa")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(NotReachableError, match="WANDB_MODE is offline"):
        fetch_runs("me/qa")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NotReachableError, match="wandb is not installed"):
        fetch_runs("me/qa")


def run_script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "WANDB_MODE": "offline"}
    code = (
        f"import runpy, sys; sys.argv[0] = 'compare.py'; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    code += "; assert 'torch' not in sys.modules"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_script(tmp_path: Path) -> None:
    write_run(tmp_path / "outputs", record("a", learning_rate=1e-3), (1.0, 0.5, 0.0, 1.0))
    write_run(tmp_path / "outputs", record("b", 40.0, "lora", learning_rate=1e-4), (1.0, 0.5, 0.0, 0.0))
    done = run_script(tmp_path, "--metrics", "f1", "--wandb", "me/qa", "--out", "table.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "table.txt\n", "")
    lines = (tmp_path / "table.txt").read_text().splitlines()
    assert lines[:5] == [
        "run                a       b",
        "eval/f1        50.00   40.00",
        "strategy        full    lora",
        "learning_rate  0.001  0.0001",
        "",
    ]
    assert lines[5].startswith("a against b: f1 +25.00 [")
    assert lines[-1] == "wandb is not reachable (WANDB_MODE is offline): all of this is from local records."
    done = run_script(tmp_path, "outputs/c")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "compare.py: outputs/c: there is no such file or folder; name records, or folders of them\n"
    )


def test_old_and_new_records_have_the_same_numbers(tmp_path: Path) -> None:
    """A committed record that lacks what later ones have is shown with empty cells."""
    old = record("old")
    path = write_run(tmp_path, replace(old, training={}, parameters={"total": 1, "trainable": 1}))
    assert json.loads(path.read_text())["training"] == {}
    runs = find_runs([path, write_run(tmp_path, record("new"))])
    table = compare_runs(runs, metrics=["training/seconds"], settings=[])
    assert table.values == ((None,), (12.25,))
    assert asdict(table)["runs"] == ("old", "new")

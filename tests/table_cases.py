"""A small table for tests, its records made by hand, and a runner whose runs are fake and quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qa.results import RunRecord, Scores
from qa.tables.plan import Planner
from qa.tables.record import Marks, TableRecord
from qa.tables.runner import Runner
from qa.tables.spec import Table, read_table
from qa.tables.store import Store

FAKE = [sys.executable, str(Path(__file__).with_name("fake_run_qa.py"))]

YAML = """
title: A table
note: For tests.
columns:
  f1: {label: F1}
  exact_match: {label: EM}
  travel: {label: travel, value: f1, evaluates: true, settings: {dataset_name: "sample:travel and sport"}}
rows:
  a: {label: A}
  b: {label: B & C, settings: {weight_decay: "0.1"}, grid: {learning_rate: [1x, 3x]}}
published: {from: [squad1], columns: {f1: f1, exact_match: em}}
plots: [{kind: learning_curves}, {kind: heat_map}, {kind: scatter, x: exact_match, y: f1}]
settings: {dataset_name: sample, do_train: "true", do_eval: "true", use_cpu: "true", learning_rate: 1e-4}
scales:
  smoke:
    seeds: [1, 2]
"""


def table_of(folder: Path, text: str = YAML, scale: str = "smoke") -> Table:
    """The table in a YAML text, by way of a file."""
    path = folder / "case.yaml"
    path.write_text(text, encoding="utf-8")
    return read_table(path, scale)


def store_of(folder: Path, table: Table) -> Store:
    """Everything of a table in one folder."""
    return Store(table, folder / "results", folder / "runs")


def fake_runner(folder: Path, table: Table, said: list[str], jobs: int = 1) -> Runner:
    """A runner of fake runs; `said` gets its lines."""
    return Runner(store_of(folder, table), command=FAKE, jobs=jobs, say=said.append)


def record_of(
    asked: Any, f1: Sequence[float], exact: Sequence[int], *, ids: str = "ids", **fields: Any
) -> TableRecord:
    """A record by hand, of (questions,) marks in percent."""
    metrics = {"f1": sum(f1) / len(f1), "exact_match": 100 * sum(exact) / len(exact)}
    run = RunRecord(
        name="run",
        strategy="full",
        model="tiny",
        command="run_qa.py",
        settings={},
        data={},
        scores={"eval": Scores(metrics, "by hand")},
        training={"seconds": 4.0, "tokens": 1000, "loss_curve": [[1, 3.0], [2, 2.5]]},
        parameters={"total": 200, "trainable": 50},
        environment={"hardware": {"cpu": "none", "cores": 2, "threads": 1}},
    )
    place = {"table": "case", "scale": "smoke", "row": "a", "column": None, "seed": 1}
    return TableRecord(
        **{**place, **fields},
        settings_sha256=asked.settings_sha256,
        chosen=asked.chosen,
        data_sha256=asked.data,
        run=run,
        marks=Marks(ids, tuple(exact), tuple(f1)),
        checkpoint_bytes=2_000_000,
        wall_seconds=5.0,
    )


TWO_ROWS = """
title: Two rows
columns: {f1: {label: F1}, exact_match: {label: EM}, trained_parameters: {label: trained}}
rows:
  a: {label: A}
  b: {label: B, settings: {weight_decay: "0.1"}}
  c: {label: C, settings: {weight_decay: "0.2"}}
published: {from: [theirs], columns: {f1: f1}}
settings: {dataset_name: sample, do_train: "true", do_eval: "true", use_cpu: "true"}
scales: {smoke: {seeds: [1, 2]}}
"""


def by_hand(
    table: Table, marks: dict[tuple[str, int], Sequence[float]]
) -> tuple[Any, dict[str, TableRecord]]:
    """The plan of a table of trainings only, and records of the given (row, seed) -> F1 marks."""
    plan = Planner(table).plan({})
    records = {}
    for (row, seed), f1 in marks.items():
        run = plan.cells[row, "f1", seed]
        exact = [int(mark == 100) for mark in f1]
        records[run.file_name] = record_of(run.asked, f1, exact, row=row, seed=seed)
    return plan, records

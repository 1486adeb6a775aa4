"""Committed tables: every file parses, every record is what its YAML says, every print its records'."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from qa.tables.cells import fill
from qa.tables.plan import Planner
from qa.tables.record import read_table_record
from qa.tables.rendering import FORMATS
from qa.tables.reported import chosen_rows, read_reported
from qa.tables.runner import Runner
from qa.tables.spec import SCALES, read_table, scales_of
from qa.tables.store import Store, stale_reasons
from qa.tables.values import value_of

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"
TABLES = sorted((EXPERIMENTS / "tables").glob("*.yaml"))
RECORDED = sorted(path for path in (EXPERIMENTS / "results").glob("*/*") if path.is_dir())
REPORTED = read_reported(EXPERIMENTS / "reported.yaml")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_tables_are_these() -> None:
    names = {"squad1", "squad2", "mrqa", "strategies", "fewshot", "transfer", "ablation"}
    assert {path.stem for path in TABLES} == names
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^TABLES := (.*)$", makefile, re.MULTILINE)
    assert targets is not None
    assert set(targets[1].split()) == {f"table-{name}" for name in names}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_table_has_every_scale_and_its_settings_parse(path: Path, scale: str) -> None:
    assert scales_of(path) == list(SCALES)
    table = read_table(path, scale)
    plan = Planner(table).plan({})
    assert plan.runs
    assert {run.column for run in plan.runs} <= {None, *(column.name for column in table.columns)}
    for column in table.columns:
        value_of(column.value)
    # Two rows that ask for the same run would print one number twice.
    reported = [run for run in plan.runs if run.trial is None]
    assert len({run.identity for run in reported}) == len(reported)
    places = {(run.file_name): run for run in reported}
    assert len(places) == len(reported)
    rows = chosen_rows(REPORTED, table.published.lists)
    if rows:
        named = {value for row in rows for value in row.values}
        assert set(table.published.columns.values()) <= named
    if scale == "smoke":
        assert all(not run.asked.absent for run in plan.runs), "smoke needs nothing but a clone"
        assert all(None not in run.asked.data.values() for run in plan.runs)


def test_every_published_number_stands_with_its_source() -> None:
    assert sum(len(row.values) for rows in REPORTED.values() for row in rows) == 193
    assert all(row.source for rows in REPORTED.values() for row in rows)
    (splinter,) = REPORTED["few_shot_squad"]
    assert (splinter.values, splinter.source) == (
        {"16": 54.6, "128": 72.7, "1024": 82.8},
        "Ram et al. 2021, arXiv:2101.00438",
    )
    first = REPORTED["squad1"][0]
    assert (first.label, first.note, first.values) == ("SpanBERT-large", "test", {"em": 88.8, "f1": 94.6})


@pytest.mark.parametrize("folder", RECORDED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_committed_records_are_what_the_yaml_asks_for_today(folder: Path) -> None:
    table = read_table(EXPERIMENTS / "tables" / f"{folder.parent.name}.yaml", folder.name)
    store = Store(table, EXPERIMENTS / "results", ROOT / "no-such-folder")
    records = store.records()
    plan = Planner(table).plan(store.known_scores(records, None))
    runs = {run.file_name: run for run in plan.runs if run.trial is None}
    stale = {
        name: stale_reasons(runs[name], record) if name in runs else ["no cell asks for it"]
        for name, record in records.items()
    }
    remedy = f"make table-{table.name} SCALE={table.scale} runs them again"
    assert {name: reasons for name, reasons in stale.items() if reasons} == {}, remedy
    for path in folder.glob("*.json"):
        assert re.findall(r'"(?:/|\.\./)[^"]*"', path.read_text(encoding="utf-8")) == [], path.name
        record = read_table_record(path)
        marks = record.marks
        assert marks is not None
        assert sum(marks.f1) / len(marks.f1) == pytest.approx(
            record.run.scores["eval"].metrics["f1"], abs=0.005
        )


@pytest.mark.parametrize("folder", RECORDED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_printed_tables_are_those_of_the_records(folder: Path) -> None:
    table = read_table(EXPERIMENTS / "tables" / f"{folder.parent.name}.yaml", folder.name)
    state = Runner(Store(table, EXPERIMENTS / "results", ROOT / "no-such-folder")).look()
    filled = fill(table, state.plan, state.records, chosen_rows(REPORTED, table.published.lists))
    for suffix, render in FORMATS.items():
        path = EXPERIMENTS / "tables" / "out" / f"{table.name}-{table.scale}.{suffix}"
        assert path.read_text(encoding="utf-8") == render(filled), f"make tables prints {path.name} anew"


def test_make_prints_one_command_for_every_table() -> None:
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", "table-fewshot", "SCALE=small"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "-m qa.tables fewshot --scale small --jobs 1" in done.stdout

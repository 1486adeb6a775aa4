"""Where a table's runs and records lie, and which of them are what the YAML asks for today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qa.errors import InputError
from qa.files import write_json
from qa.results import RECORD_NAME, read_record
from qa.tables.identity import differences
from qa.tables.plan import Plan, Run
from qa.tables.record import TableRecord, marks_of, read_table_record, write_table_record
from qa.tables.spec import Table

KEPT = "table-record.json"
"""In a run's folder: what it gives to whatever table asks for it."""


@dataclass(frozen=True)
class Store:
    """Folders of one table at one scale.

    results: records to commit, experiments/results by default. runs: a folder per run, by its identity.
    """

    table: Table
    results: Path
    runs: Path

    @property
    def folder(self) -> Path:
        """Of the records."""
        return self.results / self.table.name / self.table.scale

    def run_folder(self, run: Run) -> Path:
        """What the run writes to."""
        return self.runs / run.identity

    def lock_path(self, run: Run) -> Path:
        """The file whose existence means that somebody works on the run."""
        return self.runs / "locks" / f"{run.identity}.lock"

    def log_path(self, run: Run) -> Path:
        """What the run prints."""
        return self.runs / "logs" / f"{run.identity}.log"

    def records(self) -> dict[str, TableRecord]:
        """File name -> record of everything recorded for the table. Raises InputError for a broken file."""
        return {path.name: read_table_record(path) for path in sorted(self.folder.glob("*.json"))}

    def known_scores(self, records: Mapping[str, TableRecord], plan: Plan | None) -> dict[str, float]:
        """Settings hash -> F1 on dev: of records, of the trials they tell of, and of trials in `runs`."""
        known = {}
        for record in records.values():
            for trial in record.grid.trials if record.grid else ():
                known[trial.settings_sha256] = trial.f1
            known[record.settings_sha256] = record.run.scores["eval"].metrics["f1"]
        for run in plan.runs if plan else ():
            kept = None if run.trial is None else self.kept(run)
            if kept is not None:
                known[run.asked.settings_sha256] = kept.run.scores["eval"].metrics["f1"]
        return known

    def kept(self, run: Run) -> TableRecord | None:
        """The record in the folder of a finished run, where it is what is asked for today."""
        path = self.run_folder(run) / KEPT
        if not path.is_file():
            return None
        record = self._placed(run, read_table_record(path))
        return None if stale_reasons(run, record) else record

    def set_aside_outdated(self, run: Run) -> None:
        """Rename the folder of a run that was finished when its settings had other defaults."""
        folder = self.run_folder(run)
        if not (folder / KEPT).is_file() or self.kept(run) is not None:
            return
        number = 1
        while (target := folder.with_name(f"{folder.name}.outdated-{number}")).exists():
            number += 1
        folder.rename(target)

    def is_finished(self, run: Run) -> bool:
        """Whether run_qa.py came to its end in the run's folder."""
        return (self.run_folder(run) / _record_name(run)).is_file()

    def begin(self, run: Run) -> int:
        """Count a start of the run.

        Returns: which start it is, from 1; where the run's folder is gone, it is the first again.
        """
        attempts = 1 + (self.attempts(run) if self.run_folder(run).is_dir() else 0)
        write_json(self._attempts_path(run), attempts)
        return attempts

    def attempts(self, run: Run) -> int:
        """How often the run was started."""
        path = self._attempts_path(run)
        return int(path.read_text(encoding="utf-8")) if path.is_file() else 0

    def _attempts_path(self, run: Run) -> Path:
        return self.runs / "attempts" / f"{run.identity}.json"

    def collect(self, run: Run, wall_seconds: float) -> TableRecord:
        """Make the record of a run that has just finished, and keep it in its folder.

        Raises InputError where it left no record.
        """
        folder = self.run_folder(run)
        done = read_record(folder / _record_name(run))
        record = self._placed(
            run,
            TableRecord(
                table="",
                scale="",
                row="",
                column=None,
                seed=run.seed,
                settings_sha256=run.asked.settings_sha256,
                chosen=run.asked.chosen,
                data_sha256=run.asked.data,
                run=done,
                marks=marks_of(folder / "eval" / "predictions.jsonl"),
                checkpoint_bytes=_weights_bytes(folder) if run.trains else None,
                # Of a run that outlived its runner, no more than this is known.
                wall_seconds=round(max(wall_seconds, done.training.get("seconds", 0.0)), 1),
                attempts=max(1, self.attempts(run)),
            ),
        )
        write_table_record(folder / KEPT, record)
        return record

    def enter(self, run: Run, record: TableRecord) -> None:
        """Write a run's record among those to commit."""
        write_table_record(self.folder / run.file_name, self._placed(run, record))

    def _placed(self, run: Run, record: TableRecord) -> TableRecord:
        """The record in this run's place: another table may have asked for the same run first."""
        place: dict[str, Any] = {
            "table": self.table.name,
            "scale": self.table.scale,
            "row": run.row,
            "column": run.column,
        }
        return replace(record, **place, seed=run.seed, grid=run.grid)

    def has_reader(self, run: Run) -> bool:
        """Whether the run's reader lies here, so that it can be evaluated."""
        folder = self.run_folder(run)
        return (folder / KEPT).is_file() and any(folder.glob("*.safetensors"))


def _record_name(run: Run) -> str:
    return RECORD_NAME if run.trains else f"evaluation-{RECORD_NAME}"


def stale_reasons(run: Run, record: TableRecord | None) -> list[str]:
    """Why a record is not the run's; empty where it is. Data that is not here cannot contradict."""
    if record is None:
        return ["there is none"]
    found = differences(run.asked, record.chosen, record.run.settings)
    if not found and run.asked.settings_sha256 != record.settings_sha256:
        found = ["its hash is not that of its settings"]
    for split, digest in run.asked.data.items():
        recorded = record.data_sha256.get(split)
        if digest is not None and digest != recorded:
            found.append(f"the {split} questions are others")
    if run.grid is not None and record.grid != run.grid:
        found.append("it was chosen from another grid")
    return found


def _weights_bytes(folder: Path) -> int | None:
    """Bytes of the weights that a run saved, its checkpoints on the way left out."""
    if not folder.is_dir():
        raise InputError(f"{folder}: the run left no folder")
    files = [
        path
        for path in folder.rglob("*.safetensors")
        if not path.relative_to(folder).parts[0].startswith("checkpoint-")
    ]
    return sum(path.stat().st_size for path in files) or None

"""What is kept of a run for a table: its record, what it was asked, and every question's mark."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qa.errors import InputError
from qa.files import write_text
from qa.results import RunRecord, record_of

SCHEMA = 1


@dataclass(frozen=True)
class Marks:
    """Every question's score, to compare systems question by question.

    ids_sha256: of the questions' ids in order: only marks of the same questions are compared.
    exact_match: (questions,) 0 or 1; f1: (questions,) percent, to two decimals.
    """

    ids_sha256: str
    exact_match: tuple[int, ...]
    f1: tuple[float, ...]

    def of(self, value: str) -> tuple[float, ...] | None:
        """The marks behind a printed value, in percent; None where it is not a mean over questions."""
        return {"f1": self.f1, "exact_match": tuple(100.0 * mark for mark in self.exact_match)}.get(value)


@dataclass(frozen=True)
class Trial:
    """One value of a row's grid. f1: what it scored on dev; settings_sha256: the run that scored it."""

    value: str
    f1: float
    settings_sha256: str


@dataclass(frozen=True)
class GridResult:
    """What was tried for a row. chosen: the value with the best F1, the first of equals."""

    setting: str
    trials: tuple[Trial, ...]
    chosen: str


@dataclass(frozen=True)
class TableRecord:
    """A run as a table keeps it.

    row, column, seed: its place; column: None where it serves a whole row.
    settings_sha256, chosen, data_sha256: what it was asked (`qa.tables.identity.Asked`).
    checkpoint_bytes: of the weights it saved; None for an evaluation.
    wall_seconds: from start to end, reading and scoring included, over all its attempts.
    attempts: how often it was started; above 1 where it was interrupted.
    """

    table: str
    scale: str
    row: str
    column: str | None
    seed: int
    settings_sha256: str
    chosen: dict[str, Any]
    data_sha256: dict[str, str | None]
    run: RunRecord
    marks: Marks | None = None
    grid: GridResult | None = None
    checkpoint_bytes: int | None = None
    wall_seconds: float = 0.0
    attempts: int = 1
    schema: int = field(default=SCHEMA)


def marks_of(predictions: Path) -> Marks | None:
    """The marks in a run's predictions.jsonl; None where it holds none, or there is no such file."""
    if not predictions.is_file():
        return None
    rows = [json.loads(line) for line in predictions.read_text(encoding="utf-8").split("\n") if line]
    if not rows or any("f1" not in row for row in rows):
        return None
    return Marks(
        ids_sha256=hash_ids(row["id"] for row in rows),
        exact_match=tuple(round(row["exact_match"]) for row in rows),
        f1=tuple(round(100 * row["f1"], 2) for row in rows),
    )


def hash_ids(ids: Iterable[str]) -> str:
    """One sha256 for question ids in order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def write_table_record(path: Path, record: TableRecord) -> None:
    """Write a record as JSON: all marks in one line each. Whole or not at all."""
    content = asdict(record)
    if record.marks is not None:
        content["marks"] = {
            "ids_sha256": record.marks.ids_sha256,
            "exact_match": "".join(map(str, record.marks.exact_match)),
            "f1": " ".join(f"{mark:.10g}" for mark in record.marks.f1),
        }
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_table_record(path: Path) -> TableRecord:
    """Read one. Raises InputError where the file is not one, or is one of another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise InputError(f"{path}: a record of schema {content['schema']}, not {SCHEMA}; run it again")
        marks, grid = content["marks"], content["grid"]
        return TableRecord(
            **{
                **content,
                "run": record_of(content["run"], path),
                "marks": None if marks is None else _marks(marks),
                "grid": None if grid is None else _grid(grid),
            }
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a record of a table ({error}); delete it and run again") from error


def _marks(content: dict[str, str]) -> Marks:
    exact = tuple(map(int, content["exact_match"]))
    f1 = tuple(map(float, content["f1"].split()))
    if len(exact) != len(f1):
        raise ValueError(f"{len(exact)} marks of exact match, {len(f1)} of F1")
    return Marks(content["ids_sha256"], exact, f1)


def _grid(content: dict[str, Any]) -> GridResult:
    trials: Sequence[dict[str, Any]] = content["trials"]
    return GridResult(content["setting"], tuple(Trial(**trial) for trial in trials), content["chosen"])

"""Runs to compare: found by their records, and matched with what wandb shows of them.

The records are the truth. What wandb shows of the same run is compared with them, number by number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qa.errors import InputError
from qa.results import RECORD_NAME, RunRecord, Scores, read_record
from qa.tables.record import Marks, marks_of, read_table_record
from qa.tables.store import KEPT
from qa.tracking import final_numbers
from qa.tracking.online import OnlineRun
from qa.tracking.runs import ID_FILE


@dataclass(frozen=True)
class ComparedRun:
    """One run. numbers: by the names of `final_numbers`. place: its record's file; None: wandb's alone.

    signature: how its scores were made; marks: every question's; None where they were not kept.
    wandb_id: of the run that tracked it.
    """

    name: str
    numbers: dict[str, float]
    settings: dict[str, Any]
    place: Path | None = None
    signature: str = ""
    marks: Marks | None = field(default=None, repr=False)
    wandb_id: str | None = None


def find_runs(places: Sequence[str | Path]) -> list[ComparedRun]:
    """The runs behind files and folders; in folders, also below them, all that are records of runs.

    Where two have one name, each is called by its file. Raises InputError where a place is not there, is no
    record, or holds none.
    """
    runs: dict[Path, ComparedRun] = {}
    for place in map(Path, places):
        if not place.exists():
            raise InputError(f"{place}: there is no such file or folder; name records, or folders of them")
        files = _records_below(place) if place.is_dir() else [place]
        if not files:
            raise InputError(f"{place}: holds no record of a run ({RECORD_NAME}); train one, or name another")
        runs |= {file.resolve(): _read(file) for file in files}
    named = [run.name for run in runs.values()]
    return [replace(r, name=str(r.place)) if named.count(r.name) > 1 else r for r in runs.values()]


def _records_below(folder: Path) -> list[Path]:
    """A table's runs have their record twice: the table's holds more."""
    found = [path for path in sorted(folder.rglob("*.json")) if _ends_as_record(path)]
    kept = {path.parent for path in found if path.name == KEPT}
    return [path for path in found if path.parent not in kept or path.name == KEPT]


def _ends_as_record(path: Path) -> bool:
    """Whether a file is worth reading: records end in their schema, and predictions can be gigabytes."""
    if any(part.startswith("checkpoint-") for part in path.parts):
        return False
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 100))
        return re.search(rb'"schema": \d+\s*}\s*$', stream.read()) is not None


def _read(path: Path) -> ComparedRun:
    try:
        is_tables = "settings_sha256" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        is_tables = False
    if is_tables:
        kept = read_table_record(path)
        parts = (kept.table, kept.scale, kept.row, kept.column, f"seed{kept.seed}")
        name = "-".join(filter(None, parts)) if kept.table else path.parent.name
        return _compared(name, path, kept.run, kept.marks)
    record = read_record(path)
    name = path.stem if path.name != RECORD_NAME else path.resolve().parent.name
    # Marks lie beside the records, and an evaluation in the same folder has replaced the training's.
    alone = path.name == RECORD_NAME and not path.with_name(f"evaluation-{RECORD_NAME}").exists()
    return _compared(
        name, path, record, marks_of(path.parent / "eval" / "predictions.jsonl") if alone else None
    )


def _compared(name: str, path: Path, record: RunRecord, marks: Marks | None) -> ComparedRun:
    last: Scores | None = record.scores.get("eval") or record.scores.get("predict")
    try:
        wandb_id = json.loads(path.with_name(ID_FILE).read_text(encoding="utf-8"))["id"]
    except (OSError, ValueError, KeyError, TypeError):
        wandb_id = None
    return ComparedRun(
        name=name,
        numbers=final_numbers(record),
        settings={"model_name_or_path": record.model, **record.settings, "strategy": record.strategy},
        place=path,
        signature=last.signature if last else "",
        marks=marks,
        wandb_id=wandb_id,
    )


@dataclass(frozen=True)
class Beside:
    """Local runs and wandb's. runs: the local ones, then those known to wandb alone. notes: sentences."""

    runs: tuple[ComparedRun, ...]
    notes: tuple[str, ...]


def beside_wandb(local: Sequence[ComparedRun], online: Sequence[OnlineRun]) -> Beside:
    """Match runs, by wandb's id or else by a name that only one run bears, and say where numbers differ."""
    runs, notes, matched = list(local), [], set()
    for run in local:
        other = _match(run, online)
        if other is not None:
            matched.add(other.id)
            notes += disagreements(run, other)
    for one in online:
        if one.id not in matched:
            runs.append(ComparedRun(f"{one.name} ({one.id}, wandb)", one.numbers, one.settings))
    agreeing = len(matched) - len({note.partition(":")[0] for note in notes})
    return Beside(
        tuple(runs), (f"wandb agrees with {agreeing} of {len(matched)} runs that it knows.", *notes)
    )


def _match(run: ComparedRun, online: Sequence[OnlineRun]) -> OnlineRun | None:
    if run.wandb_id is not None:
        return next((one for one in online if one.id == run.wandb_id), None)
    bearing = [one for one in online if one.name == run.name]
    return bearing[0] if len(bearing) == 1 else None


def disagreements(run: ComparedRun, online: OnlineRun) -> list[str]:
    """A sentence for every number that is not the same at wandb, and one for those that are not there."""
    absent = sorted(run.numbers.keys() - online.numbers.keys())
    found = [
        f"{run.name}: {name}: {run.numbers[name]:.10g} in the record, {online.numbers[name]:.10g} at wandb."
        for name in sorted(run.numbers.keys() & online.numbers.keys())
        if not math.isclose(run.numbers[name], online.numbers[name], rel_tol=1e-6, abs_tol=1e-9)
    ]
    if absent:
        found.append(f"{run.name}: wandb ({online.state}) has no {', '.join(absent)}.")
    return found

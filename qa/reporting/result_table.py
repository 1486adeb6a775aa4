"""Committed run records -> the README's table of results: `python -m qa.reporting.result_table FILE ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qa.errors import InputError, run_program
from qa.results import RunRecord, Scores, read_record

HEADER = ("record", "reader", "trained on", "scored on", "EM", "F1", "F1, 95 %", "F1 before", "training")


def result_table(records: Sequence[tuple[str, RunRecord]]) -> str:
    """A Markdown table, one row per (path, record), with the signatures of the scores below it.

    EM, F1 and their interval are percent. `training` is wall-clock time on the record's own hardware; what
    only evaluates a finished reader has none.
    """
    rows = [HEADER, tuple("---" for _ in HEADER), *(_row(path, record) for path, record in records)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *(f"- `{_name(path)}`: `{record.scores['eval'].signature}`" for path, record in records)]
    return "\n".join(lines)


def _name(path: str) -> str:
    """A record's name: its file's, or where many records have that name, its folder's as well."""
    place = Path(path)
    return place.stem if place.parent.name in ("", "results") else f"{place.parent.name}/{place.stem}"


def _row(path: str, record: RunRecord) -> tuple[str, ...]:
    scores = record.scores["eval"]
    before = record.scores.get("before")
    return (
        f"[{_name(path)}]({path})",
        f"{record.model}, {record.strategy}",
        _questions(record.data["train"]) if "train" in record.data else "",
        _questions(record.data["validation"]),
        f"{scores.metrics['exact_match']:.1f}",
        f"{scores.metrics['f1']:.1f}",
        _interval(scores),
        f"{before.metrics['f1']:.1f}" if before else "",
        _training(record),
    )


def _training(record: RunRecord) -> str:
    if "seconds" not in record.training:
        return ""
    return f"{record.training['seconds'] / 60:.0f} min on {_hardware(record.environment['hardware'])}"


def _questions(report: dict[str, Any]) -> str:
    return f"{report['questions']:,} of {Path(str(report['source'])).name}"


def _interval(scores: Scores) -> str:
    if "f1" not in scores.intervals:
        return ""
    low, high = scores.intervals["f1"]
    return f"{low:.1f} to {high:.1f}"


def _hardware(hardware: dict[str, Any]) -> str:
    return str(hardware["gpu"]) if "gpu" in hardware else f"{hardware['cores']} CPU cores"


def main(paths: Sequence[str]) -> None:
    """Print the table of the records in `paths`."""
    if not paths:
        raise InputError("no records named; give files such as experiments/results/*.json")
    print(result_table([(path, read_record(Path(path))) for path in paths]))


if __name__ == "__main__":
    run_program(lambda: main(sys.argv[1:]), "qa.reporting.result_table")

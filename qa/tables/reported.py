"""Numbers that others have published: experiments/reported.yaml, read and checked. None without a source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qa.configuration import nearest
from qa.errors import InputError


@dataclass(frozen=True)
class Reported:
    """One published row. values: name of the measure -> number (percent); note: split, share, threshold."""

    label: str
    values: dict[str, float]
    source: str
    note: str = ""


def read_reported(path: Path) -> dict[str, tuple[Reported, ...]]:
    """All published rows by the name of their list. Raises InputError for a row without source or values."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({error}); it holds lists of published rows") from error
    return {
        str(name): tuple(_row(one, f"{path}: {name}: row {number}") for number, one in enumerate(rows, 1))
        for name, rows in content.items()
    }


def chosen_rows(reported: dict[str, tuple[Reported, ...]], lists: tuple[str, ...]) -> list[Reported]:
    """The rows of some lists, in order. Raises InputError for a list that is not there."""
    for name in lists:
        if name not in reported:
            raise InputError(f"published: {name}: no such list; {nearest(name, reported)}")
    return [row for name in lists for row in reported[name]]


def _row(content: Any, place: str) -> Reported:
    if not isinstance(content, dict) or set(content) - {"label", "note", "values", "source"}:
        raise InputError(f"{place}: has label, note, values and source, and nothing else")
    values = content.get("values")
    if not content.get("label") or not content.get("source") or not isinstance(values, dict) or not values:
        raise InputError(f"{place}: needs a label, values and the source they were read in")
    if not all(isinstance(value, int | float) for value in values.values()):
        raise InputError(f"{place}: values are numbers")
    return Reported(
        str(content["label"]),
        {str(name): float(value) for name, value in values.items()},
        str(content["source"]),
        str(content.get("note", "")),
    )

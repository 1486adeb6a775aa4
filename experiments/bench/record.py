"""The record of a benchmark: JSON that says what was measured, with what and on what; and its tables."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.bench.measuring import Part, Ratio, Row
from qa.errors import InputError
from qa.files import write_json

SCHEMA = 1
RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
MARK = "<!-- From here on: python -m experiments.bench --readme -->"


@dataclass(frozen=True)
class BenchRecord:
    """One machine's benchmark. environment: `qa.results.describe_environment`. data: what it was run on."""

    environment: dict[str, Any]
    data: str
    parts: tuple[Part, ...]
    schema: int = SCHEMA


def slug(environment: dict[str, Any]) -> str:
    """A file name for the hardware: the GPU's name, or the CPU's with the cores in use."""
    hardware = environment["hardware"]
    words = str(hardware.get("gpu") or f"{hardware['cpu']} {hardware['cores']} cores")
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def write(path: Path, record: BenchRecord) -> None:
    """Whole or not at all."""
    write_json(path, asdict(record))


def read(path: Path) -> BenchRecord:
    """Raises InputError where the file is no record, or one of another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise InputError(f"{path}: a benchmark of schema {content['schema']}, not {SCHEMA}; run it again")
        return BenchRecord(**{**content, "parts": tuple(_part(part) for part in content["parts"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not the record of a benchmark ({error}); run it again") from error


def _part(content: dict[str, Any]) -> Part:
    rows = [
        Row(row["name"], row["values"], {base: Ratio(**ratio) for base, ratio in row["ratios"].items()})
        for row in content["rows"]
    ]
    lists = {name: tuple(content[name]) for name in ("bases", "notes")}
    return Part(**{**content, **lists, "rows": tuple(rows)})


def readme(text: str, records: Sequence[BenchRecord]) -> str:
    """The README's text with the tables of all records in place of what stands behind `MARK`."""
    head, mark, _ = text.partition(MARK)
    return "\n\n".join([head + mark, *map(tables, records)]) + "\n"


def merged(old: BenchRecord | None, new: BenchRecord) -> BenchRecord:
    """The new record, and the parts of the old one that were not run again: same commit and versions only."""
    if old is None or old.environment != new.environment or old.data != new.data:
        return new
    names = {part.name for part in new.parts}
    kept = tuple(part for part in old.parts if part.name not in names)
    return BenchRecord(new.environment, new.data, kept + new.parts)


def tables(record: BenchRecord) -> str:
    """Markdown: where it was measured, then a table for each part."""
    hardware, packages = record.environment["hardware"], record.environment["packages"]
    where = hardware.get("gpu") or f"{hardware['cpu']}, {hardware['cores']} cores"
    threads = f"{hardware['threads']} threads, " if "threads" in hardware else ""
    head = (
        f"{where}, {threads}torch {packages['torch']}, transformers {packages['transformers']}. "
        f"{record.data} Contenders take turns within a run. Numbers are medians over its rounds; a ratio is "
        "taken in each round, above 1 is better: median (lowest to highest)."
    )
    return "\n\n".join([head, *map(_table, record.parts)])


def summary(record: BenchRecord) -> str:
    """Markdown: a table of what is ours, with its ratios alone."""
    lines = ["| | against | ratio |", "| --- | --- | ---: |"]
    for part in record.parts:
        lines += [
            f"| {part.title}, {row.name} | {base} | {_ratio(ratio)} |"
            for row in part.rows
            if row.name.startswith("ours")
            for base, ratio in row.ratios.items()
        ]
    return "\n".join(lines)


def _table(part: Part) -> str:
    units = list(dict.fromkeys(unit for row in part.rows for unit in row.values))
    header = [part.title, *units, *(f"{part.ratio_of}, against {base}" for base in part.bases)]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for row in part.rows:
        cells = [_number(row.values[unit]) if unit in row.values else "" for unit in units]
        lines.append([row.name, *cells, *(_ratio(row.ratios.get(base)) for base in part.bases)])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([text, "", *part.notes]) if part.notes else text


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return "1"
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"

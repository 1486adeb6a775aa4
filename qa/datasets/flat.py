"""Flat records with the columns of SQuAD on the hub: id, question, context, answers, perhaps title.

They come as a JSON list (alone or under `data`), JSON lines, CSV, Parquet, or hub data sets; extra columns
are ignored.

- answers: `{"text": [...], "answer_start": [...]}` or a list of `{"text", "answer_start"}`; in a CSV cell as
  JSON, or as pandas writes it.
- Or two columns, answer_text and answer_start, for one answer; both empty (or no text and -1) means
  unanswerable.
- id: where the first record has none, `row-1`, `row-2`, ... are given (counted from 1 over the records) and
  told.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from qa.datasets.checking import Finding, RawRecord, absent
from qa.datasets.content import Content, csv_rows, json_lines, parquet_rows
from qa.datasets.squad import articles_of

COLUMNS = (
    "id",
    "question",
    "context",
    "answers",
    "title",
    "answer_text",
    "answer_start",
    "is_impossible",
    "answer_type",
)
OTHER_NAMES = {"passage": "context", "paragraph": "context", "document": "context", "query": "question"}
GIVEN_IDS = "questions came without an id and are called row-1, row-2, ..."

Row = tuple[str, "Mapping[str, Any] | Finding"]


def columns_fit(columns: Iterable[str]) -> bool:
    """Whether these can be flat records; answers may be missing, in what is only to be predicted."""
    return {"question", "context"} <= set(columns)


def wrong_columns(name: str, columns: Sequence[str]) -> str:
    """The sentence for columns that do not fit: those found, those needed, and which is near which."""
    found = ", ".join(map(printable, columns[:12])) + (", ..." if len(columns) > 12 else "")
    renames = []
    for missing in ("question", "context"):
        if missing in columns:
            continue
        near = [column for column in columns if _near(column.lower(), missing)]
        renames.append(f"rename {printable(near[0])} to {missing}" if near else f"add {missing}")
    needed = "flat records need question, context and answers (or answer_text and answer_start)"
    return f"{name}: the columns are {found}, but {needed}; {', '.join(renames)}."


def _near(column: str, wanted: str) -> bool:
    return OTHER_NAMES.get(column) == wanted or bool(difflib.get_close_matches(column, [wanted], cutoff=0.6))


def printable(column: str) -> str:
    """The name itself, or quoted where a terminal could not show it."""
    return column if column.isprintable() else repr(column)


def json_recognised(content: Content) -> bool:
    """A JSON list of records, alone or under `data`, or a single record."""
    if content.shape != "json":
        return False
    listed = articles_of(content.head)
    if listed is None:
        return columns_fit(content.head)
    return any(isinstance(one, Mapping) and columns_fit(one) for one in listed)


def read_json(content: Content) -> Iterator[RawRecord]:
    """Locations as in `[3]` or `data[3]`, from 0."""
    listed = articles_of(content.head)
    if listed is None:
        return records_from_rows([("the record", content.head)])
    prefix = "data" if isinstance(content.head, Mapping) else ""
    return records_from_rows((f"{prefix}[{number}]", row) for number, row in enumerate(listed))


def lines_recognised(content: Content) -> bool:
    """JSON lines whose first object has a question and a context."""
    return content.shape == "json-lines" and columns_fit(content.head)


def read_lines(content: Content) -> Iterator[RawRecord]:
    """Locations as in `line 14`, from 1."""
    return records_from_rows(
        (f"line {number}", row if broken is None else Finding("json", broken))
        for number, row, broken in json_lines(content)
    )


def csv_recognised(content: Content) -> bool:
    """CSV with a question and a context column."""
    return content.shape == "csv" and columns_fit(content.head)


def read_csv(content: Content) -> Iterator[RawRecord]:
    """Locations as in `line 14`: the line on which the row begins, from 1, the header's included."""
    return records_from_rows(_csv(content))


def _csv(content: Content) -> Iterator[Row]:
    """Empty cells are absent values: CSV cannot tell the two apart."""
    rows = csv_rows(content.path, content.name, content.delimiter)
    next(rows)
    for line, cells in rows:
        if len(cells) == len(content.head):
            yield (
                f"line {line}",
                {column: cell or None for column, cell in zip(content.head, cells, strict=True)},
            )
        else:
            problem = f"the row has {len(cells)} cells, but the header {len(content.head)}"
            yield (
                f"line {line}",
                Finding("row", problem, "quote cells that hold a delimiter, or use --on_bad_record drop"),
            )


def parquet_recognised(content: Content) -> bool:
    """Parquet with a question and a context column."""
    return content.shape == "parquet" and columns_fit(content.head)


def read_parquet(content: Content) -> Iterator[RawRecord]:
    """Locations as in `row 14`, from 1."""
    rows = enumerate(parquet_rows(content, COLUMNS), start=1)
    return records_from_rows((f"row {number}", row) for number, row in rows)


def records_from_rows(rows: Iterable[Row]) -> Iterator[RawRecord]:
    """(location, row) -> records; a row that could not be read comes as its Finding."""
    ids_given: bool | None = None
    for number, (location, row) in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            fault = row if isinstance(row, Finding) else Finding("shape", "the record is not an object")
            yield RawRecord(location, findings=(fault,))
            continue
        if ids_given is None:
            ids_given = "id" in row
        name_it = not ids_given and "id" not in row
        yield RawRecord(
            location,
            id=f"row-{number}" if name_it else row.get("id"),
            question=row.get("question"),
            context=row.get("context"),
            answers=answers_of(row),
            title=row.get("title"),
            is_impossible=row.get("is_impossible"),
            answer_type=row.get("answer_type"),
            notes=(GIVEN_IDS,) if name_it else (),
        )


def answers_of(row: Mapping[str, Any]) -> object:
    """The answers column, or the one answer of answer_text and answer_start in the same form."""
    if "answers" in row or "answer_text" not in row:
        return row.get("answers")
    text, start = row["answer_text"], row.get("answer_start")
    if absent(text) or text == "":
        nowhere = absent(start) or start in ("", -1, "-1")
        return [] if nowhere else [{"text": "", "answer_start": start}]
    return [{"text": text, "answer_start": start}]

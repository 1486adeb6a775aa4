"""Examples <-> the examples table: an Arrow file with explicit types, read by memory mapping.

Columns: id, question, context, title: string; answers: {text: list<string>, answer_start: list<int32>}, two
parallel lists, empty = unanswerable. The types are stated, never inferred: a file without any answer keeps
them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa.records import Answer, Example

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features

ROWS_AT_ONCE = 1000
CHARACTERS_AT_ONCE = 1 << 24  # 16 M characters: far below the 2 GiB that one Arrow string column can address


def examples_features() -> Features:
    """The table's types."""
    from datasets import Features, List, Value

    text = Value("string")
    return Features(
        {
            "id": text,
            "question": text,
            "context": text,
            "title": text,
            "answers": {"text": List(text), "answer_start": List(Value("int32"))},
        }
    )


def record_batches(examples: Iterable[Example]) -> Iterator[pa.RecordBatch]:
    """Batches of at most `ROWS_AT_ONCE` rows and about `CHARACTERS_AT_ONCE` characters."""
    schema = examples_features().arrow_schema
    rows: list[Example] = []
    characters = 0
    for example in examples:
        rows.append(example)
        characters += len(example.context) + len(example.question)
        if len(rows) == ROWS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield _record_batch(rows, schema)
            rows, characters = [], 0
    if rows:
        yield _record_batch(rows, schema)


def _record_batch(rows: list[Example], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns = [pa.array([getattr(row, name) for row in rows], pa.string()) for name in schema.names[:-1]]
    answers = [
        {"text": [gold.text for gold in row.answers], "answer_start": [gold.start for gold in row.answers]}
        for row in rows
    ]
    columns.append(pa.array(answers, schema.field("answers").type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def write_examples(examples: Iterable[Example], path: Path) -> int:
    """Streams the examples into an Arrow file and forces it to disk. Returns the number of rows."""
    import pyarrow as pa

    return _write(record_batches(examples), examples_features().arrow_schema, path, pa)


def write_rows(table: Dataset, rows: Any, path: Path) -> int:
    """Streams the table's rows with these indices, in their order, into an Arrow file. Returns their
    number."""
    import pyarrow as pa

    chosen = table.select(rows).with_format("arrow").iter(batch_size=ROWS_AT_ONCE)
    batches = (batch for chunk in chosen for batch in chunk.to_batches())
    return _write(batches, examples_features().arrow_schema, path, pa)


def _write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path, pa: Any) -> int:
    count = 0
    with path.open("wb") as file:
        with pa.ipc.new_stream(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
                count += batch.num_rows
        file.flush()
        os.fsync(file.fileno())
    return count


def open_examples(path: Path, fingerprint: str, first: int | None = None) -> Dataset:
    """The memory-mapped table, or its first rows. The fingerprint is ours, of the content: `datasets` would
    take the path and the modification time, and hand out stale rows for changed content."""
    from datasets import Dataset
    from datasets.table import MemoryMappedTable

    table = MemoryMappedTable.from_file(str(path))
    if first is not None and first < table.num_rows:
        table = table.slice(0, first)
    return Dataset(table, fingerprint=fingerprint)


def table_from_examples(examples: Iterable[Example]) -> Dataset:
    """A table in memory, for questions that come from nowhere on disk. The examples are taken as they are."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    schema = examples_features().arrow_schema
    return Dataset(InMemoryTable(pa.Table.from_batches(list(record_batches(examples)), schema=schema)))


def example_from_row(row: Mapping[str, Any]) -> Example:
    """One row of the table, as indexing or iterating over it gives it."""
    answers = row["answers"]
    golds = zip(answers["text"], answers["answer_start"], strict=True)
    return Example(
        id=row["id"],
        question=row["question"],
        context=row["context"],
        answers=tuple(Answer(text, start) for text, start in golds),
        title=row["title"] or "",
    )


def examples_of(table: Dataset) -> Iterator[Example]:
    """All rows in order, `ROWS_AT_ONCE` in memory at a time."""
    for chunk in table.with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
        yield from map(example_from_row, chunk.to_pylist())


def count_unanswerable(table: Dataset) -> int:
    """Rows without an answer."""
    import pyarrow.compute as pc

    chunks = table.select_columns(["answers"]).with_format("arrow").iter(batch_size=100 * ROWS_AT_ONCE)
    lengths = (pc.list_value_length(pc.struct_field(chunk["answers"], "text")) for chunk in chunks)
    return sum(pc.sum(pc.equal(counts, 0)).as_py() or 0 for counts in lengths)

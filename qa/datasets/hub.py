"""Data sets of the Hugging Face hub with SQuAD's columns, by name, configuration, split and revision.

Nothing of a data set's own code is run: `datasets` 4 and later knows no loading scripts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qa.datasets.checking import RawRecord
from qa.datasets.flat import COLUMNS, columns_fit, records_from_rows, wrong_columns
from qa.datasets.source import near_files
from qa.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

ROWS_AT_ONCE = 1000


def load_hub_rows(name: str, config_name: str | None, split: str, revision: str | None) -> Dataset:
    """The rows with the columns the project reads.

    Raises: InputError for whatever the hub or the network refuses.
    """
    import datasets

    try:
        rows = datasets.load_dataset(name, config_name, split=split, revision=revision)
    except Exception as error:  # dozens of types, from four libraries
        lines = [line.strip(" .") for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        reason = f"{type(error).__name__}: {lines[0]}"
        near = near_files(Path(name))
        meant = f" ({near}?)" if near else ""
        raise InputError(
            f"{name}: there is no such file{meant}, and split {split} of the hub data set cannot be loaded "
            f"({reason}); check the name, the split and the network, or name a local file."
        ) from error
    if not columns_fit(rows.column_names):
        raise InputError(wrong_columns(f"{name}[{split}]", rows.column_names))
    return rows.select_columns([column for column in COLUMNS if column in rows.column_names])


def rows_digest(rows: Dataset) -> str:
    """sha256 over the rows as Arrow writes them: the content, wherever it was cached."""
    digest = hashlib.sha256()
    for table in rows.with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
        for batch in table.replace_schema_metadata(None).combine_chunks().to_batches():
            digest.update(memoryview(batch.serialize()))
        digest.update(str(table.schema.remove_metadata()).encode())
    return digest.hexdigest()


def read_hub(rows: Dataset) -> Iterator[RawRecord]:
    """Locations as in `row 14`, from 1."""
    tables = rows.with_format("arrow").iter(batch_size=ROWS_AT_ONCE)
    values = (row for table in tables for row in table.to_pylist())
    return records_from_rows((f"row {number}", row) for number, row in enumerate(values, start=1))

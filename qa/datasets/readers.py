"""Which reader reads which content: a data set's form is added with one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qa.datasets import flat, mrqa, squad
from qa.datasets.checking import RawRecord
from qa.datasets.content import Content
from qa.errors import InputError


@dataclass(frozen=True)
class Reader:
    """recognises: whether the content is of this form; read: its questions, unchecked, in the file's
    order."""

    recognises: Callable[[Content], bool]
    read: Callable[[Content], Iterator[RawRecord]]


DATASETS: dict[str, Reader] = {
    "squad": Reader(squad.recognises, squad.read),
    "mrqa": Reader(mrqa.recognises, mrqa.read),
    "flat-json": Reader(flat.json_recognised, flat.read_json),
    "flat-jsonl": Reader(flat.lines_recognised, flat.read_lines),
    "flat-csv": Reader(flat.csv_recognised, flat.read_csv),
    "flat-parquet": Reader(flat.parquet_recognised, flat.read_parquet),
}


def reader_of(content: Content) -> tuple[str, Reader]:
    """The first reader that recognises the content. Raises: InputError that says what was found instead."""
    for form, reader in DATASETS.items():
        if reader.recognises(content):
            return form, reader
    raise InputError(_unrecognised(content))


def _unrecognised(content: Content) -> str:
    listed = squad.articles_of(content.head) if content.shape == "json" else None
    if listed == []:
        return f"{content.name}: it holds no question; name a source with questions."
    if content.shape in ("csv", "parquet"):
        return flat.wrong_columns(content.name, content.head)
    record = listed[0] if listed else content.head
    if isinstance(record, dict) and (listed or content.shape == "json-lines"):
        return flat.wrong_columns(content.name, list(record))
    found = f"a list that begins with {record!r:.40}"
    if isinstance(record, dict):
        found = f"an object with {', '.join(map(flat.printable, list(record)[:8]))}"
    known = "SQuAD (data, paragraphs, qas), MRQA lines, flat records (question, context, answers)"
    return f"{content.name}: this JSON is {found}, none of the known forms; give {known}."

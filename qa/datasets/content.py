"""What shape a file's content has, found out from its bytes and never from its name, and its rows one by one.

Four shapes: a JSON document (read whole, as JSON must be), JSON lines, CSV, Parquet (the last three as
    streams).
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from qa.datasets.source import GZIP_MAGIC, opened
from qa.errors import InputError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

FOREIGN = {
    GZIP_MAGIC: "gzip data inside gzip data",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"\x28\xb5\x2f\xfd": "zstandard data",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
}
DELIMITERS = ",\t;"
ROWS_AT_ONCE = 1000

Shape = Literal["json", "json-lines", "csv", "parquet"]


@dataclass(frozen=True)
class Content:
    """A file whose shape is known.

    name: the file as the user named it, for messages.
    head: json: the whole document; json-lines: the first line's object; csv and parquet: the columns' names.
    delimiter: between the cells of a CSV file.
    """

    path: Path
    name: str
    shape: Shape
    head: Any
    delimiter: str = ","


def content_of(path: Path, name: str) -> Content:
    """Finds the shape. Raises: InputError where the content has none of the four."""
    with opened(path, name) as file:
        start = file.read(8)
    for magic, what in FOREIGN.items():
        if start.startswith(magic):
            raise InputError(f"{name}: this is {what}; save it as UTF-8 text, plain or gzipped once.")
    if start.startswith(b"PAR1"):
        with parquet_file(path, name) as parquet:
            return Content(path, name, "parquet", parquet.schema_arrow.names)
    with opened(path, name) as file:
        first_line = b""
        for line in file:
            first_line = line.removeprefix(codecs.BOM_UTF8).strip()
            if first_line:
                break
        if not first_line:
            raise InputError(f"{name}: the file is empty; name one with questions in it.")
        if first_line.startswith((b"{", b"[")):
            return _json_content(path, name, first_line, file)
    return _csv_content(path, name)


def _json_content(path: Path, name: str, first_line: bytes, rest: IO[bytes]) -> Content:
    first = None
    if first_line.startswith(b"{"):
        with suppress(ValueError):  # a document of several lines
            first = parsed_json(first_line)
    if first is not None and not isinstance(first.get("data"), list):
        return Content(path, name, "json-lines", first)
    if first is not None and not rest.read().strip():
        return Content(path, name, "json", first)
    del first
    with opened(path, name) as file:
        return Content(path, name, "json", _document(file.read(), name))


def _document(whole: bytes, name: str) -> Any:
    try:
        return parsed_json(whole)
    except UnicodeDecodeError as error:
        line = whole.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}: line {line} is not UTF-8 text; save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        cut_off = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        remedy = "the document is cut off, so fetch the file again" if cut_off else "correct it there"
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{name}: not valid JSON at {where} ({error.msg}); {remedy}.") from error
    except ValueError as error:
        raise InputError(f"{name}: not readable as JSON ({error}); correct the file.") from error


def parsed_json(text: bytes) -> Any:
    """A JSON value. Raw control characters in strings are let through: the record check names them.

    Raises: ValueError (JSONDecodeError and UnicodeDecodeError among them).
    """
    try:
        return json.loads(text.decode("utf-8-sig"), strict=False)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def json_lines(content: Content) -> Iterator[tuple[int, Any, str | None]]:
    """(line number from 1, value, None) of every line that is not blank; (line number, None, reason) of a
    broken one.

    Lines end at line feeds only: Unicode line separators may stand inside JSON strings.
    """
    with opened(content.path, content.name) as file:
        for number, line in enumerate(file, start=1):
            if not line.removeprefix(codecs.BOM_UTF8).strip():
                continue
            try:
                yield number, parsed_json(line.rstrip(b"\r\n")), None
            except json.JSONDecodeError as error:
                yield number, None, f"the line is not valid JSON (column {error.colno}: {error.msg})"
            except UnicodeDecodeError:
                yield number, None, "the line is not UTF-8 text"
            except ValueError as error:
                yield number, None, f"the line is not readable as JSON ({error})"


def _csv_content(path: Path, name: str) -> Content:
    """The delimiter is the one that cuts the header into most columns."""
    headers = {}
    for delimiter in DELIMITERS:
        rows = csv_rows(path, name, delimiter)
        headers[delimiter] = [cell.strip() for cell in next(rows, (1, [""]))[1]]
        rows.close()
    delimiter = max(DELIMITERS, key=lambda one: len(headers[one]))
    header = headers[delimiter]
    if len(header) == 1:
        begins = header[0] if len(header[0]) <= 40 else header[0][:37] + "..."
        raise InputError(
            f"{name}: not JSON, JSON lines, CSV with a header, or Parquet (it begins with {begins!r}); "
            "save it as one of these."
        )
    doubled = sorted({column for column in header if header.count(column) > 1})
    if doubled:
        raise InputError(
            f"{name}: the header names {', '.join(doubled)} twice; give every column a name of its own."
        )
    return Content(path, name, "csv", header, delimiter)


def csv_rows(path: Path, name: str, delimiter: str) -> Generator[tuple[int, list[str]], None, None]:
    """(line on which the row begins, from 1; its cells) of every row that is not blank, the header included.

    Line ends inside quoted cells stay as they are, so offsets hold. Raises: InputError.
    """
    csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is less than a long context
    with opened(path, name) as file:
        rows = csv.reader(_decoded_lines(file), delimiter=delimiter, strict=True)
        line = 1
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{name}: line {rows.line_num + 1} is not UTF-8 text; save the file as UTF-8."
                ) from error
            except csv.Error as error:
                problem = f"the row that begins at line {line} is broken ({error})"
                raise InputError(f"{name}: {problem}; correct its quotation marks.") from error
            if any(cell.strip() for cell in row):
                yield line, row
            line = rows.line_num + 1


def _decoded_lines(file: IO[bytes]) -> Iterator[str]:
    """Line by line, so that a line that is not UTF-8 can be told by its number."""
    for number, line in enumerate(file):
        yield line.decode("utf-8" if number else "utf-8-sig")


@contextmanager
def parquet_file(path: Path, name: str) -> Iterator[pq.ParquetFile]:
    """An open Parquet file; a gzipped one is unpacked to a temporary file, for Parquet is read from its
    end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened(path, name) as file, tempfile.TemporaryFile() as unpacked:
        if isinstance(file, gzip.GzipFile):
            shutil.copyfileobj(file, unpacked, length=1 << 20)
            unpacked.seek(0)
        try:
            yield pq.ParquetFile(unpacked if isinstance(file, gzip.GzipFile) else file)
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's; Arrow's own have no number
            reason = str(error).splitlines()[0].rstrip(" :.") if str(error) else type(error).__name__
            problem = f"the Parquet data is truncated or damaged ({reason})"
            raise InputError(f"{name}: {problem}; fetch the file again.") from error


def parquet_rows(content: Content, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows' values of those of `columns` that the file has, `ROWS_AT_ONCE` in memory at a time."""
    with parquet_file(content.path, content.name) as parquet:
        wanted = [column for column in columns if column in content.head]
        for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted):
            yield from batch.to_pylist()

"""Where a source is, and its bytes: a local file (plain or gzipped), or the name of a hub data set."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from qa.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
DATA_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".gz", ".txt", ".zip", ".arrow")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def local_path(source: str) -> Path | None:
    """The file that `source` names, or None where it is the name of a hub data set.

    An existing path is a file. A path that does not exist is one too (a missing one) where it ends like a
    data file, begins with `.`, `~` or `/`, or lies in a folder that exists: a typing mistake must not become
    a download.
    Raises: InputError for a missing file, a folder, a pipe, an address.
    """
    if not source.strip():
        raise InputError("the data source is empty; name a file, a hub data set, or sample.")
    if "://" in source:
        raise InputError(f"{source}: addresses are not fetched; download the file and name it.")
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            inside = sorted(child.name for child in path.iterdir() if child.is_file())[:5]
            files = f"one of its files ({', '.join(inside)})" if inside else "a file"
            raise InputError(f"{source}: this is a folder; name {files}, or a hub data set as owner/name.")
        if path.exists():
            if not path.is_file():
                raise InputError(
                    f"{source}: this is not a regular file and cannot be read twice; save it to a file."
                )
            return path
        in_folder = "/" in source and path.parent.is_dir()
        looks_local = (
            in_folder or source.startswith((".", "~", "/")) or source.lower().endswith(DATA_SUFFIXES)
        )
        if HUB_NAME.fullmatch(source) and not looks_local:
            return None
        raise InputError(f"{source}: there is no such file; {near_files(path) or 'check the path'}.")
    except OSError as error:
        raise InputError(f"{source:.200}: cannot be looked up ({error.strerror}); check the path.") from error


def near_files(path: Path) -> str:
    """What to say of a file that is not there: near names in its folder, or the part of the path that is
    missing.

    Empty where nothing is near.
    """
    folder = path.parent
    if not folder.is_dir():
        while not folder.is_dir():
            missing, folder = folder, folder.parent
        return f"there is no folder {missing}"
    names = sorted(child.name for child in folder.iterdir() if child.is_file())
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    near += [name for name in names if name.startswith(f"{path.name}.") and name not in near][:3]
    return f"did you mean {' or '.join(str(folder / name) for name in near)}" if near else ""


@contextmanager
def opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked where the first two say gzip. `name` is the file in messages.

    Raises: InputError for what the disk or gzip cannot give, also later, while the bytes are being read.
    """
    try:
        with path.open("rb") as stored:
            packed = stored.read(2) == GZIP_MAGIC
            stored.seek(0)
            if packed:
                with gzip.open(stored) as unpacked:
                    yield cast("IO[bytes]", unpacked)
            else:
                yield stored
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{name}: the gzip data is truncated or damaged ({error}); fetch the file again."
        ) from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the file.") from error


def file_digest(path: Path, name: str) -> str:
    """sha256 of the bytes as they lie on disk. Raises: InputError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the file.") from error

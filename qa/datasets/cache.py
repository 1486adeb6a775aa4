"""A folder per fingerprint, written whole or not at all: an Arrow file and a manifest with what was found in
reading.

It is built under a temporary name and renamed, so that two processes may build it at once: the second to
finish finds the first one's and throws its own away. The manifest holds the Arrow file's size, so that a
damaged folder is built anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from qa.errors import InputError

TABLE = "examples.arrow"
MANIFEST = "manifest.json"


@cache
def reader_version() -> str:
    """sha256 over this package's own source: rows read by an older reader are never taken for this one's."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def fingerprint_of(**settings: Any) -> str:
    """sha256 over the settings and the reader's version; the content's own sha256 is to be one of the
    settings."""
    described = json.dumps({**settings, "reader": reader_version()}, sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def default_cache() -> Path:
    """A folder of ours beside the data sets that `datasets` caches (HF_HOME, HF_DATASETS_CACHE)."""
    from datasets import config

    return Path(config.HF_DATASETS_CACHE) / "qa_examples"


def read_or_build(
    folder: Path, fingerprint: str, build: Callable[[Path], dict[str, Any]]
) -> tuple[Path, dict[str, Any]]:
    """The Arrow file and the manifest of a fingerprint.

    build: writes the Arrow file at the path it is given and returns the manifest, or raises: then nothing is
        left.
    Raises: InputError where the folder cannot be written; whatever `build` raises.
    """
    final = folder / fingerprint
    manifest = _manifest(final)
    if manifest is not None:
        return final / TABLE, manifest
    temporary = folder / f".{fingerprint}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    try:
        temporary.mkdir(parents=True)
        manifest = build(temporary / TABLE)
        manifest["table_bytes"] = (temporary / TABLE).stat().st_size
        with (temporary / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, final)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{folder}: the examples cannot be cached there ({reason}); free space or set cache_dir."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final / TABLE, manifest


def _manifest(folder: Path) -> dict[str, Any] | None:
    """None where the folder is not there or not whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = manifest["table_bytes"] == (folder / TABLE).stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if whole else None


def _publish(temporary: Path, final: Path) -> None:
    try:
        temporary.rename(final)
    except OSError:
        if _manifest(final) is not None:
            return  # another process was faster, with the same rows
        broken = temporary.with_name(temporary.name + ".broken")
        final.rename(broken)
        temporary.rename(final)
        shutil.rmtree(broken, ignore_errors=True)

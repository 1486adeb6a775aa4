"""What the tests of packing and of the packed reader share."""

from __future__ import annotations

import hashlib
from pathlib import Path

from qa.readers import pack

FILES = {*pack.COPIED, "run.json", "README.md", "SHA256SUMS"}


def wrong_sums(folder: Path) -> list[str]:
    """Files whose sha256 is not the listed one, or that are not listed."""
    listed = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    there = {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    actual = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in there}
    return sorted(name for name in listed.keys() | there if listed.get(name) != actual.get(name))

"""Files appear whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qa import files
from qa.files import whole_file, write_json, write_json_lines, write_text


def test_text_is_written_as_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "file.txt"
    write_text(path, "é 😀\r\nשלג\n")
    assert path.read_bytes() == "é 😀\r\nשלג\n".encode()
    assert [child.name for child in path.parent.iterdir()] == ["file.txt"]


def test_json_is_indented_and_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Rømer", "n": [1]})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "name": "Rømer",\n  "n": [\n    1\n  ]\n}\n'


def test_json_lines(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "a.jsonl", ({"i": i, "text": "a\nb"} for i in range(2)))
    assert (tmp_path / "a.jsonl").read_text(
        "utf-8"
    ) == '{"i": 0, "text": "a\\nb"}\n{"i": 1, "text": "a\\nb"}\n'
    write_json_lines(tmp_path / "none.jsonl", [])
    assert (tmp_path / "none.jsonl").read_text("utf-8") == ""


def test_a_lone_surrogate_survives_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.json")
    write_json(tmp_path / "a.json", {"file": name})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"file": name}


def _failing_rows() -> Iterator[Any]:
    yield {"fine": 1}
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda path: write_json(path, {"loss": float("nan")}), ValueError),
        (lambda path: write_json(path, [float("-inf")]), ValueError),
        (lambda path: write_json(path, {"object": object()}), TypeError),
        (lambda path: write_json_lines(path, [{"fine": 1}, {"loss": float("inf")}]), ValueError),
        (lambda path: write_json_lines(path, _failing_rows()), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("before", ["old\n", None])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, write: Any, error: type[BaseException], before: str | None
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_text(before)
    with pytest.raises(error):
        write(path)
    assert {child.name: child.read_text() for child in tmp_path.iterdir()} == (
        {"file": before} if before else {}
    )


def test_a_failing_rename_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()  # a folder in the way
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file", "text")
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_a_reader_sees_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with whole_file(path) as stream:
        stream.write("new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_permissions(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_everything_is_on_the_disk_before_the_name_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def tell_fsync(descriptor: int) -> None:
        calls.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def tell_replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(files.os, "fsync", tell_fsync)
    monkeypatch.setattr(Path, "replace", tell_replace)
    write_text(tmp_path / "file", "text")
    assert calls == ["fsync file", "rename", "fsync folder"]

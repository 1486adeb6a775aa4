"""Checkpoints that can be trusted: a manifest of checksums, written last, says that everything is there.

A run may be killed at any moment. Without a manifest a half-written folder looks like a checkpoint, and one
flipped bit in a weight file loads in silence.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from qa.errors import InputError
from qa.files import sync_folder, write_json, write_text
from qa.results import RECORD_NAME

MANIFEST = "manifest.json"
SET_ASIDE_SUFFIX = ".set-aside"
RUN_MARK = ".qa-run"
"""In every folder that was empty when a run began: such a folder, and no other, may be overwritten."""

_NAME = re.compile(r"checkpoint-([0-9]+)")


def write_manifest(checkpoint: Path) -> None:
    """Seal a checkpoint: size and sha256 of every file in it. Call when nothing is left to write."""
    manifest = checkpoint / MANIFEST
    entries = {}
    for path in sorted(checkpoint.rglob("*")):
        if not path.is_file() or path == manifest:
            continue
        # The sums vouch for what is on the disk, so it has to be there before the manifest is.
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        entry = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        entries[path.relative_to(checkpoint).as_posix()] = entry
    write_json(manifest, {"files": entries})
    sync_folder(checkpoint.parent)


def find_fault(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be trusted, in a few words; None where every file is as it was sealed.

    Files that came later are no fault.
    """
    try:
        content = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        sealed = [(name, entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()]
    except FileNotFoundError:
        return "it was never finished (no manifest)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "its manifest cannot be read"
    if not sealed:
        return "its manifest names no file"
    try:
        # All sizes before any sum: what a full disk or a kill leaves is found without reading gigabytes.
        for name, size, _ in sealed:
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
        for name, _, sha256 in sealed:
            if file_sha256(checkpoint / name) != sha256:
                return f"{name} has changed since it was written"
    except OSError as error:
        return f"its files cannot be read ({error.strerror})"
    return None


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checkpoints_in(output_dir: Path) -> list[Path]:
    """Checkpoint folders, whole or not, the one with most steps first. By number: 1000 comes after 900."""
    if not output_dir.is_dir():
        return []
    found = [path for path in output_dir.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: (_steps(path), path.name), reverse=True)


def _steps(checkpoint: Path) -> int:
    """Optimiser steps, from the folder's name; -1 where it does not tell."""
    match = _NAME.match(checkpoint.name)
    return int(match[1]) if match else -1


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    checkpoint: None = from the start. passed_over: newer folders in the way, each with the reason; the main
    process moves them with `set_aside`.
    """

    checkpoint: Path | None
    passed_over: tuple[tuple[Path, str], ...] = ()


def find_resume_point(output_dir: Path) -> ResumePoint:
    """The newest checkpoint that verifies. Looks only; `set_aside` moves the broken ones."""
    passed_over: list[tuple[Path, str]] = []
    for checkpoint in checkpoints_in(output_dir):
        fault = find_fault(checkpoint)
        if fault is None:
            return ResumePoint(checkpoint, tuple(passed_over))
        passed_over.append((checkpoint, fault))
    return ResumePoint(None, tuple(passed_over))


def require_whole(checkpoint: Path) -> Path:
    """A checkpoint named by the user, verified. Raises InputError where it is missing or broken."""
    remedy = "leave the value out to go on from the newest whole one"
    if not checkpoint.is_dir():
        raise InputError(f"resume_from_checkpoint: there is no folder {checkpoint}; {remedy}")
    fault = find_fault(checkpoint)
    if fault is not None:
        raise InputError(f"resume_from_checkpoint: {checkpoint} cannot be trusted: {fault}; {remedy}")
    return checkpoint


def set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint so that no run takes it for its own; nothing is deleted. Returns its new place."""
    target = checkpoint.with_name(checkpoint.name + SET_ASIDE_SUFFIX)
    number = 1
    while target.exists():
        number += 1
        target = checkpoint.with_name(f"{checkpoint.name}{SET_ASIDE_SUFFIX}-{number}")
    return checkpoint.rename(target)


def remove_old(output_dir: Path, keep: int | None, best: Path | None) -> list[Path]:
    """Delete the oldest checkpoints until `keep` are left, and what an interrupted deletion left of others.

    keep: None, 0 or less: all. The newest always stays, because a killed run goes on from it, and the best
    always stays: with `keep` 1 there may be two.
    Returns: what was deleted, newest first. The manifest goes first: an interrupted deletion leaves an
    unfinished checkpoint, not a broken one.
    """
    if keep is None or keep <= 0:
        return []
    newest_first = checkpoints_in(output_dir)
    protected = {path.resolve() for path in (*newest_first[:1], best) if path is not None}
    others = [path for path in newest_first if path.resolve() not in protected]
    sealed = [path for path in others if (path / MANIFEST).is_file()]
    kept = set(sealed[: max(0, keep - (len(newest_first) - len(others)))])
    doomed = [path for path in others if path not in kept]
    for path in doomed:
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)
    return doomed


def prepare_output_dir(
    output_dir: Path,
    *,
    training: bool,
    resume: str | None,
    overwrite: bool,
    newest: str,
) -> ResumePoint:
    """Settle what an earlier run in `output_dir` means for this one; then make the folder.

    training: False adds to whatever is there, and takes no notice of the rest.
    resume: None, a checkpoint, or `newest`.
    overwrite: empty the folder first; without effect where `resume` is given.
    Raises InputError where a training would mix with an older one, or would delete what no run has made.
    """
    point = ResumePoint(None)
    try:
        if output_dir.exists() and not output_dir.is_dir():
            raise InputError(f"output_dir: {output_dir} is a file; name a folder")
        if training and resume is not None:
            point = _resume_point(output_dir, resume, newest)
        elif training and overwrite:
            _clear(output_dir)
        elif training:
            _refuse_earlier_run(output_dir)
        _begin(output_dir)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise InputError(
            f"output_dir: {output_dir} cannot be used ({reason}); name another folder"
        ) from error
    return point


def _refuse_earlier_run(output_dir: Path) -> None:
    if not _holds_run(output_dir):
        return
    delete = "--overwrite_output_dir true to delete it, " if (output_dir / RUN_MARK).is_file() else ""
    raise InputError(
        f"output_dir: {output_dir} holds an earlier run; add --resume_from_checkpoint to go on with it, "
        f"{delete}or name another folder"
    )


def _holds_run(output_dir: Path) -> bool:
    return bool(checkpoints_in(output_dir)) or (output_dir / RECORD_NAME).exists()


def _resume_point(output_dir: Path, resume: str, newest: str) -> ResumePoint:
    if resume == newest:
        return find_resume_point(output_dir)
    checkpoint = require_whole(Path(resume))
    if checkpoint.resolve().parent != output_dir.resolve():
        if _holds_run(output_dir):
            raise InputError(
                f"output_dir: {output_dir} holds another run than the one of {checkpoint}; name an empty "
                "folder, or resume from a checkpoint in it"
            )
        return ResumePoint(checkpoint)
    # Left in place, a newer checkpoint would be what a later resume finds, though this run never came by it.
    later = [path for path in checkpoints_in(output_dir) if _steps(path) > _steps(checkpoint)]
    return ResumePoint(checkpoint, tuple((path, f"it is newer than {checkpoint.name}") for path in later))


def _begin(output_dir: Path) -> None:
    """Make the folder, and mark it as the run's own where it holds nothing yet."""
    output_dir.mkdir(parents=True, exist_ok=True)
    if not any(output_dir.iterdir()):
        text = "A run made this folder for itself: --overwrite_output_dir may delete all that is in it.\n"
        write_text(output_dir / RUN_MARK, text)


def _clear(output_dir: Path) -> None:
    """Empty a run's own folder. Raises InputError where it is none."""
    names = sorted(path.name for path in output_dir.iterdir()) if output_dir.is_dir() else []
    if not names:
        return
    if RUN_MARK not in names:
        raise InputError(
            f"overwrite_output_dir: {output_dir} was not made by a run and is not deleted (it holds "
            f"{', '.join(names[:3])}{', ...' * (len(names) > 3)}); delete it yourself or name another folder"
        )
    # The mark goes last: what an interruption leaves can be deleted by the next run.
    for name in sorted(names, key=RUN_MARK.__eq__):
        path = output_dir / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

"""What was dropped and what was repaired: a sentence to print and a file to keep."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qa.datasets.load import LoadedExamples
from qa.errors import InputError


def summary(loaded: LoadedExamples) -> str:
    """One line: how many examples of what form, how many unanswerable, what was dropped or repaired and
    why."""
    rows = len(loaded.table)
    parts = [f"{loaded.source}: {rows:,} examples ({loaded.form})"]
    if loaded.unlabelled:
        parts.append(f"{loaded.unlabelled:,} without answers to score by")
    else:
        parts.append(f"{loaded.unanswerable:,} unanswerable")
    if rows < loaded.total - loaded.dropped:
        parts.append(f"cut from {loaded.total - loaded.dropped:,}")
    for action, count in (("dropped", loaded.dropped), ("repaired", loaded.repaired)):
        if count:
            kinds = Counter(one.kind for one in loaded.problems if one.action == action)
            reasons = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common())
            parts.append(f"{count:,} {action} ({reasons})")
    parts.extend(loaded.notes)
    return ", ".join(parts)


def problem_report(sources: Mapping[str, LoadedExamples]) -> dict[str, Any]:
    """Counts and the full listing per part of a run, as JSON values; `sources`: "train", "validation", ... ->
    loaded."""
    return {
        part: {
            "source": loaded.source,
            "form": loaded.form,
            "content_sha256": loaded.content_sha256,
            "fingerprint": loaded.fingerprint,
            "records": loaded.total,
            "examples": len(loaded.table),
            "unanswerable": loaded.unanswerable,
            "unlabelled": loaded.unlabelled,
            "dropped": loaded.dropped,
            "repaired": loaded.repaired,
            "notes": list(loaded.notes),
            "problems": [asdict(problem) for problem in loaded.problems],
        }
        for part, loaded in sources.items()
    }


def write_problem_report(path: Path, sources: Mapping[str, LoadedExamples]) -> None:
    """Writes `problem_report` as JSON, whole or not at all. Raises: InputError where the place cannot be
    written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(problem_report(sources), file, ensure_ascii=False, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: the report cannot be written ({error.strerror}); check the folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)

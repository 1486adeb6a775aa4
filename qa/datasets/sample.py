"""The project's own reading-comprehension questions (CC0), shipped with the package in SQuAD 2.0's nested
form."""

from __future__ import annotations

from pathlib import Path

from qa.errors import InputError

SAMPLE = "sample"
FOLDER = Path(__file__).parent / "sample"
SPLITS = {"train": "train", "dev": "dev", "validation": "dev", "test": "test"}


def sample_path(split: str) -> Path:
    """The file of one split: train, dev (or validation), test. Raises: InputError."""
    if split not in SPLITS:
        raise InputError(f"sample: there is no split {split}; choose one of {', '.join(SPLITS)}.")
    path = FOLDER / f"{SPLITS[split]}.json"
    if not path.is_file():
        raise InputError(f"sample: {path} is missing; reinstall the package.")
    return path

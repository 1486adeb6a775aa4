"""The project's own reading-comprehension questions (CC0), shipped with the package in SQuAD 2.0's nested
form. `sample` names all of them, `sample:travel and sport` those of one domain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qa.errors import InputError

SAMPLE = "sample"
FOLDER = Path(__file__).parent / "sample"
SPLITS = {"train": "train", "dev": "dev", "validation": "dev", "test": "test"}


def is_sample(source: str) -> bool:
    """Whether a source's name means the sample questions, or one domain of them."""
    return source.partition(":")[0] == SAMPLE


def sample_path(split: str) -> Path:
    """The file of one split: train, dev (or validation), test. Raises: InputError."""
    if split not in SPLITS:
        raise InputError(f"sample: there is no split {split}; choose one of {', '.join(SPLITS)}.")
    path = FOLDER / f"{SPLITS[split]}.json"
    if not path.is_file():
        raise InputError(f"sample: {path} is missing; reinstall the package.")
    return path


def sample_domain(source: str) -> str | None:
    """The domain that a source such as `sample:travel and sport` names; None for all. Raises: InputError."""
    _, colon, domain = source.partition(":")
    if not colon:
        return None
    domains = list(dict.fromkeys(article["domain"] for article in _articles(sample_path("train"))))
    if domain not in domains:
        raise InputError(f"{source}: there is no such domain; choose one of {', '.join(domains)}.")
    return domain


def articles_of_domain(document: dict[str, Any], domain: str) -> dict[str, Any]:
    """The document with the articles of one domain only, in the file's order."""
    return {**document, "data": [one for one in document["data"] if one["domain"] == domain]}


def _articles(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["data"])

"""Reading the official files: nested SQuAD JSON, predictions, null odds and n-best lists, each also gzipped.

Only what scoring needs is read; checking offsets and passages is the business of `qa.datasets`.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qa.errors import InputError
from qa.metrics.answers import Golds, Version


@dataclass(frozen=True)
class GoldFile:
    """The golds of an official data file, in its order.

    version: "2.0" where a question carries `is_impossible` or has no answers, else "1.1"; the file's own
        `version` entry is not looked at.
    """

    golds: Golds
    version: Version


def read_golds(path: Path) -> GoldFile:
    """Golds of a nested SQuAD file: data > paragraphs > qas > answers > text. `InputError` for any other."""
    golds: dict[str, list[str]] = {}
    version: Version = "1.1"
    for place, question in _questions(path, _read_json(path)):
        id_, answers = question.get("id"), question.get("answers")
        if not isinstance(id_, str) or not isinstance(answers, list):
            raise InputError(f'{path}: {place} needs an "id" (text) and "answers" (list).')
        if id_ in golds:
            raise InputError(f"{path}: two questions have the id {id_!r}; make the ids unique.")
        texts = [answer.get("text") if isinstance(answer, dict) else None for answer in answers]
        if not all(isinstance(text, str) for text in texts):
            raise InputError(f'{path}: question {id_!r} has an answer without a "text".')
        golds[id_] = [str(text) for text in texts]
        if "is_impossible" in question or not answers:
            version = "2.0"
    if not golds:
        raise InputError(f"{path} holds no question; give an official SQuAD file.")
    return GoldFile(golds, version)


def read_predictions(path: Path) -> dict[str, str]:
    """Official predictions: a JSON object, question id -> text, "" for "no answer"."""
    predictions = _read_object(path, "question ids to texts")
    for id_, text in predictions.items():
        if not isinstance(text, str):
            raise InputError(f'{path}: the prediction of {id_!r} must be a text ("" for "no answer").')
    return predictions


def read_null_odds(path: Path) -> dict[str, float]:
    """Official no-answer scores: a JSON object, question id -> number."""
    null_odds = _read_object(path, "question ids to numbers")
    for id_, odds in null_odds.items():
        if isinstance(odds, bool) or not isinstance(odds, int | float) or math.isnan(odds):
            raise InputError(f"{path}: the null odds of {id_!r} must be a number.")
    return null_odds


def read_n_best(path: Path) -> dict[str, list[str]]:
    """The customary n-best file: a JSON object, question id -> texts or objects with a "text", best first."""
    lists = _read_object(path, "question ids to lists of candidates")
    n_best: dict[str, list[str]] = {}
    for id_, candidates in lists.items():
        entries = candidates if isinstance(candidates, list) else [None]
        texts = [entry.get("text") if isinstance(entry, dict) else entry for entry in entries]
        if not all(isinstance(text, str) for text in texts):
            raise InputError(f'{path}: the n-best list of {id_!r} must hold texts, or objects with a "text".')
        n_best[id_] = [str(text) for text in texts]
    return n_best


def write_json(path: Path, value: object) -> None:
    """Writes indented JSON, whole or not at all. `InputError` where the folder cannot be written to."""
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise InputError(f"Cannot write {path}: it is not a file; name a file.")
    partial = Path(f"{target}.partial")
    try:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, target)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from None


def _questions(path: Path, content: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place in the file, question) in file order."""
    articles = _entries(path, content, "the file", "data")
    for article_number, article in enumerate(articles):
        place = f"data[{article_number}]"
        for paragraph_number, paragraph in enumerate(_entries(path, article, place, "paragraphs")):
            inner = f"{place}.paragraphs[{paragraph_number}]"
            for number, question in enumerate(_entries(path, paragraph, inner, "qas")):
                if not isinstance(question, dict):
                    raise InputError(f"{path}: {inner}.qas[{number}] must be an object.")
                yield f"{inner}.qas[{number}]", question


def _entries(path: Path, value: object, place: str, key: str) -> list[Any]:
    entries = value.get(key) if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise InputError(
            f'{path}: {place} has no list "{key}"; nested SQuAD JSON is data > paragraphs > qas.'
        )
    return entries


def _read_object(path: Path, what: str) -> dict[str, Any]:
    content = _read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold one JSON object, from {what}.")
    return content


def _read_json(path: Path) -> object:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path} is a broken or truncated gzip file; fetch it again.") from None
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from None
    if not raw.strip():
        raise InputError(f"{path} is empty; give a JSON file.")
    try:
        return json.loads(
            raw.decode("utf-8-sig"), parse_int=float, object_pairs_hook=lambda pairs: _unique(path, pairs)
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8 JSON.") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply to be a file of this kind.") from None


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON readers keep the last of equal keys in silence: two predictions for one question must not pass."""
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise InputError(f"{path}: the key {twice!r} stands twice in one object; keep one.")
    return result

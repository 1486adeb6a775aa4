"""The numbers a column may print, and how each is written. Columns name them; nothing here knows a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qa.configuration import nearest
from qa.errors import InputError
from qa.tables.record import TableRecord


@dataclass(frozen=True)
class Value:
    """read: the number of one record, None where it has none. best: which end of it is the better one."""

    read: Callable[[TableRecord], float | None]
    write: Callable[[float], str]
    best: str | None = None


def _metric(name: str) -> Callable[[TableRecord], float | None]:
    return lambda record: record.run.scores["eval"].metrics.get(name)


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _share(record: TableRecord) -> float | None:
    counts = record.run.parameters
    return 100 * counts["trainable"] / counts["total"]


def _uninterrupted(record: TableRecord, key: str) -> float | None:
    """Of a run that was resumed, time and tokens are those of its last part only: they are not shown."""
    training = record.run.training
    return None if record.attempts > 1 or training.get("resumed_from") else training.get(key)


def _tokens_per_second(record: TableRecord) -> float | None:
    tokens, seconds = _uninterrupted(record, "tokens"), _uninterrupted(record, "seconds")
    return tokens / seconds if tokens and seconds else None


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


VALUES: dict[str, Value] = {
    "f1": Value(_metric("f1"), _percent, "high"),
    "exact_match": Value(_metric("exact_match"), _percent, "high"),
    "HasAns_f1": Value(_metric("HasAns_f1"), _percent),
    "NoAns_f1": Value(_metric("NoAns_f1"), _percent),
    "cross_fitted_f1": Value(_metric("cross_fitted_f1"), _percent),
    "best_f1": Value(_metric("best_f1"), _percent),
    "top20_f1": Value(_metric("top20_f1"), _percent),
    "expected_calibration_error": Value(_metric("expected_calibration_error"), lambda value: f"{value:.3f}"),
    "trained_parameters": Value(lambda record: record.run.parameters["trainable"], _whole),
    "trained_share": Value(_share, lambda value: f"{value:.3g}"),
    "checkpoint_mb": Value(
        lambda record: _scaled(record.checkpoint_bytes, 1e6), lambda value: f"{value:.2f}"
    ),
    "tokens_per_second": Value(_tokens_per_second, _whole),
    "peak_memory_gb": Value(
        lambda record: _scaled(_uninterrupted(record, "peak_memory_bytes"), 1e9), lambda value: f"{value:.2f}"
    ),
    "seconds": Value(lambda record: _uninterrupted(record, "seconds"), _whole),
    "learning_rate": Value(
        lambda record: record.run.settings.get("learning_rate"), lambda value: f"{value:g}"
    ),
    "steps": Value(lambda record: record.run.training.get("steps"), _whole),
}
"""Scores in percent; seconds and tokens of training alone, reading the data left out."""


def value_of(name: str) -> Value:
    """The value of that name. Raises InputError that names the nearest."""
    if name not in VALUES:
        raise InputError(f"value: {name}: no such value; {nearest(name, VALUES)}")
    return VALUES[name]

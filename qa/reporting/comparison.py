"""Runs side by side: scores, what was set otherwise, and whether a difference is more than chance."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qa.configuration import nearest
from qa.errors import InputError
from qa.reporting.compared_runs import ComparedRun
from qa.tables.statistics import compare

MARKED = ("f1", "exact_match")
SIDE_BY_SIDE = 4
"""Up to so many runs stand beside one another; more stand below one another."""

_USUAL_METRICS = (
    *(f"{stage}/{name}" for stage in ("before", "eval", "predict") for name in ("exact_match", "f1")),
    *("parameters/trainable", "training/seconds", "training/peak_memory_bytes"),
)
# What says where things lie or what is printed tells no two runs apart.
_NO_DIFFERENCE = frozenset(
    [
        *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "report_to", "run_name"),
        *("show_predictions", "data_dir", "cache_dir", "disable_tqdm", "preprocessing_num_workers", "config"),
        *("logging_steps", "label_names", "dataloader_pin_memory", "ddp_find_unused_parameters"),
    ]
)


@dataclass(frozen=True)
class Comparison:
    """A table of runs. columns: names of metrics, then of settings. values: (runs, columns); None: none.

    notes: sentences on what the numbers are.
    """

    runs: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()


def compare_runs(
    runs: Sequence[ComparedRun],
    *,
    metrics: Sequence[str] | None = None,
    settings: Sequence[str] | None = None,
    sort: str | None = None,
    ascending: bool = False,
    against: str | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """Everything of a comparison: see the functions that its arguments go to. notes: what is said besides."""
    ordered = sort_runs(runs, sort, ascending=ascending)
    numbers, told = chosen_metrics(runs, metrics), chosen_settings(runs, settings)
    return Comparison(
        runs=tuple(run.name for run in ordered),
        columns=(*numbers, *told),
        values=tuple(
            (*(run.numbers.get(name) for name in numbers), *(run.settings.get(name) for name in told))
            for run in ordered
        ),
        notes=(*same_scoring(ordered), *paired_tests(ordered, against), *notes),
    )


def chosen_metrics(runs: Sequence[ComparedRun], wanted: Sequence[str] | None) -> list[str]:
    """The metrics to show: the wanted ones, else the usual ones that any run has.

    Raises InputError for one that no run has; `f1` is short for `eval/f1`.
    """
    known = {name for run in runs for name in run.numbers}
    if wanted is None:
        return [name for name in _USUAL_METRICS if name in known]
    return [_full_name(name, known) for name in wanted]


def _full_name(name: str, known: Iterable[str]) -> str:
    found = next((one for one in (name, f"eval/{name}") if one in known), None)
    if found is None:
        raise InputError(f"metrics: {name}: no run has it; {nearest(name, known)}")
    return found


def chosen_settings(runs: Sequence[ComparedRun], wanted: Sequence[str] | None) -> list[str]:
    """The settings to show: the wanted ones, else those of which two runs have different values.

    A setting that only one strategy knows is no difference of two strategies: their names are.
    Raises InputError for one that no run has.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.settings))
    if wanted is not None:
        for name in wanted:
            if name not in known:
                raise InputError(f"settings: {name}: no run has it; {nearest(name, known)}")
        return list(wanted)
    differing = {name for name in known if len(_values(runs, name)) > 1} - _NO_DIFFERENCE
    first = [name for name in ("strategy", "model_name_or_path", "learning_rate") if name in differing]
    return [*first, *sorted(differing - set(first))]


def _values(runs: Sequence[ComparedRun], name: str) -> set[str]:
    return {json.dumps(run.settings[name], sort_keys=True) for run in runs if name in run.settings}


def sort_runs(runs: Sequence[ComparedRun], key: str | None, *, ascending: bool = False) -> list[ComparedRun]:
    """By a metric, the highest first, or by a setting; None: by F1. Runs without it stand last."""
    metrics = {name for run in runs for name in run.numbers}
    settings = {name for run in runs for name in run.settings}
    if key is None and "eval/f1" not in metrics:
        return list(runs)
    wanted = key or "eval/f1"
    if wanted in settings and wanted not in metrics:
        having = [run for run in runs if run.settings.get(wanted) is not None]
        having.sort(key=lambda run: _sortable(run.settings[wanted]))
    else:
        if wanted not in metrics and f"eval/{wanted}" not in metrics:
            raise InputError(f"sort: {wanted}: no run has it; {nearest(wanted, metrics | settings)}")
        wanted = _full_name(wanted, metrics)
        having = [run for run in runs if wanted in run.numbers]
        having.sort(key=lambda run: run.numbers[wanted], reverse=not ascending)
    return [*having, *(run for run in runs if run not in having)]


def _sortable(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))


def same_scoring(runs: Sequence[ComparedRun]) -> list[str]:
    """A sentence where scores were made in different ways, or of different questions; else nothing."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        if run.signature:
            groups.setdefault(_comparable(run.signature), []).append(run.name)
    if len(groups) < 2:
        return []
    told = [f"{signature} ({', '.join(names)})" for signature, names in groups.items()]
    return [f"The scores are not all comparable: {'; '.join(told)}."]


def _comparable(signature: str) -> str:
    """A signature without the threshold, which is the reader's own."""
    return "|".join(part for part in signature.split("|") if not part.startswith("thresh:"))


def paired_tests(runs: Sequence[ComparedRun], against: str | None, *, samples: int = 1000) -> list[str]:
    """Paired bootstrap tests, F1 and exact match, of every run against one; of two runs without being asked.

    against: that run's name. Raises InputError where there is no such run.
    """
    names = [run.name for run in runs]
    if against is not None and against not in names:
        raise InputError(f"against: {against}: no such run; {nearest(against, names)}")
    if against is None and len(runs) != 2:
        return []
    baseline = runs[1] if against is None else runs[names.index(against)]
    return [line for run in runs if run is not baseline for line in _test(run, baseline, samples)]


def _test(run: ComparedRun, baseline: ComparedRun, samples: int) -> list[str]:
    pair = f"{run.name} against {baseline.name}"
    missing = [one.name for one in (run, baseline) if one.marks is None]
    if run.marks is None or baseline.marks is None:
        return [
            f"{pair}: no test, because there are no marks of single questions of {' and '.join(missing)}."
        ]
    if run.marks.ids_sha256 != baseline.marks.ids_sha256:
        return [f"{pair}: no test, because they answered different questions."]
    lines = []
    for name in MARKED:
        result = compare([run.marks.of(name) or ()], [baseline.marks.of(name) or ()], samples=samples)
        low, high = result.interval
        lines.append(
            f"{pair}: {name} {result.difference:+.2f} [{low:+.2f}, {high:+.2f}], p = {result.p_value:.3f} "
            f"(paired bootstrap, {len(run.marks.f1)} questions)."
        )
    return lines


def plain(comparison: Comparison) -> str:
    """Columns of text, the notes below them."""
    rows = _cells(comparison)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]
    return "\n".join([*lines, "", *comparison.notes]).strip() + "\n"


def markdown(comparison: Comparison) -> str:
    """The same as a Markdown table, the notes as a list."""
    header, *rows = _cells(comparison)
    ruled = [header, ["---", *("---:" for _ in header[1:])], *rows]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in ruled]
    notes = [f"- {note}" for note in comparison.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def comma_separated(comparison: Comparison) -> str:
    """One line a run, numbers in full; what is no number or text as JSON. Notes have no place in it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["run", *comparison.columns])
    for name, values in zip(comparison.runs, comparison.values, strict=True):
        writer.writerow([name, *map(_exact, values)])
    return stream.getvalue()


FORMATS = {"text": plain, "md": markdown, "csv": comma_separated}


def _cells(comparison: Comparison) -> list[list[str]]:
    """Header and rows; runs are columns where they are few."""
    rows = [["run", *comparison.columns]]
    for name, values in zip(comparison.runs, comparison.values, strict=True):
        shown = [_short(*pair) for pair in zip(comparison.columns, values, strict=True)]
        rows.append([name, *shown])
    if len(comparison.runs) > SIDE_BY_SIDE:
        return rows
    return [list(column) for column in zip(*rows, strict=True)]


def _short(name: str, value: Any) -> str:
    """A value as a person reads it: two decimals, thousands apart, bytes as GB."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return _exact(value)
    if name.endswith("_bytes"):
        return f"{value / 1e9:.2f} GB"
    if "/" not in name:
        return f"{value:g}"
    return f"{value:,.0f}" if name.startswith("parameters/") else f"{value:,.2f}"


def _exact(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float):
        return f"{value:.10g}"
    return json.dumps(value, ensure_ascii=False)

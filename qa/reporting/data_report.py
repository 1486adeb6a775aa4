"""What a data set is made of, in numbers: printed before training, saved beside the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qa.datasets import write_problem_report
from qa.files import write_json
from qa.windows.reading import arrow_columns, numbers

if TYPE_CHECKING:
    from qa.questions import QuestionSet
    from qa.windows import Windows

REPORT_NAME = "data_report.json"
PROBLEMS_NAME = "record_problems.json"

Report = Mapping[str, Any]
IntArray = npt.NDArray[np.integer]


def describe(questions: QuestionSet) -> dict[str, Any]:
    """Counts and lengths of one question set, as JSON values.

    `records`, `dropped`, `repaired` and `unlabelled` are of the whole source, everything else of the
    `questions` left after a cut to so many samples. Lengths are in tokens: of questions as they are read (cut
    to `max_question_length`) and of whole passages, one for each question, both without special tokens; of
    windows with everything. `windows_without_answer`: labelled `[CLS]`, those of unanswerable questions too.
    """
    examples, windows = questions.examples, questions.windows
    return {
        "source": examples.source,
        "form": examples.form,
        "fingerprint": examples.fingerprint,
        "content_sha256": examples.content_sha256,
        "records": examples.total,
        "dropped": examples.dropped,
        "repaired": examples.repaired,
        "unlabelled": examples.unlabelled,
        "notes": list(examples.notes),
        "questions": len(examples.table),
        "unanswerable": examples.unanswerable,
        **_lengths(windows),
        "windows": len(windows.table),
        "windows_without_answer": windows.windows_without_answer,
        "truncated_questions": windows.truncated_questions,
        "answers_in_no_window": windows.answers_in_no_window,
        "answers_without_tokens": windows.answers_without_tokens,
        "empty_passages": windows.empty_passages,
    }


def _lengths(windows: Windows) -> dict[str, dict[str, float]]:
    """Distributions over questions (question, passage, windows) and over windows (window)."""
    names = ["example_index", "passage_start", "passage_end", "document_start", "length"]
    columns = arrow_columns(windows.table, names)
    example, start, end, document_start, length = (numbers(columns, name) for name in names)
    first = np.flatnonzero(np.diff(example, prepend=-1))
    # The last window of a question reaches the end of its passage.
    last = np.flatnonzero(np.diff(example, append=np.iinfo(np.int32).max))
    return {
        "question_tokens": spread(start[first] - _tokens_before_passage(windows)),
        "passage_tokens": spread(document_start[last] + end[last] - start[last]),
        "window_tokens": spread(length),
        "windows_per_question": spread(np.diff(first, append=len(example))),
    }


def _tokens_before_passage(windows: Windows) -> int:
    """Special tokens before the passage: `[CLS]` and what ends a question (`[SEP]`; RoBERTa: `</s></s>`)."""
    found = 1
    head = windows.table.select(range(min(100, len(windows.table)))).with_format("numpy")
    rows = [(row["input_ids"], int(row["passage_start"])) for row in head]
    while rows and all(start > found and ids[start - found] == ids[-1] for ids, start in rows):
        found += 1
    return found


def spread(values: IntArray) -> dict[str, float]:
    """Mean, median, what 95 % do not exceed (one of the values), and maximum; all 0 without values."""
    if not len(values):
        return {"mean": 0.0, "median": 0.0, "p95": 0, "max": 0}
    return {
        "mean": round(float(values.mean()), 2),
        "median": float(np.median(values)),
        "p95": int(np.percentile(values, 95, method="inverted_cdf")),
        "max": int(values.max()),
    }


def render(reports: Mapping[str, Report]) -> str:
    """The reports of all splits as one table, a column each; below it what reading the files brought up."""
    always: list[tuple[str, Callable[[Report], str]]] = [
        ("source", lambda r: f"{Path(r['source']).name} ({r['form']})"),
        ("questions", _questions),
        ("  unanswerable", _unanswerable),
        (
            "  records dropped / repaired",
            lambda r: f"{r['dropped']:,} / {r['repaired']:,} of {r['records']:,}",
        ),
        ("  cut to max_question_length", lambda r: f"{r['truncated_questions']:,}"),
        ("windows", lambda r: f"{r['windows']:,}"),
        ("  without an answer", lambda r: _share(r["windows_without_answer"], r["windows"])),
        ("answers in no window", lambda r: f"{r['answers_in_no_window']:,}"),
        ("mean / median / 95 % / longest", lambda r: ""),
        ("  question, in tokens", lambda r: _spread_text(r["question_tokens"])),
        ("  passage, in tokens", lambda r: _spread_text(r["passage_tokens"])),
        ("  window, in tokens", lambda r: _spread_text(r["window_tokens"])),
        ("  windows per question", lambda r: _spread_text(r["windows_per_question"])),
    ]
    rare = {"answers_without_tokens": "answers without a token", "empty_passages": "passages without a token"}
    rows = [["data", *reports], *([label, *map(cell, reports.values())] for label, cell in always)]
    for key, label in rare.items():
        if any(report[key] for report in reports.values()):
            rows.append([label, *(f"{report[key]:,}" for report in reports.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [f"{split}: {note}" for split, report in reports.items() for note in report["notes"]]
    return "\n".join(lines)


def _questions(report: Report) -> str:
    whole = report["records"] - report["dropped"]
    cut = f" of {whole:,}" if report["questions"] < whole else ""
    return f"{report['questions']:,}{cut}"


def _unanswerable(report: Report) -> str:
    if report["unlabelled"]:
        return f"unknown: {report['unlabelled']:,} have no answers field"
    return _share(report["unanswerable"], report["questions"])


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / max(1, whole):.1%})"


def _spread_text(spread: Mapping[str, float]) -> str:
    return " / ".join(
        f"{spread[key]:,.2f}".rstrip("0").rstrip(".") for key in ("mean", "median", "p95", "max")
    )


def save(folder: Path, reports: Mapping[str, Report], questions: Sequence[QuestionSet]) -> list[Path]:
    """Write the reports, and a list of records dropped or repaired if there are any. Returns the files."""
    write_json(folder / REPORT_NAME, dict(reports))
    written = [folder / REPORT_NAME]
    if any(one.examples.problems for one in questions):
        write_problem_report(folder / PROBLEMS_NAME, {one.name: one.examples for one in questions})
        written.append(folder / PROBLEMS_NAME)
    return written

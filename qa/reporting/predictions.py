"""The files a question set's answers are kept in: one rich JSON-lines file and the three customary ones."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qa.confidence.final_answers import FinalAnswer
from qa.evaluation import Evaluation, finite_null_odds
from qa.files import write_json, write_json_lines
from qa.records import Example, Prediction
from qa.results import finite

NO_ANSWER = "the passage does not tell"
SHOWN_CHARACTERS = 1500
"""How much of a long passage `show_answer` prints before and after the answer."""


def write_predictions(folder: Path, evaluation: Evaluation) -> list[Path]:
    """Write a question set's answers; returns the files.

    `predictions.jsonl`: per question `id`, `answer` ("" = no answer), `start` and `end` (characters, end
        exclusive; null for no answer), `probability` of what is answered, `no_answer_probability`,
        `null_score` (null where infinite), and `n_best`, the spans as decoded, whatever the threshold makes
        of them: `text`, `start`, `end`, `score`, `probability`.
        Where golds came with the questions, also `exact_match` and `f1` of the answer, each 0 to 1.
    `predictions.json`, `nbest_predictions.json`, `null_odds.json`: for official scripts, by question id.
    `metrics.json`: the scores, their signature and intervals; empty where no golds came with the questions.
    """
    rows = list(_rows(evaluation))
    metrics: dict[str, Any] = {}
    if evaluation.metrics:
        metrics = {**finite(evaluation.metrics), "signature": evaluation.signature}
        metrics["intervals"] = evaluation.intervals
    contents: dict[str, Any] = {
        "predictions.json": {row["id"]: row["answer"] for row in rows},
        "nbest_predictions.json": {row["id"]: row["n_best"] for row in rows},
        "null_odds.json": finite_null_odds(evaluation.predictions),
        "metrics.json": metrics,
    }
    write_json_lines(folder / "predictions.jsonl", rows)
    for name, content in contents.items():
        write_json(folder / name, content)
    return [folder / name for name in ("predictions.jsonl", *contents)]


def _rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for prediction, answer in zip(evaluation.predictions, evaluation.answers, strict=True):
        yield {
            "id": prediction.id,
            "answer": answer.text,
            "start": answer.span.start if answer.span else None,
            "end": answer.span.end if answer.span else None,
            "probability": answer.probability,
            "no_answer_probability": answer.null_probability,
            "null_score": prediction.null_score if math.isfinite(prediction.null_score) else None,
            **_marks(prediction.id, evaluation),
            "n_best": _n_best(prediction, evaluation),
        }


def _marks(key: str, evaluation: Evaluation) -> dict[str, float]:
    if key not in evaluation.marks:
        return {}
    exact, f1 = evaluation.marks[key]
    return {"exact_match": exact, "f1": f1}


def _n_best(prediction: Prediction, evaluation: Evaluation) -> list[dict[str, Any]]:
    shares, _ = evaluation.calibration.probabilities(prediction)
    return [
        {"text": span.text, "start": span.start, "end": span.end, "score": span.score, "probability": share}
        for span, share in zip(prediction.n_best, shares.tolist(), strict=True)
    ]


def show_answer(example: Example, answer: FinalAnswer, width: int = 100) -> str:
    """One answered question as a person reads it: the passage with the answer in [[ ]], and the golds.

    width: columns. Of a long passage, what surrounds the answer is shown (its beginning where there is none).
    """
    golds = " | ".join(dict.fromkeys(gold.text for gold in example.answers))
    given = f'"{answer.text}"' if answer.span else NO_ANSWER
    fields = {
        "Passage": _excerpt(example.context, answer),
        "Question": example.question,
        "Answer": f"{given} ({answer.probability:.0%})",
        "Gold": golds or NO_ANSWER,
    }
    margin = 10
    return "\n".join(
        textwrap.fill(text, width, initial_indent=f"{name}:".ljust(margin), subsequent_indent=" " * margin)
        for name, text in fields.items()
    )


def _excerpt(context: str, answer: FinalAnswer) -> str:
    start, end = (answer.span.start, answer.span.end) if answer.span else (0, 0)
    before, after = context[:start], context[end:]
    if len(before) > SHOWN_CHARACTERS:
        before = "... " + before[-SHOWN_CHARACTERS:].partition(" ")[2]
    if len(after) > SHOWN_CHARACTERS:
        after = after[:SHOWN_CHARACTERS].rpartition(" ")[0] + " ..."
    marked = f"[[{context[start:end]}]]" if answer.span else ""
    return f"{before}{marked}{after}"

"""Which answers a tracked run shows: as many right as wrong ones, from all over the questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qa.datasets import example_from_row

if TYPE_CHECKING:
    from qa.confidence.final_answers import FinalAnswer
    from qa.evaluation import Evaluation
    from qa.records import Example
    from qa.tracking.runs import TrackedRun

ROWS_OF_A_KIND = 100
"""Right answers, and as many wrong ones, that are shown at most."""

PASSAGE_CHARACTERS = 400
"""How much of a passage is shown before and after its answer."""

COLUMNS = (
    *("id", "right", "question", "answer", "gold", "exact_match", "f1"),
    *("probability", "no_answer_probability", "passage"),
)


def log_answers(tracked: TrackedRun, stage: str, table: Any, evaluation: Evaluation, step: int) -> None:
    """Show a stage's right and wrong answers as the table `<stage>/answers`. table: see `answer_rows`."""
    tracked.log_table(f"{stage}/answers", COLUMNS, answer_rows(table, evaluation), step)


def answer_rows(table: Any, evaluation: Evaluation, of_a_kind: int = ROWS_OF_A_KIND) -> list[list[Any]]:
    """Rows of `COLUMNS`, wrong answers first. right: an exact match; None where there are no golds.

    table: the questions in the order of the evaluation. of_a_kind: of right and of wrong answers, at most.
    exact_match, f1: 0 to 100.
    """
    right: dict[bool | None, list[int]] = {False: [], True: [], None: []}
    for index, answer in enumerate(evaluation.answers):
        mark = evaluation.marks.get(answer.id)
        right[None if mark is None else mark[0] == 1].append(index)
    return [
        _row(kind, example_from_row(table[index]), evaluation.answers[index], evaluation.marks)
        for kind, indices in right.items()
        for index in evenly(indices, of_a_kind)
    ]


def evenly(indices: Sequence[int], count: int) -> list[int]:
    """`count` of the indices at equal distances, the first among them; all where there are no more."""
    if len(indices) <= count:
        return list(indices)
    return [indices[number * len(indices) // count] for number in range(count)]


def _row(
    right: bool | None, example: Example, answer: FinalAnswer, marks: Mapping[str, tuple[float, float]]
) -> list[Any]:
    exact, f1 = marks.get(example.id, (None, None))
    start, end = (answer.span.start, answer.span.end) if answer.span else (0, 0)
    return [
        example.id,
        right,
        example.question,
        answer.text,
        " | ".join(dict.fromkeys(gold.text for gold in example.answers)),
        None if exact is None else 100 * exact,
        None if f1 is None else 100 * f1,
        answer.probability,
        answer.null_probability,
        example.context[max(0, start - PASSAGE_CHARACTERS) : end + PASSAGE_CHARACTERS],
    ]

"""Records -> the cells of a table: means over seeds, intervals over questions, what is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from qa.metrics import PairedResult
from qa.tables.plan import Plan
from qa.tables.record import TableRecord
from qa.tables.reported import Reported
from qa.tables.spec import Column, Row, Table
from qa.tables.statistics import SIGNIFICANT, compare, deviation, interval, mean
from qa.tables.store import stale_reasons
from qa.tables.values import value_of


@dataclass(frozen=True)
class Cell:
    """One row and column. mean, deviation: over the seeds that were run; None: not run, or no such number.

    interval: 95 %, over questions. marks: (seeds, questions), percent; of questions: a hash of their ids.
    significant: it is the best of its column, and the difference to the second is significant.
    """

    mean: float | None = None
    deviation: float | None = None
    seeds: int = 0
    interval: tuple[float, float] | None = None
    marks: tuple[tuple[float, ...], ...] = field(default=(), repr=False)
    questions: str = ""
    significant: bool = False


@dataclass(frozen=True)
class Contest:
    """The best row of a column against the second. result: None where they saw different questions."""

    column: str
    best: str
    second: str
    result: PairedResult | None
    questions: int


@dataclass(frozen=True)
class FilledTable:
    """A table as far as it was run. records: those it is made of, by (row, column, seed).

    published: rows of others. columns: theirs by the name of ours.
    """

    table: Table
    cells: Mapping[tuple[str, str], Cell]
    contests: tuple[Contest, ...]
    records: Mapping[tuple[str, str, int], TableRecord]
    published: tuple[Reported, ...] = ()

    def cell(self, row: Row, column: Column) -> Cell:
        """What was run for a row and a column."""
        return self.cells[row.name, column.name]

    def reported(self, row: Reported, column: Column) -> float | None:
        """A published number for a column; None where there is none."""
        name = self.table.published.columns.get(column.name)
        return None if name is None else row.values.get(name)


def fill(
    table: Table,
    plan: Plan,
    records: Mapping[str, TableRecord],
    published: Sequence[Reported] = (),
    samples: int = 1000,
) -> FilledTable:
    """Put every record that is what the YAML asks for today into its cells; others have no place.

    records: by file name. samples: resamples behind intervals and tests.
    """
    valid = {run: run.file_name for run in plan.cells.values()}
    good = {
        name: records[name]
        for run, name in valid.items()
        if name in records and not stale_reasons(run, records[name])
    }
    placed = {place: good[run.file_name] for place, run in plan.cells.items() if run.file_name in good}
    cells = {
        (row.name, column.name): _cell(
            column,
            [placed[key] for seed in table.seeds if (key := (row.name, column.name, seed)) in placed],
            samples,
        )
        for row in table.rows
        for column in table.columns
    }
    contests = []
    for column in table.columns:
        contest = _contest(table, column, cells, samples)
        if contest is None:
            continue
        contests.append(contest)
        if contest.result is not None and contest.result.p_value < SIGNIFICANT:
            place = (contest.best, column.name)
            cells[place] = replace(cells[place], significant=True)
    theirs = {table.published.columns.get(column.name) for column in table.columns}
    shown = tuple(row for row in published if set(row.values) & theirs)
    return FilledTable(table, cells, tuple(contests), placed, shown)


def _cell(column: Column, records: Sequence[TableRecord], samples: int) -> Cell:
    value = value_of(column.value)
    numbers = [number for record in records if (number := value.read(record)) is not None]
    if not numbers:
        return Cell()
    marked = [record.marks for record in records if record.marks is not None]
    questions = {marks.ids_sha256 for marks in marked}
    marks = [found for one in marked if (found := one.of(column.value)) is not None]
    if len(marks) != len(records) or len(questions) != 1:
        return Cell(mean(numbers), deviation(numbers), len(numbers))
    return Cell(
        mean=mean(numbers),
        deviation=deviation(numbers),
        seeds=len(numbers),
        interval=interval(marks, samples=samples),
        marks=tuple(marks),
        questions=questions.pop(),
    )


def _contest(
    table: Table, column: Column, cells: Mapping[tuple[str, str], Cell], samples: int
) -> Contest | None:
    """Best against second; None where fewer than two rows have marks, or the best two are equal."""
    if value_of(column.value).best is None:
        return None
    ranked = [(cells[row.name, column.name], row.name) for row in table.rows]
    ranked = sorted((one for one in ranked if one[0].mean is not None), key=lambda one: -(one[0].mean or 0))
    if len(ranked) < 2 or ranked[0][0].mean == ranked[1][0].mean:
        return None
    (best, best_name), (second, second_name) = ranked[:2]
    result = compare_cells(best, second, samples=samples)
    questions = len(best.marks[0]) if best.marks else 0
    return Contest(column.name, best_name, second_name, result, questions)


def compare_cells(one: Cell, other: Cell, *, samples: int = 1000) -> PairedResult | None:
    """The paired test of two cells; None where they have no marks of the same questions."""
    if not one.marks or not other.marks or one.questions != other.questions:
        return None
    return compare(one.marks, other.marks, samples=samples)

"""The runs behind a table: one per cell and seed, the trials of the grids, and who has to wait for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from qa.configuration import merge_files
from qa.errors import InputError
from qa.tables.identity import Asked, ask, finished_reader
from qa.tables.record import GridResult, Trial
from qa.tables.spec import Column, Grid, Row, Setting, Table

NO_READER = "reader"
"""Stands for a reader's folder where an evaluation's identity is settled: folders have no part in it."""


@dataclass(frozen=True)
class Run:
    """One command that a table needs.

    column: None where the run serves the whole row. trial: the value of the row's grid that it tries.
    reader: the training whose reader it evaluates. finished: a reader made elsewhere that it evaluates.
    grid: what its own settings were chosen by.
    """

    row: str
    column: str | None
    seed: int
    configs: tuple[str, ...]
    settings: Mapping[str, Setting] = field(hash=False)
    asked: Asked = field(hash=False)
    trial: str | None = None
    reader: Run | None = field(default=None, hash=False)
    finished: str | None = None
    grid: GridResult | None = field(default=None, hash=False)

    @cached_property
    def identity(self) -> str:
        """Names its folder: two runs that are asked the same on the same data are one."""
        return self.asked.identity

    @property
    def trains(self) -> bool:
        """Whether it makes a reader; False: it evaluates one."""
        return self.reader is None and self.finished is None

    @property
    def file_name(self) -> str:
        """Of its record, among those of its table and scale."""
        return "-".join(part for part in (self.row, self.column, f"seed{self.seed}") if part) + ".json"

    @property
    def label(self) -> str:
        """The run in a line of progress."""
        what = [self.row, self.column or "", f"seed {self.seed}", f"trial {self.trial}" if self.trial else ""]
        return ", ".join(part for part in what if part)

    def words(self, folder: Path, readers: Path) -> list[str]:
        """The run's command line after run_qa.py. readers: where the folders of other runs lie."""
        settings: dict[str, Setting] = {**self.settings, "output_dir": str(folder)}
        if self.reader is not None:
            settings["model_name_or_path"] = str(readers / self.reader.identity)
        if self.finished is not None:
            settings["model_name_or_path"] = self.finished
        # A folder without a whole checkpoint begins anew: no run needs to know whether it is the first.
        last = ["--resume_from_checkpoint"] if self.trains else []
        return [*_words(self.configs, settings), *last]


@dataclass(frozen=True)
class Plan:
    """What a table needs as far as it is known. waiting: how many runs
    are still to be settled by trials."""

    runs: tuple[Run, ...]
    cells: Mapping[tuple[str, str, int], Run]
    waiting: int


class Planner:
    """Makes plans of one table; remembers what it resolved, because that takes a tenth of a second a run."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._asked: dict[tuple[str, ...], Asked] = {}

    def plan(self, known: Mapping[str, float]) -> Plan:
        """The runs of the table. known: settings hash -> F1 on dev, of every trial that has been made."""
        runs: dict[str, Run] = {}
        cells: dict[tuple[str, str, int], Run] = {}
        waiting: set[tuple[str, str, int]] = set()
        for row in self.table.rows:
            for column in self.table.columns:
                # No seed takes part in reading with a finished reader.
                for seed in self.table.seeds[: 1 if row.finished else None]:
                    needed = self._cell(row, column, seed, known)
                    for run in needed:
                        runs.setdefault(run.identity, run)
                    if needed[-1].trial is None:
                        # A trial may be the very run that is reported: then it comes with its grid and place.
                        runs[needed[-1].identity] = cells[row.name, column.name, seed] = needed[-1]
                    else:
                        waiting |= self._waiting(row, column, seed)
        for run in [*runs.values()]:
            if run.reader is not None:
                runs[run.reader.identity] = run.reader
        return Plan(tuple(runs.values()), cells, len(waiting))

    def _waiting(self, row: Row, column: Column, seed: int) -> set[tuple[str, str, int]]:
        """The runs of a cell that no trial has settled; one of the trials may be the first seed's run."""
        grid = self.table.row(row.reader or row.name).grid
        trained = seed == self.table.seeds[0] and grid is not None and not grid.settings
        evaluates = bool(row.reader) or column.evaluates
        if trained and not evaluates:
            return set()
        return {(row.name, column.name if column.settings or row.reader else "", seed)}

    def _cell(self, row: Row, column: Column, seed: int, known: Mapping[str, float]) -> list[Run]:
        """The runs of a cell in the order they depend on one another; trials alone where they come first."""
        if row.finished is not None:
            return [self._evaluation(row, column, seed, None, {**row.settings, **column.settings})]
        trains_own = bool(column.settings) and not column.evaluates and row.reader is None
        trainer = self.table.row(row.reader) if row.reader else row
        trained = self._training(trainer, column if trains_own else None, seed, known)
        if trained[-1].trial is not None or not (row.reader or column.evaluates):
            return trained
        settings = {**(row.settings if row.reader else {}), **column.settings}
        return [*trained, self._evaluation(row, column, seed, trained[-1], settings)]

    def _training(self, row: Row, column: Column | None, seed: int, known: Mapping[str, float]) -> list[Run]:
        settings = {**self.table.settings, **row.settings, **(column.settings if column else {})}
        base = (row, column, (*self.table.configs, *row.configs))
        if row.grid is None:
            return [self._run(*base, seed, settings)]
        grid = row.grid
        values = self._absolute(grid, base[2], settings)
        trials = [
            self._run(
                *base, self.table.seeds[0], {**settings, **grid.settings, grid.setting: value}, trial=value
            )
            for value in values
        ]
        scores = [known.get(trial.asked.settings_sha256) for trial in trials]
        if any(score is None for score in scores):
            return trials
        tried = [
            Trial(value, score or 0.0, trial.asked.settings_sha256)
            for value, score, trial in zip(values, scores, trials, strict=True)
        ]
        best = max(tried, key=lambda one: one.f1)
        result = GridResult(grid.setting, tuple(tried), best.value)
        run = self._run(*base, seed, {**settings, grid.setting: best.value})
        return [*trials, replace(run, grid=result)]

    def _absolute(
        self, grid: Grid, configs: Sequence[str], settings: Mapping[str, Setting]
    ) -> tuple[str, ...]:
        """The grid's values; of multiples such as `3x`, the products with what the row says without a grid.

        Raises InputError where a multiple is given and the row's files say nothing, or no number.
        """
        if not any(value.endswith("x") for value in grid.values):
            return grid.values
        own = settings.get(grid.setting, merge_files([Path(name) for name in configs])[0].get(grid.setting))
        try:
            return tuple(
                f"{float(value[:-1]) * float(str(own)):.3g}" if value.endswith("x") else value
                for value in grid.values
            )
        except ValueError as error:
            raise InputError(
                f"grid: {grid.setting}: {', '.join(grid.values)}: multiples of {own}, which is no number; "
                f"give {grid.setting} in the row's files"
            ) from error

    def _run(
        self,
        row: Row,
        column: Column | None,
        configs: tuple[str, ...],
        seed: int,
        settings: Mapping[str, Setting],
        trial: str | None = None,
    ) -> Run:
        names = {"{seed}": str(seed), "{column}": column.name if column else ""}
        settings = {**{key: _filled(value, names) for key, value in settings.items()}, "seed": str(seed)}
        asked = self._ask(configs, settings)
        return Run(row.name, column.name if column else None, seed, configs, settings, asked, trial)

    def _evaluation(
        self, row: Row, column: Column, seed: int, trained: Run | None, settings: Mapping[str, Setting]
    ) -> Run:
        """trained: the run whose reader it is; None: the row names a finished one."""
        base = {**self.table.settings, "seed": str(seed)} if trained is None else trained.settings
        configs = (*self.table.configs, *row.configs) if trained is None else trained.configs
        # Every setting of the training is named again, so that what is saved with the reader changes nothing.
        told: dict[str, Setting] = {**base, **settings, "do_train": "false", "do_eval": "true"}
        told["model_name_or_path"] = NO_READER
        reader = finished_reader(str(row.finished)) if trained is None else trained.asked.settings_sha256
        asked = self._ask(configs, told, reader)
        place = column.name if column.settings or trained is not None else None
        return Run(row.name, place, seed, configs, told, asked, reader=trained, finished=row.finished)

    def _ask(
        self, configs: Sequence[str], settings: Mapping[str, Setting], reader: str | None = None
    ) -> Asked:
        words = _words(configs, settings)
        key = (reader or "", *words)
        if key not in self._asked:
            values, _ = merge_files([Path(name) for name in configs])
            self._asked[key] = ask(words, [*values, *settings], reader)
        return self._asked[key]


def _filled(value: Setting, names: Mapping[str, str]) -> Setting:
    """A setting with `{seed}` and `{column}` replaced: files of published splits are named by them."""
    if not isinstance(value, str):
        return value
    for mark, text in names.items():
        value = value.replace(mark, text)
    return value


def _words(configs: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    words = ["--config", *configs] if configs else []
    for key, value in settings.items():
        words += [f"--{key}", *([value] if isinstance(value, str) else value)]
    return words

"""One table as a YAML file says it: rows, columns, and what each scale trains on. No code in it.

title: ...
columns:                    # in the order they are printed
  f1: {label: F1}           # a value of the row's own training (names: `qa.tables.values`)
  drop: {label: DROP, value: f1, evaluates: true, settings: {validation_file: mrqa/DROP.jsonl.gz}}
  "16": {label: 16, value: f1, settings: {max_train_samples: 16}}     # a training of its own
rows:
  lora: {label: LoRA, configs: [experiments/strategies/lora.yaml], grid: {learning_rate: [1e-4, 1e-3]}}
  again: {label: ..., reader: lora, settings: {...}}                  # evaluates the reader of another row
scales:
  smoke: {configs: [...], settings: {...}, seeds: [1, 2]}             # may replace rows and columns
published: {from: [squad1], columns: {f1: f1}}                        # of experiments/reported.yaml
plots: [{kind: learning_curves}, {kind: scatter, x: trained_parameters, y: f1, log: true}]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qa.configuration import nearest, read_yaml
from qa.errors import InputError

SCALES = ("smoke", "small", "paper")
Setting = str | list[str]


@dataclass(frozen=True)
class Grid:
    """Values of one setting that are tried for a row, at the first seed; the best on dev trains all seeds.

    settings: what the trials do otherwise than the runs that are reported (a shorter budget, say).
    """

    setting: str
    values: tuple[str, ...]
    settings: dict[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table. reader: the row whose reader it evaluates. finished: a reader made elsewhere, by
    its hub or packaged name, that it evaluates. With neither it trains.
    """

    name: str
    label: str
    configs: tuple[str, ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict)
    grid: Grid | None = None
    reader: str | None = None
    finished: str | None = None


@dataclass(frozen=True)
class Column:
    """One column. value: what is printed (`qa.tables.values`); settings: what makes its run another one.

    evaluates: those settings evaluate the row's reader; False: they train a reader of the cell's own.
    """

    name: str
    label: str
    value: str
    settings: dict[str, Setting] = field(default_factory=dict)
    evaluates: bool = False


@dataclass(frozen=True)
class Published:
    """Which lists of experiments/reported.yaml stand below ours; columns: ours -> theirs."""

    lists: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table at one scale. Everything is settled but the choice from the grids."""

    name: str
    scale: str
    title: str
    note: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    seeds: tuple[int, ...]
    configs: tuple[str, ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict)
    published: Published = field(default_factory=Published)
    plots: tuple[dict[str, str], ...] = ()

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


_TABLE = {"title", "note", "columns", "rows", "scales", "published", "plots", "settings", "configs"}
_SCALE = {"configs", "settings", "seeds", "grid", "rows", "columns", "note", "plots"}
_ROW = {"label", "configs", "settings", "grid", "reader", "finished"}
_COLUMN = {"label", "value", "settings", "evaluates"}


def read_table(path: Path, scale: str) -> Table:
    """Read a table's YAML at one scale. Raises InputError that names the place and what would be right."""
    content = read_yaml(path)
    _check_keys(content, _TABLE, str(path))
    scales = _mapping(content.get("scales"), f"{path}: scales")
    _check_keys(scales, SCALES, f"{path}: scales")
    if scale not in scales:
        raise InputError(f"{path}: has no scale {scale}; {nearest(scale, scales)}")
    place = f"{path}: scales: {scale}"
    chosen = _mapping(scales[scale], place)
    _check_keys(chosen, _SCALE, place)
    grid = _grid(chosen.get("grid"), f"{place}: grid")
    rows = _rows(chosen.get("rows", content.get("rows")), grid, f"{path}: rows")
    columns = _columns(chosen.get("columns", content.get("columns")), f"{path}: columns")
    published = _mapping(content.get("published"), f"{path}: published")
    _check_keys(published, {"from", "columns"}, f"{path}: published")
    table = Table(
        name=path.stem,
        scale=scale,
        title=str(content.get("title", path.stem)),
        note=" ".join(part for part in (content.get("note"), chosen.get("note")) if part),
        rows=rows,
        columns=columns,
        seeds=_seeds(chosen.get("seeds"), place),
        configs=(*_texts(content.get("configs"), str(path)), *_texts(chosen.get("configs"), place)),
        settings=_settings(content.get("settings"), str(path)) | _settings(chosen.get("settings"), place),
        published=Published(
            _texts(published.get("from"), f"{path}: published"),
            _mapping(published.get("columns"), f"{path}: published: columns"),
        ),
        plots=tuple(_mapping(one, f"{path}: plots") for one in chosen.get("plots", content.get("plots", []))),
    )
    _check_table(table, path)
    return table


def scales_of(path: Path) -> list[str]:
    """The scales a table's file has, smallest first."""
    found = _mapping(read_yaml(path).get("scales"), f"{path}: scales")
    return [scale for scale in SCALES if scale in found]


def _rows(content: Any, grid: Grid | None, place: str) -> tuple[Row, ...]:
    rows = []
    for name, value in _mapping(content, place).items():
        here = f"{place}: {name}"
        row = _mapping(value, here)
        _check_keys(row, _ROW, here)
        own = row.get("grid", "")
        rows.append(
            Row(
                name=name,
                label=str(row.get("label", name)),
                configs=_texts(row.get("configs"), here),
                settings=_settings(row.get("settings"), here),
                grid=_row_grid(own, None if row.get("finished") else grid, here),
                reader=row.get("reader"),
                finished=row.get("finished"),
            )
        )
    return tuple(rows)


def _row_grid(own: Any, shared: Grid | None, place: str) -> Grid | None:
    """A row's own values win; what its trials do otherwise is the scale's where it says nothing."""
    if own == "none":
        return None
    if not own:
        return shared
    grid = _grid(own, f"{place}: grid")
    assert grid is not None
    return grid if grid.settings or shared is None else Grid(grid.setting, grid.values, shared.settings)


def _columns(content: Any, place: str) -> tuple[Column, ...]:
    columns = []
    for name, value in _mapping(content, place).items():
        here = f"{place}: {name}"
        column = _mapping(value, here)
        _check_keys(column, _COLUMN, here)
        evaluates = str(column.get("evaluates", "false"))
        if evaluates not in ("true", "false"):
            raise InputError(f"{here}: evaluates: {evaluates}: say true or false")
        columns.append(
            Column(
                name=name,
                label=str(column.get("label", name)),
                value=str(column.get("value", name)),
                settings=_settings(column.get("settings"), here),
                evaluates=evaluates == "true",
            )
        )
    return tuple(columns)


def _grid(content: Any, place: str) -> Grid | None:
    grid = _mapping(content, place)
    settings = _settings(grid.pop("settings", None), place)
    if not grid:
        return None
    if len(grid) > 1:
        raise InputError(f"{place}: {', '.join(grid)}: a grid tries one setting; keep one")
    ((setting, values),) = grid.items()
    chosen = _texts(values, f"{place}: {setting}")
    if len(set(chosen)) != len(chosen) or not chosen:
        raise InputError(f"{place}: {setting}: give different values in a list")
    return Grid(setting, chosen, settings)


def _seeds(content: Any, place: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(word) for word in _texts(content, f"{place}: seeds"))
    except ValueError as error:
        raise InputError(f"{place}: seeds: {content}: give whole numbers in a list") from error
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"{place}: seeds: give different whole numbers in a list")
    return seeds


def _check_table(table: Table, path: Path) -> None:
    if not table.rows or not table.columns:
        raise InputError(f"{path}: a table needs rows and columns")
    names = [row.name for row in table.rows]
    for row in table.rows:
        if row.finished is not None and (row.reader is not None or row.grid is not None):
            raise InputError(
                f"{path}: rows: {row.name}: finished: such a row trains nothing; drop reader and grid"
            )
        if row.reader is None:
            continue
        if row.reader not in names or row.reader == row.name:
            raise InputError(f"{path}: rows: {row.name}: reader: {row.reader}; {nearest(row.reader, names)}")
        other = table.row(row.reader)
        if other.reader is not None or other.finished is not None:
            raise InputError(f"{path}: rows: {row.name}: reader: {row.reader} trains nothing itself")
    for name in (*names, *(column.name for column in table.columns)):
        if "/" in name or name.startswith("."):
            raise InputError(f"{path}: {name}: names become files; use letters, digits and -")
    for column in table.columns:
        if column.evaluates and not column.settings:
            raise InputError(f"{path}: columns: {column.name}: evaluates: say on what, under settings")


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{place}: {value}: write `key: value` lines")
    return dict(value)


def _settings(value: Any, place: str) -> dict[str, Setting]:
    return _mapping(value, f"{place}: settings")


def _texts(value: Any, place: str) -> tuple[str, ...]:
    if value in (None, ""):
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{place}: {value}: give a list")
    return tuple(value)


def _check_keys(found: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    for key in found:
        if key not in set(known):
            raise InputError(f"{place}: {key}: no such key; {nearest(key, known)}")

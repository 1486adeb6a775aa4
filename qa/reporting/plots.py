"""A filled table as pictures, PNG and PDF: learning curves, F1 against examples, scatter, heat map.

The only file that imports matplotlib, and only when it draws. The same records give the same pixels: no date
is written into the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa.configuration import nearest
from qa.errors import InputError
from qa.tables.statistics import mean
from qa.tables.values import value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qa.tables.cells import FilledTable

DOTS_PER_INCH = 150
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.hashsalt": "qa",
    "pdf.fonttype": 42,
}

Draw = Callable[["FilledTable", Mapping[str, str], "Axes"], bool]
"""Draws into the axes. Returns: whether there was anything to draw."""


def draw_plots(filled: FilledTable, out: Path) -> list[Path]:
    """Every plot of the table's YAML that has records behind it, as `<table>-<scale>-<kind>.png` and `.pdf`.

    Raises InputError where matplotlib is missing or the YAML names an unknown kind.
    """
    written: list[Path] = []
    for plot in filled.table.plots:
        kind = plot.get("kind", "")
        if kind not in KINDS:
            raise InputError(f"plots: kind: {kind}: no such plot; {nearest(kind, KINDS)}")
        name = "-".join(
            [filled.table.name, filled.table.scale, kind.replace("_", "-"), *filter(None, [plot.get("x")])]
        )
        written += _draw(KINDS[kind], filled, plot, out / name)
    return written


def _draw(draw: Draw, filled: FilledTable, plot: Mapping[str, str], path: Path) -> list[Path]:
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install -e '.[tables]', or add --no-plots") from error
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(f"{filled.table.title} ({filled.table.scale})", fontsize=10)
        if not draw(filled, plot, axes):
            return []
        path.parent.mkdir(parents=True, exist_ok=True)
        files = [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "pdf")]
        for file in files:
            # Names of tools and the date would make every drawing another file.
            dates: dict[str, Any] = {"CreationDate": None} if file.suffix == ".pdf" else {"Software": None}
            figure.savefig(file, dpi=DOTS_PER_INCH, metadata=dates)
    return files


def _learning_curves(filled: FilledTable, plot: Mapping[str, str], axes: Axes) -> bool:
    """Training loss over steps, a line per row, and column that trains: the mean over the seeds."""
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for (name, _, _), record in filled.records.items():
        curve = record.run.training.get("loss_curve")
        if curve and "reader" not in record.chosen:
            label = ", ".join(filter(None, (filled.table.row(name).label, record.column)))
            curves.setdefault(label, {})[record.settings_sha256] = curve
    for label, by_seed in curves.items():
        losses: dict[float, list[float]] = {}
        for step, loss in (point for curve in by_seed.values() for point in curve):
            losses.setdefault(step, []).append(loss)
        steps = sorted(losses)
        axes.plot(steps, [mean(losses[step]) for step in steps], label=label, linewidth=1.2)
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel("training loss (nats)")
    if curves:
        axes.legend(fontsize=7, ncols=2)
    return bool(curves)


def _scatter(filled: FilledTable, plot: Mapping[str, str], axes: Axes) -> bool:
    """One column against another, a point per row with its name; bars: the deviation over seeds."""
    columns = {column.name: column for column in filled.table.columns}
    for name in (plot.get("x", ""), plot.get("y", "f1")):
        if name not in columns:
            raise InputError(f"plots: {name}: no such column; {nearest(name, columns)}")
    x, y = columns[plot["x"]], columns[plot.get("y", "f1")]
    points = []
    for row in filled.table.rows:
        across, up = filled.cell(row, x), filled.cell(row, y)
        if across.mean is not None and up.mean is not None:
            points.append((across.mean, up.mean, up.deviation or 0.0, row.label))
    # From left to right, names stand at four heights in turn, so that neighbours do not hide one another's.
    for index, (across_mean, up_mean, deviation, label) in enumerate(sorted(points)):
        axes.errorbar(across_mean, up_mean, yerr=deviation or None, fmt="o", markersize=5, capsize=2)
        near = (5, (4, -9, 14, -19)[index % 4])
        axes.annotate(label, (across_mean, up_mean), xytext=near, textcoords="offset points", fontsize=7)
    if plot.get("log") == "true":
        axes.set_xscale("log")
    axes.margins(x=0.18, y=0.12)
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    return bool(points)


def _examples(filled: FilledTable, plot: Mapping[str, str], axes: Axes) -> bool:
    """A line per row over the columns whose names are numbers of examples; published rows dashed."""
    columns = [column for column in filled.table.columns if column.name.isdigit()]
    drawn = False
    for row in filled.table.rows:
        points = [
            (int(column.name), cell.mean, cell.deviation or 0.0)
            for column in columns
            if (cell := filled.cell(row, column)).mean is not None
        ]
        if points:
            examples, means, deviations = zip(*points, strict=True)
            axes.errorbar(examples, means, yerr=deviations, marker="o", capsize=3, label=row.label)
            drawn = True
    # Scale smoke is of other questions: nothing published belongs beside it.
    for one in filled.published if drawn and filled.table.scale != "smoke" else ():
        found = [
            (int(column.name), number)
            for column in columns
            if (number := filled.reported(one, column)) is not None
        ]
        if found:
            examples, numbers = zip(*found, strict=True)
            axes.plot(examples, numbers, "--s", markersize=4, label=f"{one.label}, published ({one.source})")
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(column.name) for column in columns], [column.name for column in columns])
    axes.set_xlabel("training examples")
    axes.set_ylabel("F1")
    if drawn:
        axes.legend(fontsize=7)
    return drawn


def _heat_map(filled: FilledTable, plot: Mapping[str, str], axes: Axes) -> bool:
    """Rows against columns, a colour and the number in each cell; cells that were not run stay white."""
    rows, columns = filled.table.rows, [c for c in filled.table.columns if value_of(c.value).best]
    values = [[filled.cell(row, column).mean for column in columns] for row in rows]
    if all(value is None for line in values for value in line):
        return False
    grid = [[float("nan") if value is None else value for value in line] for line in values]
    image = axes.imshow(grid, cmap="viridis", aspect="auto")
    known = [value for line in values for value in line if value is not None]
    middle = (min(known) + max(known)) / 2
    for down, line in enumerate(values):
        for across, value in enumerate(line):
            if value is not None:
                colour = "white" if value < middle else "black"
                axes.text(across, down, f"{value:.1f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(columns)), [column.label for column in columns], rotation=20, ha="right")
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.grid(visible=False)
    axes.set_xlabel("tested on")
    axes.set_ylabel("trained on")
    axes.figure.colorbar(image, ax=axes, label="F1")
    return True


KINDS: dict[str, Draw] = {
    "learning_curves": _learning_curves,
    "scatter": _scatter,
    "examples": _examples,
    "heat_map": _heat_map,
}

"""A filled table as pictures, PNG and PDF: learning curves, F1 against examples, scatter, heat map.

The only file that imports matplotlib, and only when it draws. The same records give the same pixels: no date
is written into the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa.configuration import nearest
from qa.errors import InputError
from qa.reporting.point_labels import Box, place_labels
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

# Sizes in typographic points: names, half a mark, and from where on a line leads to a name.
_NAME_SIZE, _MARK, _LINE_FROM = 7, 3.5, 8.0

# The longest name, in characters, of which two stand side by side in a legend.
_HALF_LEGEND = 36

# What axes are called where a table's column is too narrow to say it.
_AXES = {
    "f1": "F1 (%)",
    "exact_match": "exact match (%)",
    "trained_parameters": "trained parameters, head included",
    "trained_share": "trained parameters (% of all)",
    "checkpoint_mb": "checkpoint (MB)",
    "tokens_per_second": "training speed (tokens/s)",
    "peak_memory_gb": "peak memory (GB)",
    "seconds": "training time (s)",
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
    curves: dict[tuple[str, str | None], dict[str, list[list[float]]]] = {}
    for (name, _, _), record in filled.records.items():
        curve = record.run.training.get("loss_curve")
        if curve and "reader" not in record.chosen:
            of_row = curves.setdefault((filled.table.row(name).label, record.column), {})
            of_row[record.settings_sha256] = curve
    for label, by_seed in zip(_shortest_names(list(curves)), curves.values(), strict=True):
        losses: dict[float, list[float]] = {}
        for step, loss in (point for curve in by_seed.values() for point in curve):
            losses.setdefault(step, []).append(loss)
        steps = sorted(losses)
        axes.plot(steps, [mean(losses[step]) for step in steps], label=label, linewidth=1.2)
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel("training loss (nats)")
    if curves:
        names = axes.get_legend_handles_labels()[1]
        axes.legend(fontsize=7, ncols=2 if max(map(len, names)) <= _HALF_LEGEND else 1)
    return bool(curves)


def _shortest_names(curves: Sequence[tuple[str, str | None]]) -> list[str]:
    """Pairs of row and column, None where a training serves its whole row -> names to tell them apart by."""
    columns = [column for _, column in curves if column]
    if len({row for row, _ in curves}) == 1 < len(columns) == len(curves):
        return columns
    return [", ".join(filter(None, pair)) for pair in curves]


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
    for across_mean, up_mean, deviation, _ in points:
        # White edges keep apart what lies on one another.
        style: Any = {"fmt": "o", "markersize": 6, "color": "C0", "markeredgecolor": "white"}
        axes.errorbar(across_mean, up_mean, yerr=deviation or None, capsize=2, **style)
    if plot.get("log") == "true":
        axes.set_xscale("log")
    axes.margins(x=0.1, y=0.1)
    axes.set_xlabel(_AXES.get(x.value, x.label))
    axes.set_ylabel(_AXES.get(y.value, y.label))
    _name_points(axes, points)
    return bool(points)


def _name_points(axes: Axes, points: Sequence[tuple[float, float, float, str]]) -> None:
    """Write names beside points (x, y, deviation, name), a thin line to those that had to step aside.

    Call when everything else is drawn: names are placed by what is where.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # settles the layout
    unit = 72 / figure.dpi
    renderer, transform = figure.canvas.get_renderer(), axes.transData
    named = [axes.annotate(name, (x, y), fontsize=_NAME_SIZE, in_layout=False) for x, y, _, name in points]
    places = [tuple(unit * transform.transform((x, y))) for x, y, _, _ in points]
    extents = [text.get_window_extent(renderer) for text in named]
    marks = []
    for x, y, deviation, _ in points:
        left, low = unit * transform.transform((x, y - deviation)) - _MARK
        right, high = unit * transform.transform((x, y + deviation)) + _MARK
        marks.append(Box(left, low, right, high))
    inside = axes.get_window_extent(renderer)
    frame = Box(*(unit * edge for edge in (inside.x0, inside.y0, inside.x1, inside.y1)))
    sizes = [(unit * extent.width, unit * extent.height) for extent in extents]
    for text, place, box in zip(named, places, place_labels(places, sizes, marks, frame), strict=True):
        text.remove()
        end_x, end_y = box.nearest(*place)
        far = math.hypot(end_x - place[0], end_y - place[1]) > _LINE_FROM
        line = (
            {"arrowstyle": "-", "color": "grey", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            if far
            else None
        )
        axes.annotate(
            text.get_text(),
            text.xy,
            xytext=(box.left - place[0], box.bottom - place[1]),
            textcoords="offset points",
            fontsize=_NAME_SIZE,
            verticalalignment="bottom",
            arrowprops=line,
            in_layout=False,
        )


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
    axes.set_ylabel(_AXES["f1"])
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

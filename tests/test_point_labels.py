"""Names of points in a scatter plot hide neither one another nor a point, and stay in the picture."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from table_cases import table_of

from qa.reporting.point_labels import Box, place_labels
from qa.tables.cells import Cell, FilledTable

FRAME = Box(0, 0, 400, 250)


def mark(x: float, y: float) -> Box:
    return Box(x - 3, y - 3, x + 3, y + 3)


def test_boxes() -> None:
    box = Box(0, 0, 4, 2)
    assert box.area == 8
    assert box.overlap(Box(3, 1, 9, 9)) == 1
    assert box.overlap(Box(4, 0, 8, 2)) == box.overlap(Box(5, 5, 6, 6)) == 0
    assert box.nearest(9, 1) == (4, 1)
    assert box.nearest(1, 1) == (1, 1)


def test_a_name_alone_stands_to_the_right_and_at_an_edge_to_the_left() -> None:
    (alone,) = place_labels([(100, 100)], [(40, 8)], [mark(100, 100)], FRAME)
    assert (alone.left, alone.bottom) == (106, 96)
    (edge,) = place_labels([(395, 100)], [(40, 8)], [mark(395, 100)], FRAME)
    assert (edge.right, edge.bottom) == (389, 96)


@pytest.mark.parametrize("seed", range(4))
def test_names_of_scattered_points_and_of_a_heap_find_room(seed: int) -> None:
    draw = random.Random(seed)
    heap = [(draw.gauss(300, 12), draw.gauss(180, 12)) for _ in range(6)]
    points = [*heap, *((draw.uniform(10, 390), draw.uniform(10, 240)) for _ in range(10))]
    sizes = [(draw.uniform(15, 90), 8.0) for _ in points]
    marks = [mark(*point) for point in points]
    placed = place_labels(points, sizes, marks, FRAME)
    assert placed == place_labels(points, sizes, marks, FRAME)
    for box, size in zip(placed, sizes, strict=True):
        assert (box.right - box.left, box.top - box.bottom) == pytest.approx(size)
        assert box.overlap(FRAME) == pytest.approx(box.area)
    assert sum(one.overlap(other) for one, other in itertools.combinations(placed, 2)) == 0
    assert sum(box.overlap(one) for box in placed for one in marks) == 0


def test_every_point_of_a_plot_is_named_and_axes_have_units(empty_folder: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib.figure")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from qa.reporting.plots import KINDS

    rows = "".join(f"  r{i}: {{label: 'a way of tuning, {i}'}}\n" for i in range(14))
    text = f"""
title: T
columns: {{f1: {{label: F1}}, trained_parameters: {{label: trained}}}}
rows:
{rows}settings: {{dataset_name: sample, do_train: "true", do_eval: "true", use_cpu: "true"}}
scales: {{smoke: {{seeds: [1]}}}}
"""
    table = table_of(empty_folder, text)
    draw = random.Random(0)
    cells = {}
    for row in table.rows:
        cells[row.name, "f1"] = Cell(draw.choice([40.0, 41.0, 57.0]), 0.5, 2)
        cells[row.name, "trained_parameters"] = Cell(10 ** draw.uniform(3, 7))
    filled = FilledTable(table, cells, (), {})
    figure = matplotlib.Figure(figsize=(6.0, 4.0), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    assert KINDS["scatter"](filled, {"x": "trained_parameters", "y": "f1", "log": "true"}, axes)
    figure.draw_without_rendering()
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == (
        *("log", "trained parameters, head included", "F1 (%)"),
    )
    assert sorted(text.get_text() for text in axes.texts) == sorted(row.label for row in table.rows)
    boxes = [super(type(text), text).get_window_extent(canvas.get_renderer()) for text in axes.texts]
    inside = axes.get_window_extent()
    for box in boxes:
        assert inside.x0 <= box.x0
        assert box.x1 <= inside.x1
        assert inside.y0 <= box.y0
        assert box.y1 <= inside.y1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)

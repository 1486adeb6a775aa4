"""A hand-made table as Markdown, LaTeX, CSV and pictures, to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest
from table_cases import TWO_ROWS, by_hand, table_of

from qa.errors import InputError
from qa.tables.cells import FilledTable, fill
from qa.tables.rendering import comma_separated, latex, markdown
from qa.tables.reported import Reported, chosen_rows, read_reported
from qa.tables.values import VALUES, value_of

THEIRS = Reported("T_1", {"f1": 88.81, "em": 70.0}, "Somebody 2020, Table 1 & 2", "test")
GOOD = [100.0] * 18 + [0.0, 50.0]
BAD = [0.0] * 15 + [100.0] * 5


@pytest.fixture
def filled(empty_folder: Path) -> FilledTable:
    """A: two seeds, significantly better; B: one of two seeds; C: not run."""
    table = table_of(empty_folder, TWO_ROWS)
    plan, records = by_hand(table, {("a", 1): GOOD, ("a", 2): [100.0] * 20, ("b", 1): BAD})
    return fill(table, plan, records, [THEIRS])


def test_markdown(filled: FilledTable) -> None:
    lines = markdown(filled).splitlines()
    low, high = filled.cells["a", "f1"].interval or (0, 0)
    a_exact, b_f1, b_exact = (
        "[{:.1f}, {:.1f}]".format(*(filled.cells[place].interval or (0, 0)))
        for place in (("a", "exact_match"), ("b", "f1"), ("b", "exact_match"))
    )
    assert lines[:8] == [
        "**Two rows** (smoke)",
        "",
        "|  | F1 | EM | trained | source |",
        "| --- | ---: | ---: | ---: | --- |",
        f"| A | **96.2** ± 5.3 [{low:.1f}, {high:.1f}] | **95.0** ± 7.1 {a_exact} | 50 ± 0 | ours |",
        f"| B | 25.0 {b_f1} | 25.0 {b_exact} | 50 | ours |",
        "| C |  |  |  | ours |",
        "| *T_1* (test) | 88.8 |  |  | Somebody 2020, Table 1 & 2 |",
    ]
    text = "\n".join(lines[8:])
    assert "- Mean ± standard deviation over seeds 1, 2;" in text
    assert "- 9 of 18 cells and seeds have been run." in text
    assert "- F1: A against B: +71.25 [" in text
    assert "p = 0.001, 20 questions." in text
    assert "- Made on 2 cores of none, 1 threads a run." in text
    assert "- Signature: by hand" in text


def test_latex(filled: FilledTable) -> None:
    text = latex(filled)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert rows == [
        r" & F1 & EM & trained & Source \\",
        r"A & \textbf{96.2} $\pm$ 5.3 & \textbf{95.0} $\pm$ 7.1 & 50 $\pm$ 0 & ours \\",
        r"B & 25.0 & 25.0 & 50 & ours \\",
        r"C &  &  &  & ours \\",
        r"T\_1 (test) & 88.8 &  &  & Somebody 2020, Table 1 \& 2 \\",
    ]
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    assert r"\begin{tabular}{lrrrl}" in text
    assert r"\label{tab:case-smoke}" in text


def test_comma_separated(filled: FilledTable) -> None:
    lines = comma_separated(filled).splitlines()
    assert lines[0].startswith("table,scale,row,column,value,mean,deviation,seeds,low,high,")
    assert lines[1].startswith("case,smoke,a,f1,f1,96.25,5.303300859,2,")
    assert lines[1].endswith(",true,ours")
    assert lines[3] == "case,smoke,a,trained_parameters,trained_parameters,50,0,2,,,false,ours"
    assert lines[-1] == 'case,smoke,T_1 (test),f1,f1,88.81,,,,,,"Somebody 2020, Table 1 & 2"'
    assert not any(",c," in line for line in lines)


def test_a_resumed_run_shows_no_time(filled: FilledTable) -> None:
    from dataclasses import replace

    record = filled.records["a", "f1", 1]
    assert value_of("tokens_per_second").read(record) == 250
    assert value_of("checkpoint_mb").read(record) == 2
    assert value_of("trained_share").read(record) == 25
    again = replace(record, attempts=2)
    assert [VALUES[name].read(again) for name in ("seconds", "tokens_per_second")] == [None, None]


def test_published_rows_have_sources(tmp_path: Path) -> None:
    path = tmp_path / "reported.yaml"
    path.write_text("one:\n  - {label: A, values: {f1: 1}}\n", encoding="utf-8")
    with pytest.raises(InputError, match="one: row 1: needs a label, values and the source"):
        read_reported(path)
    path.write_text("one:\n  - {label: A, values: {f1: 1}, source: B}\n", encoding="utf-8")
    assert read_reported(path) == {"one": (Reported("A", {"f1": 1.0}, "B"),)}
    with pytest.raises(InputError, match=r"published: ones: no such list; did you mean one\?"):
        chosen_rows(read_reported(path), ("ones",))


def test_plots_are_drawn_and_the_same_twice(filled: FilledTable, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from dataclasses import replace

    from qa.reporting.plots import draw_plots

    plots = ({"kind": "learning_curves"}, {"kind": "heat_map"}, {"kind": "scatter", "x": "exact_match"})
    drawn = replace(filled, table=replace(filled.table, plots=plots))
    files = draw_plots(drawn, tmp_path / "one")
    assert [file.name for file in files] == [
        *("case-smoke-learning-curves.png", "case-smoke-learning-curves.pdf"),
        *("case-smoke-heat-map.png", "case-smoke-heat-map.pdf"),
        *("case-smoke-scatter-exact_match.png", "case-smoke-scatter-exact_match.pdf"),
    ]
    again = draw_plots(drawn, tmp_path / "two")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    assert all(file.read_bytes()[:4] in (b"\x89PNG", b"%PDF") for file in files)
    wrong = replace(filled, table=replace(filled.table, plots=({"kind": "pie"},)))
    with pytest.raises(InputError, match="plots: kind: pie: no such plot; there is examples"):
        draw_plots(wrong, tmp_path)


@pytest.mark.parametrize("rows", ["a", "ab"])
def test_the_legend_of_learning_curves_stays_inside(filled: FilledTable, rows: str) -> None:
    """One row with three columns is named by them; long names stand below each other."""
    pytest.importorskip("matplotlib")
    from dataclasses import replace

    from matplotlib.figure import Figure

    from qa.reporting.plots import KINDS

    named = [
        replace(row, label=f"all-MiniLM-L6, published splits, row {row.name}") for row in filled.table.rows
    ]
    record = next(iter(filled.records.values()))
    records = {
        (row, column, 1): replace(record, row=row, column=column) for row in rows for column in ("16", "64")
    }
    axes = Figure(figsize=(6.0, 4.0), layout="constrained").add_subplot()
    table = replace(filled.table, rows=tuple(named))
    assert KINDS["learning_curves"](replace(filled, table=table, records=records), {}, axes)
    axes.figure.draw_without_rendering()
    legend = axes.get_legend()
    of_both = [f"{row.label}, {column}" for row in named[:2] for column in ("16", "64")]
    assert [text.get_text() for text in legend.get_texts()] == (["16", "64"] if rows == "a" else of_both)
    frame, box = axes.get_window_extent(), legend.get_window_extent()
    assert frame.x0 <= box.x0 < box.x1 <= frame.x1

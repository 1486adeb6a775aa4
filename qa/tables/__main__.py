"""Make a paper's table: run what is missing, skip what is done, print it beside the published numbers.

    python -m qa.tables strategies --scale smoke              # = make table-strategies SCALE=smoke
    python -m qa.tables strategies --scale paper --print-commands | parallel -j 4
    python -m qa.tables fewshot --scale smoke --compare full lora
    python -m qa.tables --committed                           # = make tables: prints all that is recorded

Two of them may work on one table. Ctrl-C loses nothing but a few steps: the same command goes on. Exit code 1
where a run failed or could not be made; its reason stands at the end.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from qa.configuration import nearest
from qa.errors import InputError, run_program
from qa.files import write_text
from qa.tables.cells import FilledTable, compare_cells, fill
from qa.tables.launching import launch_command
from qa.tables.rendering import FORMATS, markdown
from qa.tables.reported import chosen_rows, read_reported
from qa.tables.runner import Outcome, Runner
from qa.tables.spec import SCALES, read_table, scales_of
from qa.tables.store import Store

COMMAND_VARIABLE = "QA_TABLES_COMMAND"
"""What starts a run instead of `accelerate launch ... run_qa.py`; the run's words are appended to it."""


def main(words: Sequence[str] | None = None) -> int:
    """The command line. Returns: the exit code."""
    told = _parser().parse_args(words)
    if told.committed:
        return _print_committed(told)
    if told.table is None:
        raise InputError(f"name a table; there is {', '.join(path.stem for path in _table_files(told))}")
    table = read_table(_table_path(told), told.scale)
    store = Store(table, told.results, told.outputs / "tables")
    command = os.environ.get(COMMAND_VARIABLE)
    runner = Runner(
        store,
        command=shlex.split(command) if command else launch_command(told.processes),
        jobs=told.jobs,
        processes=told.processes,
        say=lambda line: print(line, flush=True),
        report_to=told.report_to,
    )
    runner.changed = lambda: _write_now(runner, told)
    if told.print_commands:
        print("\n".join(runner.commands()))
        return 0
    outcome = Outcome() if told.no_runs else runner.run()
    filled = filled_table(runner, told.experiments)
    write_files(filled, told.out, draw=not told.no_plots)
    print("\n" + markdown(filled))
    for pair in told.compare or []:
        _print_comparison(filled, *pair)
    return _report(outcome)


def filled_table(runner: Runner, experiments: Path) -> FilledTable:
    """The table from its records and the published rows it asks for."""
    table = runner.store.table
    state = runner.look()
    reported = read_reported(experiments / "reported.yaml") if table.published.lists else {}
    return fill(table, state.plan, state.records, chosen_rows(reported, table.published.lists))


def write_files(filled: FilledTable, out: Path, *, draw: bool = True) -> list[Path]:
    """Markdown, LaTeX, CSV and plots of a table into `out`. Returns: the files."""
    name = f"{filled.table.name}-{filled.table.scale}"
    files = []
    for suffix, render in FORMATS.items():
        files.append(out / f"{name}.{suffix}")
        write_text(files[-1], render(filled))
    if draw and filled.records:
        from qa.reporting.plots import draw_plots

        files += draw_plots(filled, out)
    return files


def _write_now(runner: Runner, told: argparse.Namespace) -> None:
    """Keep the printed table at one with the records, so that it can be read while others are made."""
    write_files(filled_table(runner, told.experiments), told.out, draw=False)


def _print_comparison(filled: FilledTable, first: str, second: str) -> None:
    names = [row.name for row in filled.table.rows]
    for name in (first, second):
        if name not in names:
            raise InputError(f"compare: {name}: no such row; {nearest(name, names)}")
    print(f"{first} against {second}, paired bootstrap over questions:")
    for column in filled.table.columns:
        result = compare_cells(filled.cells[first, column.name], filled.cells[second, column.name])
        if result is not None:
            low, high = result.interval
            difference = f"{result.difference:+.2f} [{low:+.2f}, {high:+.2f}]"
            print(f"  {column.label}: {difference}, p = {result.p_value:.3f}")


def _report(outcome: Outcome) -> int:
    for label, reason in {**outcome.failed, **outcome.blocked}.items():
        kind = "failed" if label in outcome.failed else "not run"
        print(f"{kind}: {label}: {reason}", file=sys.stderr)
    if outcome.stopped:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0 if outcome.complete else 1


def _print_committed(told: argparse.Namespace) -> int:
    """Every table at every scale that has a record."""
    shown = 0
    for path in _table_files(told):
        for scale in scales_of(path):
            table = read_table(path, scale)
            runner = Runner(Store(table, told.results, told.outputs / "tables"))
            if not any(runner.store.folder.glob("*.json")):
                continue
            filled = filled_table(runner, told.experiments)
            write_files(filled, told.out, draw=not told.no_plots)
            print(markdown(filled))
            shown += 1
    if not shown:
        print("no table has a record yet: make table-strategies SCALE=smoke makes some")
    return 0


def _table_files(told: argparse.Namespace) -> list[Path]:
    return sorted((told.experiments / "tables").glob("*.yaml"))


def _table_path(told: argparse.Namespace) -> Path:
    if told.table.endswith((".yaml", ".yml")):
        return Path(told.table)
    path: Path = told.experiments / "tables" / f"{told.table}.yaml"
    if not path.is_file():
        names = [one.stem for one in _table_files(told)]
        raise InputError(f"{told.table}: no such table; {nearest(told.table, names)}")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qa.tables", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("table", nargs="?", help="a name in experiments/tables, or a YAML file")
    add("--scale", choices=SCALES, default="smoke", help="how much data and time (default: smoke)")
    add("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    add("--processes", type=int, default=1, metavar="N", help="processes (GPUs) of a run")
    add("--report-to", metavar="TRACKER", help="track the runs, grouped by table: wandb")
    add("--print-commands", action="store_true", help="print the commands of what is missing; run nothing")
    add("--no-runs", action="store_true", help="print the table as it is")
    add("--compare", nargs=2, action="append", metavar="ROW", help="test one row against another")
    add("--committed", action="store_true", help="print every table that has records")
    add("--no-plots", action="store_true", help="draw nothing (needs no matplotlib)")
    add("--experiments", type=Path, default=Path("experiments"), metavar="DIR", help="tables, settings")
    add("--results", type=Path, default=Path("experiments/results"), metavar="DIR", help="records")
    add("--out", type=Path, default=Path("experiments/tables/out"), metavar="DIR", help="printed tables")
    add("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="runs, under tables/")
    return parser


if __name__ == "__main__":
    run_program(main, "qa.tables")

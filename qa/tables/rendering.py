"""A filled table as Markdown (for the README), LaTeX with booktabs (for a paper), CSV (for the rest)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable

from qa.tables.cells import Cell, Contest, FilledTable
from qa.tables.reported import Reported
from qa.tables.spec import Column
from qa.tables.statistics import SIGNIFICANT
from qa.tables.values import value_of

_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
SCALE_NOTES = {
    "smoke": "Scale smoke: shows that the table can be made; its numbers say nothing about the methods, and "
    "published rows are of other data and encoders.",
    "small": "Scale small: a small encoder and part of the data; comparable within the table only.",
    "paper": "Scale paper.",
}


def markdown(filled: FilledTable) -> str:
    """Title, table, and below it what its numbers are: seeds, intervals, tests, signatures, sources."""
    table = filled.table
    header = ["", *(column.label for column in table.columns), *(["source"] if filled.published else [])]
    rows = [header, ["---", *("---:" for _ in table.columns), *(["---"] if filled.published else [])]]
    for row in table.rows:
        texts = [_markdown_cell(filled.cell(row, column), column) for column in table.columns]
        rows.append([row.label, *texts, *(["ours"] if filled.published else [])])
    for one in filled.published:
        label = f"*{one.label}*" + (f" ({one.note})" if one.note else "")
        rows.append([label, *_reported_texts(filled, one), one.source])
    lines = [f"**{table.title}** ({table.scale})", ""]
    lines += ["| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(filled))]) + "\n"


def _markdown_cell(cell: Cell, column: Column) -> str:
    if cell.mean is None:
        return ""
    write = value_of(column.value).write
    text = write(cell.mean)
    text = f"**{text}**" if cell.significant else text
    if cell.deviation is not None:
        text += f" ± {write(cell.deviation)}"
    if cell.interval is not None:
        text += f" [{write(cell.interval[0])}, {write(cell.interval[1])}]"
    return text


def _reported_texts(filled: FilledTable, row: Reported) -> list[str]:
    numbers = [filled.reported(row, column) for column in filled.table.columns]
    return ["" if number is None else f"{number:.1f}" for number in numbers]


def notes(filled: FilledTable) -> list[str]:
    """What stands below a table, a line each, without markup."""
    table = filled.table
    found = [SCALE_NOTES.get(table.scale, "")]
    found += [table.note] if table.note else []
    if not filled.records:
        return [*found, "Nothing of ours has been run at this scale yet: its cells are empty."]
    seeds = sorted({seed for _, _, seed in filled.records})
    several = len(seeds) > 1
    found.append(
        (f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}; " if several else "")
        + (f"One seed ({seeds[0]}): no deviation over seeds; " if not several else "")
        + "in brackets the 95 % bootstrap interval over questions. An empty cell was not run."
    )
    wanted = len(table.rows) * len(table.columns) * len(table.seeds)
    if len(filled.records) < wanted:
        found.append(f"{len(filled.records)} of {wanted} cells and seeds have been run.")
    found.append(
        f"Bold: the best of a column, where its difference to the second is significant (two-sided paired "
        f"bootstrap over questions, p < {SIGNIFICANT}). Methods are told apart on the questions they were "
        "tuned on where a grid is named."
    )
    found += [_contest_note(filled, contest) for contest in filled.contests]
    found += _grid_notes(filled)
    found += _machine_notes(filled)
    # Every reader has a threshold of its own.
    signatures = sorted(
        {
            re.sub(r"\bthresh:-?[0-9][^|]*", "thresh:each", record.run.scores["eval"].signature)
            for record in filled.records.values()
        }
    )
    return [*found, *(f"Signature: {signature}" for signature in signatures)]


def _contest_note(filled: FilledTable, contest: Contest) -> str:
    labels = {column.name: column.label for column in filled.table.columns}
    names = f"{filled.table.row(contest.best).label} against {filled.table.row(contest.second).label}"
    if contest.result is None:
        return f"{labels[contest.column]}: {names}: no test, they have no marks of the same questions."
    low, high = contest.result.interval
    return (
        f"{labels[contest.column]}: {names}: {contest.result.difference:+.2f} [{low:+.2f}, {high:+.2f}], "
        f"p = {contest.result.p_value:.3f}, {contest.questions:,} questions."
    )


def _grid_notes(filled: FilledTable) -> list[str]:
    found: dict[str, None] = {}
    for (row, _, _), record in filled.records.items():
        grid = record.grid
        if grid is not None:
            tried = ", ".join(f"{trial.value} ({trial.f1:.1f})" for trial in grid.trials)
            where = f", {record.column}" if record.column else ""
            choice = f"{grid.setting} {grid.chosen} chosen by F1 on dev from {tried}."
            found[f"{filled.table.row(row).label}{where}: {choice}"] = None
    return list(found)


def _machine_notes(filled: FilledTable) -> list[str]:
    machines: dict[str, None] = {}
    for record in filled.records.values():
        hardware = record.run.environment["hardware"]
        name = hardware.get("gpu") or f"{hardware['cores']} cores of {hardware['cpu']}"
        machines[f"Made on {name}, {hardware.get('threads', '?')} threads a run."] = None
    return list(machines)


def latex(filled: FilledTable) -> str:
    """A booktabs table with caption and label; `\\usepackage{booktabs}` is all it needs."""
    table = filled.table
    with_source = bool(filled.published)
    columns = "l" + "r" * len(table.columns) + ("l" if with_source else "")
    header = ["", *(_escaped(column.label) for column in table.columns), *(["Source"] if with_source else [])]
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [_latex_row(header), r"\midrule"]
    for row in table.rows:
        texts = [_latex_cell(filled.cell(row, column), column) for column in table.columns]
        lines.append(_latex_row([_escaped(row.label), *texts, *(["ours"] if with_source else [])]))
    if filled.published:
        lines.append(r"\midrule")
    for one in filled.published:
        label = _escaped(one.label + (f" ({one.note})" if one.note else ""))
        lines.append(_latex_row([label, *_reported_texts(filled, one), _escaped(one.source)]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    caption = " ".join([f"{table.title} ({table.scale}).", *notes(filled)])
    lines += [rf"\caption{{{_escaped(caption)}}}", rf"\label{{tab:{table.name}-{table.scale}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell, column: Column) -> str:
    if cell.mean is None:
        return ""
    write = value_of(column.value).write
    text = _escaped(write(cell.mean))
    text = rf"\textbf{{{text}}}" if cell.significant else text
    return text if cell.deviation is None else rf"{text} $\pm$ {_escaped(write(cell.deviation))}"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text).replace("±", r"$\pm$")


CSV_HEADER = (
    *("table", "scale", "row", "column", "value", "mean", "deviation", "seeds", "low", "high"),
    *("significantly_best", "source"),
)


def comma_separated(filled: FilledTable) -> str:
    """One line per cell that has a number, published ones with their source; full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    table = filled.table
    for row in table.rows:
        for column in table.columns:
            cell = filled.cell(row, column)
            if cell.mean is None:
                continue
            low, high = cell.interval or ("", "")
            numbers = [cell.mean, "" if cell.deviation is None else cell.deviation, cell.seeds, low, high]
            place = [table.name, table.scale, row.name, column.name, column.value]
            writer.writerow([*place, *map(_number, numbers), str(cell.significant).lower(), "ours"])
    for one in filled.published:
        for column in table.columns:
            number = filled.reported(one, column)
            if number is not None:
                label = one.label + (f" ({one.note})" if one.note else "")
                place = [table.name, table.scale, label, column.name, column.value]
                writer.writerow([*place, _number(number), "", "", "", "", "", one.source])
    return stream.getvalue()


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.10g}"


FORMATS: dict[str, Callable[[FilledTable], str]] = {"md": markdown, "tex": latex, "csv": comma_separated}

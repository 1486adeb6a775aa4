"""Contenders run in turn, and what is said of them: medians, and ratios round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Values = dict[str, float]
"""Unit -> number, as in {"tokens/s": 2100.0}."""

Contender = Callable[[int], Values]
"""Does its work once; takes the number of the round, which is also its seed."""


@dataclass(frozen=True)
class Ratio:
    """A contender over the one it is compared with, taken round by round: median, lowest, highest."""

    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Row:
    """One contender. values: medians over the rounds. ratios: to each of the part's `bases` but itself."""

    name: str
    values: Values
    ratios: dict[str, Ratio] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One comparison.

    title: what is compared. bases: what ratios are taken against; none where nothing is compared.
    ratio_of: what the ratios are of. settings: what it was done with. notes: what a reader has to know to
    believe it.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    bases: tuple[str, ...] = ()
    ratio_of: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def alternate(
    contenders: Mapping[str, Contender], rounds: int, say: Callable[[str], None]
) -> dict[str, list[Values]]:
    """Every contender once a round, each round beginning with the next one, so that none is always first."""
    names = list(contenders)
    found: dict[str, list[Values]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            found[name].append(contenders[name](number))
            told = ", ".join(f"{value:,.5g} {unit}" for unit, value in found[name][-1].items())
            say(f"  round {number + 1} of {rounds}, {name}: {told}")
    return found


def compare(
    name: str,
    title: str,
    found: Mapping[str, Sequence[Values]],
    unit: str,
    bases: Sequence[str] = (),
    *,
    smaller: bool = False,
    ratio_of: str = "",
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Part:
    """A part from what `alternate` found: contenders' medians, and their ratios to the bases, round by round.

    unit: what ratios are taken of. smaller: it is a time or a size, and a ratio is the base's over the
    contender's; else a speed, and it is the contender's over the base's: above 1 is better either way.
    ratio_of: what the ratios are called, without it `unit`. The rest: see `Part`.
    """
    rows = []
    for contender, values in found.items():
        medians = {each: median(value[each] for value in values) for each in values[0]}
        ratios = {}
        for base in bases:
            pairs = [(one[unit], other[unit]) for one, other in zip(values, found[base], strict=True)]
            if contender != base:
                ratios[base] = _ratio([other / one if smaller else one / other for one, other in pairs])
        rows.append(Row(contender, medians, ratios))
    named = ratio_of or unit if bases else ""
    return Part(name, title, tuple(rows), tuple(bases), named, dict(settings or {}), tuple(notes))


def _ratio(ratios: list[float]) -> Ratio:
    return Ratio(median(ratios), min(ratios), max(ratios), len(ratios))

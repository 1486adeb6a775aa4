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
    found: Mapping[str, Sequence[Values]], bases: Sequence[str], ratio_of: str, *, faster: bool
) -> tuple[Row, ...]:
    """Medians of every contender, and its ratio to each of the bases in the same round.

    ratio_of: the unit to compare. faster: the unit is a speed, ratios are the contender's over the base's;
    else a time or a size, and they are the base's over the contender's: above 1 is better either way.
    """
    rows = []
    for name, values in found.items():
        medians = {unit: median(value[unit] for value in values) for unit in values[0]}
        ratios = {}
        for base in bases:
            pairs = [(one[ratio_of], other[ratio_of]) for one, other in zip(values, found[base], strict=True)]
            if name != base:
                ratios[base] = _ratio([one / other if faster else other / one for one, other in pairs])
        rows.append(Row(name, medians, ratios))
    return tuple(rows)


def _ratio(ratios: list[float]) -> Ratio:
    return Ratio(median(ratios), min(ratios), max(ratios), len(ratios))

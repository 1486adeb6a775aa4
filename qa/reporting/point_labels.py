"""Where names of points go, so that none hides another, a point, or leaves the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_DISTANCES = (3.0, 7.0, 12.0, 18.0, 25.0, 33.0, 42.0, 52.0)
_ANGLES = (0, 30, -30, 180, 150, -150, 90, -90, 60, -60, 120, -120)
_SWEEPS = 20


@dataclass(frozen=True)
class Box:
    """A rectangle, in any unit; up is up."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that two rectangles share."""
        across = min(self.right, other.right) - max(self.left, other.left)
        up = min(self.top, other.top) - max(self.bottom, other.bottom)
        return across * up if across > 0 and up > 0 else 0.0

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the rectangle that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    frame: Box,
) -> list[Box]:
    """A rectangle for every point's label, as near to it as the others allow.

    points: (points,) x and y; sizes: (points,) width and height of their labels; obstacles: what labels may
    not hide, the points' own marks among them; frame: what they may not leave. All in typographic points.
    Each label in turn takes the place that costs least beside all the others, until none moves any more
    (iterated conditional modes: Besag 1986). The same input gives the same places.
    """
    choices = [_candidates(*pair) for pair in zip(points, sizes, strict=True)]
    placed = [one[0][0] for one in choices]
    for _ in range(_SWEEPS):
        before = list(placed)
        for index, candidates in enumerate(choices):
            others = [*obstacles, *(box for number, box in enumerate(placed) if number != index)]
            placed[index] = _cheapest(candidates, points[index], others, frame)
        if placed == before:
            break
    return placed


def _cheapest(
    candidates: Sequence[tuple[Box, float]], point: tuple[float, float], others: Sequence[Box], frame: Box
) -> Box:
    """The first of the cheapest candidates, which come with rising costs of their own."""
    best, least = candidates[0][0], math.inf
    for box, cost in candidates:
        if cost >= least:
            break
        # What is hidden is lost; a line that crosses a name only looks bad.
        cost += 500 * sum(box.overlap(other) > 0 for other in others) + 10 * (box.area - box.overlap(frame))
        if cost < least:
            cost += 20 * _crossed(box, point, others)
        if cost < least:
            best, least = box, cost
    return best


def _candidates(point: tuple[float, float], size: tuple[float, float]) -> list[tuple[Box, float]]:
    """Rectangles around a point, each with the cost of its distance, rising; to the right is best."""
    (x, y), (width, height) = point, size
    found = []
    for distance in _DISTANCES:
        for rank, angle in enumerate(_ANGLES):
            cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            middle_x = x + cosine * (distance + 3 + width / 2)
            middle_y = y + sine * (distance + 3 + height / 2)
            left, bottom = middle_x - width / 2, middle_y - height / 2
            found.append((Box(left, bottom, left + width, bottom + height), distance + 0.2 * rank))
    return sorted(found, key=lambda one: one[1])


def _crossed(box: Box, point: tuple[float, float], others: Sequence[Box]) -> int:
    """How many of the others lie on the line from a label to its point, but for what the point lies in."""
    (x, y), (end_x, end_y) = point, box.nearest(*point)
    line = [(x + (end_x - x) * step / 16, y + (end_y - y) * step / 16) for step in range(17)]
    return sum(
        other.nearest(x, y) != (x, y) and any(other.nearest(*one) == one for one in line) for other in others
    )

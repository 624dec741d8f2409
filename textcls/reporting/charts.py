"""The charts of a page: where their points, lines and ticks lie.

In: series of numbers. Out: a `Chart`, which a template draws as SVG, with the same numbers as a table. Equal numbers
give equal charts. Not here: the SVG (pages/charts.html), the picture (picture.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 440, 270
"""Of a chart, in its own units; a page draws it as wide as there is room."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 44
_MOST_POINTS = 200
_MOST_TABLE_ROWS = 40

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        name: in the key of the chart.
        style: how it is drawn: "model" solid with filled dots, "other" dashed with hollow ones, "plain" thin and grey.
        points: (x, y), by rising x.
        sizes: of each point, its share of all rows; None draws all alike.
        dots: whether points are drawn, not only the line between them.
    """

    name: str
    style: Literal["model", "other", "plain"]
    points: Sequence[Point]
    sizes: Sequence[float] | None = None
    dots: bool = True


@dataclass(frozen=True)
class Table:
    """The numbers of a chart.

    Attributes:
        columns: their names; the first one heads the rows.
        rows: cells as text.
        left_out: rows that are not listed.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_out: int = 0


@dataclass(frozen=True)
class Chart:
    """Lines and points in a frame.

    Attributes:
        name: unique on the page.
        title: what it shows.
        description: what can be seen in it, for those who cannot see it.
        x_label: below the horizontal axis.
        y_label: above the vertical axis.
        series: what is drawn, the last one on top.
        table: the numbers.
        unit: whether both axes run from 0 to 1.
        diagonal: whether a line shows where both are equal.
        best_x: a place on the horizontal axis that is marked.
    """

    name: str
    title: str
    description: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    table: Table
    unit: bool = False
    diagonal: bool = False
    best_x: float | None = None

    @property
    def width(self) -> int:
        """Of the whole drawing."""
        return WIDTH

    @property
    def height(self) -> int:
        """Of the whole drawing."""
        return HEIGHT

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the area of the points."""
        return _LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM

    @property
    def x_range(self) -> tuple[float, float]:
        """Least and greatest x; from the first to the last point."""
        if self.unit:
            return 0.0, 1.0
        values = [x for one in self.series for x, _ in one.points]
        values += [] if self.best_x is None else [self.best_x]
        return _wide(min(values), max(values))

    @property
    def y_range(self) -> tuple[float, float]:
        """Least and greatest y, with ticks at both ends."""
        if self.unit:
            return 0.0, 1.0
        values = [y for one in self.series for _, y in one.points]
        low, high = _wide(min(values), max(values))
        step = _step(low, high)
        return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step

    def x_at(self, value: float) -> str:
        """Where an x lies in the drawing."""
        (low, high), (left, _, right, _) = self.x_range, self.frame
        return _coordinate(left + (value - low) / (high - low) * (right - left))

    def y_at(self, value: float) -> str:
        """Where a y lies in the drawing."""
        (low, high), (_, top, _, bottom) = self.y_range, self.frame
        return _coordinate(bottom - (value - low) / (high - low) * (bottom - top))

    @property
    def x_ticks(self) -> list[tuple[str, str]]:
        """(place, number) along the horizontal axis."""
        return [(self.x_at(value), text) for value, text in _ticks(*self.x_range)]

    @property
    def y_ticks(self) -> list[tuple[str, str]]:
        """(place, number) along the vertical axis."""
        return [(self.y_at(value), text) for value, text in _ticks(*self.y_range)]

    def path(self, series: Series) -> str:
        """The line through the points, as the `d` of an SVG path."""
        return "M" + "L".join(f"{self.x_at(x)} {self.y_at(y)}" for x, y in series.points)

    def dots(self, series: Series) -> list[tuple[str, str, str]]:
        """(x, y, radius) of the points; their area is their size."""
        sizes = series.sizes or [0.03] * len(series.points)
        return [
            (self.x_at(x), self.y_at(y), _coordinate(min(2.5 + 14 * math.sqrt(size), 14)))
            for (x, y), size in zip(series.points, sizes, strict=True)
        ]


def thinned(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most so many points: neighbours become their mean."""
    if len(points) <= most:
        return list(points)
    groups = [points[i * len(points) // most : (i + 1) * len(points) // most] for i in range(most)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups if group]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of at most 40 rows, evenly chosen; the last row is always there."""
    if len(rows) <= _MOST_TABLE_ROWS:
        return Table(columns, rows)
    chosen = [round(i * (len(rows) - 1) / (_MOST_TABLE_ROWS - 1)) for i in range(_MOST_TABLE_ROWS)]
    return Table(columns, [rows[i] for i in chosen], len(rows) - len(chosen))


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    step = _step(low, high)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(n * step, f"{n * step:,.{decimals}f}") for n in range(first, last + 1)]


def _step(low: float, high: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are about five ticks."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _wide(low: float, high: float) -> tuple[float, float]:
    """The range, or one around it if it is a single number."""
    if high - low > 1e-9 * max(abs(low), abs(high), 1e-9):
        return low, high
    around = abs(low) * 0.1 or 1.0
    return low - around, high + around


def _coordinate(value: float) -> str:
    """With one decimal: a tenth of a unit cannot be seen."""
    return f"{value:.1f}".removesuffix(".0")

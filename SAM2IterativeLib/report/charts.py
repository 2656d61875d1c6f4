"""Curves and dots of the report, as coordinates for SVG: drawn in the page's own type and colours, light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_WIDTH, _HEIGHT = 460.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 446.0, 12.0, 190.0
_SPREAD = 34.0


@dataclass(frozen=True)
class Mark:
    """A point of a chart at (x, y), with what it says when pointed at."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Tick:
    """A place along an axis and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Series:
    """Marks of one kind; ``style`` is a CSS class of the page; ``joined``: a curve runs through them."""

    name: str
    style: str
    marks: list[Mark]
    joined: bool = True

    @property
    def path(self) -> str:
        """The curve as an SVG path."""
        return "M" + "L".join(f"{m.x} {m.y}" for m in self.marks) if self.joined and self.marks else ""


@dataclass(frozen=True)
class Chart:
    """A chart, ready to be drawn."""

    title: str
    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    series: list[Series]
    width: float = _WIDTH
    height: float = _HEIGHT
    left: float = _LEFT
    right: float = _RIGHT
    top: float = _TOP
    bottom: float = _BOTTOM


def curves(title: str, y_title: str, values: Mapping[str, Mapping[int, float | None]]) -> Chart | None:
    """One curve per name over the rounds, values in [0, 1]; None where there is nothing to draw."""
    known = {name: {r: v for r, v in found.items() if v is not None} for name, found in values.items()}
    rounds = sorted({r for found in known.values() for r in found})
    if not rounds:
        return None
    y = _Scale.up_to_one([v for found in known.values() for v in found.values()], _BOTTOM, _TOP)
    series = [
        Series(name, f"c{n}", [Mark(_column(r, rounds), y.at(v), f"{name}, round {r}: {v:.3f}") for r, v in sorted(found.items())])
        for n, (name, found) in enumerate(known.items())
        if found
    ]
    return Chart(title, "round", y_title, _round_ticks(rounds), y.ticks, series)


def dots(title: str, y_title: str, values: Mapping[int, Mapping[str, float]]) -> Chart | None:
    """One dot per case and round, spread sideways so that none hides another, and a curve through the medians; values in [0, 1]."""
    rounds = sorted(r for r, found in values.items() if found)
    if not rounds:
        return None
    y = _Scale.from_zero([v for r in rounds for v in values[r].values()], _BOTTOM, _TOP)
    cases: list[Mark] = []
    medians: list[Mark] = []
    for r in rounds:
        for n, (case, value) in enumerate(sorted(values[r].items(), key=lambda item: item[1])):
            aside = ((n * 0.618) % 1 - 0.5) * _SPREAD  # the golden ratio parts neighbours, the same way every time
            cases.append(Mark(round(_column(r, rounds) + aside, 1), y.at(value), f"{case}, round {r}: {value:.3f}"))
        median = float(np.median(list(values[r].values())))
        medians.append(Mark(_column(r, rounds), y.at(median), f"median of round {r}: {median:.3f}"))
    series = [Series("a case", "dot", cases, joined=False), Series("median", "c0", medians)]
    return Chart(title, "round", y_title, _round_ticks(rounds), y.ticks, series)


def scatter(title: str, x_title: str, y_title: str, points: Mapping[str, tuple[float, float]]) -> Chart | None:
    """One dot per case, x and y in [0, 1]; None for fewer than three."""
    if len(points) < 3:
        return None
    x = _Scale.from_zero([x for x, _ in points.values()], _LEFT, _RIGHT)
    y = _Scale.up_to_one([y for _, y in points.values()], _BOTTOM, _TOP)
    marks = [Mark(x.at(a), y.at(b), f"{case}: {x_title} {a:.3f}, {y_title} {b:.3f}") for case, (a, b) in points.items()]
    return Chart(title, x_title, y_title, x.ticks, y.ticks, [Series("a case", "dot", marks, joined=False)])


@dataclass(frozen=True)
class _Scale:
    """Values from ``low`` to ``high`` along an axis from ``start`` to ``end``, with a tick every ``step``."""

    low: float
    high: float
    step: float
    start: float
    end: float

    @classmethod
    def up_to_one(cls, values: Sequence[float], start: float, end: float) -> _Scale:
        """From somewhat below the least value to 1."""
        step, count = _steps(1 - min(values))
        return cls(1 - count * step, 1.0, step, start, end)

    @classmethod
    def from_zero(cls, values: Sequence[float], start: float, end: float) -> _Scale:
        """From 0 to somewhat above the largest value."""
        step, count = _steps(max(values))
        return cls(0.0, count * step, step, start, end)

    def at(self, value: float) -> float:
        """Where a value lies."""
        return round(self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low), 1)

    @property
    def ticks(self) -> list[Tick]:
        """Round numbers along the axis."""
        values = np.arange(round((self.high - self.low) / self.step) + 1) * self.step + self.low
        return [Tick(self.at(float(v)), f"{abs(v):.{2 if self.step < 0.1 else 1}f}") for v in values]


def _steps(reach: float) -> tuple[float, int]:
    """How wide a step is and how many an axis has, for values within ``reach`` of its fixed end."""
    step = 0.05 if reach <= 0.25 else 0.1 if reach <= 0.5 else 0.2
    return step, min(max(1, math.ceil(reach / step + 0.1)), round(1 / step))


def _column(round_number: int, rounds: Sequence[int]) -> float:
    """The middle of a round's share of the width."""
    return round(_LEFT + (_RIGHT - _LEFT) * (rounds.index(round_number) + 0.5) / len(rounds), 1)


def _round_ticks(rounds: Sequence[int]) -> list[Tick]:
    return [Tick(_column(r, rounds), str(r)) for r in rounds]

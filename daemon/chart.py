"""Draws a metric over deltas as SVG inside a page: no script, and the page's own colours.

Pure. The page's style sheet gives the classes their colours, so that the chart is light or dark
with it: `axis`, `words`, `band`, `line`, `dot`, `alarm` and `promotion`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.etree.ElementTree import Element, SubElement, tostring

WIDTH, HEIGHT = 960.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 12.0, 24.0, 38.0
"""Room for what is written around the lines."""
TICKS = 4
"""Steps of the scale, about."""
LABELS = 14
"""Labels below the chart, at most."""
TINY = 1e-9
A_LETTER = 8.0
"""About as wide as one."""


@dataclass(frozen=True, slots=True)
class Point:
    """One delta: what the metric was on it, if it was measured, and what happened."""

    label: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    promoted: str = ""
    """What was promoted on it, in a word; empty if nothing was."""
    alarm: bool = False
    told: str = ""
    """Shown where the pointer rests on it."""

    @property
    def measured(self) -> bool:
        """Whether there is anything to draw."""
        return self.value is not None and math.isfinite(self.value)

    @property
    def interval(self) -> tuple[float, float, float]:
        """Give low, value and high; the value itself stands in for what is not known."""
        value = self.value if self.value is not None else math.nan
        ends = (self.low, value, self.high)
        low, _, high = (e if e is not None and math.isfinite(e) else value for e in ends)
        return low, value, high


Place = Callable[[float], float]
"""Where a value is, in the chart's units."""


def chart(points: Sequence[Point], name: str) -> str:
    """Draw points from left to right; empty if none of them was measured."""
    known = [end for point in points if point.measured for end in point.interval]
    if not known:
        return ""
    ticks = scale(min(known), max(known))
    a_unit = (HEIGHT - TOP - BOTTOM) / (ticks[-1] - ticks[0])
    a_point = (WIDTH - LEFT - RIGHT) / len(points)
    placed = [(point, LEFT + a_point * (i + 0.5)) for i, point in enumerate(points)]

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (value - ticks[0]) * a_unit

    step = ticks[1] - ticks[0]
    form = f".{math.ceil(-math.log10(step) - 1e-9)}f" if 1e-5 < step < 1 else ".4g"  # noqa: PLR2004
    svg = Element("svg")
    svg.attrib |= {"class": "chart", "viewBox": f"0 0 {WIDTH:g} {HEIGHT:g}", "role": "img"}
    svg.set("aria-label", _summary(points, name))
    for tick in ticks:
        _line(svg, "axis", [(LEFT, up(tick)), (WIDTH - RIGHT, up(tick))])
        _words(svg, LEFT - 8, up(tick) + 4, format(tick, form), "end")
    every = -(-len(points) // LABELS)
    for point, x in placed[::-1][::every]:
        _words(svg, x, HEIGHT - BOTTOM + 18, point.label)
    _promotions(svg, placed)
    for measured, run in groupby(placed, lambda item: item[0].measured):
        if measured:
            _run(svg, list(run), up)
    return tostring(svg, encoding="unicode")


def scale(low: float, high: float) -> list[float]:
    """Give round numbers that reach from below the least value to above the greatest."""
    span, size = high - low, max(abs(low), abs(high))
    if span <= max(size, TINY) * TINY:  # one value, as far as a chart can tell
        span = size if size > TINY else 1.0
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = power * min((1, 2, 5, 10), key=lambda times: abs(times * power - span / TICKS))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _promotions(svg: Element, placed: list[tuple[Point, float]]) -> None:
    """Mark each with a line, and name those that have the room for it."""
    free = 0.0
    for point, x in placed:
        if point.promoted:
            _line(svg, "promotion", [(x, TOP), (x, HEIGHT - BOTTOM)])
            if x >= free:
                _words(svg, x, TOP - 8, point.promoted)
                free = x + A_LETTER * (len(point.promoted) + 1)


def _run(svg: Element, placed: list[tuple[Point, float]], up: Place) -> None:
    """Draw measured points that follow each other: their intervals, a line, and each of them."""
    ends = [(x, up(point.interval[0]), up(point.interval[2])) for point, x in placed]
    band = [(x, high) for x, _, high in ends] + [(x, low) for x, low, _ in reversed(ends)]
    SubElement(svg, "polygon", {"class": "band", "points": _path(band)})
    line = [(x, up(point.interval[1])) for point, x in placed]
    _line(svg, "line", line)
    for (point, x), (_, y) in zip(placed, line, strict=True):
        if point.alarm:
            corners = [(x, y - 9), (x + 8, y + 5), (x - 8, y + 5)]
            mark = SubElement(svg, "polygon", {"class": "alarm", "points": _path(corners)})
        else:
            mark = SubElement(svg, "circle", {"class": "dot", "r": "3.5"})
            mark.attrib |= {"cx": f"{x:.1f}", "cy": f"{y:.1f}"}
        SubElement(mark, "title").text = point.told or f"{point.label}: {point.value:.4g}"


def _line(svg: Element, kind: str, places: Iterable[tuple[float, float]]) -> None:
    SubElement(svg, "polyline", {"class": kind, "points": _path(places)})


def _words(svg: Element, x: float, y: float, words: str, end: str = "middle") -> None:
    about = {"class": "words", "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": end}
    SubElement(svg, "text", about).text = words


def _path(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _summary(points: Sequence[Point], name: str) -> str:
    """Say for who cannot see it what the chart shows."""
    measured = [point for point in points if point.measured]
    last = measured[-1]
    promoted, alarms = sum(bool(p.promoted) for p in points), sum(p.alarm for p in points)
    return (
        f"{name} over {len(points)} deltas, {last.value:.4g} on delta {last.label}; "
        f"{promoted} promotion(s), {alarms} alarm(s)"
    )

"""Draws comparisons as SVG inside a page, by the page's own colours. Pure; see `daemon.chart`.

Every drawing repeats what a table beside it says, so a screen reader is told its gist only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from daemon.chart import scale

WIDTH = 620.0
LABEL = 150.0
"""Room for the names at the left."""
ROW, BAR, MARGIN = 26.0, 9.0, 22.0
SIDE = 300.0
"""Width and height of a curve."""
LONGEST = 22
"""Letters of a name that find room."""


@dataclass(frozen=True, slots=True)
class Gain:
    """One comparison: the gain over the champion and the interval it is in."""

    label: str
    gain: float
    low: float
    high: float
    promoted: bool
    told: str


def gains(found: Sequence[Gain], name: str) -> str:
    """Draw intervals below each other around zero; empty if there are none."""
    if not found:
        return ""
    ticks = scale(min(0.0, *(one.low for one in found)), max(0.0, *(one.high for one in found)))
    height = ROW * len(found) + MARGIN + 8
    svg = _svg(WIDTH, height, name)
    across = (WIDTH - LABEL - 16) / (ticks[-1] - ticks[0])

    def place(value: float) -> float:
        return LABEL + (value - ticks[0]) * across

    for tick in ticks:
        kind = "zero" if abs(tick) < across**-1 * 1e-6 else "axis"
        _line(svg, kind, place(tick), 0, place(tick), height - MARGIN)
        _words(svg, place(tick), height - 6, f"{tick:g}", "middle")
    for number, one in enumerate(found):
        y = ROW * number + ROW / 2 + 2
        kind = " promoted" if one.promoted else ""
        _words(svg, LABEL - 10, y + 4, one.label, "end")
        _line(svg, f"reach{kind}", place(one.low), y, place(one.high), y)
        mark = {"class": f"mark{kind}", "cx": f"{place(one.gain):.1f}", "cy": f"{y:.1f}", "r": "5"}
        SubElement(SubElement(svg, "circle", mark), "title").text = one.told
    return tostring(svg, encoding="unicode")


def bars(found: Sequence[tuple[str, float, float | None]], name: str) -> str:
    """Draw shares of 1, ours above theirs (None: there are none); empty if there are none."""
    if not found:
        return ""
    most = max(max(mine, theirs or 0.0) for _, mine, theirs in found) or 1.0
    svg = _svg(WIDTH, ROW * len(found) + 4, name)
    for number, (label, mine, theirs) in enumerate(found):
        y = ROW * number + 4
        _words(svg, LABEL - 10, y + 13, label, "end")
        for kind, share, top in (("mine", mine, y), ("other", theirs, y + BAR + 1)):
            if share is None:
                continue
            width = max(share / most * (WIDTH - LABEL - 70), 1.0)
            size = {"width": f"{width:.1f}", "height": f"{BAR:g}", "rx": "2"}
            SubElement(svg, "rect", {"class": kind, "x": f"{LABEL:g}", "y": f"{top:.1f}", **size})
        _words(svg, WIDTH - 4, y + 13, f"{mine:.1%}", "end")
    return tostring(svg, encoding="unicode")


def curve(found: Sequence[tuple[float, float, int]], name: str) -> str:
    """Draw what came true against what was predicted, both from 0 to 1; empty if nothing was."""
    if not found:
        return ""
    most = min(1.0, max(max(p, o) for p, o, _ in found) * 1.1) or 1.0
    svg = _svg(SIDE + 60, SIDE + 50, name)
    svg.set("class", "chart curve")

    def x(value: float) -> float:
        return 44 + value / most * SIDE

    def y(value: float) -> float:
        return 8 + SIDE - value / most * SIDE

    _line(svg, "zero", x(0), y(0), x(most), y(most))
    for share in (0.0, most / 2, most):
        _line(svg, "axis", x(0), y(share), x(most), y(share))
        _words(svg, 38, y(share) + 4, f"{share:.0%}", "end")
        _words(svg, x(share), SIDE + 26, f"{share:.0%}", "middle")
    _words(svg, x(most / 2), SIDE + 44, "predicted", "middle")
    points = " ".join(f"{x(p):.1f},{y(o):.1f}" for p, o, _ in found)
    SubElement(svg, "polyline", {"class": "line", "points": points})
    for predicted, observed, rows in found:
        mark = {"class": "dot", "cx": f"{x(predicted):.1f}", "cy": f"{y(observed):.1f}", "r": "4"}
        told = f"predicted {predicted:.1%}, came true {observed:.1%}, {rows:,} rows"
        SubElement(SubElement(svg, "circle", mark), "title").text = told
    return tostring(svg, encoding="unicode")


def _svg(width: float, height: float, name: str) -> Element:
    about = {"class": "chart", "viewBox": f"0 0 {width:g} {height:g}", "role": "img"}
    return Element("svg", {**about, "aria-label": name})


def _line(svg: Element, kind: str, x: float, y: float, to_x: float, to_y: float) -> None:
    points = f"{x:.1f},{y:.1f} {to_x:.1f},{to_y:.1f}"
    SubElement(svg, "polyline", {"class": kind, "points": points})


def _words(svg: Element, x: float, y: float, words: str, end: str) -> None:
    shown = words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"
    about = {"class": "words", "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": end}
    text = SubElement(svg, "text", about)
    text.text = shown

"""The chart says what was measured, whatever the numbers, and its texts stay texts."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree.ElementTree import XML, Element

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from daemon.chart import HEIGHT, WIDTH, Point, chart, scale

NUMBERS = st.floats(-1e12, 1e12, allow_subnormal=False)
ENDS = st.none() | NUMBERS | st.sampled_from([math.nan, math.inf, -math.inf])
POINTS = st.builds(
    Point, st.text('01<&"é', max_size=4), ENDS, ENDS, ENDS, st.sampled_from(["", "v3", "<"]),
    st.booleans(),
)  # fmt: skip


def read(svg: str) -> Element:
    """Read a chart."""
    return XML(svg)


def of(svg: str, kind: str) -> list[Element]:
    """Give the parts of a class."""
    return [part for part in read(svg).iter() if part.get("class") == kind]


@given(ends=st.tuples(NUMBERS, NUMBERS))
def test_a_scale_reaches_around_its_values_in_few_even_steps(ends: tuple[float, float]) -> None:
    """From a billionth to billions, and around a single value."""
    low, high = sorted(ends)
    ticks = scale(low, high)
    steps = [b - a for a, b in pairwise(ticks)]
    assert 2 <= len(ticks) <= 10
    assert ticks[0] <= low + 1e-6 * abs(low) + 1e-9
    assert high <= ticks[-1] + 1e-6 * abs(high) + 1e-9
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-2)


@given(points=st.lists(POINTS, max_size=40))
@examples(deadline=None)
def test_whatever_was_measured_is_drawn_inside_the_frame(points: list[Point]) -> None:
    """Each measured delta has one mark, a triangle for an alarm; gaps have none."""
    svg = chart(points, "log loss & more")
    measured = [point for point in points if point.measured]
    assert bool(svg) == bool(measured)
    if not svg:
        return
    assert len(of(svg, "dot")) == sum(not point.alarm for point in measured)
    assert len(of(svg, "alarm")) == sum(point.alarm for point in measured)
    assert len(of(svg, "promotion")) == sum(bool(point.promoted) for point in points)
    places = [
        tuple(map(float, place.split(",")))
        for part in read(svg).iter()
        for place in part.get("points", "").split()
    ]
    assert all(-1 <= x <= WIDTH + 1 and -1 <= y <= HEIGHT + 1 for x, y in places)
    assert "nan" not in svg
    assert "inf" not in svg


def test_a_gap_parts_the_line_and_the_band_has_the_interval() -> None:
    """What was not measured is not drawn over."""
    points = [
        Point("1", 0.3, 0.1, 0.4), Point("2", 0.2), Point("3"), Point("4", 0.25, alarm=True),
        Point("5", 0.2, promoted="v5", told="<b>five</b>"),
    ]  # fmt: skip
    svg = chart(points, "log loss")
    assert len(of(svg, "line")) == len(of(svg, "band")) == 2
    corners = of(svg, "band")[0].get("points", "").split()
    heights = [float(corner.partition(",")[2]) for corner in corners]
    assert heights[0] < heights[1] == heights[2] < heights[3]
    titles = [part.text for part in read(svg).iter("title")]
    assert titles == ["1: 0.3", "2: 0.2", "4: 0.25", "<b>five</b>"]
    assert "<b>" not in svg
    label = read(svg).get("aria-label")
    assert label == "log loss over 5 deltas, 0.2 on delta 5; 1 promotion(s), 1 alarm(s)"


def test_labels_do_not_run_into_each_other() -> None:
    """Of many deltas some are named, the last always; so are promotions."""
    svg = chart([Point(str(i), i / 100, promoted=f"v{i}") for i in range(60)], "x")
    words = [part.text or "" for part in of(svg, "words")]
    numbers = [word for word in words if word.isdigit()]
    assert "59" in numbers
    assert len(numbers) <= 14
    assert 2 < sum(word.startswith("v") for word in words) < 30

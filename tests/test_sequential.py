"""Evidence over many looks: how often it is wrong, how soon it is right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlers.facts import Look
from handlers.sequential import evidence, interval, mean

LOOKS = st.lists(
    st.builds(Look, st.integers(1, 5000), st.floats(-1, 1), st.floats(0, 1) | st.none()),
    max_size=20,
)


def looks(seed: int, count: int, gain: float, rows: int = 100) -> list[Look]:
    """Draw looks at rows whose gains have this mean and a spread of 1."""
    chance = np.random.default_rng(seed)
    drawn = [chance.normal(gain, 1.0, rows) for _ in range(count)]
    return [Look(rows, float(d.mean()), float(d.std(ddof=1) / math.sqrt(rows))) for d in drawn]


def crossed(history: list[Look], level: float = 0.05) -> int | None:
    """Give the look at which the evidence first sufficed, counted from 1."""
    found = (i for i in range(1, len(history) + 1) if evidence(history[:i]) >= 1 / level)
    return next(found, None)


def test_without_a_gain_it_is_seldom_fooled() -> None:
    """Over 100 looks each, at most 5 % of 200 histories without a gain ever suffice."""
    wrong = sum(crossed(looks(seed, 100, 0.0)) is not None for seed in range(200))
    assert wrong <= 10


def test_a_small_gain_is_found_in_the_end_and_a_large_one_at_once() -> None:
    """A gain of a tenth of the spread within 40 looks, one of a half at the first or second."""
    small = [crossed(looks(seed, 40, 0.1)) for seed in range(50)]
    assert None not in small
    assert all((found or 99) <= 2 for found in (crossed(looks(s, 3, 0.5)) for s in range(50)))


def test_a_change_late_in_a_long_history_is_found_soon() -> None:
    """Forty looks with a loss do not hide that from then on there is a gain."""
    for seed in range(30):
        history = looks(seed, 40, -0.3) + looks(1000 + seed, 3, 0.7)
        assert (crossed(history) or 99) <= 42


def test_the_interval_holds_at_all_looks_together() -> None:
    """The true gain leaves the 95 % interval at any of 50 looks in at most 5 % of histories."""
    wrong = 0
    for seed in range(300):
        history = looks(seed, 50, 0.2)
        found = [interval(history[:i], 0.05) for i in range(1, 51)]
        wrong += any(band is None or not band[0] <= 0.2 <= band[1] for band in found)
    assert wrong <= 15


@given(LOOKS, st.floats(-1, 1))
@example([Look(5, 1e-242, 0.0)], 0.0)
def test_any_looks_give_finite_figures(history: list[Look], least: float) -> None:
    """Whatever the looks, the evidence is a positive number and the interval holds the mean."""
    found = evidence(history, least)
    assert math.isfinite(found)
    assert found > 0
    band = interval(history, 0.05)
    usable = [look for look in history if look.error is not None and look.rows >= 5]
    assert (band is None) == (not usable)
    if band:
        assert band[0] <= mean(usable) <= band[1]


@given(LOOKS, st.floats(-1, 0.5))
def test_more_is_harder_to_show(history: list[Look], least: float) -> None:
    """Nothing looked at says nothing, and looks too small to tell anything change nothing."""
    assert evidence([], least) == 1
    tiny = [Look(3, 1.0, 0.1), Look(100, 1.0, None)]
    assert evidence([*history, *tiny], least) == pytest.approx(evidence(history, least))


def test_rows_that_all_agree_do_not_prove_anything() -> None:
    """A spread of zero is not believed: ten rows, all a little better, are no proof."""
    assert evidence([Look(10, 0.01, 0.0)]) < 20
    assert evidence([Look(1000, 0.01, 0.0)]) > 20

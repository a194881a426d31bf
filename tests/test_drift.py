"""Drift is told by its size: none where nothing moved, and never of what chance alone brings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import EPOCH
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from test_explain import fit, part

from handlers.drift import LEAST, MOST, PROFILE, Profile, drift, profile, psi, read, write
from handlers.facts import Drifted
from handlers.scorer import Feature, FeatureKind, Scorer, Task

COUNTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=30).filter(any)
VALUES = st.one_of(
    st.none(), st.sampled_from("abcdefgh"), st.integers(-9, 9), st.floats(width=32), st.booleans()
)
KIND: dict[type, FeatureKind] = {str: "category", bool: "boolean", float: "number"}


class Echo(Scorer):
    """A model that predicts its first column."""

    def score(self, rows: Any) -> Any:
        """Give the first column as it is encoded."""
        return np.nan_to_num(self.features[0].encode(rows[self.columns[0]]))


def model(frame: pd.DataFrame, **kinds: FeatureKind) -> Scorer:
    """Make a model of a frame's columns; the categories it knows are those of the frame."""
    features = tuple(
        Feature(
            name, kinds.get(name, "number"),
            tuple(sorted(set(frame[name].dropna()))) if kinds.get(name) == "category" else (),
        )
        for name in map(str, frame)
    )  # fmt: skip
    return Echo("regression", features, (), Any)  # type: ignore[arg-type]


def moved(was: pd.DataFrame, now: pd.DataFrame, **kinds: FeatureKind) -> dict[str, Drifted]:
    """Give by name how rows moved."""
    scorer = model(was, **kinds)
    return {item.name: item for item in drift(profile(scorer, was), scorer, now)}


def normal(seed: int, rows: int, mean: float = 0.0) -> pd.DataFrame:
    """Make a column of normally distributed numbers."""
    drawn = np.random.default_rng(seed).normal(mean, 1, rows)
    frame: pd.DataFrame = pd.DataFrame({"x": drawn})
    return frame


@given(expected=COUNTS, data=st.data())
def test_the_index_is_nothing_or_more_and_zero_on_equal_shares(expected: Any, data: Any) -> None:
    """Of any counts; and each part of the raw index is nothing or more as well."""
    same = st.lists(st.integers(0, 10_000), min_size=len(expected), max_size=len(expected))
    actual = data.draw(same.filter(any))
    found, parts = psi(np.array(expected), np.array(actual))
    assert 0 <= found <= parts.sum() + 1e-9
    assert (parts >= 0).all()
    assert psi(np.array(expected), np.array(expected))[1].sum() == 0
    assert psi(np.array(expected), np.array(expected) * 7)[0] == pytest.approx(0, abs=0.2)


@given(values=st.lists(VALUES, min_size=LEAST, max_size=120), seed=st.integers(0, 9))
@examples(max_examples=60, deadline=None)
def test_the_rows_that_were_learnt_from_have_not_moved(values: list[Any], seed: int) -> None:
    """Whatever they hold, in whatever order; each is counted once; JSON gives the profile back."""
    for kind in (str, bool, float):
        mine = [v for v in values if v is None or type(v) is kind] or [None]
        frame = pd.DataFrame({"x": pd.Series((mine * LEAST)[: len(values)], dtype=object)})
        scorer = model(frame, x=KIND[kind])
        known = profile(scorer, frame)
        assert sum(known.columns["x"].counts) == len(frame)
        assert PROFILE.validate_json(PROFILE.dump_json(known)) == known
        shuffled = frame.sample(frac=1, random_state=seed)
        assert profile(scorer, shuffled) == known
        for item in drift(known, scorer, shuffled):
            assert (item.psi, item.size, item.told) == (0.0, "small", "")


def test_what_moved_is_sized_and_told() -> None:
    """By how much a normal distribution moves: known values of the index, and the bin."""
    was = normal(1, 50_000)
    sizes = {mean: moved(was, normal(2, 50_000, mean))["x"] for mean in (0.0, 0.2, 0.4, 1.0)}
    # Of two normal distributions the index is the square of the distance of their means; in bins,
    # a little less.
    for mean, item in sizes.items():
        assert item.psi == pytest.approx(mean**2, rel=0.12, abs=0.002)
    assert [item.size for item in sizes.values()] == ["small", "small", "moderate", "large"]
    assert sizes[1.0].told.startswith("> 1.2")
    assert ": 10.0% then, 3" in sizes[1.0].told


def test_gaps_and_unseen_values_are_counted() -> None:
    """Each has a bin of its own, in any kind of column that can have them."""
    was = pd.DataFrame({
        "x": np.arange(1000) % 100, "shop": list("ab") * 500, "new": [True, False] * 500,
        "at": pd.Timestamp(EPOCH) + pd.to_timedelta(np.arange(1000), "h"),
    })  # fmt: skip
    now = was.astype({"new": object, "x": float})
    now.loc[:99, "x"] = np.nan
    now.loc[:199, "shop"] = "c"
    now.loc[200:499, "shop"] = None
    now.loc[:399, "new"] = None
    now["at"] += pd.Timedelta(30, "D")
    found = moved(was, now, shop="category", new="boolean", at="time")
    assert found["x"].told == "missing: 0.0% then, 10.0% now"
    assert found["shop"].told == "missing: 0.0% then, 30.0% now"
    assert found["new"].told == "missing: 0.0% then, 40.0% now"
    assert found["at"].told.startswith("> 2026-02-")
    now["shop"] = "c"
    unseen = moved(was, now, shop="category")["shop"]
    assert unseen.told == "values it never saw: 0.0% then, 100.0% now"
    assert unseen.size == "large"


def test_a_value_that_many_rows_have_is_seen_to_move() -> None:
    """Quantiles alone would put it into one bin with its neighbours."""
    rng = np.random.default_rng(0)
    was = pd.DataFrame({"x": np.where(rng.random(5000) < 0.9, 5.0, rng.random(5000))})
    now = pd.DataFrame({"x": np.where(rng.random(5000) < 0.5, 5.0, rng.random(5000))})
    assert moved(was, now)["x"].size == "large"
    letters = pd.DataFrame({"x": rng.choice(list("abc"), 5000, p=[0.8, 0.1, 0.1])})
    others = pd.DataFrame({"x": rng.choice(list("abc"), 5000, p=[0.5, 0.4, 0.1])})
    assert moved(letters, others, x="category")["x"].told.startswith("b: ")


@pytest.mark.parametrize("rows", [LEAST, 100, 1000])
def test_few_rows_do_not_cry_wolf(rows: int) -> None:
    """Rows of the same distribution: at most one column in hundreds is told to have drifted."""
    sizes = Counter[str]()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        was, now = (pd.DataFrame(rng.normal(size=(n, 50))).add_prefix("x") for n in (480, rows))
        scorer = model(was)
        sizes.update(item.size for item in drift(profile(scorer, was), scorer, now))
    assert sizes.total() == 8 * MOST
    assert sizes["moderate"] + sizes["large"] <= 1


def test_too_few_rows_and_no_profile_tell_nothing(tmp_path: Path) -> None:
    """So do early models, and a damaged file."""
    was = normal(1, 500)
    scorer = model(was)
    known = profile(scorer, was)
    assert drift(known, scorer, normal(2, LEAST - 1, 9.0)) == ()
    assert drift(profile(scorer, normal(1, LEAST - 1)), scorer, was) == ()
    assert drift(None, scorer, was) == ()
    assert read(tmp_path / "profile.json") is None
    write(known, tmp_path / "profile.json")
    assert read(tmp_path / "profile.json") == known
    (tmp_path / "profile.json").write_bytes(b'{"rows": 1')
    assert read(tmp_path / "profile.json") is None


def test_columns_that_are_gone_are_left_out_with_the_predictions() -> None:
    """The others are held against the profile all the same."""
    was = pd.DataFrame({"x": np.arange(100.0), "y": np.arange(100.0)})
    assert set(moved(was, was)) == {"x", "y", "prediction"}
    assert set(moved(was, was[["x"]])) == {"x"}
    assert set(moved(was, was.assign(y="no number"))) == {"x"}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_predictions_move_with_what_decides_them(task: Task) -> None:
    """Of a trained model of every task; what moved furthest comes first."""
    scorer, rows = fit(part(1, task=task), task), part(2, task=task).rows
    known = profile(scorer, part(1, task=task).rows)
    calm = drift(known, scorer, rows)
    assert len(calm) == len(scorer.features) + 1
    assert {item.size for item in calm} == {"small"}
    found = drift(known, scorer, rows.assign(signal=rows.signal + 2))
    assert {(item.name, item.kind) for item in found[:2]} == {
        ("signal", "feature"), ("prediction", "prediction"),
    }  # fmt: skip
    assert {item.size for item in found[:2]} == {"large"}
    assert list(found) == sorted(found, key=lambda item: -item.psi)


def test_two_thousand_columns_stay_small_and_quick() -> None:
    """A profile takes about 200 bytes a column; MLflow and a person's patience bear that."""
    rng = np.random.default_rng(0)
    was = pd.DataFrame(rng.normal(size=(2000, 2000)).astype(np.float32)).add_prefix("feature_")
    scorer = model(was)
    began = process_time()
    known: Profile = profile(scorer, was)
    assert len(drift(known, scorer, was)) == MOST
    assert process_time() - began < 20
    assert len(PROFILE.dump_json(known)) < 500_000

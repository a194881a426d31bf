"""The margin of a pool is the weighted sum of its members' margins, whatever they have learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import COLUMNS, TASKS, made, saved, table_of

from config.settings import Train
from handlers.pool import Rule, loss, pool, prior_loss, unfit, weights
from handlers.rows import Columns, Part, split
from handlers.scorer import Scorer, Task
from handlers.train import train

COLOURS = ["red", "green", "blue", "grey"]
RULES: tuple[Rule, ...] = ("exponential", "aue")


def recoloured(task: Task, seed: int, left_out: str = "", added: str = "") -> pa.Table:
    """Make rows without one of the colours, and with one that no other member knows."""
    table = table_of(task, 250, seed)
    if left_out:
        table = table.filter(pc.fill_null(pc.not_equal(table["c"], left_out), fill_value=True))
    if added:
        new = pc.if_else(pc.equal(pc.bit_wise_and(table["id"], 3), 0), added, table["c"])
        table = table.set_column(table.schema.get_field_index("c"), "c", new)
    return table


def margin(scorer: Scorer, rows: pd.DataFrame, **wanted: Any) -> np.ndarray[Any, Any]:
    """Give the margins of a model, shape (n,) or (n, k); or its contributions with the bias."""
    matrix = xgb.DMatrix(
        scorer.matrix(rows), feature_names=scorer.names, feature_types=scorer.feature_types,
        enable_categorical=True,
    )  # fmt: skip
    found: np.ndarray[Any, Any] = scorer.booster.predict(matrix, **(wanted or {"output_margin": 1}))
    return found


def rows_of(tables: list[pa.Table], task: Task) -> pd.DataFrame:
    """Give all rows, and one with nothing in it."""
    frames = [split(table, COLUMNS, task, Train()).train.rows for table in tables]
    frame: pd.DataFrame = pd.concat(
        [*frames, pd.DataFrame([{"c": "never seen"}])], ignore_index=True
    )
    frame["b"] = frame["b"].astype(object)
    return frame


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_its_margin_is_the_weighted_sum(task: Task, data: st.DataObject) -> None:
    """For any members, weights, missing values and categories, to the precision of float32."""
    colour = st.sampled_from(["", *COLOURS])
    drawn = st.tuples(st.integers(0, 99), colour, st.sampled_from(["", "pink", "teal"]))
    tables = [recoloured(task, *one) for one in data.draw(st.lists(drawn, min_size=1, max_size=4))]
    wanted = Train(rounds=data.draw(st.integers(1, 6)), parameters={"max_cat_to_onehot": 2})
    members = [made(table, task, wanted) for table in tables]
    shares = data.draw(st.lists(st.floats(0.01, 1), min_size=len(members), max_size=len(members)))
    pooled = pool(members, shares if len(members) > 1 else [1.0])
    rows = rows_of(tables, task)
    expected = sum(
        share * margin(member, rows).astype(float)
        for share, member in zip(shares if len(members) > 1 else [1.0], members, strict=True)
    )
    assert margin(pooled, rows) == pytest.approx(expected, abs=1e-5)
    contributions = margin(pooled, rows, pred_contribs=True)
    assert contributions.sum(axis=-1) == pytest.approx(expected, abs=1e-5)
    assert set(pooled.gains()) == {"x", "c", "b", "t"}
    assert pooled.booster.num_boosted_rounds() == wanted.rounds * len(members)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_its_mean_probability_is_that_of_its_members(data: st.DataObject) -> None:
    """On the rows that are given: margins alone make rare events rarer still."""
    drawn = st.tuples(st.integers(0, 99), st.just("red"), st.just(""))
    tables = [
        recoloured("binary", *one) for one in data.draw(st.lists(drawn, min_size=2, max_size=3))
    ]
    members = [made(table, "binary", Train(rounds=5)) for table in tables]
    shares = data.draw(st.lists(st.floats(0.05, 1), min_size=len(members), max_size=len(members)))
    rows = rows_of(tables, "binary")
    wanted = np.average([member.score(rows).mean() for member in members], axis=0, weights=shares)
    found = pool(members, shares, rows)
    assert found.score(rows).mean() == pytest.approx(wanted, abs=1e-6)
    order = np.argsort(pool(members, shares).score(rows), kind="stable")
    assert (np.diff(found.score(rows)[order]) >= -1e-6).all()


def test_it_is_saved_and_loaded_as_any_model(tmp_path: Path) -> None:
    """The same members give the same bytes, read from disk or not; the answers stay."""
    tables = [recoloured("multiclass", seed, colour) for seed, colour in ((1, "red"), (2, ""))]
    members = [made(table, "multiclass") for table in tables]
    pooled = pool(members, [0.75, 0.25])
    first = saved(pooled, tmp_path / "first")
    for number, member in enumerate(members):
        member.save(tmp_path / f"member{number}")
    read = [Scorer.load(tmp_path / f"member{number}") for number in range(2)]
    assert saved(pool(read, [0.75, 0.25]), tmp_path / "again") == first
    rows = rows_of(tables, "multiclass")
    assert (Scorer.load(tmp_path / "first").score(rows) == pooled.score(rows)).all()
    assert (pool([pooled, members[0]], [1.0, 0.0]).score(rows) == pooled.score(rows)).all()


def test_an_older_member_may_lack_columns() -> None:
    """A column that came later does not end the older models; one that is gone does."""
    table = table_of("binary")
    fewer = Columns((("c", "category"), ("x", "number")), "y", ("id",))
    wanted = Train(rounds=5)
    part = split(table, COLUMNS, "binary", wanted).train
    newest = made(table, "binary", wanted)
    older = train(part, fewer, "binary", wanted, lambda *_: None)
    pooled = pool([newest, older], [0.5, 0.5])
    expected = 0.5 * margin(newest, part.rows) + 0.5 * margin(older, part.rows)
    assert margin(pooled, part.rows) == pytest.approx(expected, abs=1e-6)
    assert unfit(older, newest) == ""
    assert "column 'b', which is not learnt from" in unfit(newest, older)


def test_what_does_not_fit_is_told() -> None:
    """Other classes, other kinds of columns and other boosters cannot be pooled."""
    two, three = made(table_of("binary"), "binary"), made(table_of("multiclass"), "multiclass")
    assert unfit(three, two) == "it does a multiclass"
    renamed = Scorer(two.task, two.features, ("no", "yes"), two.booster)
    assert "classes are ['no', 'yes'], now ['0', '1']" in unfit(renamed, two)
    changed = Scorer(two.task, (two.features[0], *two.features[:0:-1]), two.classes, two.booster)
    assert unfit(changed, two) == ""
    wanted = Train(rounds=2, strategy="fresh", parameters={"booster": "dart"})
    dart = made(table_of("binary"), "binary", wanted)
    assert unfit(dart, two) == "its booster is not a sum of plain trees"


@pytest.mark.parametrize("strategy", ["ensemble", "tournament"])
@pytest.mark.parametrize(
    "parameters",
    [{"booster": "dart"}, {"booster": "gblinear"}, {"multi_strategy": "multi_output_tree"}],
)
def test_settings_refuse_boosters_that_cannot_be_pooled(
    strategy: Any, parameters: dict[str, Any]
) -> None:
    """It is told at the start, not at the first delta."""
    with pytest.raises(ValueError, match="needs plain trees"):
        Train(strategy=strategy, parameters=parameters)
    Train(strategy="fresh", parameters=parameters)


# -- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@given(
    losses=st.lists(st.floats(-5, 20), min_size=1, max_size=12),
    prior=st.floats(0.1, 3),
)
def test_weights_sum_to_one_and_follow_the_losses(
    rule: Rule, losses: list[float], prior: float
) -> None:
    """The lower the loss, the higher the weight; the best one always has some."""
    found = np.abs(losses) if rule == "aue" else np.asarray(losses)
    shares = np.array(weights(list(found), [prior] * len(found), rule, 0.25))
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()
    assert shares[np.argmin(found)] == shares.max() > 0
    assert (np.diff(shares[np.argsort(found)]) <= 1e-12).all()


def test_weights_by_example() -> None:
    """Exponential weights follow prior and difference, those of AUE the inverse of the error."""
    assert weights([0.5, 0.5], [3.0, 1.0], "exponential") == pytest.approx([0.75, 0.25])
    assert weights([0.3, 0.3 + 1 / 30], [1, 1], "exponential")[1] == pytest.approx(1 / (1 + np.e))
    assert weights([0.3, 5.0], [1, 1], "exponential") == [1.0, 0.0]
    assert weights([0.0, 0.2], [1, 1], "aue", 0.2) == pytest.approx([2 / 3, 1 / 3], abs=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_learnt_something_has_less_loss(task: Task, rule: Rule) -> None:
    """Losses are comparable, and unknown classes count as fully wrong."""
    table, other = table_of(task, 400, 1), table_of(task, 400, 2)
    part = split(other, COLUMNS, task, Train()).train
    good, better = made(table, task, Train(rounds=1)), made(table, task, Train(rounds=30))
    assert loss(better, part, rule) < loss(good, part, rule)
    if task != "regression":
        assert loss(better, part, rule) < prior_loss(part, task, rule)
        strange = Part(part.rows, part.labels.map(lambda _: "never seen"))
        assert loss(better, strange, rule) > 0.99


def test_the_schema_is_the_one_that_is_rewritten() -> None:
    """A booster's JSON has the documented parts; a new one of XGBoost's is to be looked at."""
    booster = made(table_of("binary"), "binary").booster
    document = json.loads(bytes(booster.save_raw("json")))
    model = document["learner"]["gradient_booster"]["model"]
    assert {*model} <= {"cats", "gbtree_model_param", "iteration_indptr", "tree_info", "trees"}
    assert {*model["trees"][0]} == {
        "base_weights", "categories", "categories_nodes", "categories_segments",
        "categories_sizes", "default_left", "id", "left_children", "loss_changes", "parents",
        "right_children", "split_conditions", "split_indices", "split_type", "sum_hessian",
        "tree_param",
    }  # fmt: skip

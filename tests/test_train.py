"""What a challenger is made of, and what makes it the same challenger again."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import ConfigError, Train
from handlers.facts import GiveUp, TryLater
from handlers.rows import Columns, Part, split
from handlers.scorer import Scorer, Task
from handlers.train import _balanced, check_parameters, classes_of, parameters, train

TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")
COLUMNS = Columns(
    features=(("x", "number"), ("c", "category"), ("b", "boolean"), ("t", "time")),
    label="y",
    key=("id",),
)
QUICK = Train(rounds=6)
Parameters = dict[str, bool | int | float | str]


def quiet(*_: object) -> None:
    """Take note of no progress."""


def table_of(task: Task, count: int = 300, seed: int = 1) -> pa.Table:
    """Make rows whose label can be learnt in part."""
    chance = np.random.default_rng(seed)
    x = chance.normal(size=count)
    c = chance.choice(["red", "green", "blue", "grey"], count)
    signal = x + (c == "red") * 1.5 + chance.normal(size=count) * 0.5
    label = {
        "binary": (signal > 0.5).astype(int),
        "multiclass": np.digitize(signal, [-0.5, 0.8]),
        "regression": signal,
    }[task]
    return pa.table(
        {
            "id": np.arange(count),
            "x": np.where(chance.random(count) < 0.1, np.nan, x),
            "c": pa.array(c.tolist(), pa.string(), mask=chance.random(count) < 0.1),
            "b": pa.array(chance.random(count) < 0.5, mask=chance.random(count) < 0.1),
            "t": pa.array(chance.integers(0, 10**15, count), pa.timestamp("us", tz="UTC")),
            "y": label,
        }
    )


def made(table: pa.Table, task: Task, wanted: Train = QUICK) -> Scorer:
    """Train on a table's training rows."""
    return train(split(table, COLUMNS, task, wanted).train, COLUMNS, task, wanted, quiet)


def saved(model: Scorer, folder: Path) -> dict[str, bytes]:
    """Give the files of a model."""
    model.save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def part_of(labels: list[Any]) -> Part:
    """Make a part of rows with these labels."""
    count = len(labels)
    rows = pd.DataFrame({"x": np.arange(count, dtype=float), "c": ["a"] * count})
    return Part(rows.assign(b=True, t=pd.Timestamp("2026-01-31")), pd.Series(labels))


# -- the same model again ----------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_same_rows_in_any_order_give_the_same_bytes(task: Task, tmp_path: Path) -> None:
    """A model can be made again from its rows, though a table returns them in any order."""
    table = table_of(task)
    first = saved(made(table, task), tmp_path / "first")
    for seed in (1, 2):
        order = np.random.default_rng(seed).permutation(table.num_rows)
        again = saved(made(table.take(order), task), tmp_path / f"again{seed}")
        assert again == first
    assert set(first) == {"model.json", "model.ubj"}


@pytest.mark.parametrize("wanted", [{"seed": 1}, {"rounds": 7}, {"salt": "other"}])
def test_another_seed_is_another_model(wanted: dict[str, Any], tmp_path: Path) -> None:
    """What is meant to change the model changes it: the seed, the rounds, the split."""
    table = table_of("binary")
    one = saved(made(table, "binary"), tmp_path / "one")
    other = saved(made(table, "binary", QUICK.model_copy(update=wanted)), tmp_path / "other")
    assert one["model.ubj"] != other["model.ubj"]


@pytest.mark.parametrize("names", [(1, 0), (1.0, 0.0), (True, False), ("1", "0")])
def test_the_type_of_the_label_does_not_change_the_model(
    names: tuple[Any, Any], tmp_path: Path
) -> None:
    """The same classes give the same model, be they integers, floats, booleans or text."""
    table = table_of("binary", 120)
    values = [names[0] if y else names[1] for y in table["y"].to_pylist()]
    other = table.set_column(table.schema.get_field_index("y"), "y", pa.array(values))
    assert saved(made(other, "binary"), tmp_path / "a") == saved(
        made(table, "binary"), tmp_path / "b"
    )


# -- labels that do not fit --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "labels", "part"),
    [
        ("binary", ["1", "1", "1"], "1 class(es): '1'"),
        ("multiclass", ["a", "a"], "1 class(es): 'a'"),
        ("binary", [], "No row is left to learn from"),
        ("binary", ["0", "1", "2"], "3 values ('0', '1', '2'), but the task is binary"),
        ("regression", [2.0, 2.0, 2.0], "all the same"),
        ("regression", [], "No row is left to learn from"),
        ("regression", [1.0, float("inf")], "not all finite"),
        ("regression", [1.0, 1e39], "not all finite"),
    ],
)
def test_labels_that_do_not_fit_the_task_are_given_up(
    task: Task, labels: list[Any], part: str
) -> None:
    """Labels from which nothing can be learnt park the delta, with what they are and a remedy."""
    with pytest.raises(GiveUp) as caught:
        train(part_of(labels), COLUMNS, task, QUICK, quiet)
    assert part in str(caught.value)
    assert "retraind retry" in caught.value.remedy


def test_classes_are_in_the_order_of_numbers() -> None:
    """10 comes after 9: classes that are numbers are ordered as such, text behind them."""
    labels = ["10", "9", "-1", "0.5", "b", "a"] * 2
    model = train(part_of(labels), COLUMNS, "multiclass", QUICK, quiet)
    assert model.classes == ("-1", "0.5", "9", "10", "a", "b")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from(["nan", "NaN", "inf", "-inf", "1_0", "1", "1.0", "-0", "0", ""])
        | st.text(max_size=2),
        min_size=2,
        max_size=8,
        unique=True,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_classes_does_not_depend_on_the_rows(
    names: list[str], chance: random.Random
) -> None:
    """Whatever the classes are called, the same classes are in the same order."""
    shuffled = list(names)
    chance.shuffle(shuffled)
    one, other = (classes_of(pd.Series(n, dtype=object), "multiclass") for n in (names, shuffled))
    assert one == other
    assert sorted(one) == sorted(names)


@pytest.mark.parametrize(("negative", "positive"), [("0", "1"), ("-1", "1"), ("no", "yes")])
def test_the_probability_is_that_of_the_second_class(negative: str, positive: str) -> None:
    """Of two classes the greater is the positive one, whose probability is the score."""
    labels = [negative] * 30 + [positive] * 30
    part = part_of(labels)
    model = train(part, COLUMNS, "binary", Train(rounds=20), quiet)
    scores = model.score(part.rows)
    assert model.classes == (negative, positive)
    assert scores[:25].max() < 0.5 < scores[-25:].min()


# -- features ----------------------------------------------------------------------------------


def test_an_unseen_category_counts_as_missing() -> None:
    """A value that training never saw gets the prediction of a null, not of some other value."""
    model = made(table_of("binary"), "binary")
    rows = pd.DataFrame(
        {"x": [0.1] * 4, "c": ["violet", None, "red", "grey"], "b": True, "t": None}
    )
    scores = model.score(rows)
    assert scores[0] == scores[1]
    assert scores[2] != scores[3]


def test_the_most_frequent_categories_are_kept() -> None:
    """Of more values than `max_categories` the most frequent stay; ties go by text."""
    values = ["d"] * 5 + ["a"] * 3 + ["c"] * 3 + ["b"] * 3 + ["e"]
    rows = part_of(["0", "1", "1"] * 5).rows.assign(c=values)
    labels = pd.Series(["0", "1", "1"] * 5)
    kept = Train(rounds=1, max_categories=3)
    model = train(Part(rows, labels), COLUMNS, "binary", kept, quiet)
    assert {f.name: f.categories for f in model.features}["c"] == ("a", "b", "d")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.none() | st.text(max_size=3), min_size=4, max_size=12),
    st.integers(2, 5),
)
def test_any_text_can_be_a_category(values: list[str | None], most: int) -> None:
    """Nulls, empty text and any characters: training goes well and keeps no more than allowed."""
    count = len(values)
    rows = part_of(["0"] * count).rows.assign(c=pd.Series(values, dtype=object))
    labels = pd.Series(["0", "1"] * count)[:count]
    model = train(
        Part(rows, labels), COLUMNS, "binary", Train(rounds=1, max_categories=most), quiet
    )
    kept = {f.name: f.categories for f in model.features}["c"]
    seen = {v for v in values if v is not None}
    assert set(kept) <= seen
    assert len(kept) == min(most, len(seen))
    assert model.score(rows).shape == (count,)


def test_column_names_may_hold_anything() -> None:
    """XGBoost refuses `[`, `]` and `<` in names; a table may have them all the same."""
    columns = Columns(features=(("x[0]", "number"), ("a<b", "number")), label="y", key=("id",))
    rows = pd.DataFrame({"x[0]": range(20), "a<b": range(20)})
    labels = pd.Series(["0", "1"] * 10)
    model = train(Part(rows, labels), columns, "binary", QUICK, quiet)
    assert model.columns == ["x[0]", "a<b"]
    assert model.score(rows).shape == (20,)


# -- parameters --------------------------------------------------------------------------------


def test_balance_finds_more_of_a_rare_class() -> None:
    """`balance` weighs the classes equally, so more of the rare rows are found."""
    chance = np.random.default_rng(3)
    count = 1500
    y = chance.random(count) < 0.05
    x = chance.normal(size=count) + y * 1.5
    rows = pd.DataFrame({"x": x, "c": "a", "b": True, "t": pd.Timestamp("2026-01-31")})
    part = Part(rows, pd.Series(np.where(y, "1", "0")))
    recall = {}
    for balance in (False, True):
        wanted = Train(rounds=15, balance=balance)
        scores = train(part, COLUMNS, "binary", wanted, quiet).score(rows)
        recall[balance] = (scores[y] > 0.5).mean()
    assert recall[True] > recall[False] + 0.2


def test_balanced_classes_weigh_the_same() -> None:
    """Each class has the same total weight, and the weights keep their sum."""
    part = part_of(["a"] * 6 + ["b"] * 3 + ["c"])
    model = train(part, COLUMNS, "multiclass", Train(rounds=1, balance=True), quiet)
    assert model.score(part.rows).shape == (10, 3)
    target = np.array([0.0] * 6 + [1.0] * 3 + [2.0])
    weights = _balanced(target, 3)
    assert np.allclose(np.bincount(target.astype(int), weights), 10 / 3)


def test_configured_parameters_win_over_the_gentle_ones() -> None:
    """What is configured replaces the default of the same name and leaves the others."""
    given_ = parameters("binary", 2, Train(parameters={"max_depth": 2, "gamma": 1.0}))
    assert (given_["max_depth"], given_["gamma"], given_["eta"]) == (2, 1.0, 0.1)


@pytest.mark.parametrize(("alias", "name"), [("learning_rate", "eta"), ("reg_lambda", "lambda")])
def test_the_other_name_of_a_parameter_wins_as_well(alias: str, name: str, tmp_path: Path) -> None:
    """XGBoost has two names for some parameters; either overrides the gentle default."""
    table = table_of("binary", 120)
    choices: tuple[Parameters, ...] = ({alias: 0.7}, {name: 0.7}, {})
    models = [
        saved(made(table, "binary", Train(rounds=3, parameters=wanted)), tmp_path / str(number))
        for number, wanted in enumerate(choices)
    ]
    assert models[0] == models[1] != models[2]


@pytest.mark.parametrize("task", TASKS)
def test_the_task_fixes_the_objective(task: Task) -> None:
    """Objective, seed and threads have settings of their own; `parameters` cannot change them."""
    bad: Parameters = {
        "objective": "count:poisson",
        "seed": 9,
        "nthread": 7,
        "eval_metric": "error",
    }
    wanted = Train(rounds=2, seed=4, parameters=bad)
    given_ = parameters(task, 3, wanted)
    assert given_["objective"] != bad["objective"]
    assert (given_["seed"], given_["nthread"]) == (4, 1)
    table = table_of(task, 100)
    plain = made(table, task, Train(rounds=2, seed=4)).score(table.to_pandas())
    assert np.array_equal(made(table, task, wanted).score(table.to_pandas()), plain)


@pytest.mark.parametrize("task", TASKS)
def test_good_parameters_pass_the_check(task: Task) -> None:
    """The gentle defaults and ordinary changes to them are accepted, for every task."""
    wanted: Parameters = {"max_depth": 6, "eta": 0.3, "alpha": 0.1, "scale_pos_weight": 3.0}
    assert check_parameters(task, Train()) is None  # type: ignore[func-returns-value]
    if task != "multiclass":
        check_parameters(task, Train(parameters=wanted))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_depht", 3),
        ("n_estimators", 10),
        ("max_depth", -1),
        ("max_depth", "deep"),
        ("eta", "fast"),
        ("subsample", 2.0),
        ("tree_method", "magic"),
        ("tree_method", "exact"),
        ("booster", "rocket"),
        ("max_leaves", True),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_bad_parameters_are_refused_by_name(name: str, value: Any, task: Task) -> None:
    """Unknown names and impossible values are told by name before a delta depends on them."""
    with pytest.raises(ConfigError) as caught:
        check_parameters(task, Train(strategy="fresh", parameters={name: value}))
    assert name in str(caught.value)
    assert "train.parameters" in str(caught.value)


def test_what_xgboost_refuses_in_training_parks_the_delta() -> None:
    """A fault that the check let pass concerns these rows: it must not stall the ones behind."""
    wanted = Train(rounds=1, parameters={"tree_method": "exact"})
    with pytest.raises(GiveUp, match=r"XGBoost refuses.*`retraind retry`"):
        made(table_of("binary", 60), "binary", wanted)


# -- progress ----------------------------------------------------------------------------------


def test_progress_is_told_once_a_round() -> None:
    """Each round is told once, counted from one to all."""
    told: list[tuple[str, int, int]] = []
    part = split(table_of("binary", 60), COLUMNS, "binary", QUICK).train
    train(part, COLUMNS, "binary", QUICK, lambda *step: told.append(step))
    assert told == [("training", done, 6) for done in range(1, 7)]


def test_a_stop_is_heeded_between_two_rounds() -> None:
    """What progress raises ends the training at once and arrives as it was raised."""
    told: list[int] = []

    def stop(_: str, done: int, __: int) -> None:
        told.append(done)
        if done == 3:
            raise TryLater("A stop was asked for.")

    part = split(table_of("binary", 60), COLUMNS, "binary", QUICK).train
    with pytest.raises(TryLater, match="A stop was asked for"):
        train(part, COLUMNS, "binary", QUICK, stop)
    assert told == [1, 2, 3]

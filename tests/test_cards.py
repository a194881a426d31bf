"""The demo's card transactions: repeatable, plausible, learnable, and drifting when they say so."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from handlers import cards as module
from handlers.cards import SCHEMA, Recipe, cards, drifted, regime

Array = np.ndarray[Any, np.dtype[Any]]

FEATURES = SCHEMA.names[2:-1]
MAY_BE_UNKNOWN = {
    "sec_bank_account_balance",
    "sec_savings_account_balance",
    "secondary_loan_balance",
}
GENTLE = {
    "objective": "binary:logistic",
    "max_depth": 4,
    "eta": 0.1,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "lambda": 2.0,
    "nthread": 1,
}
RECIPES = st.builds(
    Recipe,
    rows=st.integers(34, 3_000),
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(0, 10_000),
    drift=st.floats(0, 10),
    signal=st.booleans(),
)


def matrix(table: pa.Table) -> xgb.DMatrix:
    """Give the features and the label to XGBoost."""
    features = np.column_stack([table[name].to_numpy().astype(float) for name in FEATURES])
    return xgb.DMatrix(features, table["fraud_trx"].to_numpy(), feature_names=FEATURES)


def model(recipe: Recipe) -> xgb.Booster:
    """Train on a whole batch, as gently as the daemon does."""
    return xgb.train(GENTLE, matrix(cards(recipe)), 150)


def auc(booster: xgb.Booster, recipe: Recipe) -> float:
    """Rank another batch's transactions."""
    unseen = matrix(cards(recipe))
    return float(metrics.roc_auc_score(unseen.get_label(), booster.predict(unseen)))


def loss(booster: xgb.Booster, recipe: Recipe) -> float:
    """Give the log loss on another batch's transactions."""
    unseen = matrix(cards(recipe))
    return float(metrics.log_loss(unseen.get_label(), booster.predict(unseen)))


def test_columns_are_those_of_the_lab_behind_an_id_and_a_time() -> None:
    """The table has the schema that it announces, in the lab's order."""
    table = cards(Recipe(rows=50))
    assert table.schema.equals(SCHEMA)
    assert table.num_rows == 50
    assert SCHEMA.names == [
        "transaction_id", "event_time", "age", "credit_card_balance", "bank_account_balance",
        "mortgage_balance", "sec_bank_account_balance", "savings_account_balance",
        "sec_savings_account_balance", "total_est_nworth", "primary_loan_balance",
        "secondary_loan_balance", "uni_loan_balance", "longitude", "latitude",
        "transaction_amount", "fraud_trx",
    ]  # fmt: skip


@settings(deadline=None, max_examples=20)
@given(RECIPES)
def test_same_recipe_gives_the_same_rows(recipe: Recipe) -> None:
    """Nothing but the recipe decides: no clock, no global random state."""
    np.random.seed(0)  # noqa: NPY002 (the global state that must not matter)
    first = cards(recipe)
    np.random.seed(1)  # noqa: NPY002
    assert cards(recipe).equals(first)


def test_rows_are_the_same_on_any_machine() -> None:
    """The rows are those of the machine, the numpy and the pyarrow that this was written with."""
    # Times are left out: their text depends on which time zone library Python finds.
    rows = cards(Recipe(rows=500, seed=7, batch=3)).drop_columns(["event_time"]).to_pydict()
    assert hashlib.sha256(repr(rows).encode()).hexdigest().startswith("e43a31463f3b20b5")


def test_ids_are_unique_across_batches_and_seeds() -> None:
    """No two transactions of any batches share an id."""
    recipes = [Recipe(rows=300, seed=s, batch=b) for s in (0, 1, 2**16) for b in (0, 1, 10**5)]
    ids = [name for recipe in recipes for name in cards(recipe)["transaction_id"].to_pylist()]
    assert ids[0] == "0000-00000-0000000"
    assert len(set(ids)) == len(ids) == 2_700


@pytest.mark.parametrize("other", [{"seed": 1}, {"batch": 1}])
def test_another_seed_or_batch_gives_other_rows(other: dict[str, Any]) -> None:
    """Batches are new transactions, not the old ones under new ids."""
    one, two = cards(Recipe(rows=200)), cards(Recipe(rows=200, **other))
    shared = set(one["longitude"].to_pylist()) & set(two["longitude"].to_pylist())
    assert len(shared) < 5


@settings(deadline=None, max_examples=40)
@given(RECIPES)
def test_events_increase_within_the_day_of_their_batch(recipe: Recipe) -> None:
    """Batch k covers day k after the first of January 2026, and time only moves forward."""
    times = cards(recipe)["event_time"].to_numpy().astype("datetime64[us]")
    assert (np.diff(times) > np.timedelta64(0)).all()
    day = np.datetime64("2026-01-01") + recipe.batch
    assert (times.astype("datetime64[D]") == day).all()


@settings(deadline=None, max_examples=100)
@given(RECIPES)
def test_one_transaction_in_ten_is_a_fraud(recipe: Recipe) -> None:
    """Between 8 and 12 % are, whatever the seed, the batch, the drift, with or without signal."""
    labels = cards(recipe)["fraud_trx"].to_numpy()
    assert set(labels) == {0, 1}
    assert 0.08 <= labels.mean() <= 0.12


def test_only_secondary_balances_are_unknown_and_few() -> None:
    """Nulls stay where a bank would have them, between 1 and 5 % of the rows."""
    table = cards(Recipe(rows=4_000))
    for name in SCHEMA.names:
        share = table[name].null_count / table.num_rows
        assert 0.01 < share < 0.05 if name in MAY_BE_UNKNOWN else share == 0, name


def test_money_is_skewed_and_counted_in_cents() -> None:
    """A few customers have most of the money, and nobody has half a cent or a negative balance."""
    table = cards(Recipe(rows=4_000))
    for name in module.MONEY:
        amounts = pc.drop_null(table[name]).to_numpy()
        assert (amounts >= 0).all()
        assert (np.round(amounts, 2) == amounts).all()
        assert amounts.mean() > 1.2 * np.median(amounts)


def test_net_worth_adds_up() -> None:
    """What is owned less what is owed, to the cent, unknown balances counting as none."""
    table = cards(Recipe(rows=1_000))
    known = {name: pc.fill_null(table[name], 0.0).to_numpy() for name in module.MONEY}
    owned = sum(known[f"{name}_balance"] for name in module.OWNED)
    owed = sum(known[f"{name}_balance"] for name in module.OWED)
    assert np.allclose(table["total_est_nworth"].to_numpy(), owned - owed, rtol=0, atol=0.01)


def test_rule_moves_before_the_batches_that_say_so() -> None:
    """Two batches under the first rule, then three under each."""
    assert [batch for batch in range(12) if drifted(batch)] == [2, 5, 8, 11]
    assert [regime(batch) for batch in range(9)] == [0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_no_rule_comes_back() -> None:
    """Over a hundred regimes no two share their weights, and none is stronger than another."""
    rules = [module._weights(Recipe(rows=1, batch=3 * n), 4) for n in range(100)]
    assert all(np.abs(one - two).max() > 1e-3 for one, two in combinations(rules, 2))
    assert np.allclose(np.linalg.norm(rules, axis=1), np.sqrt(2))


def test_drift_changes_the_label_alone() -> None:
    """The customers of a batch are the same under any rule; only who is a fraud differs."""
    still, moved = (cards(Recipe(rows=500, batch=2, drift=drift)) for drift in (0.0, 1.0))
    assert still.drop_columns(["fraud_trx"]).equals(moved.drop_columns(["fraud_trx"]))
    assert not still["fraud_trx"].equals(moved["fraud_trx"])


@pytest.mark.parametrize("batch", [0, 3, 6])
def test_frauds_can_be_learnt(batch: int) -> None:
    """A model of 4000 rows ranks the unseen rows of the same regime well, but not perfectly."""
    booster = model(Recipe(rows=4_000, batch=batch))
    assert 0.8 < auc(booster, Recipe(rows=4_000, batch=batch + 1)) < 0.95


def test_without_signal_nothing_can_be_learnt() -> None:
    """As in the lab: no ranking, and worse than telling everyone the rate."""
    booster = model(Recipe(rows=4_000, signal=False))
    unseen = Recipe(rows=4_000, batch=1, signal=False)
    rate = 0.1
    trivial = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    assert 0.45 < auc(booster, unseen) < 0.55
    assert loss(booster, unseen) > trivial


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_model_of_the_last_regime_loses_to_one_of_the_new(seed: int) -> None:
    """When the rule moves, retraining wins by far on rows that neither model has seen."""
    old = model(Recipe(rows=4_000, seed=seed, batch=1))
    new = model(Recipe(rows=4_000, seed=seed, batch=2))
    unseen = Recipe(rows=4_000, seed=seed, batch=3)
    assert loss(old, unseen) > loss(new, unseen) + 0.05


@pytest.mark.parametrize(("batch", "drift"), [(1, 0.0), (2, 1.0)])
def test_where_the_rule_stays_retraining_gains_nothing(batch: int, drift: float) -> None:
    """Inside a regime, and everywhere without drift, a newer model is just another model."""
    old = model(Recipe(rows=4_000, batch=batch, drift=drift))
    new = model(Recipe(rows=4_000, batch=batch + 1, drift=drift))
    unseen = Recipe(rows=4_000, batch=batch + 2, drift=drift)
    assert loss(old, unseen) == pytest.approx(loss(new, unseen), abs=0.02)


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"batch": -1}, {"seed": -1}, {"seed": 2**32}])
def test_impossible_recipes_are_refused(wrong: dict[str, Any]) -> None:
    """The refusal names the field and what it was given."""
    (field, value), = wrong.items()  # fmt: skip
    with pytest.raises(ValueError, match=rf"^{field} is {value}; "):
        Recipe(**{"rows": 1, **wrong})

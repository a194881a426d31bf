"""By how much one model is better than another, and how sure that is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from config.settings import METRICS
from handlers.gain import compare, detectable, mean_loss
from handlers.measures import Scored
from handlers.rows import Part
from handlers.scorer import Scorer, Task

BLANK = xgb.Booster()


def binary(rows: int, seed: int, clarity: float) -> Scored:
    """Draw probabilities of two classes that know something of the labels of `part`."""
    chance = np.random.default_rng(seed)
    margin = clarity * truth(rows) * 2 - clarity + chance.normal(size=rows)
    return Scored(Scorer("binary", (), ("0", "1"), BLANK), 1 / (1 + np.exp(-margin)))


def truth(rows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draw labels."""
    return np.random.default_rng(99).integers(0, 2, rows)


def part(rows: int, entities: int | None = None) -> Part:
    """Give rows that belong to so many entities."""
    numbers = None if entities is None else np.arange(rows) % entities
    frame = pd.DataFrame({"x": np.zeros(rows)})
    return Part(frame, pd.Series(truth(rows).astype(str)), numbers)


@pytest.mark.parametrize("metric", METRICS["binary"])
def test_the_error_is_that_of_a_plain_bootstrap(metric: str) -> None:
    """The standard error of each metric's gain is near that of rows drawn with replacement."""
    from handlers.measures import measure_said  # noqa: PLC0415 (one use)

    rows, ours, theirs = part(600), binary(600, 1, 1.0), binary(600, 2, 0.6)
    look = compare(metric, ours, theirs, rows)
    assert look is not None
    assert look.error is not None
    chance, gains = np.random.default_rng(5), []
    for _ in range(150):
        drawn = chance.integers(0, 600, 600)
        labels = rows.labels.iloc[drawn]
        mine, other = (measure_said(said.take(drawn), labels)[metric] for said in (ours, theirs))
        gains.append(mine - other)
    assert look.error == pytest.approx(np.std(gains), rel=0.25)
    assert abs(look.gain) == pytest.approx(abs(np.mean(gains)), abs=3 * look.error / 10)


def test_rows_of_one_entity_count_less() -> None:
    """Rows repeated ten times under one key tell no more than the rows themselves."""
    ours, theirs = binary(100, 1, 1.0), binary(100, 2, 0.6)
    once = compare("log_loss", ours, theirs, part(100))
    tenfold = np.tile(np.arange(100), 10)
    labels = part(100).labels.iloc[tenfold].reset_index(drop=True)
    rows = Part(pd.DataFrame({"x": np.zeros(1000)}), labels, tenfold)
    again = compare("log_loss", ours.take(tenfold), theirs.take(tenfold), rows)
    naive = compare("log_loss", ours.take(tenfold), theirs.take(tenfold), Part(rows.rows, labels))
    assert once is not None
    assert again is not None
    assert naive is not None
    assert again.error == pytest.approx(once.error, rel=1e-9)
    assert naive.error == pytest.approx((once.error or 0) / math.sqrt(10), rel=0.02)


@pytest.mark.parametrize("metric", METRICS["regression"])
def test_regression_gains_have_errors(metric: str) -> None:
    """A regression's metrics come with a positive error and the right sign."""
    chance, task = np.random.default_rng(3), "regression"
    labels = pd.Series(chance.normal(size=300))
    model = Scorer(_task(task), (), (), BLANK)
    near = Scored(model, labels.to_numpy() + chance.normal(0, 0.3, 300))
    far = Scored(model, labels.to_numpy() + chance.normal(0, 0.9, 300))
    rows = Part(pd.DataFrame({"x": np.zeros(300)}), labels)
    look = compare(metric, near, far, rows)
    assert look is not None
    assert look.gain > 0
    assert 0 < (look.error or 0) < look.gain
    assert mean_loss(near, rows).gain == pytest.approx(0.09, rel=0.3)


def _task(name: str) -> Task:
    return "regression" if name == "regression" else "binary"


def test_what_cannot_be_measured_is_no_look() -> None:
    """AUC of one class is undefined, and a single entity tells no error."""
    rows = Part(pd.DataFrame({"x": [0.0, 0.0]}), pd.Series(["1", "1"]), np.array([7, 7]))
    ours = binary(2, 1, 1.0)
    assert compare("auc", ours, ours, rows) is None
    look = compare("log_loss", ours, ours, rows)
    assert look is not None
    assert look.error is None
    assert detectable(look, 0.05) is None

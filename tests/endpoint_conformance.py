"""What every endpoint must do. Each implementation runs this suite against real processes.

A test module subclasses `EndpointConformance` and supplies two fixtures: `endpoint`, which may be
in any state that a former test left, and `models`, from `train_models`.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from handlers.endpoint import Answer, Endpoint
from handlers.facts import GiveUp, Model
from handlers.scorer import Feature, Scorer, Task

FEATURES = (
    Feature("amount", "number"),
    Feature("age", "number"),
    Feature("country", "category", ("007", "CH", "FR", "NA", "é")),
    Feature("chip", "boolean"),
    Feature("seen", "time"),
)
OBJECTIVES: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary:logistic"},
    "multiclass": {"objective": "multi:softprob", "num_class": 3},
    "regression": {"objective": "reg:squarederror"},
}


@dataclass(frozen=True)
class Trained:
    """A model, the folder it was saved in, and the scorer that says what is right."""

    model: Model
    folder: Path
    scorer: Scorer = field(repr=False)

    def agrees(self, answer: Answer, rows: pd.DataFrame) -> bool:
        """Whether an answer is this model's, to the last bit."""
        named = answer.version == self.model.version
        return named and np.array_equal(answer.predictions, self.scorer.score(rows))


Models = dict[str, Trained]


def make_rows(count: int, seed: int = 0) -> pd.DataFrame:
    """Make rows of every kind of feature, a tenth of the cells missing."""
    draw = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "amount": draw.normal(50, 20, count).astype(np.float32),
            "age": draw.integers(18, 90, count).astype(object),
            "country": draw.choice(["007", "CH", "FR", "NA", "é", "unseen"], count),
            "chip": (draw.random(count) > 0.5).astype(object),
            "seen": pd.Timestamp("2026-01-01") + pd.to_timedelta(draw.random(count) * 1e7, "s"),
        }
    )
    holes: pd.DataFrame = rows.mask(draw.random(rows.shape) < 0.1)
    return holes


def train_models(root: Path) -> Models:
    """Train tiny models that all disagree: two binary ones, and one of each other task."""
    tasks: dict[str, Task] = {
        "1": "binary", "2": "binary", "3": "multiclass", "4": "regression",
    }  # fmt: skip
    return {version: _train(root / version, version, task) for version, task in tasks.items()}


def _train(folder: Path, version: str, task: Task) -> Trained:
    classes = {"binary": ("no", "yes"), "multiclass": ("é", "b", "c"), "regression": ()}[task]
    scorer = Scorer(task, FEATURES, classes, xgb.Booster())
    matrix = scorer.matrix(make_rows(400, seed=int(version)))
    wish = np.random.default_rng(int(version)).normal(size=400) + np.nan_to_num(matrix[:, 0]) / 20
    label = wish if task == "regression" else np.clip(wish - 1, 0, len(classes) - 1).astype(int)
    data = xgb.DMatrix(
        matrix, label=label, feature_names=scorer.columns, feature_types=scorer.feature_types,
        enable_categorical=True,
    )  # fmt: skip
    booster = xgb.train({**OBJECTIVES[task], "nthread": 1}, data, 10)
    replace(scorer, booster=booster).save(folder)
    return Trained(Model(version, f"run-{version}"), folder, Scorer.load(folder))


class EndpointConformance:
    """The rules. The fixtures decide which implementation is held to them."""

    swaps = 20
    """How often versions are swapped under load."""

    def test_starts_afresh(self, endpoint: Endpoint, models: Models) -> None:
        """Nothing answers after a stop; a deployment brings the endpoint up with that version."""
        endpoint.stop()
        assert endpoint.serving() is None
        endpoint.deploy(models["1"].model, models["1"].folder)
        assert endpoint.serving() == "1"

    @pytest.mark.parametrize("version", ["1", "2", "3", "4"])
    def test_predicts_what_the_scorer_predicts(
        self, endpoint: Endpoint, models: Models, version: str
    ) -> None:
        """Each task's answers are the offline scores, bit by bit, and name their version."""
        endpoint.deploy(models[version].model, models[version].folder)
        rows = make_rows(300, seed=9)
        assert models[version].agrees(endpoint.predict(rows), rows)

    def test_answers_one_row_and_none(self, endpoint: Endpoint, models: Models) -> None:
        """The number of answers is the number of rows, also for one and for none."""
        endpoint.deploy(models["1"].model, models["1"].folder)
        rows = make_rows(1)
        assert models["1"].agrees(endpoint.predict(rows), rows)
        assert len(endpoint.predict(rows.iloc[:0]).predictions) == 0

    @pytest.mark.parametrize(
        ("column", "cells"),
        [
            ("amount", [np.nan, None, pd.NA, np.inf, -np.inf, Decimal("NaN")]),
            ("amount", [Decimal("12.5"), np.float32(0.1), np.int8(-3), 10**30, True, np.True_]),
            ("country", [None, np.nan, "FR", "é", "never seen", "\ud800", "", '"\\\n']),
            ("chip", [None, True, False, np.bool_(1), 1, 0, "TRUE", "false"]),
            ("seen", [date(2026, 5, 4), pd.Timestamp("2026-05-04 01:02:03.123456789"), pd.NaT]),
            ("seen", [pd.Timestamp("2026-05-04", tz="Asia/Tokyo"), np.datetime64("2026-05-04")]),
        ],
    )
    def test_carries_every_kind_of_value(
        self, endpoint: Endpoint, models: Models, column: str, cells: list[Any]
    ) -> None:
        """Whatever type a cell has in the table, the endpoint reads what the scorer reads."""
        endpoint.deploy(models["1"].model, models["1"].folder)
        rows = make_rows(len(cells)).astype(object)
        rows[column] = pd.Series(cells, dtype=object)
        assert models["1"].agrees(endpoint.predict(rows), rows)

    def test_deploying_twice_is_deploying_once(self, endpoint: Endpoint, models: Models) -> None:
        """A deployment that has taken place already changes nothing, not even with no files."""
        endpoint.deploy(models["2"].model, models["2"].folder)
        endpoint.deploy(models["2"].model, models["2"].folder / "deleted")
        assert endpoint.serving() == "2"

    @pytest.mark.parametrize(
        "damage", ["garbage", "cut", "no booster", "no description", "other", "gone"]
    )
    def test_keeps_the_old_version_when_the_new_one_is_broken(
        self, endpoint: Endpoint, models: Models, tmp_path: Path, damage: str
    ) -> None:
        """A model that cannot be loaded is given up, and the old version answers on."""
        endpoint.deploy(models["1"].model, models["1"].folder)
        broken = tmp_path / "broken"
        if damage != "gone":
            models["2"].scorer.save(broken)
        if damage == "garbage":
            (broken / "model.ubj").write_bytes(b"not a booster")
        elif damage == "cut":
            whole = (broken / "model.ubj").read_bytes()
            (broken / "model.ubj").write_bytes(whole[: len(whole) // 2])
        elif damage == "no booster":
            (broken / "model.ubj").unlink()
        elif damage == "no description":
            (broken / "model.json").write_text("[]")
        elif damage == "other":
            replace(models["2"].scorer, features=FEATURES[:-1]).save(broken)
        with pytest.raises(GiveUp):
            endpoint.deploy(Model("99", "run-99"), broken)
        rows = make_rows(5)
        assert models["1"].agrees(endpoint.predict(rows), rows)

    def test_refuses_rows_that_do_not_fit(self, endpoint: Endpoint, models: Models) -> None:
        """Rows without a column, or with text for a number, are given up with its name."""
        endpoint.deploy(models["1"].model, models["1"].folder)
        with pytest.raises(GiveUp, match="'amount'"):
            endpoint.predict(make_rows(3).drop(columns="amount"))
        with pytest.raises(GiveUp, match="'amount'"):
            endpoint.predict(make_rows(3).astype(object).assign(amount="much"))
        with pytest.raises(GiveUp, match=r"'amount'.*bytes"):
            endpoint.predict(make_rows(3).astype(object).assign(amount=b"much"))

    def test_swaps_under_load_without_a_seam(self, endpoint: Endpoint, models: Models) -> None:
        """While versions are swapped no request fails, and no answer mixes two versions."""
        pair = [models["1"], models["2"]]
        endpoint.deploy(pair[0].model, pair[0].folder)
        rows, over = make_rows(20), threading.Event()
        right = {trained.model.version: trained.scorer.score(rows) for trained in pair}

        def ask() -> list[str]:
            seen = []
            while not over.is_set():
                answer = endpoint.predict(rows)
                assert np.array_equal(answer.predictions, right[answer.version])
                seen.append(answer.version)
            return seen

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            try:
                for swap in range(1, self.swaps + 1):
                    trained = pair[swap % 2]
                    endpoint.deploy(trained.model, trained.folder)
                    assert endpoint.serving() == trained.model.version
            finally:
                over.set()
            answered = [thread.result() for thread in asking]
        assert all(answered)
        assert {version for seen in answered for version in seen} == {"1", "2"}

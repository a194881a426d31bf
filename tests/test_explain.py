"""An explanation tells the truth about models whose truth is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import EPOCH

from config.settings import Train
from handlers import train
from handlers.explain import BINS, MOST, SAMPLE, Explanation, explain
from handlers.judge import Champion
from handlers.measures import losses, measure
from handlers.rows import Columns, Part
from handlers.scorer import Scorer, Task

ROWS = 4000
COLUMNS = Columns(
    (("signal", "number"), ("noise", "number"), ("shop", "category"), ("at", "time"),
     ("new", "boolean")),
    "label", ("key",),
)  # fmt: skip


def part(seed: int, rows: int = ROWS, *, turned: bool = False, task: Task = "binary") -> Part:
    """Make rows whose label follows `signal`, the other way round in shop `b` if `turned`."""
    rng = np.random.default_rng(seed)
    signal, shop = rng.normal(size=rows), rng.choice(["a", "b", "c"], rows)
    frame = pd.DataFrame(
        {
            "signal": signal,
            "noise": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            "shop": shop,
            "at": pd.Timestamp(EPOCH) + pd.to_timedelta(rng.integers(0, 9, rows), "D"),
            "new": rng.random(rows) < 0.5,
        }
    )
    score = signal * np.where((shop == "b") & turned, -2.0, 2.0) + rng.normal(size=rows) * 0.5
    labels = {
        "binary": np.where(score > 0, "1", "0"),
        "multiclass": np.array(["low", "mid", "high"])[np.digitize(score, [-1, 1])],
        "regression": score,
    }
    return Part(frame, pd.Series(labels[task]))


def fit(rows: Part, task: Task = "binary", **parameters: Any) -> Scorer:
    """Train a small model."""
    settings = Train(rounds=30, parameters=parameters)
    return train.train(rows, COLUMNS, task, settings, lambda *_: None)


def explained(challenger: Scorer, held_out: Part, champion: Scorer | None = None) -> Explanation:
    """Explain, and show that it is plain data."""
    found = explain(challenger, Champion("1", champion) if champion else None, held_out)
    assert found is not None
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_column_that_decides_comes_first(task: Task) -> None:
    """Contributions and gains name it for every task; shares add up."""
    found = explained(fit(part(1, task=task), task), part(2, task=task))
    first = found["features"][0]
    assert first["name"] == "signal"
    assert first["share"] > 0.6
    assert first["gain"] > 0.6
    for share in ("share", "gain"):
        assert sum(item[share] for item in found["features"]) == pytest.approx(1.0)
    assert {item["name"] for item in found["features"]} == {n for n, _ in COLUMNS.features}
    assert found["against"] is None
    assert all(item["champion"] is None for item in found["features"])


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_contributions_add_up_to_the_prediction(task: Task) -> None:
    """They are exact: with the bias they give the margin of each row (local accuracy)."""
    scorer, rows = fit(part(1, task=task), task), part(2, 50, task=task).rows
    sums = scorer.contributions(rows).sum(axis=-1)
    scores = scorer.score(rows).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        margins = {
            "binary": np.log(scores / (1 - scores)), "multiclass": np.log(scores),
            "regression": scores,
        }  # fmt: skip
    margin = margins[task]
    bias = margin - sums
    spread = bias - bias.mean(axis=-1, keepdims=True) if task == "multiclass" else bias
    assert np.ptp(spread, axis=0) == pytest.approx(0, abs=2e-3)


def test_the_slice_on_which_the_rule_changed_is_named() -> None:
    """The challenger knows that shop `b` turned; elsewhere nothing tells them apart as clearly."""
    old, new = fit(part(1)), fit(part(3, turned=True))
    held_out = part(4, turned=True)
    found = explained(new, held_out, old)
    first = found["slices"][0]
    assert (first["slice"], first["rows"]) == ("shop = b", int((held_out.rows.shop == "b").sum()))
    assert first["champion"] - first["challenger"] > 10 * first["error"] > 0
    assert len(found["slices"]) <= MOST
    shares = {item["name"]: item for item in found["features"]}
    assert shares["shop"]["share"] > 3 * shares["shop"]["champion"]
    assert found["against"] == "1"


def test_calibration_and_confusion_count_every_row() -> None:
    """Bins hold as many rows each; a good model's predictions come true as often as it says."""
    held_out = part(2)
    found = explained(fit(part(1)), held_out)
    bins = found["calibration"]
    assert [item["rows"] for item in bins] == [ROWS // BINS] * BINS
    for item in bins:
        assert item["observed"] == pytest.approx(item["predicted"], abs=0.08)
    assert found["confusion"]["classes"] == ["0", "1"]
    (tn, fp), (fn, tp) = found["confusion"]["counts"]
    assert tn + fp + fn + tp == found["rows"] == ROWS
    accuracy = measure(fit(part(1)), held_out)["accuracy"]
    assert (tn + tp) / ROWS == pytest.approx(accuracy)


def test_a_class_that_the_model_does_not_know_is_counted() -> None:
    """It has a row of the confusion, and no column."""
    held_out = part(2, 100, task="multiclass")
    strange = Part(held_out.rows, held_out.labels.where(held_out.labels != "low", "other"))
    found = explained(fit(part(1, task="multiclass"), "multiclass"), strange)
    assert found["confusion"]["classes"] == ["high", "low", "mid", "other"]
    assert sum(map(sum, found["confusion"]["counts"])) == 100
    assert {len(row) for row in found["confusion"]["counts"]} == {3}


def test_what_cannot_be_explained_hinders_nothing() -> None:
    """No held-out rows, one row, a champion of other columns, a linear booster."""
    challenger, none = fit(part(1)), part(2, 0)
    assert explain(challenger, None, none) is None
    assert explained(challenger, part(2, 1))["rows"] == 1
    columns = Columns((("other", "number"),), "label", ("key",))
    rows = Part(pd.DataFrame({"other": np.arange(50.0)}), pd.Series(["0", "1"] * 25))
    stranger = train.train(rows, columns, "binary", Train(rounds=2), lambda *_: None)
    found = explained(challenger, part(2, 60), stranger)
    assert (found["against"], found["slices"]) == (None, [])
    numbers = Columns((("signal", "number"), ("noise", "number")), "label", ("key",))
    linear = train.train(
        part(1), numbers, "binary",
        Train(rounds=2, strategy="fresh", parameters={"booster": "gblinear"}), lambda *_: None,
    )  # fmt: skip
    assert [item["gain"] for item in explained(linear, part(2))["features"]] == [0.0, 0.0]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_losses_are_those_that_the_metric_averages(task: Task) -> None:
    """Their mean is log loss, or the square of RMSE."""
    scorer, held_out = fit(part(1, task=task), task), part(2, task=task)
    scores, mean = measure(scorer, held_out), losses(scorer, held_out).mean()
    expected = scores["rmse"] ** 2 if task == "regression" else scores["log_loss"]
    assert mean == pytest.approx(expected)


def test_many_rows_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contributions cost the same however many rows were held out, and see all of their range."""
    held_out, seen = part(2, 3 * SAMPLE), []
    true = Scorer.contributions

    def contributions(self: Scorer, rows: pd.DataFrame) -> Any:
        seen.append(rows)
        return true(self, rows)

    monkeypatch.setattr(Scorer, "contributions", contributions)
    assert explained(fit(part(1)), held_out)["rows"] == 3 * SAMPLE
    (sample,) = seen
    assert len(sample) == SAMPLE
    for end in (0, -1):
        assert sample.iloc[end].equals(held_out.rows.iloc[end])

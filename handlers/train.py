"""Runs XGBoost on rows; which ones, and what becomes of the model, `strategies` says."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb

from config.settings import ConfigError, Train
from handlers.facts import GiveUp, Progress
from handlers.rows import Columns, Part
from handlers.scorer import Feature, FeatureKind, Scorer, Task

GENTLE: Mapping[str, Any] = {
    "max_depth": 4,
    "eta": 0.1,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "lambda": 2.0,
    "tree_method": "hist",
}
"""Defaults for small deltas; XGBoost's own overfit them badly."""


WIDEST = float(np.sqrt(np.finfo(np.float32).max))
"""Sum of gradients whose square still fits a float32, as which XGBoost weighs its splits."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a strategy learns from, and what both models are judged on."""

    train: Part
    held_out: Part
    unlabelled: int


def train(
    part: Part, columns: Columns, task: Task, settings: Train, progress: Progress,
    classes: tuple[str, ...] = (),
) -> Scorer:  # fmt: skip
    """Train a model on rows in canonical order: the same rows give the same bytes.

    The model tells the given `classes`, if the rows hold no others; else those that they hold.

    Raises:
        GiveUp: the labels do not fit the task (one class, more than two, no number), or
            XGBoost refuses them.
        TryLater: a stop was asked for.
    """
    found = classes_of(part.labels, task)
    told = classes if set(found) <= set(classes) else found
    features = tuple(
        _feature(name, kind, part.rows[name], settings) for name, kind in columns.features
    )
    blank = Scorer(task, features, told, xgb.Booster())
    wanted = parameters(task, len(told), settings)
    booster = _boost(wanted, _matrix(blank, part, settings), settings.rounds, progress)
    return replace(blank, booster=booster)


def grow(scorer: Scorer, part: Part, settings: Train, progress: Progress) -> Scorer:
    """Add a few shrunk rounds to a model; its features, its classes and its constant stay.

    Raises: as `train`.
    """
    classes_of(part.labels, scorer.task)
    wanted = parameters(scorer.task, len(scorer.classes), settings)
    wanted["eta"] = settings.continue_eta
    matrix = _matrix(scorer, part, settings)
    booster = _boost(wanted, matrix, settings.continue_rounds, progress, scorer.booster)
    return replace(scorer, booster=booster)


def _matrix(scorer: Scorer, part: Part, settings: Train) -> xgb.DMatrix:
    target = _target(part.labels, scorer.task, scorer.classes)
    count = len(scorer.classes)
    return xgb.DMatrix(
        scorer.matrix(part.rows), target,
        weight=_balanced(target, count) if settings.balance and count else None,
        feature_names=scorer.names, feature_types=scorer.feature_types,
        enable_categorical=True, nthread=settings.threads,
    )  # fmt: skip


def parameters(task: Task, classes: int, settings: Train) -> dict[str, Any]:
    """Give the XGBoost parameters: gentle, then the configured, then those the task fixes."""
    objectives: Mapping[Task, Mapping[str, Any]] = {
        "binary": {"objective": "binary:logistic", "eval_metric": "logloss"},
        "multiclass": {
            "objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": classes,
        },
        "regression": {"objective": "reg:squarederror", "eval_metric": "rmse"},
    }  # fmt: skip
    fixed = {"seed": settings.seed, "nthread": settings.threads, "verbosity": 1}
    return {**GENTLE, **settings.parameters, **objectives[task], **fixed}


def check_parameters(task: Task, settings: Train) -> None:
    """Try the parameters on a handful of rows, before any delta depends on them.

    Raises:
        ConfigError: XGBoost refuses a value or does not know a parameter.
    """
    given = f"train.parameters {settings.parameters}"
    # A number and a category: some tree methods refuse the latter only once they meet one.
    rows = np.column_stack([np.arange(8), np.arange(8) % 3]).astype(np.float32)
    matrix = xgb.DMatrix(
        rows, np.arange(8) % 2, feature_types=["q", "c"], enable_categorical=True
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _boost(parameters(task, 2, settings), matrix, 1, lambda *_: None)
        except GiveUp as error:  # XGBoost often tells the bad value, but not its name
            msg = f"{given}: {error.what}"
            raise ConfigError(msg) from error
    if unused := [str(w.message) for w in caught if "are not used" in str(w.message)]:
        msg = f"{given}: XGBoost does not know all of them: {unused[0].strip()}"
        raise ConfigError(msg)


def _boost(
    wanted: Mapping[str, Any], matrix: xgb.DMatrix, rounds: int, progress: Progress,
    grown: xgb.Booster | None = None,
) -> xgb.Booster:  # fmt: skip
    class Report(xgb.callback.TrainingCallback):
        """Tells each round, and so notices between two rounds that a stop was asked for."""

        def after_iteration(self, model: object, epoch: int, evals_log: object) -> bool:  # noqa: ARG002 (XGBoost's contract)
            progress("training", epoch + 1, rounds)
            return False

    try:
        return xgb.train(dict(wanted), matrix, rounds, xgb_model=grown, callbacks=[Report()])
    except xgb.core.XGBoostError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise GiveUp(
            f"XGBoost refuses: {lines[0]}",
            "Correct the rows or `train.parameters`, then `retraind retry`.",
        ) from error


def classes_of(labels: pd.Series[Any], task: Task) -> tuple[str, ...]:
    """Name the classes in numeric order where they are numbers, else in text order."""
    if task == "regression":
        return ()
    if labels.empty:
        raise _nothing_left()
    seen = sorted(set(labels), key=_rank)
    shown = ", ".join(map(repr, seen[:10]))
    if len(seen) < 2:  # noqa: PLR2004 (two classes are what a comparison needs)
        raise GiveUp(
            f"The {len(labels)} training rows hold {len(seen)} class(es): {shown}.",
            "A model needs at least two; correct the batch, then `retraind retry`, or learn from "
            "earlier rows as well (`train.strategy`: full, window, ensemble).",
        )
    if task == "binary" and len(seen) > 2:  # noqa: PLR2004
        raise GiveUp(
            f"The label has {len(seen)} values ({shown}), but the task is binary.",
            "Set `task: multiclass`, or correct the labels, then `retraind retry`.",
        )
    return tuple(seen)


def _nothing_left() -> GiveUp:
    return GiveUp(
        "No row is left to learn from: every labelled one is held out.",
        "Append more, then `retraind retry`; if it recurs, see that `row_key` tells rows apart.",
    )


def _rank(name: str) -> tuple[bool, float, str]:
    try:
        number = float(name)
    except ValueError:
        number = np.nan
    return (True, 0.0, name) if np.isnan(number) else (False, number, name)


def _target(labels: pd.Series[Any], task: Task, classes: tuple[str, ...]) -> np.ndarray[Any, Any]:
    if task != "regression":
        codes = {name: code for code, name in enumerate(classes)}
        return labels.map(codes).to_numpy(np.float32)
    if labels.empty:
        raise _nothing_left()
    target = labels.to_numpy(np.float64)
    fit = np.abs(target) <= np.finfo(np.float32).max  # false for NaN, too
    if not fit.all() or np.ptp(target) == 0:
        raise GiveUp(
            f"The {len(target)} training labels are all the same, or not all finite (float32).",
            "Correct the labels, then `retraind retry`.",
        )
    if np.abs(target - target.mean()).sum() >= WIDEST:
        raise GiveUp(
            f"The {len(target)} training labels are so large, up to {np.abs(target).max():.1e}, "
            f"that sums of them overflow in XGBoost, which would learn nothing without a word.",
            "Predict them in a larger unit, then `retraind retry`.",
        )
    return target


def _balanced(target: np.ndarray[Any, Any], classes: int) -> np.ndarray[Any, Any]:
    """Weigh rows so that every class has the same total weight (as scikit-learn's `balanced`)."""
    counts = np.maximum(np.bincount(target.astype(int), minlength=classes), 1)
    weights: np.ndarray[Any, Any] = (len(target) / (classes * counts))[target.astype(int)]
    return weights


def _feature(name: str, kind: FeatureKind, values: pd.Series[Any], settings: Train) -> Feature:
    """Fix the categories: the most frequent values, ties by text, listed in text order."""
    if kind != "category":
        return Feature(name, kind)
    counts = values.dropna().value_counts()
    ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    kept = sorted(str(value) for value, _ in ranked[: settings.max_categories])
    return Feature(name, kind, tuple(kept))

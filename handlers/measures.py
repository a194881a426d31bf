"""Measures a model on rows: its losses row by row, and every metric of the task. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics

from handlers.facts import Scores
from handlers.rows import Part
from handlers.scorer import Scorer

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error", "rmse", "mae"})
WORDS = {
    "log_loss": "log loss",
    "auc": "AUC",
    "average_precision": "average precision",
    "calibration_error": "calibration error",
    "f1": "F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}
_EPSILON = 1e-15
_BINS = 10
Array = np.ndarray[Any, np.dtype[Any]]


def word(metric: str) -> str:
    """Name a metric for people."""
    return WORDS.get(metric, metric)


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model, or a constant in its stead, says of some rows; the model names the classes."""

    model: Scorer
    scores: Array

    def take(self, rows: Array) -> Scored:
        """Give the scores of these rows only, by position."""
        return Scored(self.model, self.scores[rows])


def score(model: Scorer, part: Part) -> Scored:
    """Let a model score rows; raises as `Scorer.score`."""
    return Scored(model, model.score(part.rows))


def constant(model: Scorer, labels: pd.Series[Any], count: int) -> Scored:
    """Score so many rows by what these labels alone tell: their mean, or their shares."""
    if model.task == "regression":
        return Scored(model, np.full(count, labels.mean()))
    shares = labels.value_counts(normalize=True).reindex(list(model.classes)).fillna(0).to_numpy()
    binary = model.task == "binary"
    return Scored(model, np.full(count, shares[1]) if binary else np.tile(shares, (count, 1)))


def losses(model: Scorer, part: Part) -> Array:
    """Give each row's loss by the task's proper score, shape (n,): log loss, or squared error."""
    return row_losses(score(model, part), part.labels)


def row_losses(said: Scored, labels: pd.Series[Any]) -> Array:
    """Give the same for what was said of the rows before."""
    if said.model.task == "regression":
        errors: Array = (said.scores.astype(np.float64) - labels.to_numpy(np.float64)) ** 2
        return errors
    return _log_losses(_of_truth(labels.to_numpy(str), *_matrix(said)))


def hits(said: Scored, labels: pd.Series[Any]) -> Array:
    """Say for each row whether the likeliest class is the true one, shape (n,)."""
    matrix, classes = _matrix(said)
    right: Array = classes[matrix.argmax(axis=1)] == labels.to_numpy(str)
    return right


def measure(model: Scorer, part: Part) -> Scores:
    """Give every metric of the task that is defined on these rows; {} if there are none."""
    return measure_said(score(model, part), part.labels) if len(part.rows) else {}


def measure_said(said: Scored, labels: pd.Series[Any]) -> Scores:
    """Give the same for what was said of the rows before."""
    if labels.empty:
        return {}
    if said.model.task == "regression":
        return _regression(labels.to_numpy(np.float64), said.scores.astype(np.float64))
    matrix, classes = _matrix(said)
    binary = said.model.task == "binary"
    return _classification(labels.to_numpy(str), matrix, classes, binary=binary)


def _matrix(said: Scored) -> tuple[Array, Array]:
    """Give probabilities, shape (n, k), and the names of the classes."""
    matrix = said.scores.astype(np.float64)
    if said.model.task == "binary":
        matrix = np.column_stack([1 - matrix, matrix])
    return matrix, np.array(said.model.classes, dtype=str)


def _of_truth(truth: Array, matrix: Array, classes: Array) -> Array:
    """Give the probability of each row's class; one that the model does not know has none."""
    known = _known(truth, classes)
    found: Array = np.where(known >= 0, matrix[np.arange(len(truth)), known], 0.0)
    return found


def _known(truth: Array, classes: Array) -> Array:
    code = {name: position for position, name in enumerate(classes)}
    return np.array([code.get(name, -1) for name in truth])


def _log_losses(of_truth: Array) -> Array:
    found: Array = -np.log(np.clip(of_truth, _EPSILON, 1.0))
    return found


def _regression(truth: Array, predicted: Array) -> Scores:
    found = {
        "rmse": float(metrics.root_mean_squared_error(truth, predicted)),
        "mae": float(metrics.mean_absolute_error(truth, predicted)),
    }
    if len(truth) > 1 and np.ptp(truth) > 0:
        found["r2"] = float(metrics.r2_score(truth, predicted))
    return found


def _classification(truth: Array, matrix: Array, classes: Array, *, binary: bool) -> Scores:
    """Score probabilities, shape (n, k)."""
    known = _known(truth, classes)
    guessed = classes[matrix.argmax(axis=1)]
    found = {
        "log_loss": float(_log_losses(_of_truth(truth, matrix, classes)).mean()),
        "accuracy": float((guessed == truth).mean()),
    }
    if binary:
        return found | _binary(known == 1, matrix[:, 1])
    found["f1"] = float(metrics.f1_score(truth, guessed, average="macro", zero_division=0.0))
    if len(set(truth)) == len(classes) and (known >= 0).all():
        scores = matrix if len(classes) > 2 else matrix[:, 1]  # noqa: PLR2004 (as sklearn asks)
        found["auc"] = float(metrics.roc_auc_score(known, scores, multi_class="ovr"))
    return found


def _binary(positive: Array, probability: Array) -> dict[str, float]:
    guessed = probability > 0.5  # noqa: PLR2004 (as argmax decides a tie, for the accuracy)
    found = {
        "brier": float(np.mean((probability - positive) ** 2)),
        "f1": float(metrics.f1_score(positive, guessed, zero_division=0.0)),
        "recall": float(metrics.recall_score(positive, guessed, zero_division=0.0)),
    }
    found["calibration_error"] = _calibration_error(positive, probability)
    if positive.any() and not positive.all():
        found["auc"] = float(metrics.roc_auc_score(positive, probability))
        found["average_precision"] = float(metrics.average_precision_score(positive, probability))
    return found


def _calibration_error(positive: Array, probability: Array) -> float:
    """Give the expected calibration error over bins of as many rows each.

    Naeini, Cooper and Hauskrecht, Obtaining Well Calibrated Probabilities, AAAI 2015.
    """
    ordered = np.argsort(probability, kind="stable")
    bins = np.array_split(ordered, min(_BINS, len(ordered)))
    apart = [abs(probability[rows].mean() - positive[rows].mean()) * len(rows) for rows in bins]
    return float(sum(apart) / len(ordered))

"""Judges the challenger against the champion on the same held-out rows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics

from config.settings import Pipeline
from handlers.drift import Profile
from handlers.facts import Decision, Scores, Verdict
from handlers.rows import Part
from handlers.scorer import BadInput, Scorer

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "rmse", "mae"})
WORDS = {
    "log_loss": "log loss",
    "auc": "AUC",
    "average_precision": "average precision",
    "f1": "F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}
_EPSILON = 1e-15
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Champion:
    """The serving model, its version, and the profile of what it learnt from, if that is known."""

    version: str
    scorer: Scorer
    profile: Profile | None = None


def judge(
    pipeline: Pipeline, challenger: Scorer, champion: Champion | None, train: Part, held_out: Part
) -> Verdict:
    """Compare on rows that neither model has trained on.

    The champion is always scored again: a stored score belongs to other rows. Where there is no
    champion, or one that cannot score the rows any more, the challenger must beat the trivial
    predictor (the training labels' class frequencies, or their mean).
    """
    metric, rows = pipeline.metric, len(held_out.rows)
    scores, trivial = measure(challenger, held_out), _measure_trivial(challenger, train, held_out)
    theirs, unfit = _measure_champion(champion, held_out)
    rival = trivial if theirs is None else theirs
    gain = _gain(metric, scores, rival)
    doubt = _doubt(pipeline, gain, rows)
    whose = f"champion {champion.version}'s" if champion and theirs else "the trivial predictor's"
    outcome = f"kept champion {champion.version}" if champion else "promoted nothing"
    compared = f"{rows} held-out rows"
    if gain is not None:
        word = WORDS.get(metric, metric)
        compared = f"{word} {scores[metric]:.4f} against {whose} {rival[metric]:.4f} on {compared}"
    return Verdict(
        decision=Decision.PROMOTE if doubt is None else Decision.KEEP,
        sentence=f"{'promoted' if doubt is None else outcome}: {unfit}{compared}{doubt or ''}",
        metric=metric,
        rows=rows,
        challenger=scores,
        champion=theirs,
        trivial=trivial,
        gain=gain,
        against=champion.version if champion else None,
    )


def losses(model: Scorer, part: Part) -> Array:
    """Give each row's loss by the task's proper score, shape (n,): log loss, or squared error."""
    scores = model.score(part.rows).astype(np.float64)
    if model.task == "regression":
        errors: Array = (scores - part.labels.to_numpy(np.float64)) ** 2
        return errors
    return _log_losses(_of_truth(part.labels.to_numpy(str), *_matrix(model, scores)))


def _measure_champion(champion: Champion | None, held_out: Part) -> tuple[Scores | None, str]:
    """Score the champion on the rows, or say why it cannot be."""
    if champion is None:
        return None, "no champion yet, and "
    try:
        return measure(champion.scorer, held_out), ""
    except BadInput as error:
        return None, f"champion {champion.version} cannot score these rows ({error}), and "


def _doubt(pipeline: Pipeline, gain: float | None, rows: int) -> str | None:
    """Say why the challenger is not promoted; None if nothing speaks against it."""
    margin, least = pipeline.promote.min_gain, pipeline.promote.min_held_out
    if rows < least:
        return f", where at least {least} are asked for a promotion"
    if gain is None:
        return f", on which {WORDS.get(pipeline.metric, pipeline.metric)} cannot be computed"
    if gain > margin:
        return None
    return f", a gain of {gain:+.4f} where more than {margin:.4f} is asked" if gain > 0 else ""


def _gain(metric: str, scores: Scores, rival: Scores) -> float | None:
    """Give by how much the challenger is better; None where the metric is undefined."""
    if metric not in scores or metric not in rival:
        return None
    difference = scores[metric] - rival[metric]
    return -difference if metric in LOWER_IS_BETTER else difference


def measure(model: Scorer, part: Part) -> Scores:
    """Give every metric of the task that is defined on these rows; {} if there are none."""
    if part.rows.empty:
        return {}
    return _measures(model, part.labels, model.score(part.rows))


def _measure_trivial(model: Scorer, train: Part, held_out: Part) -> Scores:
    if held_out.rows.empty:
        return {}
    count = len(held_out.rows)
    if model.task == "regression":
        return _measures(model, held_out.labels, np.full(count, train.labels.mean()))
    shares = train.labels.value_counts(normalize=True).reindex(list(model.classes)).to_numpy()
    binary = model.task == "binary"
    constant = np.full(count, shares[1]) if binary else np.tile(shares, (count, 1))
    return _measures(model, held_out.labels, constant)


def _measures(model: Scorer, labels: pd.Series[Any], scores: Array) -> Scores:
    if model.task == "regression":
        return _regression(labels.to_numpy(np.float64), scores.astype(np.float64))
    matrix, classes = _matrix(model, scores)
    return _classification(labels.to_numpy(str), matrix, classes, binary=model.task == "binary")


def _matrix(model: Scorer, scores: Array) -> tuple[Array, Array]:
    """Give probabilities, shape (n, k), and the names of the classes."""
    matrix = scores.astype(np.float64)
    if model.task == "binary":
        matrix = np.column_stack([1 - matrix, matrix])
    return matrix, np.array(model.classes, dtype=str)


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
    if positive.any() and not positive.all():
        found["auc"] = float(metrics.roc_auc_score(positive, probability))
        found["average_precision"] = float(metrics.average_precision_score(positive, probability))
    return found

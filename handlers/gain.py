"""By how much one model is better than another on the same rows, and how sure that is. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from handlers.facts import Look, Scores
from handlers.measures import LOWER_IS_BETTER, Array, Scored, hits, measure_said, row_losses
from handlers.rows import Part

REPLICATES = 200
MOST = 10_000
"""Rows that are resampled; the error of more is scaled from that of these."""
POWER = 0.8


def compare(metric: str, ours: Scored, theirs: Scored, part: Part) -> Look | None:
    """Compare what two models say of the same rows; None where the metric is undefined on them.

    Means over rows get the standard error that the cluster bootstrap by entity converges to
    (Cameron and Miller, A Practitioner's Guide to Cluster-Robust Inference, 2015); the other
    metrics are bootstrapped by entity.
    """
    rowwise = _rowwise(metric, ours, theirs, part.labels)
    if rowwise is not None:
        error = clustered(rowwise, part.buckets)
        return Look(len(rowwise), float(rowwise.mean()), error) if len(rowwise) else None
    gain = difference(
        metric, measure_said(ours, part.labels), measure_said(theirs, part.labels)
    )  # fmt: skip
    if gain is None:
        return None
    return Look(len(part.labels), gain, _bootstrapped(metric, ours, theirs, part))


def mean_loss(said: Scored, part: Part) -> Look:
    """Give the mean loss by the task's proper score, told as a look."""
    losses = row_losses(said, part.labels)
    return Look(len(losses), float(losses.mean()), clustered(losses, part.buckets))


def detectable(look: Look, level: float) -> float | None:
    """Give the gain that a look with this error shows with a power of 0.8, one-sided."""
    return max(0.0, float((norm.isf(level) + norm.ppf(POWER)) * look.error)) if look.error else None


def difference(metric: str, mine: Scores, theirs: Scores) -> float | None:
    """Give by how much the first scores are better; None where the metric is undefined."""
    if metric not in mine or metric not in theirs:
        return None
    apart = mine[metric] - theirs[metric]
    return -apart if metric in LOWER_IS_BETTER else apart


def _rowwise(metric: str, ours: Scored, theirs: Scored, labels: pd.Series[Any]) -> Array | None:
    """Give the gains row by row whose mean is the gain, shape (n,); None if there are none such."""
    if metric == "r2" and not (len(labels) and np.ptp(labels.to_numpy(np.float64))):
        return None
    if metric in {"log_loss", "rmse", "r2"}:
        mine, other = row_losses(ours, labels), row_losses(theirs, labels)
        scale = 1.0
        if metric == "rmse":  # a difference of roots is that of the squares over the roots' sum
            scale = math.sqrt(mine.mean()) + math.sqrt(other.mean())
        elif metric == "r2":
            scale = float(labels.to_numpy(np.float64).var())
        return np.asarray((other - mine) / (scale or 1.0))
    if metric == "mae":
        truth = labels.to_numpy(np.float64)
        return np.asarray(np.abs(theirs.scores - truth) - np.abs(ours.scores - truth))
    if metric == "accuracy":
        return np.asarray(hits(ours, labels).astype(float) - hits(theirs, labels))
    return None


def clustered(values: Array, entities: Array | None) -> float | None:
    """Give the standard error of a mean of rows that belong to entities, both of shape (n,)."""
    apart = values - values.mean()
    sums = apart if entities is None else np.bincount(_numbered(entities), weights=apart)
    count = len(sums)
    if count < 2:  # noqa: PLR2004 (one entity tells nothing of its kind)
        return None
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values))


def _bootstrapped(metric: str, ours: Scored, theirs: Scored, part: Part) -> float | None:
    """Give the standard error of a gain over resampled entities; None if mostly undefined."""
    chance, count = np.random.default_rng(0), len(part.labels)
    rows = chance.permutation(count)[:MOST]
    entities = rows if part.buckets is None else part.buckets[rows]
    numbers = _numbered(entities)
    sides = [_measured(metric, said.take(rows), part.labels.iloc[rows]) for said in (ours, theirs)]
    gains = []
    for _ in range(REPLICATES):
        drawn = chance.integers(0, numbers.max() + 1, numbers.max() + 1)
        weights = np.bincount(drawn, minlength=len(drawn))[numbers]
        mine, other = (side(weights) for side in sides)
        gains += [] if mine is None or other is None else [mine - other]
    if len(gains) < REPLICATES / 2:
        return None
    return float(np.std(gains, ddof=1) * math.sqrt(len(rows) / count))


Weighted = Callable[[Array], float | None]
"""Gives a metric where each row counts so many times, weights of shape (n,)."""


def _measured(metric: str, said: Scored, labels: pd.Series[Any]) -> Weighted:
    if said.model.task != "binary":

        def again(weights: Array) -> float | None:
            rows = np.repeat(np.arange(len(weights)), weights)
            return measure_said(said.take(rows), labels.iloc[rows]).get(metric)

        return again
    positive = labels.to_numpy(str) == said.model.classes[1]
    levels, level = np.unique(said.scores.astype(np.float64), return_inverse=True)

    def at(weights: Array) -> float | None:
        ones = np.bincount(level, weights * positive, len(levels))
        zeros = np.bincount(level, weights * ~positive, len(levels))
        return _binary(metric, levels, ones, zeros)

    return at


def _binary(metric: str, levels: Array, ones: Array, zeros: Array) -> float | None:
    """Give a metric from the rows of each class at each score, in ascending order."""
    positives, negatives = ones.sum(), zeros.sum()
    guessed = levels > 0.5  # noqa: PLR2004 (as `measures` decides)
    hit, false = ones[guessed].sum(), zeros[guessed].sum()
    if metric == "recall":
        return float(hit / positives) if positives else 0.0
    if metric == "f1":
        return float(2 * hit / (hit + false + positives)) if hit + false + positives else 0.0
    if not positives or not negatives:
        return None
    if metric == "auc":
        below = np.cumsum(zeros) - zeros / 2
        return float((ones * below).sum() / (positives * negatives))
    above, wrong = np.cumsum(ones[::-1]), np.cumsum(zeros[::-1])
    precision = np.divide(above, above + wrong, out=np.zeros_like(above), where=above + wrong > 0)
    return float((ones[::-1] * precision).sum() / positives)  # average precision


def _numbered(entities: Array) -> Array:
    found: Array = np.unique(entities, return_inverse=True)[1]
    return found

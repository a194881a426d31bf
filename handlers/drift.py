"""How far rows, and what a model predicts on them, moved from the rows that it learnt from.

Pure. An effect size is told, not a p-value: with many rows every difference is significant. It is
the population stability index, the sum over bins of `(p - q) * ln(p / q)`, of which credit risk
calls 0.1 moderate and 0.25 large. Without any drift it is about `(1/n + 1/m)` times a chi-square
of `bins - 1` degrees of freedom (Yurdakul 2018, Statistical Properties of Population Stability
Index, Western Michigan University), so its mean is taken off, and what chance alone may bring is
told to be unclear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import structlog
from pydantic import TypeAdapter
from scipy.stats import chi2

from handlers.facts import Drifted, Size
from handlers.scorer import BadInput, Feature, Scorer

BINS = 10
"""Bins of about as many rows each."""
ALONE = 0.05
"""Share of the rows from which on a value has a bin of its own."""
MOST = 20
"""Columns that are told of."""
LEAST = 50
"""Rows that both sides must have: five for each bin."""
FLOOR = 0.001
"""Share that an empty bin counts as at least: one new value is no large drift."""
CHANCE = 0.001
"""How often rows without drift may be told to have some, over all columns together."""
LONGEST = 60
"""Characters of a value that are told."""
MODERATE, LARGE = 0.1, 0.25
PREDICTION = "prediction"

log = structlog.get_logger(__name__)
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Bins:
    """Counts of rows: of each bin, for a category of values the model never saw, then missing.

    A number lies in the first bin whose upper end in `edges` it does not exceed, or in the last;
    a category does so by its place among the model's values.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """How the rows lie that a model learnt from: by column, and by what it predicts."""

    rows: int
    columns: Mapping[str, Bins]
    predictions: Bins


PROFILE = TypeAdapter(Profile)


def profile(scorer: Scorer, rows: pd.DataFrame) -> Profile:
    """Describe the rows that a model learnt from."""
    return Profile(
        rows=len(rows),
        columns={f.name: _describe(f, rows[f.name]) for f in scorer.features},
        predictions=_describe(*_predicted(scorer, rows)),
    )


def write(found: Profile, path: Path) -> None:
    """Write a profile; the same one gives the same bytes."""
    path.write_bytes(PROFILE.dump_json(found))


def read(path: Path) -> Profile | None:
    """Read a profile that `write` wrote; None if there is none: early models have none."""
    try:
        return PROFILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:  # a model without its profile is judged and served all the same
        log.warning("profile_damaged", file=str(path), error=str(error).splitlines()[0])
        return None


def drift(known: Profile | None, scorer: Scorer, rows: pd.DataFrame) -> tuple[Drifted, ...]:
    """Hold rows against the profile of a model: the `MOST` that moved furthest, furthest first.

    Columns that the rows lack, or that hold something else now, are left out, and without them
    the predictions too. Nothing is told of fewer than `LEAST` rows, or without a profile.
    """
    if known is None or min(known.rows, len(rows)) < LEAST:
        return ()
    tests = len(known.columns) + 1
    found = [
        _compare("feature", feature, known.columns[feature.name], counts, tests)
        for feature in scorer.features
        if (counts := _recount(feature, known.columns[feature.name], rows)) is not None
    ]
    if len(found) == len(scorer.features):
        feature, scores = _predicted(scorer, rows)
        counts = _count(feature, known.predictions, scores)
        found.append(_compare("prediction", feature, known.predictions, counts, tests))
    order: tuple[Size, ...] = ("large", "moderate", "unclear", "small")
    return tuple(
        sorted(found, key=lambda item: (order.index(item.size), -item.psi, item.name))[:MOST]
    )


def psi(expected: Array, actual: Array) -> tuple[float, Array]:
    """Give the index of two sets of counts, shape (bins,), less its mean without drift.

    Beside it what each bin adds to the raw index, shape (bins,).
    """
    n, m = expected.sum(), actual.sum()
    least = max(FLOOR, 0.5 / min(n, m))
    q, p = np.maximum(expected / n, least), np.maximum(actual / m, least)
    parts = (p - q) * np.log(p / q)
    without = _freedom(expected, actual) * (1 / n + 1 / m)
    return max(0.0, float(parts.sum() - without)), parts


def _freedom(expected: Array, actual: Array) -> int:
    return max(0, int(((expected + actual) > 0).sum()) - 1)


def _compare(
    kind: Literal["feature", "prediction"], feature: Feature, bins: Bins, actual: Array, tests: int
) -> Drifted:
    expected = np.array(bins.counts)
    found, parts = psi(expected, actual)
    n, m = expected.sum(), actual.sum()
    chance = chi2.ppf(1 - CHANCE / tests, max(1, _freedom(expected, actual))) * (1 / n + 1 / m)
    size: Size = "large" if found >= LARGE else "moderate" if found >= MODERATE else "small"
    if size != "small" and parts.sum() <= chance:
        size = "unclear"
    most = int(parts.argmax())
    shares = f"{expected[most] / n:.1%} then, {actual[most] / m:.1%} now"
    told = f"{_label(feature, bins, most)}: {shares}" if parts[most] > 0 else ""
    return Drifted(feature.name, kind, round(found, 4), size, told)


def _describe(feature: Feature, values: pd.Series[Any]) -> Bins:
    encoded = feature.encode(values)
    bins = Bins(_edges(encoded[np.isfinite(encoded)]), ())
    return replace(bins, counts=tuple(_count(feature, bins, values).tolist()))


def _edges(values: Array) -> tuple[float, ...]:
    """Cut at quantiles, and around each value that many rows have."""
    found, counts = np.unique(values, return_counts=True)
    if not found.size:
        return ()
    upto = np.cumsum(counts) / counts.sum()
    quantiles = np.searchsorted(upto, np.arange(1, BINS) / BINS - 1e-9)
    often = np.flatnonzero(counts > ALONE * counts.sum())
    cuts = np.unique(np.concatenate([quantiles, often, often - 1]))
    # The shortest text that is read back as the same float32 keeps the profile small.
    return tuple(float(str(edge)) for edge in found[cuts[cuts >= 0]])


def _recount(feature: Feature, bins: Bins, rows: pd.DataFrame) -> Array | None:
    if feature.name not in rows:
        return None
    try:
        return _count(feature, bins, rows[feature.name])
    except BadInput:
        return None


def _count(feature: Feature, bins: Bins, values: pd.Series[Any]) -> Array:
    """Count rows by bin, as `Bins` says."""
    encoded = feature.encode(values)
    codes = np.searchsorted(np.array(bins.edges, np.float32), encoded, side="left")
    gap, last = ~np.isfinite(encoded), len(bins.edges) + 1
    codes[gap] = last
    if feature.kind == "category":
        last += 1
        codes[gap & values.isna().to_numpy(bool)] = last
    return np.bincount(codes, minlength=last + 1)


def _predicted(scorer: Scorer, rows: pd.DataFrame) -> tuple[Feature, pd.Series[Any]]:
    """Give what a model predicts as a column of its own: probability, value, or likeliest class."""
    scores = scorer.score(rows)
    if scorer.task == "multiclass":
        likeliest = np.array(scorer.classes, object)[scores.argmax(axis=1)]
        return Feature(PREDICTION, "category", scorer.classes), pd.Series(likeliest)
    return Feature(PREDICTION, "number"), pd.Series(scores)


def _label(feature: Feature, bins: Bins, place: int) -> str:
    """Say what the rows of a bin have in common."""
    if place == len(bins.counts) - 1:
        return "missing"
    if place > len(bins.edges):
        return "values it never saw"
    if feature.kind in ("category", "boolean"):
        names = feature.categories or ("false", "true")
        first = int(bins.edges[place - 1]) + 1 if place else 0
        final = int(bins.edges[place]) if place < len(bins.edges) else len(names) - 1
        low, high = short(names[first]), short(names[final])
        return low if first >= final else f"{low} to {high}"
    show = moment if feature.kind == "time" else "{:.6g}".format
    above = [f"> {show(bins.edges[place - 1])}"] if place else []
    below = [f"<= {show(bins.edges[place])}"] if place < len(bins.edges) else []
    return " and ".join(above + below) or "any value"


def short(value: str) -> str:
    """Write a value that may be a whole text."""
    return value if len(value) <= LONGEST else f"{value[:LONGEST]}..."


def moment(days: float) -> str:
    """Write a time that a scorer encoded, in days since 1970."""
    return f"{pd.Timestamp(days, unit='D'):%Y-%m-%d %H:%M:%S}"

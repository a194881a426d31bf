"""Cuts rows into slices by the features of a model. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

from handlers.drift import moment, short
from handlers.measures import Array
from handlers.scorer import Scorer


def slices(
    scorer: Scorer, rows: pd.DataFrame, only: Collection[str] | None = None
) -> Iterator[tuple[str, Array]]:
    """Cut the rows by each feature: quarters of a number, values of anything else, and gaps.

    Gives the name of each slice and which rows are in it, shape (n,).
    """
    encoded = scorer.matrix(rows)
    for position, feature in enumerate(scorer.features):
        if only is not None and feature.name not in only:
            continue
        values = encoded[:, position]
        blank = np.isnan(values)
        yield f"{feature.name} is missing", blank
        if feature.kind == "number":
            yield from _quarters(feature.name, values, blank, lambda edge: f"{edge:.6g}")
        elif feature.kind == "time":
            yield from _quarters(feature.name, values, blank, moment)
        else:
            names = feature.categories or ("false", "true")
            for code, value in enumerate(names):
                yield f"{feature.name} = {short(value)}", values == code


def _quarters(
    name: str, values: Array, blank: Array, show: Callable[[float], str]
) -> Iterator[tuple[str, Array]]:
    if blank.all():
        return
    edges = np.unique(np.quantile(values[~blank], [0.25, 0.5, 0.75]))
    bounds = [-np.inf, *edges, np.inf]
    for low, high in pairwise(bounds):
        above = [f"{name} > {show(low)}"] if np.isfinite(low) else []
        below = [f"{name} <= {show(high)}"] if np.isfinite(high) else []
        yield " and ".join(above + below), (values > low) & (values <= high)

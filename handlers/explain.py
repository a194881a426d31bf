"""Explains a challenger on held-out rows: what it looks at, how far to trust it, where it wins.

Pure. The explanation is plain data for JSON; nothing in it is needed to decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from handlers.judge import Champion
from handlers.measures import losses
from handlers.rows import Part
from handlers.scorer import BadInput, Scorer
from handlers.slices import slices

SAMPLE = 2000
"""Rows on which contributions are computed, spread evenly over the held-out ones."""
BINS = 10
LEAST = 20
"""Rows that a slice must have to be told."""
MOST = 8
"""Slices that are told, the clearest first."""
THRESHOLD = 0.5
Explanation = dict[str, Any]
Array = np.ndarray[Any, np.dtype[Any]]


def explain(challenger: Scorer, champion: Champion | None, held_out: Part) -> Explanation | None:
    """Explain a challenger beside the champion; None where no rows were held out."""
    if held_out.rows.empty:
        return None
    fit = _fitting(champion, held_out)
    sample = _spread(held_out.rows)
    view: Explanation = {
        "rows": len(held_out.rows),
        "against": fit.version if fit else None,
        "features": _features(challenger, fit, sample),
        "slices": list(_slices(challenger, fit, held_out)) if fit else [],
    }
    if challenger.task != "regression":
        scores = challenger.score(held_out.rows).astype(np.float64)
        view["confusion"] = _confusion(challenger, scores, held_out.labels.to_numpy(str))
        if challenger.task == "binary":
            positive = held_out.labels.to_numpy(str) == challenger.classes[1]
            view["calibration"] = _calibration(scores, positive)
    return view


def _fitting(champion: Champion | None, held_out: Part) -> Champion | None:
    """Leave out a champion that cannot score these rows."""
    try:
        if champion:
            champion.scorer.score(held_out.rows.head(1))
    except BadInput:
        return None
    return champion


def _spread(rows: pd.DataFrame) -> pd.DataFrame:
    chosen = np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(int)
    found: pd.DataFrame = rows.iloc[chosen].reset_index(drop=True)
    return found


def _features(
    challenger: Scorer, champion: Champion | None, sample: pd.DataFrame
) -> list[dict[str, Any]]:
    """Give each feature's share of the contributions and of the gain, the weightiest first."""
    mine, gains = _shares(challenger, sample), challenger.gains()
    theirs = _shares(champion.scorer, sample) if champion else {}
    total = sum(gains.values()) or 1.0
    found = [
        {
            "name": name,
            "share": share,
            "gain": gains[name] / total,
            "champion": theirs.get(name, 0.0) if champion else None,
        }
        for name, share in mine.items()
    ]
    return sorted(found, key=lambda item: -item["share"])


def _shares(scorer: Scorer, sample: pd.DataFrame) -> dict[str, float]:
    """Give each feature's share of the mean absolute contribution to the margin."""
    sizes = np.abs(scorer.contributions(sample).astype(np.float64))
    each = sizes.reshape(-1, sizes.shape[-1]).mean(axis=0)
    total = float(each.sum()) or 1.0
    return {name: float(size) / total for name, size in zip(scorer.columns, each, strict=True)}


def _confusion(scorer: Scorer, scores: Array, truth: Array) -> dict[str, Any]:
    """Count rows by their class (first) and the guessed one; classes unknown to it come last."""
    guessed = (scores > THRESHOLD).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
    classes = [*scorer.classes, *sorted(set(truth) - set(scorer.classes))]
    counts = [
        [int(((truth == true) & (guessed == code)).sum()) for code in range(len(scorer.classes))]
        for true in classes
    ]
    return {"classes": classes, "counts": counts}


def _calibration(scores: Array, positive: Array) -> list[dict[str, Any]]:
    """Compare, in bins of as many rows, the predicted probability with the share that came true."""
    ordered = np.argsort(scores, kind="stable")
    return [
        {
            "predicted": float(scores[rows].mean()),
            "observed": float(positive[rows].mean()),
            "rows": len(rows),
        }
        for rows in np.array_split(ordered, min(BINS, len(ordered)))
    ]


def _slices(challenger: Scorer, champion: Champion, held_out: Part) -> Iterator[dict[str, Any]]:
    """Give the slices on which the losses differ most clearly, by the difference in its errors."""
    mine, theirs = losses(challenger, held_out), losses(champion.scorer, held_out)
    gain = theirs - mine
    found = []
    for name, rows in slices(challenger, held_out.rows):
        count = int(rows.sum())
        if LEAST <= count < len(gain) and (error := _error(gain[rows])) > 0:
            found.append((abs(gain[rows].mean()) / error, name, rows, count))
    for _, name, rows, count in sorted(found, key=lambda item: -item[0])[:MOST]:
        yield {
            "slice": name,
            "rows": count,
            "challenger": float(mine[rows].mean()),
            "champion": float(theirs[rows].mean()),
            "error": _error(gain[rows]),
        }


def _error(values: Array) -> float:
    """Give the standard error of a mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))

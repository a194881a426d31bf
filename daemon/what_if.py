"""What if a row were otherwise: both models' predictions, and what each feature adds to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from daemon.reading import Reading
from handlers.evidence import PROOF, read_proof
from handlers.facts import GiveUp, Model, Record
from handlers.registry import SCORER
from handlers.scorer import BadInput, Feature, Scorer

Fetch = Callable[[Model], Path]
"""Brings a model to this machine; see `Registry.fetch`."""
CHOICES = 200
"""Values of a category that are offered."""


def what_if(
    record: Record, book: Reading, fetch: Fetch, given: Mapping[str, str]
) -> dict[str, Any]:
    """Score a row by the model of a record and by the champion it was compared with.

    `given` is as people write it; what it leaves out is taken from a row that was held out. An
    empty text is a missing value.

    Raises:
        GiveUp: nobody keeps the model, or the row does not fit it.
        TryLater: the registry is out of reach.
    """
    if record.model is None:
        raise GiveUp(f"Delta {record.sequence} made no model.")
    folder = fetch(record.model)
    mine = Scorer.load(folder / SCORER)
    sample, _ = read_proof(folder / PROOF)
    texts = {name: given.get(name, _text(sample[name].iloc[0])) for name in mine.columns}
    found = [_scored(f"version {record.model.version}", mine, texts)]
    against = record.verdict.against if record.verdict else None
    made = book.made(record.pipeline, against) if against else None
    if made and made.model:
        theirs = Scorer.load(fetch(made.model) / SCORER)
        if set(theirs.columns) <= set(texts):
            found.append(_scored(f"champion, version {against}", theirs, texts))
    fields = [
        {"name": one.name, "kind": one.kind, "choices": list(one.categories)[:CHOICES],
         "text": texts[one.name]}
        for one in mine.features
    ]  # fmt: skip
    return {"fields": fields, "models": found, "classes": list(mine.classes)}


def _scored(name: str, scorer: Scorer, texts: Mapping[str, str]) -> dict[str, Any]:
    cells = {one.name: [_read(one, texts[one.name])] for one in scorer.features}
    row = pd.DataFrame(cells, dtype=object)
    try:
        scores = scorer.score(row)[0]
        added = scorer.contributions(row)[0]
    except BadInput as error:
        raise GiveUp(f"The row does not fit {name}: {error}.") from error
    if added.ndim > 1:  # of several classes, the one that is guessed
        added = added[int(np.argmax(scores))]
    return {
        "name": name,
        "scores": [float(score) for score in np.atleast_1d(scores)],
        "added": dict(zip(scorer.columns, map(float, added), strict=True)),
    }


def _read(feature: Feature, text: str) -> object:
    """Give a cell from what a person wrote.

    Raises:
        GiveUp: it is no such value.
    """
    if not text.strip():
        return None
    try:
        if feature.kind == "number":
            return float(text)
        if feature.kind == "boolean":
            return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
    except (ValueError, KeyError) as error:
        raise GiveUp(f"{text!r} is no {feature.kind}.", f"Change {feature.name!r}.") from error
    return text


def _text(value: object) -> str:
    if value is None or value is pd.NaT or value is pd.NA or value != value:  # noqa: PLR0124 (NaN)
        return ""
    return value.isoformat() if isinstance(value, pd.Timestamp) else str(value)

"""Brings an endpoint to a model version and proves that it answers as that version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from handlers.endpoint import Endpoint
from handlers.facts import GiveUp, Model, TryLater

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""Tolerance of the proof: float32 arithmetic may differ in the last digits between machines."""


def deploy(
    endpoint: Endpoint,
    model: Model,
    folder: Path,
    rows: pd.DataFrame,
    expected: np.ndarray[Any, Any],
) -> str:
    """Deploy and prove; gives the sentence that says what was proven.

    Raises:
        TryLater: the endpoint cannot be reached or started, or answers as another version.
        GiveUp: the model cannot be loaded, or its answers are not the offline predictions.
    """
    endpoint.deploy(model, folder)
    return prove(endpoint, model, rows, expected)


def prove(
    endpoint: Endpoint, model: Model, rows: pd.DataFrame, expected: np.ndarray[Any, Any]
) -> str:
    """Score held-out rows through the endpoint and compare with the offline predictions."""
    answer = endpoint.predict(rows)
    if answer.version != model.version:
        raise TryLater(
            f"{endpoint.where} answers as version {answer.version}, not {model.version}.",
            "Somebody else deploys there, or it is still changing over; the next tick looks again.",
        )
    if answer.predictions.shape != expected.shape or not np.allclose(
        answer.predictions, expected, rtol=RELATIVE, atol=ABSOLUTE
    ):
        raise GiveUp(
            f"{endpoint.where} answers {len(rows)} held-out rows differently from version "
            f"{model.version}'s offline predictions.",
            "The version that served before is restored.",
        )
    return f"answers as version {model.version}; {len(rows)} held-out predictions agree"

"""Tries a model on this machine before a platform is asked to serve it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from handlers.facts import GiveUp, Model, TryLater
from handlers.scorer import Scorer


def try_out(folder: Path, model: Model) -> None:
    """Load the model and score an empty row: what does not work here must not be built there.

    Raises:
        GiveUp: it does not.
        TryLater: the disk refuses to read it.
    """
    try:
        scorer = Scorer.load(folder)
        scorer.score(pd.DataFrame({name: [None] for name in scorer.columns}))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        told = f"{type(error).__name__}: {error}".split("\n")[0]
        raise GiveUp(
            f"Version {model.version} cannot be loaded: {told}.",
            "What served before serves on.",
        ) from error
    except OSError as error:
        raise TryLater(f"The model in {folder} cannot be read: {error}.", "") from error

"""Strategies: what a challenger learns from, and what of earlier models goes into it. Pure.

The entry point needs neither Spark nor MLflow:

    challenge(parts: Split, reads: Reads, columns: Columns, task: Task, settings: Train,
              past: Past = Past(), progress: Progress = ...) -> Challenge

`parts` are the delta's rows. `Reads` and `Past` are callables, and a strategy calls no more of them
than it must: `fresh` calls none. Whatever the strategy, the challenger is one plain `Scorer`, to be
judged on the delta's held-out rows; no held-out row is used to fit, to weigh or to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from config.settings import Train
from handlers.facts import Progress
from handlers.rows import Columns, Split
from handlers.scorer import Task
from handlers.strategies.continuation import continued
from handlers.strategies.ensemble import ensemble
from handlers.strategies.job import Challenge, Job, Past, Reads, Run, Told, by
from handlers.strategies.tournament import tournament

__all__ = ["KNOBS", "STRATEGIES", "Challenge", "Past", "Reads", "Run", "Told", "challenge"]

KNOBS = (
    "max_rows", "window", "continue_rounds", "continue_eta", "max_rounds", "members",
    "refresh_share", "window_member", "weighing", "candidates",
)  # fmt: skip
"""The settings that strategies read, for the record."""

STRATEGIES: Mapping[str, Callable[[Job], Challenge]] = {
    "fresh": by("fresh"), "full": by("full"), "window": by("window"),
    "continue": continued, "ensemble": ensemble, "tournament": tournament,
}  # fmt: skip


def challenge(
    parts: Split, reads: Reads, columns: Columns, task: Task, settings: Train,
    past: Past | None = None, progress: Progress = lambda *_: None,
) -> Challenge:  # fmt: skip
    """Make a challenger by `settings.strategy`.

    Raises:
        GiveUp: the rows cannot be learnt from.
        TryLater: rows or models could not be had, or a stop was asked for.
    """
    job = Job(reads, columns, task, settings, past or Past(), progress, parts)
    return STRATEGIES[settings.strategy](job)

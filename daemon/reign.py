"""What the ledger knows of earlier looks at a champion and its challengers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from config.settings import Pipeline
from daemon.ledger import Ledger
from daemon.reading import FORCED
from handlers.facts import Decision, Live, Look, Model, Record

MOST = 300
"""Decisions that are looked back at."""
BY_HAND = ("rolled back", FORCED, "fell back")
"""How a model became champion although it did not win the last comparison."""
MILLION = 1e6
"""Evidence beyond it is not told in figures: nobody doubts any more."""
LOSS = {"log_loss": "log loss", "squared_error": "squared error"}
"""Proper scores, in words."""


@dataclass(frozen=True, slots=True)
class Reign:
    """The decisions taken since the champion reigns, oldest first, and what it promised."""

    records: tuple[Record, ...] = ()
    promise: Look | None = None
    signals: tuple[Look, ...] = ()
    """How much better than a constant the challengers were, in all decisions of any reign."""

    @property
    def looks(self) -> tuple[Look, ...]:
        """Give all looks at challengers of this champion, of which no two share a row.

        The whole table, where it was read again, holds the rows of the looks before.
        """
        whole = [place for place, record in enumerate(self.records) if record.delta.whole]
        since = self.records[whole[-1] if whole else 0 :]
        return tuple(look for r in since if r.verdict for look in r.verdict.looks)

    @property
    def lives(self) -> tuple[Live, ...]:
        """Give how it did on the deltas since."""
        return tuple(record.live for record in self.records if record.live)

    @property
    def contender(self) -> Model | None:
        """Give the last challenger, if it waits for more evidence."""
        made = [record for record in self.records if record.model and record.verdict]
        last = made[-1] if made else None
        waits = last and last.verdict and last.verdict.decision is Decision.WAIT
        return last.model if last and waits else None


def look_back(ledger: Ledger, name: str, pipeline: Pipeline) -> Reign:
    """Look back at what was decided since the champion reigns, by today's metric."""
    newest = [record for record in ledger.history(name, MOST) if record.verdict]
    signals = _signals(newest[::-1], pipeline)
    champion = ledger.champion(name)
    if champion is None:
        return Reign(signals=signals)
    version = champion.model.version
    since = list(takewhile(lambda record: _against(record) == version, newest))
    if champion.how in BY_HAND:  # what was seen of its first reign does not count against it
        since = [record for record in since if record.closed_at > champion.since]
    mine = [r for r in since[::-1] if r.verdict and r.verdict.metric == pipeline.metric]
    made = ledger.made(name, version)
    promise = made.verdict.loss if made and made.verdict else None
    return Reign(tuple(mine), promise, signals)


def fails(record: Record) -> str | None:
    """Say that what served does worse than it promised, if it is alarmed; None if it is not."""
    live = record.live
    if live is None or not live.alarmed:
        return None
    now = live.failing or live.loss
    promised = "" if live.promised is None else f" against {live.promised:.4f}"
    sure = f"{live.alarm:,.0f}" if live.alarm < MILLION else "above a million"
    return (
        f"Champion {live.version} does worse on live rows than it promised: "
        f"{LOSS[measured(record)]} {now.gain:.4f} on the last {now.rows:,} rows{promised} "
        f"(evidence {sure})"
    )


def measured(record: Record) -> str:
    """Name the proper score of the task."""
    regression = record.learnt is not None and record.learnt.task == "regression"
    return "squared_error" if regression else "log_loss"


def _signals(decided: Iterable[Record], pipeline: Pipeline) -> tuple[Look, ...]:
    return tuple(
        record.verdict.signal
        for record in decided
        if record.verdict and record.verdict.signal and record.learnt
        and record.verdict.metric == pipeline.metric
        and (record.learnt.label, record.learnt.task) == (pipeline.label, pipeline.task)
    )  # fmt: skip


def _against(record: Record) -> str | None:
    return record.verdict.against if record.verdict else None

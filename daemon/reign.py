"""What the ledger knows of earlier looks at a champion and its challengers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from config.settings import Pipeline
from daemon.ledger import Ledger
from handlers.facts import Decision, Live, Look, Model, Record

MOST = 300
"""Decisions that are looked back at."""


@dataclass(frozen=True, slots=True)
class Reign:
    """The decisions taken since the champion reigns, oldest first, and what it promised."""

    records: tuple[Record, ...] = ()
    promise: Look | None = None

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
    champion = ledger.champion(name)
    if champion is None:
        return Reign()
    version = champion.model.version
    mine = [
        record
        for record in _decided(ledger, name)
        if record.verdict and record.verdict.against == version
        and record.verdict.metric == pipeline.metric and record.closed_at > champion.since
    ]  # fmt: skip
    made = ledger.made(name, version)
    promise = made.verdict.loss if made and made.verdict else None
    return Reign(tuple(mine), promise)


def signals(ledger: Ledger, name: str, pipeline: Pipeline) -> tuple[Look, ...]:
    """Give how much better than a constant the challengers were, in all decisions."""
    return tuple(
        record.verdict.signal
        for record in _decided(ledger, name)
        if record.verdict and record.verdict.signal and record.learnt
        and record.verdict.metric == pipeline.metric
        and (record.learnt.label, record.learnt.task) == (pipeline.label, pipeline.task)
    )  # fmt: skip


def _decided(ledger: Ledger, name: str) -> Sequence[Record]:
    newest: Iterable[Record] = ledger.history(name, MOST)
    return [record for record in newest if record.verdict][::-1]

"""Scores what served on rows as they came, before any model learnt from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from config.settings import Pipeline
from daemon.decide import Decider
from daemon.doors import Access
from handlers.facts import Delta, GiveUp, Model, Record, Scores, Unreadable
from handlers.measures import measure
from handlers.registry import SCORER
from handlers.rows import Part, split
from handlers.scorer import BadInput, Scorer


@dataclass(frozen=True, slots=True)
class Served:
    """The version that served when rows came, and its scores on them."""

    version: str
    rows: int
    scores: Scores


Both = tuple[Served | None, Served | None]


def on_record(live: Record, made: Record) -> Both | None:
    """Give what two records tell of the same rows; those of old records tell of held-out ones."""
    for told in (_before, _judged):
        ours, theirs = told(live), told(made)
        if ours and theirs and ours.rows == theirs.rows:
            return ours, theirs
    return None


def _before(record: Record) -> Served | None:
    live = record.live
    return Served(live.version, live.rows, live.scores) if live else None


def _judged(record: Record) -> Served | None:
    verdict = record.verdict
    if verdict is None or verdict.against is None or not verdict.champion:
        return None
    return Served(verdict.against, verdict.rows, verdict.champion)


@dataclass(frozen=True, slots=True)
class Scale:
    """Scores two models on the same rows of a delta."""

    decider: Decider
    doors: Access
    pipeline: Pipeline
    models: Path

    def both(
        self, live: Record, made: Sequence[Record], ours: Model | None, theirs: Model | None
    ) -> Both:
        """Score what served and what would have; nothing where neither side judged the rows."""
        if not any(record.verdict for record in (live, *made)):
            return None, None
        if len(made) == 1 and (known := on_record(live, made[0])):
            return known
        if ours is None and theirs is None:
            return None, None
        return self._measured(live.delta, ours, theirs)

    def _measured(self, delta: Delta, ours: Model | None, theirs: Model | None) -> Both:
        """Score on held-out rows: no model learns from those, whatever came before."""
        scorers = [self._load(model) if model else None for model in (ours, theirs)]
        read = (name for scorer in scorers if scorer for name in scorer.columns)
        try:
            columns = self.decider.columns(delta, tuple(dict.fromkeys(read)))
            found = self.doors.table.read(delta, columns.to_read)
            rows = split(found, columns, self.pipeline.task, self.pipeline.train).held_out
        except (GiveUp, Unreadable):
            return None, None
        first, second = map(_score, (ours, theirs), scorers, (rows, rows))
        return first, second

    def _load(self, model: Model) -> Scorer:
        return Scorer.load(self.doors.registry.fetch(model, self.models) / SCORER)


def _score(model: Model | None, scorer: Scorer | None, part: Part) -> Served | None:
    try:
        scores = measure(scorer, part) if scorer else {}
    except BadInput:
        return None
    return Served(model.version, len(part.rows), scores) if model and scores else None

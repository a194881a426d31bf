"""Scores what served on rows as they came, before any model learnt from them.

Held-out rows count: no model ever learns from them, whatever a policy does with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from config.settings import Pipeline
from daemon.decide import Decider
from daemon.doors import Access
from handlers import judge
from handlers.facts import Delta, GiveUp, Model, Record, Scores, Unreadable
from handlers.registry import SCORER
from handlers.rows import Part, split
from handlers.scorer import BadInput, Scorer


@dataclass(frozen=True, slots=True)
class Served:
    """The version that served when rows came, and its scores on the held-out ones."""

    version: str
    rows: int
    scores: Scores


Both = tuple[Served | None, Served | None]


def on_record(record: Record) -> Served | None:
    """Give what a decision tells of the champion that it found."""
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
        known = on_record(live), on_record(made[0]) if len(made) == 1 else None
        alike = known[0] and known[1] and known[0].rows == known[1].rows
        if alike or (ours is None and theirs is None):
            return known
        return self._measured(live.delta, ours, theirs)

    def _measured(self, delta: Delta, ours: Model | None, theirs: Model | None) -> Both:
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
        scores = judge.measure(scorer, part) if scorer else {}
    except BadInput:
        return None
    return Served(model.version, len(part.rows), scores) if model and scores else None

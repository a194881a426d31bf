"""Models that a pool may hold, those that it leaves out with the reason, and their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from handlers import pool
from handlers.facts import GiveUp, Weighed
from handlers.scorer import Scorer
from handlers.strategies.job import FRESH, PARTS, WINDOW, Drawn, Job, Run
from handlers.train import classes_of


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """A model of an earlier run, or one that was made just now; without a scorer, left out."""

    told: Weighed
    scorer: Scorer | None

    def unless(self, reason: str) -> Member:
        """Leave it out for a reason, if there is one."""
        return Member(replace(self.told, reason=reason), None) if reason else self


def recalled(run: Run, kind: str) -> Member:
    """Bring a model of an earlier run, or say why it cannot be had."""
    told = Weighed(kind, run.run_id, run.sequence, 0.0)
    try:
        return Member(told, run.load(kind))
    except GiveUp as error:
        return Member(told, None).unless(str(error))


def before(runs: Sequence[Run], kind: str) -> Member | None:
    """Bring the newest model of a kind; None if no run made one."""
    run = next((run for run in runs if kind in run.kinds), None)
    return recalled(run, kind) if run else None


def trained(job: Job, kind: str, drawn: Drawn | str) -> Member:
    """Make a model of these rows; left out where they cannot be learnt from."""
    blank = Member(Weighed(kind, "", 0, 0.0), None)
    if isinstance(drawn, str):
        return blank.unless(drawn)
    try:
        return replace(blank, scorer=job.train(drawn.part))
    except GiveUp as error:
        return blank.unless(str(error))


def draw(job: Job, kinds: Iterable[str]) -> dict[str, Drawn | str]:
    """Draw the rows of each kind; or say why they cannot be learnt from.

    What the table has held for long must not park what is new.
    """
    found: dict[str, Drawn | str] = {}
    for kind in kinds:
        try:
            found[kind] = drawn = PARTS[kind](job)
            classes_of(drawn.part.labels, job.task)
        except GiveUp as error:
            found[kind] = str(error)
    return found


def with_classes(
    job: Job, drawn: Mapping[str, Drawn | str], members: Iterable[Member]
) -> Job:  # fmt: skip
    """Let all models tell all classes that any of the rows hold.

    And those of the newest member that knows all these: a batch may lack a class.
    """
    if job.task == "regression":
        return job
    parts = [job.parts.train, *(d.part for d in drawn.values() if isinstance(d, Drawn))]
    labels = pd.concat([pd.Series(job.classes, dtype=object), *(part.labels for part in parts)])
    known = (member.scorer.classes for member in members if member.scorer)
    told = next((classes for classes in known if set(labels) <= set(classes)), None)
    return replace(job, classes=told or classes_of(labels, job.task))


def widest(job: Job, members: Iterable[Member]) -> Scorer | None:
    """Give the first model that reads as many of today's columns as any, and no others."""
    now = set(job.columns.features)
    fit = [m.scorer for m in members if m.scorer and learns(m.scorer) <= now]
    return max(fit, key=lambda scorer: len(scorer.features), default=None)


def learns(scorer: Scorer) -> set[tuple[str, str]]:
    """Give the columns that a model reads, with their kinds."""
    return {(feature.name, feature.kind) for feature in scorer.features}


def origin(drawn: Mapping[str, Drawn | str]) -> tuple[tuple[str, ...], int | None]:
    """Give the notes about what was drawn, and where the window begins."""
    known = {kind: found for kind, found in drawn.items() if isinstance(found, Drawn)}
    notes = tuple(found.note for found in known.values() if found.note)
    return notes, known[WINDOW].start_id if WINDOW in known else None


def pooled(
    job: Job, members: Sequence[Member], priors: Mapping[str, float]
) -> tuple[Scorer, tuple[Weighed, ...]]:
    """Make one model of the members that are left, the widest of which says in which columns."""
    left = [(m.scorer, m.told) for m in members if m.scorer]
    left.sort(key=lambda item: -len(item[0].features))
    known = [told.loss for _, told in left if told.loss is not None]
    middle = float(np.mean(known)) if known else 0.0
    losses = [middle if told.loss is None else told.loss for _, told in left]
    shares = job.weights(losses, _priors([told for _, told in left], priors))
    scorer = pool.pool([scorer for scorer, _ in left], shares, job.parts.train.rows)
    told = [replace(told, weight=share) for (_, told), share in zip(left, shares, strict=True)]
    return scorer, (*told, *(m.told for m in members if m.scorer is None))


def _priors(told: Sequence[Weighed], priors: Mapping[str, float]) -> list[float]:
    """Weigh members by what they are; those of older deltas share the weight of one."""
    older = sum(t.kind == FRESH and bool(t.run_id) for t in told)
    return [priors[t.kind] / (older if t.kind == FRESH and t.run_id else 1) for t in told]

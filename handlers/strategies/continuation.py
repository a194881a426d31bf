"""`continue`: a few more rounds for the champion, on new rows and as many earlier ones."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from handlers.facts import GiveUp, Weighed
from handlers.rows import Part
from handlers.scorer import Scorer
from handlers.strategies.job import FULL, SERVED, Challenge, Job, by
from handlers.train import grow

UNKNOWN = 0.1
"""Share of a feature's values that the champion may not know, if it is to be continued."""


def continued(job: Job) -> Challenge:
    """Let the champion grow; begin anew on the whole table where it cannot."""
    champion = None if job.reads.everything else job.past.champion()
    if champion is None:
        return _anew(job, "there is no champion whose rows are still in the table")
    scorer = champion.load(SERVED)
    fresh = job.parts.train
    if reason := _ends(job, scorer, fresh):
        return _anew(job, reason)
    told = job.reads.before(len(fresh.rows))
    earlier = job.part(told.rows, len(fresh.rows)) if told.rows.num_rows else None
    part = _joined(fresh, earlier) if earlier else fresh
    if reason := _strange(job, scorer, part):
        return _anew(job, reason)
    try:
        grown = grow(scorer, part, job.settings, job.progress)
    except GiveUp as error:  # so few rows may well be alike
        return _anew(job, str(error))
    source = Weighed(SERVED, champion.run_id, champion.sequence, 1.0)
    notes = (told.note,) if told.note else ()
    return Challenge(grown, job.material(part), {}, (source,), notes)


def _ends(job: Job, scorer: Scorer, fresh: Part) -> str:
    """Say why the champion cannot be continued."""
    learns = tuple((feature.name, feature.kind) for feature in scorer.features)
    if (scorer.task, learns) != (job.task, job.columns.features):
        return "the champion has other features"
    if reason := _strange(job, scorer, fresh):
        return reason
    for name in (f.name for f in scorer.features if f.kind == "category"):
        if len(fresh.rows) and _unknown(scorer, name, fresh) > UNKNOWN:
            return f"the champion does not know many of the values of {name!r}"
    rounds = scorer.booster.num_boosted_rounds() + job.settings.continue_rounds
    most = job.settings.max_rounds
    return f"the champion would get {rounds} rounds, of {most} at most" if rounds > most else ""


def _strange(job: Job, scorer: Scorer, part: Part) -> str:
    """Name the classes that the champion cannot tell, if any."""
    new = set(part.labels) - set(scorer.classes) if job.task != "regression" else set()
    return f"the champion does not know the class(es) {', '.join(sorted(new))}" if new else ""


def _anew(job: Job, reason: str) -> Challenge:
    begun = by(FULL)(job)
    return replace(begun, notes=(f"begun anew on the whole table: {reason}",))


def _unknown(scorer: Scorer, name: str, part: Part) -> float:
    """Give the share of a category's values in these rows that a model does not know."""
    known = next(feature.categories for feature in scorer.features if feature.name == name)
    values = part.rows[name].dropna()
    return float((~values.isin(known)).mean()) if len(values) else 0.0


def _joined(first: Part, second: Part) -> Part:
    return Part(
        pd.concat([first.rows, second.rows], ignore_index=True),
        pd.concat([first.labels, second.labels], ignore_index=True),
    )

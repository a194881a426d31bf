"""`tournament`: whole strategies, by how they did on the rows that came after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from handlers import pool
from handlers.facts import GiveUp, Weighed
from handlers.scorer import Scorer
from handlers.strategies.ensemble import ensemble
from handlers.strategies.job import ENSEMBLE, FRESH, FULL, PARTS, WINDOW, Challenge, Job, Run, by
from handlers.strategies.members import (
    Member,
    before,
    draw,
    learns,
    origin,
    pooled,
    trained,
    widest,
    with_classes,
)

FADING = 0.8
"""What a tournament's record counts, one delta later."""


def tournament(job: Job) -> Challenge:
    """Pool several candidates by how such candidates did on the rows that came after them.

    One look at a few rows picks the luckiest; the record over many deltas does not.
    """
    runs = () if job.reads.everything else tuple(job.past.runs())
    kinds = job.settings.candidates
    befores = {kind: before(runs, kind) for kind in kinds}
    drawn = draw(job, [kind for kind in kinds if kind in PARTS])
    job = with_classes(job, drawn, filter(None, befores.values()))
    found = {kind: trained(job, kind, part) for kind, part in drawn.items()}
    made: dict[str, Scorer] = {kind: m.scorer for kind, m in found.items() if m.scorer}
    inner: list[Weighed] = []
    if ENSEMBLE in kinds:
        found[ENSEMBLE], ensemble = _pool_of(job)
        made = {**ensemble.made, **made, ENSEMBLE: ensemble.scorer} if ensemble else made
        inner += [replace(told, within=ENSEMBLE) for told in (ensemble.members if ensemble else ())]
    if not made:
        return by(FRESH)(job)
    contenders = [_contender(job, runs, found[kind], befores[kind]) for kind in kinds]
    first = widest(job, contenders)
    fit = [m.unless(pool.unfit(m.scorer, first)) if m.scorer and first else m for m in contenders]
    scorer, told = pooled(job, fit, dict.fromkeys(kinds, 1.0))
    return Challenge(scorer, job.material(), made, (*told, *inner), *origin(drawn))


def _pool_of(job: Job) -> tuple[Member, Challenge | None]:
    """Make the ensemble that is a candidate; left out where nothing can be in it."""
    blank = Member(Weighed(ENSEMBLE, "", 0, 0.0), None)
    try:
        made = ensemble(_apart(job))
    except GiveUp as error:
        return blank.unless(str(error)), None
    return replace(blank, scorer=made.scorer), made


def _apart(job: Job) -> Job:
    """Leave longer memories out of the ensemble where they are candidates of their own."""
    settings = job.settings
    left_out: dict[str, object] = {}
    if FULL in settings.candidates:
        left_out["refresh_share"] = None
    if WINDOW in settings.candidates:
        left_out["window_member"] = False
    return replace(job, settings=settings.model_copy(update=left_out))


def _contender(
    job: Job, runs: Sequence[Run], new: Member, last: Member | None
) -> Member:  # fmt: skip
    """Add the loss of the last candidate of a kind to the record of that kind, older ones fading.

    Each stood for nothing but its kind: the newest rows came after it was made.
    """
    if last is None or last.scorer is None or not learns(last.scorer) <= set(job.columns.features):
        return new
    run = next(run for run in runs if run.run_id == last.told.run_id)
    kind = new.told.kind
    then = next((t for t in run.members if (t.kind, t.run_id, t.within) == (kind, "", "")), None)
    records, loss = (then.records, then.loss or 0.0) if then else (0.0, 0.0)
    if (now := job.loss(last.scorer)) is not None:
        faded = FADING * records
        records, loss = faded + 1, (faded * loss + now) / (faded + 1)
    if not records:
        return new
    return replace(new, told=replace(new.told, loss=loss, records=records, by=run.run_id))

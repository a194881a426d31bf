"""`ensemble`: one model of each delta, and longer memories beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from handlers import pool
from handlers.facts import GiveUp, Weighed
from handlers.rows import Part
from handlers.scorer import Scorer
from handlers.strategies.job import FRESH, FULL, PARTS, WINDOW, Challenge, Drawn, Job, Run
from handlers.strategies.members import (
    Member,
    before,
    draw,
    learns,
    origin,
    pooled,
    recalled,
    trained,
    widest,
    with_classes,
)

OLDEST = 50
"""Deltas after which the member of the whole table is made anew in any case."""
NEAR = 6
"""Times the delta's rows that a memory may hold to be cross-fitted."""
FOLDS = 3
"""Parts of the newest rows; each is scored by a model of the others."""
PRIORS: Mapping[str, float] = {FRESH: 1.0, WINDOW: 1.0, FULL: 5.0}
"""What members weigh before their losses are known; the older ones of deltas weigh 1 together.

Like the sharpness of `pool`, measured on streams with and without drift: no
policy that was tried came closer to the best one of each stream, known in hindsight.
"""


def ensemble(job: Job) -> Challenge:
    """Pool a new model of the delta with those of the deltas before it, and with longer memories.

    Each is weighed by its loss on the delta's training rows. What learnt from these is weighed by
    the model that it takes the place of or by cross-fitting. Where the delta alone cannot be learnt
    from (one class, no row), the others do without.
    """
    runs = () if job.reads.everything else tuple(job.past.runs())
    befores = {kind: before(runs, kind) for kind in _memories(job)}
    full = befores.get(FULL)
    kept = full if full and not _due(job, full, runs) else None
    drawn = draw(job, [kind for kind in befores if not (kept and kind == FULL)])
    earlier = [run for run in runs if FRESH in run.kinds][: job.settings.members - 1]
    olds = [recalled(run, FRESH) for run in earlier]
    job = with_classes(job, drawn, [*olds, *filter(None, befores.values())])
    own = trained(job, FRESH, PARTS[FRESH](job))
    longer = [trained(job, kind, found) for kind, found in drawn.items()]
    first = widest(job, [own, *longer, *olds, *([kept] if kept else [])])
    if first is None:
        raise GiveUp(own.told.reason)
    olds = [_weighed(job, member, first) for member in olds]
    judged = {kind: _weighed(job, m, first) for kind, m in befores.items() if m}
    optimism = _optimism(earlier, olds)
    if own.scorer and any(member.scorer for member in (*olds, *judged.values())):
        own = _estimated(job, own, own.scorer, optimism)
    renewed = [
        _renewed(job, member, drawn[member.told.kind], judged.get(member.told.kind), own, optimism)
        for member in longer
    ]
    members = [own, *olds, *([judged[FULL]] if kept else []), *renewed]
    scorer, told = pooled(job, members, PRIORS)
    made = {m.told.kind: m.scorer for m in (own, *renewed) if m.scorer}
    return Challenge(scorer, job.material(), made, told, *origin(drawn))


def _memories(job: Job) -> list[str]:
    """Name the members that learn from more than a delta."""
    if job.reads.everything:  # then the newest one does
        return []
    wanted = {WINDOW: job.settings.window_member, FULL: job.settings.refresh_share is not None}
    return [kind for kind, is_wanted in wanted.items() if is_wanted]


def _due(job: Job, before: Member, runs: Sequence[Run]) -> bool:
    """Say whether the member of the whole table is to be made anew.

    By the share of rows that it does not know, it costs about as much per row however long the
    history grows. Where rows are rewritten in place, their number does not tell: then by its age.
    """
    if before.scorer is None or not learns(before.scorer) <= set(job.columns.features):
        return True
    then = next(run.rows for run in runs if run.run_id == before.told.run_id)
    age, now = job.past.sequence - before.told.sequence, job.past.rows
    if not (now and then):
        now, then = job.past.sequence, before.told.sequence
    share = abs(now - then) / max(now, then)
    return age >= OLDEST or share >= (job.settings.refresh_share or 1)


def _renewed(
    job: Job, new: Member, drawn: Drawn | str, before: Member | None, own: Member, optimism: float
) -> Member:  # fmt: skip
    """Weigh a member of a longer memory, which has seen the newest rows itself.

    By the one whose place it takes. That one did not know these rows at all, which holds it back
    where every delta is a part of the world that was not seen before; so by cross-fitting as well
    if the memory is not much longer than the delta, and the better one counts.
    """
    source = before.told if before is not None and before.scorer else own.told
    if new.scorer is None or source.loss is None or isinstance(drawn, str):
        return new
    loss = source.loss
    near = len(drawn.part.rows) <= NEAR * len(job.parts.train.rows)
    if near and source is not own.told and job.settings.weighing != "aue":
        loss = min(loss, _cross_fitted(job, drawn.part, new.scorer) + optimism)
    return replace(new, told=replace(new.told, loss=loss, by=source.run_id))


def _estimated(job: Job, own: Member, newest: Scorer, optimism: float) -> Member:
    """Estimate the loss of the newest model, which has seen all rows that there are to weigh by.

    AUE takes it to be perfect.
    """
    if job.settings.weighing == "aue":
        return Member(replace(own.told, loss=0.0), newest)
    estimate = _cross_fitted(job, job.parts.train, newest)
    return Member(replace(own.told, loss=estimate + optimism, estimate=estimate), newest)


def _optimism(runs: Sequence[Run], olds: Sequence[Member]) -> float:
    """Say by how much such estimates fell short of the loss on the delta that came next.

    The (lower) median over these runs, newest first, whose losses are known, or 0: neighbouring
    rows that are alike make a cross-fit too rosy, but one drift does not.
    """
    found: list[float] = []
    later: Sequence[Weighed] = [member.told for member in olds]
    for run in runs:
        estimates = (t.estimate for t in run.members if (t.kind, t.run_id) == (FRESH, ""))
        then = next((estimate for estimate in estimates if estimate is not None), None)
        next_ = next((t.loss for t in later if (t.kind, t.run_id) == (FRESH, run.run_id)), None)
        if then is not None and next_ is not None:
            found.append(next_ - then)
        later = run.members
    return max(0.0, sorted(found)[(len(found) - 1) // 2]) if found else 0.0


def _weighed(job: Job, member: Member, first: Scorer) -> Member:
    """Leave out a model that cannot be pooled with the first one, else find its loss."""
    if member.scorer is None:
        return member
    if reason := pool.unfit(member.scorer, first):
        return member.unless(reason)
    return Member(replace(member.told, loss=job.loss(member.scorer)), member.scorer)


def _cross_fitted(job: Job, part: Part, made: Scorer) -> float:
    """Give the mean loss on the delta, each fold of it scored by a model of a part's other folds.

    Folds are drawn by the rows' keys, so that a row is in the same one wherever it was read.
    """
    newest, losses = job.parts.train, []
    folds, own = part.folds(FOLDS), newest.folds(FOLDS)
    counts = np.bincount(own, minlength=FOLDS)
    for fold in np.flatnonzero(counts):
        try:
            model = job.train(part.where(folds != fold), made.classes)
        except GiveUp:  # too few rows to take any away
            return pool.loss(made, newest, job.settings.weighing)
        losses.append(pool.loss(model, newest.where(own == fold), job.settings.weighing))
    return float(np.average(losses, weights=counts[counts > 0]))

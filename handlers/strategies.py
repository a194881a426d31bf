"""Strategies: what a challenger learns from, and what of earlier models goes into it. Pure.

The entry point needs neither Spark nor MLflow:

    challenge(reads: Reads, columns: Columns, task: Task, settings: Train,
              past: Past = Past(), progress: Progress = ...) -> Challenge

`Reads` and `Past` are callables, and a strategy calls no more of them than it must: `fresh` reads
the delta and nothing else. Whatever the strategy, the challenger is one plain `Scorer`, judged on
the delta's held-out rows; no held-out row is used to fit, to weigh or to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from config.settings import Candidate, Train
from handlers import pool
from handlers.facts import GiveUp, Progress, Weighed
from handlers.rows import Columns, Part, Split, split
from handlers.scorer import Scorer, Task
from handlers.train import Material, classes_of, grow, train

FRESH: Candidate = "fresh"
FULL: Candidate = "full"
WINDOW: Candidate = "window"
ENSEMBLE: Candidate = "ensemble"
SERVED = "served"
FOLDS = 3
"""Parts of the newest rows; each is scored by a model of the others."""
FADING = 0.8
"""What a tournament's record counts, one delta later."""
UNKNOWN = 0.1
"""Share of a feature's values that the champion may not know, if it is to be continued."""
PRIORS: Mapping[str, float] = {FRESH: 1.0, WINDOW: 3.0, FULL: 3.0}
"""What members weigh before their losses are known; the older ones of deltas weigh 1 together.

Like `TEMPERATURE` and the sharpness of `pool`, measured on streams with and without drift: no
policy that was tried came closer to the best one of each stream, known in hindsight.
"""
TEMPERATURE = 0.95
"""By which the margins of a pool of classifiers are shrunk: its members are too sure."""
KNOBS = (
    "max_rows", "window", "continue_rounds", "continue_eta", "max_rounds", "members",
    "refresh_every", "window_member", "weighing", "candidates",
)  # fmt: skip
"""The settings that strategies read, for the record."""


@dataclass(frozen=True, slots=True)
class Told:
    """Rows, and what is to be noted about them."""

    rows: pa.Table
    note: str = ""
    start_id: int | None = None
    """The snapshot after which they begin; None for the beginning of the table."""


@dataclass(frozen=True, slots=True)
class Reads:
    """The rows that can be asked for; at most about so many, where a number is given."""

    delta: Callable[[], pa.Table]
    whole: Callable[[int], pa.Table]
    """Of the table at the delta's end."""
    window: Callable[[int, int], Told]
    """Of so many deltas, this one included; then the most rows."""
    before: Callable[[int], Told]
    """Of the table at the delta's start."""
    everything: bool = False
    """The delta is the whole table: what was learnt before counts no more."""


@dataclass(frozen=True, slots=True)
class Run:
    """An earlier run on the same label, task and split, whose rows are still in the table."""

    run_id: str
    sequence: int
    kinds: tuple[str, ...]
    """The strategies of the models that it keeps."""
    load: Callable[[str], Scorer]
    """Brings one of these, or the model that it `served`; it may raise `GiveUp`."""
    members: tuple[Weighed, ...] = ()


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier runs left behind, looked up when it is asked for."""

    champion: Callable[[], Run | None] = lambda: None
    runs: Callable[[], Iterable[Run]] = tuple
    """Newest first."""
    sequence: int = 0
    """The number of this delta."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenger, what it learnt from, and what to keep beside it."""

    scorer: Scorer
    material: Material
    made: Mapping[str, Scorer] = field(default_factory=dict)
    """The models that were made on the way, by kind: later runs may use them."""
    members: tuple[Weighed, ...] = ()
    notes: tuple[str, ...] = ()
    window_start: int | None = None


def challenge(
    reads: Reads, columns: Columns, task: Task, settings: Train, past: Past | None = None,
    progress: Progress = lambda *_: None,
) -> Challenge:  # fmt: skip
    """Make a challenger by `settings.strategy`.

    Raises:
        GiveUp: the rows cannot be learnt from.
        TryLater: rows or models could not be had, or a stop was asked for.
    """
    parts = split(reads.delta(), columns, task, settings)
    job = _Job(reads, columns, task, settings, past or Past(), progress, parts)
    return STRATEGIES[settings.strategy](job)


@dataclass(frozen=True, eq=False)
class _Job:
    """One challenger to make: `challenge`'s arguments, with the delta already split."""

    reads: Reads
    columns: Columns
    task: Task
    settings: Train
    past: Past
    progress: Progress
    parts: Split
    classes: tuple[str, ...] = ()

    def part(self, rows: pa.Table, most: int | None = None) -> Part:
        """Give the training rows of a table, or of a sample of it."""
        parts = split(rows, self.columns, self.task, self.settings)
        return parts.train.sample(most or self.settings.max_rows)

    def train(self, part: Part, classes: tuple[str, ...] = ()) -> Scorer:
        """Train a model."""
        told = classes or self.classes
        return train(part, self.columns, self.task, self.settings, self.progress, told)

    def material(self, part: Part | None = None) -> Material:
        """Judge on the delta's held-out rows, whatever was learnt from."""
        return Material(part or self.parts.train, self.parts.held_out, self.parts.unlabelled)

    def loss(self, scorer: Scorer) -> float | None:
        """Weigh a model on the delta's training rows, which it must not have learnt from."""
        rows = self.parts.train
        return pool.loss(scorer, rows, self.settings.weighing) if len(rows.rows) else None

    def weights(self, losses: Sequence[float], priors: Sequence[float]) -> list[float]:
        """Turn such losses into weights."""
        rule, rows = self.settings.weighing, self.parts.train
        trivial = pool.prior_loss(rows, self.task, rule) if len(rows.rows) else 0.0
        return pool.weights(losses, priors, rule, trivial, len(rows.rows))


# -- by the rows they read ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The rows to learn from, and where they come from."""

    part: Part
    note: str = ""
    start_id: int | None = None


def _fresh_part(job: _Job) -> _Drawn:
    return _Drawn(job.parts.train)


def _full_part(job: _Job) -> _Drawn:
    if job.reads.everything:
        return _Drawn(job.parts.train.sample(job.settings.max_rows))
    return _Drawn(job.part(job.reads.whole(job.settings.max_rows)))


def _window_part(job: _Job) -> _Drawn:
    if job.reads.everything:
        return _Drawn(job.parts.train.sample(job.settings.max_rows))
    told = job.reads.window(job.settings.window, job.settings.max_rows)
    return _Drawn(job.part(told.rows), told.note, told.start_id)


PARTS: Mapping[str, Callable[[_Job], _Drawn]] = {
    "fresh": _fresh_part, "full": _full_part, "window": _window_part,
}  # fmt: skip


def _by(kind: str) -> Callable[[_Job], Challenge]:
    def make(job: _Job) -> Challenge:
        drawn = PARTS[kind](job)
        return Challenge(
            job.train(drawn.part), job.material(drawn.part),
            notes=(drawn.note,) if drawn.note else (), window_start=drawn.start_id,
        )  # fmt: skip

    return make


# -- continue -----------------------------------------------------------------------------------


def _continue(job: _Job) -> Challenge:
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


def _ends(job: _Job, scorer: Scorer, fresh: Part) -> str:
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


def _strange(job: _Job, scorer: Scorer, part: Part) -> str:
    """Name the classes that the champion cannot tell, if any."""
    new = set(part.labels) - set(scorer.classes) if job.task != "regression" else set()
    return f"the champion does not know the class(es) {', '.join(sorted(new))}" if new else ""


def _anew(job: _Job, reason: str) -> Challenge:
    begun = _by(FULL)(job)
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


# -- ensemble -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Member:
    """A model of an earlier run, or one that was made just now; without a scorer, left out."""

    told: Weighed
    scorer: Scorer | None

    def unless(self, reason: str) -> _Member:
        """Leave it out for a reason, if there is one."""
        return _Member(replace(self.told, reason=reason), None) if reason else self


def _recalled(run: Run, kind: str) -> _Member:
    told = Weighed(kind, run.run_id, run.sequence, 0.0)
    try:
        return _Member(told, run.load(kind))
    except GiveUp as error:
        return _Member(told, None).unless(str(error))


def _ensemble(job: _Job) -> Challenge:
    """Pool a new model of the delta with those of the deltas before it, and with longer memories.

    Each is weighed by its loss on the delta's training rows. What learnt from these is weighed by
    the model that it takes the place of, the newest one by cross-fitting. Where the delta alone
    cannot be learnt from (one class, no row), the others do without.
    """
    runs = () if job.reads.everything else tuple(job.past.runs())
    befores = {kind: _before(runs, kind) for kind in _memories(job)}
    full = befores.get(FULL)
    kept = full if full and not _due(job, full) else None
    drawn = _drawn(job, [kind for kind in befores if not (kept and kind == FULL)])
    earlier = [run for run in runs if FRESH in run.kinds][: job.settings.members - 1]
    olds = [_recalled(run, FRESH) for run in earlier]
    job = _with_classes(job, drawn, [*olds, *filter(None, befores.values())])
    own = _trained(job, FRESH, _fresh_part(job))
    longer = [_trained(job, kind, found) for kind, found in drawn.items()]
    first = _widest(job, [own, *longer, *olds, *([kept] if kept else [])])
    if first is None:
        raise GiveUp(own.told.reason)
    olds = [_weighed(job, member, first) for member in olds]
    judged = {kind: _weighed(job, m, first) for kind, m in befores.items() if m}
    if own.scorer and any(member.scorer for member in (*olds, *judged.values())):
        own = _estimated(job, own, own.scorer, _optimism(earlier, olds))
    renewed = [_renewed(member, judged.get(member.told.kind), own) for member in longer]
    members = [own, *olds, *([judged[FULL]] if kept else []), *renewed]
    shrink = 1.0 if job.task == "regression" or job.settings.weighing == "aue" else TEMPERATURE
    scorer, told = _pooled(job, members, PRIORS, shrink)
    made = {m.told.kind: m.scorer for m in (own, *renewed) if m.scorer}
    return Challenge(scorer, job.material(), made, told, *_origin(drawn))


def _trained(job: _Job, kind: str, drawn: _Drawn | str) -> _Member:
    """Make a model of these rows; left out where they cannot be learnt from."""
    blank = _Member(Weighed(kind, "", 0, 0.0), None)
    if isinstance(drawn, str):
        return blank.unless(drawn)
    try:
        return replace(blank, scorer=job.train(drawn.part))
    except GiveUp as error:
        return blank.unless(str(error))


def _widest(job: _Job, members: Iterable[_Member]) -> Scorer | None:
    """Give the first model that reads as many of today's columns as any, and no others."""
    now = set(job.columns.features)
    fit = [m.scorer for m in members if m.scorer and _learns(m.scorer) <= now]
    return max(fit, key=lambda scorer: len(scorer.features), default=None)


def _learns(scorer: Scorer) -> set[tuple[str, str]]:
    return {(feature.name, feature.kind) for feature in scorer.features}


def _memories(job: _Job) -> list[str]:
    """Name the members that learn from more than a delta."""
    if job.reads.everything:  # then the newest one does
        return []
    wanted = {WINDOW: job.settings.window_member, FULL: job.settings.refresh_every is not None}
    return [kind for kind, is_wanted in wanted.items() if is_wanted]


def _before(runs: Sequence[Run], kind: str) -> _Member | None:
    run = next((run for run in runs if kind in run.kinds), None)
    return _recalled(run, kind) if run else None


def _due(job: _Job, before: _Member) -> bool:
    """Say whether the member of the whole table is to be made anew."""
    if before.scorer is None:
        return True
    age, now = job.past.sequence - before.told.sequence, set(job.columns.features)
    return age >= (job.settings.refresh_every or 1) or not _learns(before.scorer) <= now


def _drawn(job: _Job, kinds: Iterable[str]) -> dict[str, _Drawn | str]:
    """Draw the rows of each kind; or say why they cannot be learnt from.

    What the table has held for long must not park what is new.
    """
    found: dict[str, _Drawn | str] = {}
    for kind in kinds:
        try:
            found[kind] = drawn = PARTS[kind](job)
            classes_of(drawn.part.labels, job.task)
        except GiveUp as error:
            found[kind] = str(error)
    return found


def _with_classes(
    job: _Job, drawn: Mapping[str, _Drawn | str], members: Iterable[_Member]
) -> _Job:  # fmt: skip
    """Let all models tell all classes that any of the rows hold.

    And those of the newest member that knows all these: a batch may lack a class.
    """
    if job.task == "regression":
        return job
    parts = [job.parts.train, *(d.part for d in drawn.values() if isinstance(d, _Drawn))]
    labels = pd.concat([pd.Series(job.classes, dtype=object), *(part.labels for part in parts)])
    known = (member.scorer.classes for member in members if member.scorer)
    told = next((classes for classes in known if set(labels) <= set(classes)), None)
    return replace(job, classes=told or classes_of(labels, job.task))


def _origin(drawn: Mapping[str, _Drawn | str]) -> tuple[tuple[str, ...], int | None]:
    """Give the notes about what was drawn, and where the window begins."""
    known = {kind: found for kind, found in drawn.items() if isinstance(found, _Drawn)}
    notes = tuple(found.note for found in known.values() if found.note)
    return notes, known[WINDOW].start_id if WINDOW in known else None


def _renewed(new: _Member, before: _Member | None, own: _Member) -> _Member:
    """Weigh a member of a longer memory by the one whose place it takes.

    It has seen the newest rows itself.
    """
    source = before.told if before is not None and before.scorer else own.told
    if new.scorer is None or source.loss is None:
        return new
    return replace(new, told=replace(new.told, loss=source.loss, by=source.run_id))


def _estimated(job: _Job, own: _Member, newest: Scorer, optimism: float) -> _Member:
    """Estimate the loss of the newest model, which has seen all rows that there are to weigh by.

    AUE takes it to be perfect.
    """
    if job.settings.weighing == "aue":
        return _Member(replace(own.told, loss=0.0), newest)
    estimate = _cross_fitted(job, newest)
    loss = estimate + max(0.0, optimism)
    return _Member(replace(own.told, loss=loss, estimate=estimate), newest)


def _optimism(runs: Sequence[Run], olds: Sequence[_Member]) -> float:
    """Say by how much such estimates fell short of the loss on the delta that came next.

    The (lower) median over these runs, newest first, whose losses are known: neighbouring rows
    that are alike make a cross-fit too rosy, but one drift does not.
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
    return sorted(found)[(len(found) - 1) // 2] if found else 0.0


def _weighed(job: _Job, member: _Member, first: Scorer) -> _Member:
    """Leave out a model that cannot be pooled with the first one, else find its loss."""
    if member.scorer is None:
        return member
    if reason := pool.unfit(member.scorer, first):
        return member.unless(reason)
    return _Member(replace(member.told, loss=job.loss(member.scorer)), member.scorer)


def _cross_fitted(job: _Job, newest: Scorer) -> float:
    """Give the mean loss where each part of the rows is scored by a model of the others."""
    part, losses = job.parts.train, []
    folds = part.folds(FOLDS)
    counts = np.bincount(folds, minlength=FOLDS)
    for fold in np.flatnonzero(counts):
        try:
            model = job.train(part.where(folds != fold), newest.classes)
        except GiveUp:  # too few rows to take any away
            return pool.loss(newest, part, job.settings.weighing)
        losses.append(pool.loss(model, part.where(folds == fold), job.settings.weighing))
    return float(np.average(losses, weights=counts[counts > 0]))


def _pooled(
    job: _Job, members: Sequence[_Member], priors: Mapping[str, float], shrink: float
) -> tuple[Scorer, tuple[Weighed, ...]]:
    """Make one model of the members that are left, the widest of which says in which columns."""
    left = [(m.scorer, m.told) for m in members if m.scorer]
    left.sort(key=lambda item: -len(item[0].features))
    known = [told.loss for _, told in left if told.loss is not None]
    middle = float(np.mean(known)) if known else 0.0
    losses = [middle if told.loss is None else told.loss for _, told in left]
    shares = job.weights(losses, _priors([told for _, told in left], priors))
    scorer = pool.pool([scorer for scorer, _ in left], [share * shrink for share in shares])
    told = [replace(told, weight=share) for (_, told), share in zip(left, shares, strict=True)]
    return scorer, (*told, *(m.told for m in members if m.scorer is None))


def _priors(told: Sequence[Weighed], priors: Mapping[str, float]) -> list[float]:
    """Weigh members by what they are; those of older deltas share the weight of one."""
    older = sum(t.kind == FRESH and bool(t.run_id) for t in told)
    return [priors[t.kind] / (older if t.kind == FRESH and t.run_id else 1) for t in told]


# -- tournament ---------------------------------------------------------------------------------


def _tournament(job: _Job) -> Challenge:
    """Pool several candidates by how such candidates did on the rows that came after them.

    One look at a few rows picks the luckiest; the record over many deltas does not.
    """
    runs = () if job.reads.everything else tuple(job.past.runs())
    kinds = job.settings.candidates
    befores = {kind: _before(runs, kind) for kind in kinds}
    drawn = _drawn(job, [kind for kind in kinds if kind in PARTS])
    job = _with_classes(job, drawn, filter(None, befores.values()))
    found = {kind: _trained(job, kind, part) for kind, part in drawn.items()}
    made: dict[str, Scorer] = {kind: m.scorer for kind, m in found.items() if m.scorer}
    inner: list[Weighed] = []
    if ENSEMBLE in kinds:
        found[ENSEMBLE], ensemble = _pool_of(job)
        made = {**ensemble.made, **made, ENSEMBLE: ensemble.scorer} if ensemble else made
        inner += [replace(told, within=ENSEMBLE) for told in (ensemble.members if ensemble else ())]
    if not made:
        return _by(FRESH)(job)
    contenders = [_contender(job, runs, found[kind], befores[kind]) for kind in kinds]
    first = _widest(job, contenders)
    fit = [m.unless(pool.unfit(m.scorer, first)) if m.scorer and first else m for m in contenders]
    scorer, told = _pooled(job, fit, dict.fromkeys(kinds, 1.0), 1.0)
    return Challenge(scorer, job.material(), made, (*told, *inner), *_origin(drawn))


def _pool_of(job: _Job) -> tuple[_Member, Challenge | None]:
    """Make the ensemble that is a candidate; left out where nothing can be in it."""
    blank = _Member(Weighed(ENSEMBLE, "", 0, 0.0), None)
    try:
        made = _ensemble(_apart(job))
    except GiveUp as error:
        return blank.unless(str(error)), None
    return replace(blank, scorer=made.scorer), made


def _apart(job: _Job) -> _Job:
    """Leave longer memories out of the ensemble where they are candidates of their own."""
    settings = job.settings
    left_out: dict[str, object] = {}
    if FULL in settings.candidates:
        left_out["refresh_every"] = None
    if WINDOW in settings.candidates:
        left_out["window_member"] = False
    return replace(job, settings=settings.model_copy(update=left_out))


def _contender(
    job: _Job, runs: Sequence[Run], new: _Member, last: _Member | None
) -> _Member:  # fmt: skip
    """Add the loss of the last candidate of a kind to the record of that kind, older ones fading.

    Each stood for nothing but its kind: the newest rows came after it was made.
    """
    if last is None or last.scorer is None or not _learns(last.scorer) <= set(job.columns.features):
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


STRATEGIES: Mapping[str, Callable[[_Job], Challenge]] = {
    "fresh": _by("fresh"), "full": _by("full"), "window": _by("window"),
    "continue": _continue, "ensemble": _ensemble, "tournament": _tournament,
}  # fmt: skip

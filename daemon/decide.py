"""Brings one delta to its decision: read, check, train, judge, and keep the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path

from config import machine
from config.settings import Pipeline
from daemon.doors import Access
from daemon.ledger import Ledger
from daemon.past import Lookup
from daemon.reading import Work
from daemon.reign import Reign, look_back
from daemon.retry import words
from handlers import contract, cut, drift, judge, rows, train
from handlers.account import account, skipped
from handlers.evidence import PROFILE
from handlers.explain import Explanation, explain
from handlers.facts import (
    BrokenContract,
    Changes,
    Decision,
    Delta,
    Expired,
    Fate,
    GiveUp,
    Learnt,
    Live,
    Model,
    Progress,
    Record,
    State,
    TryLater,
    Verdict,
)
from handlers.live import look_before
from handlers.registry import SCORER
from handlers.scorer import Scorer
from handlers.strategies import KNOBS, Challenge, challenge


class Decider:
    """Decides on the deltas of one pipeline. The evidence is complete before the ledger moves."""

    def __init__(
        self, name: str, pipeline: Pipeline, doors: Access, ledger: Ledger, models: Path,
        progress: Progress, clock: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self.name = name
        self._pipeline = pipeline
        self._doors = doors
        self._table = doors.table
        self._registry = doors.registry
        self._ledger = ledger
        self._models = models
        self._progress = progress
        self._clock = clock

    def decide(self, work: Work) -> Record:
        """Close the work with a verdict, or without one where there is nothing to learn from."""
        if done := self._done_before(work):
            return done
        if reason := self._needless(work):
            return self.keep(work, *reason)
        mine = look_back(self._ledger, self.name, self._pipeline)
        champion, contender = self._champion(), self._contender(mine)
        rivals = [rival.scorer.columns for rival in (champion, contender) if rival]
        columns = self.columns(work.delta, dict.fromkeys(chain.from_iterable(rivals)))
        fresh = self._read(work.delta, columns)
        work = self._measured(work, columns, fresh.num_rows)
        if not work.delta.brings_rows:
            return self.keep(work, State.SKIPPED, skipped(work.delta))
        self._check(work, fresh)
        parts = self._split(fresh, columns)
        live = self._live(work, mine, champion, contender, parts)
        made = self.challenge(work.delta, columns, work.sequence, parts)
        material, challenger = made.material, made.scorer
        self._step("judging")
        known = self._past(work, mine, champion, columns, live)
        verdict = judge.judge(
            self._pipeline, challenger, champion, material.train, material.held_out, known
        )
        learnt = self._learnt(columns, made)
        explanation = explain(challenger, champion, material.held_out)
        moved = (
            drift.drift(champion.profile, champion.scorer, rows.inputs(fresh, columns))
            if champion
            else ()
        )
        judged = replace(self._judged(work, verdict), learnt=learnt, live=live, drift=moved)
        return self._keep_verdict(judged, made, explanation)

    def challenge(
        self, delta: Delta, columns: rows.Columns, sequence: int,
        parts: rows.Split | None = None, then: Learnt | None = None,
    ) -> Challenge:  # fmt: skip
        """Make the challenger of a delta, whose rows may have been read; `then` as in `Lookup`."""
        mine = self._pipeline
        lookup = Lookup(
            mine, self.name, self._doors, self._ledger, self._models, delta, sequence, then
        )
        parts = parts or self._split(self._read(delta, columns), columns)
        return challenge(
            parts, lookup.reads(columns), columns, mine.task, mine.train, lookup.past(),
            self._progress,
        )  # fmt: skip

    def columns(self, delta: Delta, champions: Iterable[str] = ()) -> rows.Columns:
        """Resolve the columns to read; raises as `rows.choose`."""
        schema, lost = self._schema(delta), self._table.evolution(delta).lost
        checked = contract.needed(self._pipeline)
        return rows.choose(schema, self._pipeline, champions, checked, lost)

    def _schema(self, delta: Delta) -> Mapping[str, str]:
        """Give the columns of a delta's rows, and named ones that the table got later: null there.

        Rows that were read by their own schema would wait for these for ever.
        """
        found, mine = self._table.schema(delta), self._pipeline
        named = (mine.label, *(mine.features or ()), *mine.row_key)
        lacking = [name for name in named if rows.resolve(name, found) is None]
        later = self._table.schema() if lacking and delta.whole else {}
        came = [column for name in lacking if (column := rows.resolve(name, later))]
        return {**found, **{column: later[column] for column in came}}

    def give_up(self, work: Work, fault: Exception) -> Record:
        """Park the delta, or first take it apart, so that good snapshots beside bad ones count."""
        told = words(fault) + (f" ({work.attempts + 1} attempts)" if work.attempts else "")
        if isinstance(fault, Expired):
            if work.retry_of is None:  # the cursor is still before it: it is looked at anew
                return self.keep(work, State.ABANDONED, f"abandoned: {told}")
            return self.keep(work, State.PARKED, f"lost: {told}", Fate.LOST)
        if work.retry_of is None and cut.divisible(work.delta):
            reason = f"split: its snapshots are taken one by one, because: {told}"
            return self.keep(work, State.SPLIT, reason)
        broken = fault.breaches if isinstance(fault, BrokenContract) else ()
        record = self._record(work, State.PARKED, f"parked: {told}", Fate.QUARANTINED)
        self._ledger.beat()
        return self._registry.record(replace(record, breaches=broken), None, None)

    def keep(self, work: Work, state: State, reason: str, fate: Fate = Fate.SKIPPED) -> Record:
        """Record a decision without a model."""
        record = self._record(work, state, reason, fate)
        self._ledger.beat()  # who lost the state must not touch the evidence of its successor
        return self._registry.record(record, None, None)

    def _done_before(self, work: Work) -> Record | None:
        """Find the work of an attempt that was killed after its evidence was complete."""
        found = self._registry.find(work.key)
        if found is None:
            return None
        champion = self._ledger.champion(self.name)
        serving = champion.model.version if champion else None
        stale = found.verdict is not None and found.verdict.against != serving
        return None if stale else found

    def _needless(self, work: Work) -> tuple[State, str] | None:
        """Say why there is nothing to train on, if so."""
        delta = work.delta
        if work.wish == "drop":
            return State.DROPPED, f"dropped by {work.wisher}"
        if work.retry_of is not None:
            fated = self._ledger.fates(self.name).get(delta.end_id)
            if fated and fated.undone:
                return State.SKIPPED, f"skipped: its rows left the table: {fated.undone}"
        elif not self._table.contains(delta.end_id):
            return State.ABANDONED, f"snapshot {delta.end_id} left the history"
        if cut.familiar(delta, self._ledger.dealt(self.name)) == delta:
            return State.SKIPPED, "skipped: its snapshots were dealt with before"
        return None if delta.brings_rows else (State.SKIPPED, skipped(delta))

    def _champion(self) -> judge.Champion | None:
        champion = self._ledger.champion(self.name)
        if champion is None:
            return None
        self._comparable(champion.model)
        folder = self._registry.fetch(champion.model, self._models)
        profile = drift.read(folder / PROFILE)
        return judge.Champion(champion.model.version, Scorer.load(folder / SCORER), profile)

    def _contender(self, mine: Reign) -> judge.Champion | None:
        """Fetch the last challenger while it waits; without it one knows less, no more."""
        if (model := mine.contender) is None:
            return None
        try:
            folder = self._registry.fetch_member(model, None, self._models)
        except GiveUp:  # deleted from MLflow
            return None
        return judge.Champion(model.version, Scorer.load(folder))

    def _live(
        self, work: Work, mine: Reign, champion: judge.Champion | None,
        contender: judge.Champion | None, parts: rows.Split,
    ) -> Live | None:  # fmt: skip
        """Score what serves before anything learns from these rows."""
        if champion is None:
            return None
        unseen = work.retry_of is None and work.delta.way in {"appended", "apart"}
        unseen = unseen and not work.delta.whole
        return look_before(
            self._pipeline, champion, contender, parts, mine.promise, mine.lives, unseen=unseen
        )

    def _past(
        self, work: Work, mine: Reign, champion: judge.Champion | None,
        columns: rows.Columns, live: Live | None,
    ) -> judge.Past:  # fmt: skip
        history = None
        if champion and self._pipeline.promote.max_forgetting is not None:
            table = self._read(replace(work.delta, way="whole"), columns)
            history = self._split(table, columns).held_out
        looks = () if work.delta.whole else mine.looks  # see there
        return judge.Past(looks if champion else mine.signals, mine.signals, live, history)

    def _comparable(self, model: Model) -> None:
        """Refuse a comparison on rows that the champion may have trained on."""
        record = self._ledger.made(self.name, model.version)
        learnt = record.learnt if record else None
        wanted = self._pipeline.train
        mine = self._pipeline
        if learnt and (learnt.label, learnt.task) != (mine.label, mine.task):
            raise TryLater(
                f"Champion {model.version} predicts {learnt.label!r} ({learnt.task}), the "
                f"configuration asks for {mine.label!r} ({mine.task}).",
                "Restore `label` and `task`, or start a pipeline under a new name.",
            )
        now = (mine.row_key, wanted.salt, wanted.holdout)
        if learnt and (learnt.row_key, learnt.salt, learnt.holdout) != now:
            raise TryLater(
                f"Champion {model.version} was trained with row_key {list(learnt.row_key)}, salt "
                f"{learnt.salt!r} and holdout {learnt.holdout}; with other ones it would be "
                f"judged on rows that it has learnt.",
                "Restore them, or start a pipeline under a new name.",
            )

    def _read(self, delta: Delta, columns: rows.Columns) -> rows.Table:
        self._step("reading")
        return self._table.read(delta, columns.to_read)

    def _split(self, found: rows.Table, columns: rows.Columns) -> rows.Split:
        return rows.split(found, columns, self._pipeline.task, self._pipeline.train)

    def _measured(self, work: Work, columns: rows.Columns, new: int) -> Work:
        """Write the rows that were found into a delta whose snapshots cannot tell them."""
        delta = work.delta
        if delta.whole or delta.way == "appended":
            return work
        known = delta.changes or self._table.measure(delta, columns.to_read)
        return replace(work, delta=replace(delta, changes=Changes(new, known.removed)))

    def _check(self, work: Work, fresh: rows.Table) -> None:
        """Hold the rows against the data contract, unless a person released them."""
        if work.wish == "release":
            return
        schema = self._table.schema(work.delta)
        if found := contract.breaches(fresh, schema, self._pipeline, self._clock()):
            raise BrokenContract(found)

    def _learnt(self, columns: rows.Columns, made: Challenge) -> Learnt:
        settings, material, challenger = self._pipeline.train, made.material, made.scorer
        return Learnt(
            strategy=settings.strategy,
            parameters=train.parameters(self._pipeline.task, len(challenger.classes), settings)
            | {"rounds": settings.rounds},
            features=tuple(challenger.columns),
            train_rows=len(material.train.rows),
            held_out_rows=len(material.held_out.rows),
            unlabelled_rows=material.unlabelled,
            holdout=settings.holdout,
            salt=settings.salt,
            row_key=self._pipeline.row_key,
            label=self._pipeline.label,
            task=self._pipeline.task,
            split_by=columns.key,
            balance=settings.balance,
            max_categories=settings.max_categories,
            rows_digest=rows.digest(material.train, challenger.columns),
            environment=machine.environment(),
            knobs={knob: getattr(settings, knob) for knob in KNOBS},
            members=made.members,
            notes=made.notes,
            window_start=made.window_start,
        )

    def _judged(self, work: Work, verdict: Verdict) -> Record:
        promoted = verdict.decision is Decision.PROMOTE
        state = State.PROMOTED if promoted else State.KEPT
        return replace(self._record(work, state, verdict.sentence, Fate.TRAINED), verdict=verdict)

    def _keep_verdict(
        self, record: Record, made: Challenge, explanation: Explanation | None
    ) -> Record:
        self._step("recording")
        sample = made.material.held_out.rows.head(self._pipeline.endpoint.verify_rows)
        profile = drift.profile(made.scorer, made.material.train.rows)
        self._ledger.beat()  # see `keep`
        return self._registry.record(record, made.scorer, sample, explanation, profile, made.made)

    def _record(self, work: Work, state: State, reason: str, fate: Fate) -> Record:
        told = [work.delta.note] if work.delta.note and state is not State.SKIPPED else []
        told += [f"released by {work.wisher}"] if work.wish == "release" else []
        return Record(
            pipeline=self.name,
            sequence=work.sequence,
            delta=work.delta,
            state=state,
            reason="; ".join([*told, reason]),
            opened_at=work.opened_at,
            closed_at=self._clock(),
            snapshots=account(work.delta, fate, reason),
            retry_of=work.retry_of,
        )

    def _step(self, step: str) -> None:
        self._progress(step, 0, 1)

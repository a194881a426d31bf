"""The tick: compares table with cursor and endpoint with champion, and closes both gaps.

It takes no event and may be called at any time, any number of times, and be killed anywhere:
what is still open is found open by the next tick.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic

import structlog

from config.settings import Pipeline
from daemon.ledger import Ledger, Standing, Work
from daemon.store import NotOwner, now
from handlers import judge, rows, train
from handlers.account import account, divisible, familiar, first, skipped, unread
from handlers.deploy import deploy
from handlers.endpoint import Endpoint
from handlers.evidence import read_proof
from handlers.facts import (
    Cursor,
    Decision,
    Delta,
    Fate,
    GiveUp,
    Kind,
    Learnt,
    Model,
    Progress,
    Record,
    RetraindError,
    State,
    TryLater,
    Unreadable,
    Verdict,
)
from handlers.registry import PROOF, SCORER, Registry
from handlers.scorer import BadInput, Scorer
from handlers.table import Table

FIRST_DELAY, LONGEST_DELAY = 5.0, 300.0
UNFORESEEN_ATTEMPTS, UNREADABLE_ATTEMPTS = 3, 6

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Doors:
    """The outside systems of one pipeline."""

    table: Table
    registry: Registry
    endpoint: Endpoint


def delay(attempts: int, jitter: float) -> float:
    """Give the seconds until the next attempt: doubling, capped, spread by `jitter` in 0..1."""
    longest: float = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts, 16))
    return longest * (0.5 + 0.5 * jitter)


class Reconciler:
    """Keeps one pipeline level. One thread at a time."""

    def __init__(
        self, name: str, pipeline: Pipeline, doors: Doors, ledger: Ledger, models: Path,
        progress: Progress, clock: Callable[[], datetime] = now,
    ) -> None:  # fmt: skip
        self.name = name
        self._pipeline = pipeline
        self._table = doors.table
        self._registry = doors.registry
        self._endpoint = doors.endpoint
        self._ledger = ledger
        self._models = models
        self._progress = progress
        self._clock = clock
        self._registry_asked = False
        self._deeds = 0
        self._troubles: dict[str, str] = {}

    def tick(self) -> None:
        """Close both gaps as far as they close now; trouble on one side leaves the other be."""
        began, self._deeds = monotonic(), 0
        with self._outages("endpoint"):
            self.level()
        with self._outages("table"):
            self.advance()
        with self._outages("endpoint"):
            self.level()
        # A look that finds nothing new is told only to those who ask for every tick.
        tell = log.info if self._deeds else log.debug
        tell(
            "tick", deeds=self._deeds, troubles=len(self._troubles),
            seconds=round(monotonic() - began, 3),
        )  # fmt: skip

    @property
    def troubled(self) -> bool:
        """Say whether something kept the last tick from closing its gaps."""
        return bool(self._troubles) or self._ledger.pending(self.name) is not None

    # -- table against cursor ----------------------------------------------------------------

    def advance(self) -> None:
        """Take up the oldest open delta, or what is new in the table, and bring it to its end."""
        work = self._next()
        record = self._attempt(work) if work else None
        if record is None:
            return
        version = record.model.version if record.model else None
        if version:
            self._registry.point("challenger", version)
        self._done()
        log.info(
            "delta_closed", delta=record.sequence, state=record.state.value, reason=record.reason,
            version=version, rows=record.delta.rows,
        )  # fmt: skip

    def _next(self) -> Work | None:
        """Give the open delta if its time has come; where none is open, look for a new one."""
        standing = self._ledger.standing(self.name)
        if work := self._ledger.pending(self.name):
            due = work.next_try_at is None or work.next_try_at <= self._clock()
            return work if due and not standing.paused else None
        if standing.cursor is None and not self._registry_asked:
            self._restore()
            standing = self._ledger.standing(self.name)
        delta = self._table.since(standing.cursor)
        if delta is None:
            self._say("level with the table", standing.cursor)
            return None
        return self._take_up(delta, standing)

    def _take_up(self, delta: Delta, standing: Standing) -> Work | None:
        """Open the delta, or the part of it that is to be dealt with first, unless it waits."""
        waiting = f"{len(delta.snapshots)} snapshot(s) with {delta.rows} rows wait"
        least = self._pipeline.delta.min_rows
        if standing.paused:
            self._say(f"paused ({standing.paused}); {waiting}", delta.cursor)
            return None
        if (known := familiar(delta, self._ledger.trained(self.name))) is not delta:
            return self._open(known)
        if standing.one_by_one_until in {snapshot.id for snapshot in delta.snapshots}:
            return self._open(first(delta))
        if delta.brings_rows and delta.exact and delta.rows < least:
            self._say(f"{waiting} for min_rows: {least}", delta.cursor)
            return None
        return self._open(delta)

    def _restore(self) -> None:
        """Rebuild a ledger that was lost (or never was) from what MLflow keeps."""
        mine = self._pipeline.table
        records = [r for r in self._registry.history() if r.delta.table == mine]
        alias = self._registry.pointed("champion")
        models = [r.model for r in records if r.model and r.model.version == alias]
        if self._ledger.restore(records, models[-1] if models else None):
            log.warning("ledger_restored", decisions=len(records), champion=alias)
        self._registry_asked = True

    def _open(self, delta: Delta) -> Work:
        work = self._ledger.open(self.name, delta)
        self._say(f"delta {work.sequence}", delta.cursor)
        log.info(
            "delta_opened", delta=work.sequence, rows=delta.rows, snapshots=len(delta.snapshots),
            start=delta.start_id, end=delta.end_id, note=delta.note,
        )  # fmt: skip
        if count := unread(delta):
            log.warning("rows_not_read", delta=work.sequence, rows=count)
        return work

    def _attempt(self, work: Work) -> Record | None:
        """Try to close a delta: the one place where exceptions become outcomes."""
        try:
            try:
                record = self._decide(work)
            except (GiveUp, BadInput) as fault:
                record = self._give_up(work, str(fault))
            self._ledger.settle(record)
        except NotOwner:
            raise
        except Unreadable as damage:
            return self._suspect(work, str(damage), UNREADABLE_ATTEMPTS)
        except TryLater as outage:
            self._postpone(work, str(outage))
            return None
        except Exception as error:  # a fault of ours must not stall the table for ever
            log.exception("unforeseen", delta=work.sequence)
            text = f"{type(error).__name__}: {error}"
            return self._suspect(work, text, UNFORESEEN_ATTEMPTS)
        return record

    def _decide(self, work: Work) -> Record:
        """Read, train, judge and record: the evidence is complete before the ledger moves."""
        if done := self._done_before(work):
            return done
        delta = work.delta
        if work.retry_of is None and not self._table.contains(delta.end_id):
            return self._keep(work, State.ABANDONED, f"snapshot {delta.end_id} left the history")
        if not delta.brings_rows:
            return self._keep(work, State.SKIPPED, skipped(delta))
        if work.retry_of is None and self._is_familiar(delta):
            return self._keep(work, State.SKIPPED, "skipped: these rows were trained on before")
        champion = self._champion()
        champions = champion.scorer.columns if champion else []
        columns = rows.choose(self._table.schema(delta), self._pipeline, champions)
        material = train.STRATEGIES[self._pipeline.train.strategy](
            delta, lambda wanted: self._read(wanted, columns), columns, self._pipeline
        )
        challenger = train.train(
            material.train, columns, self._pipeline.task, self._pipeline.train, self._progress
        )
        self._step("judging")
        verdict = judge.judge(
            self._pipeline, challenger, champion, material.train, material.held_out
        )
        return self._keep_verdict(work, material, challenger, verdict)

    def _is_familiar(self, delta: Delta) -> bool:
        appended = {s.id for s in delta.snapshots if s.kind is Kind.APPEND}
        return delta.start_id is not None and appended <= self._ledger.trained(self.name)

    def _done_before(self, work: Work) -> Record | None:
        """Find the work of an attempt that was killed after its evidence was complete."""
        found = self._registry.find(work.key)
        if found is None:
            return None
        champion = self._ledger.champion(self.name)
        serving = champion.model.version if champion else None
        stale = found.verdict is not None and found.verdict.against != serving
        return None if stale else found

    def _champion(self) -> judge.Champion | None:
        champion = self._ledger.champion(self.name)
        if champion is None:
            return None
        self._comparable(champion.model)
        folder = self._registry.fetch(champion.model, self._models)
        return judge.Champion(champion.model.version, Scorer.load(folder / SCORER))

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

    def _keep_verdict(
        self, work: Work, material: train.Material, challenger: Scorer, verdict: Verdict
    ) -> Record:
        settings = self._pipeline.train
        learnt = Learnt(
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
        )
        promoted = verdict.decision is Decision.PROMOTE
        record = self._record(
            work, State.PROMOTED if promoted else State.KEPT, verdict.sentence, "trained"
        )
        self._step("recording")
        sample = material.held_out.rows.head(self._pipeline.endpoint.verify_rows)
        self._ledger.beat()  # who lost the state must not touch the evidence of its successor
        return self._registry.record(
            replace(record, learnt=learnt, verdict=verdict), challenger, sample
        )

    def _give_up(self, work: Work, fault: str) -> Record:
        """Park the delta, or first take it apart, so that good snapshots beside bad ones count."""
        if divisible(work.delta):
            reason = f"split: its snapshots are taken one by one, because: {fault}"
            return self._keep(work, State.SPLIT, reason)
        return self._keep(work, State.PARKED, f"parked: {fault}")

    def _keep(self, work: Work, state: State, reason: str) -> Record:
        outcome: Fate = "parked" if state is State.PARKED else "skipped"
        record = self._record(work, state, reason, outcome)
        self._ledger.beat()
        return self._registry.record(record, None, None)

    def _record(self, work: Work, state: State, reason: str, outcome: Fate) -> Record:
        note = f"{work.delta.note}; " if work.delta.note and state is not State.SKIPPED else ""
        return Record(
            pipeline=self.name,
            sequence=work.sequence,
            delta=work.delta,
            state=state,
            reason=note + reason,
            opened_at=work.opened_at,
            closed_at=self._clock(),
            snapshots=account(work.delta, outcome, reason),
            retry_of=work.retry_of,
        )

    def _suspect(self, work: Work, text: str, attempts: int) -> Record | None:
        """Give what may be a lasting fault some attempts, then park the delta: others go on."""
        if work.faults + 1 < attempts:
            self._postpone(work, text, fault=True)
            return None
        record = self._give_up(work, f"{text} ({attempts} attempts)")
        self._ledger.settle(record)
        return record

    def _postpone(self, work: Work, trouble: str, *, fault: bool = False) -> None:
        seconds = delay(work.attempts, random.random())  # noqa: S311 (jitter, no secret)
        until = self._clock() + timedelta(seconds=seconds)
        self._ledger.postpone(work, trouble, until, fault=fault)
        self._say(f"delta {work.sequence} is tried again at {until:%H:%M:%S}: {trouble}")
        log.warning(
            "delta_postponed", delta=work.sequence, attempt=work.attempts + 1,
            seconds=round(seconds, 1), trouble=trouble,
        )  # fmt: skip

    # -- endpoint against champion -----------------------------------------------------------

    def level(self) -> None:
        """Bring the endpoint to the champion, proven; a model that fails its proof is refused."""
        champion = self._ledger.champion(self.name)
        if champion is None:
            self._withdraw()
            return
        if self._is_level(champion.model):
            return
        model = champion.model
        self._say(f"deploying version {model.version}")
        folder = self._registry.fetch(model, self._models)
        self._registry.point("champion", model.version)
        sample, expected = read_proof(folder / PROOF)
        self._ledger.beat()
        try:
            sentence = deploy(self._endpoint, model, folder / SCORER, sample, expected)
        except GiveUp as fault:
            self._refuse(model, str(fault))
            return
        self._ledger.deployed(self.name, model.version, sentence)
        self._done()
        log.info("deployed", version=model.version, proof=sentence, where=self._endpoint.where)

    def _is_level(self, model: Model) -> bool:
        """Ask the endpoint; a deployment that was killed before its proof is not level."""
        proven = self._ledger.proven(self.name)
        return self._endpoint.serving() == model.version and proven == model.version

    def _refuse(self, model: Model, fault: str) -> None:
        successor = self._ledger.refuse(self.name, model, fault)
        log.error(
            "deployment_refused", version=model.version, reason=fault,
            fallback=successor.version if successor else None,
        )  # fmt: skip
        self.level()

    def _withdraw(self) -> None:
        """Serve nothing rather than a model that was refused."""
        if self._ledger.withdrawn(self.name) and self._endpoint.serving():
            self._endpoint.stop()
            log.warning("endpoint_withdrawn", where=self._endpoint.where)

    # -- telling -----------------------------------------------------------------------------

    def _done(self) -> None:
        self._deeds += 1
        self._say("idle")

    def _step(self, step: str) -> None:
        self._progress(step, 0, 1)

    def _say(self, doing: str, head: Cursor | None = None) -> None:
        """Tell what is done or waited for, and the trouble that goes on beside it."""
        self._ledger.looked(self.name, head, "; ".join([doing, *self._troubles.values()]))

    @contextmanager
    def _outages(self, side: str) -> Iterator[None]:
        """Tell trouble once when it begins and once when it ends; the next tick tries again."""
        try:
            yield
        except NotOwner:
            raise
        except Exception as error:  # one side's trouble, foreseen or not, leaves the other be
            if self._troubles.get(side) != str(error):
                self._troubles[side] = str(error)
                self._say("waiting")
                unforeseen = not isinstance(error, RetraindError)
                log.warning("waiting", side=side, trouble=str(error), exc_info=unforeseen)
        else:
            if self._troubles.pop(side, None):
                log.info("recovered", side=side)

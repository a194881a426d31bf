"""The tick: compares table with cursor and endpoint with champion, and closes both gaps.

It takes no event and may be called at any time, any number of times, and be killed anywhere:
what is still open is found open by the next tick.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Literal

import structlog

from config.settings import Pipeline
from daemon import retry
from daemon.decide import Decider
from daemon.doors import Doors
from daemon.ledger import Ledger
from daemon.level import Leveller
from daemon.metering import Metering
from daemon.moment import Waiting, not_now
from daemon.reading import Standing, Work
from daemon.reign import fails
from daemon.store import NotOwner, now
from daemon.tally import NOBODY, Tally
from daemon.telling import Telling
from handlers import cut
from handlers.account import left_out
from handlers.facts import Changes, Cursor, Delta, GiveUp, Progress, Record, TryLater, Unreadable
from handlers.scorer import BadInput

log = structlog.get_logger(__name__)

Part = Literal["all", "verdict", "deploy"]
"""What a tick closes: both gaps, only that to the table, or only that to the endpoint."""


class Reconciler:
    """Keeps one pipeline level. One thread at a time."""

    def __init__(
        self, name: str, pipeline: Pipeline, doors: Doors, ledger: Ledger, models: Path,
        progress: Progress, clock: Callable[[], datetime] = now, *, tally: Tally = NOBODY,
    ) -> None:  # fmt: skip
        self.name = name
        self._pipeline = pipeline
        self._policy = pipeline.delta
        self._table = doors.table
        self._registry = doors.registry
        self._ledger = ledger
        self._clock = clock
        self._tally = tally
        self._telling = Telling(name, ledger, tally)
        self._leveller = Leveller(name, pipeline, doors, ledger, models, self._telling)
        self._metering = Metering(name, doors.endpoint)
        self._decider = Decider(name, pipeline, doors, ledger, models, progress, clock)
        self._registry_asked = False
        self._measured: tuple[str, Changes] | None = None
        self._counted: Cursor | None = None
        self._part: Part = "all"

    def tick(self, part: Part = "all") -> int:
        """Close the gaps as far as they close now; trouble on one side leaves the other be.

        Gives how much was done; after 0 a second tick would find nothing to do, either.
        """
        began, self._telling.deeds = monotonic(), 0
        self._part = part
        for side, close in self._steps(part):
            with self._telling.outages(side):
                close()
        # A look that finds nothing new is told only to those who ask for every tick.
        tell = log.info if self._telling.deeds else log.debug
        tell(
            "tick", deeds=self._telling.deeds, troubles=len(self._telling.troubles),
            seconds=round(monotonic() - began, 3),
        )  # fmt: skip
        return self._telling.deeds

    def _steps(self, part: Part) -> list[tuple[str, Callable[[], None]]]:
        level = ("endpoint", self.level)
        advance, point = ("table", self.advance), ("alias", self._leveller.point)
        if part == "deploy":  # Spark stays off: pins wait for a tick that looks at the table
            return [level, point]
        looks = [advance, point, ("pins", self._leveller.pin)]
        return looks if part == "verdict" else [level, advance, level, *looks[1:]]

    @property
    def troubled(self) -> bool:
        """Say whether something kept the last tick from closing its gaps."""
        open_ = self._part != "deploy" and self._ledger.pending(self.name) is not None
        return open_ or bool(self._telling.troubles)

    def level(self) -> None:
        """Bring the endpoint to the champion."""
        self._leveller.level()

    def advance(self) -> None:
        """Take up the oldest open delta, or what is new in the table, and bring it to its end."""
        work = self._next()
        record = self._attempt(work) if work else None
        if record is None:
            return
        self._telling.done()
        log.info(
            "delta_closed", delta=record.sequence, state=record.state.value, reason=record.reason,
            version=record.model.version if record.model else None, rows=record.delta.rows,
        )  # fmt: skip

    def _next(self) -> Work | None:
        """Give the open delta if its time has come; where none is open, look for a new one."""
        head = self._table.head()
        standing = self._ledger.standing(self.name)
        # Looking goes on whatever the work waits for.
        self._ledger.looked(self.name, head, standing.doing, standing.next_at)
        self._tally.looked()
        if work := self._ledger.pending(self.name):
            self._count(standing.cursor, head)
            return work if self._due(work) and not standing.paused else None
        if standing.cursor is None and not self._registry_asked:
            self._restore()
        standing = self._ledger.standing(self.name)
        delta = self._table.since(standing.cursor, head)
        self._tally.lags(delta)
        if delta is None:
            level = "level with the table" if head else "waits for the table's first commit"
            self._telling.say(level)
            return None
        return self._take_up(delta, standing)

    def _count(self, cursor: Cursor | None, head: Cursor | None) -> None:
        """Count what waits, that behind an open delta as well, once for each head."""
        if head is not None and head != self._counted:
            self._tally.lags(self._table.since(cursor, head))
            self._counted = head

    def _due(self, work: Work) -> bool:
        """Say whether it is time; a clock that was set back must not make it wait for ever."""
        if work.next_try_at is None:
            return True
        left = (work.next_try_at - self._clock()).total_seconds()
        return not 0 < left <= retry.LONGEST_DELAY

    def _take_up(self, delta: Delta, standing: Standing) -> Work | None:
        """Open the part of the delta that is to be dealt with first, unless it has to wait."""
        if standing.paused:
            self._telling.say(f"paused ({standing.paused}); {_told(delta)}")
            return None
        dealt = self._ledger.dealt(self.name)
        if passed := cut.turn(delta) or cut.familiar(delta, dealt):
            return self._open(passed)
        one_by_one = standing.one_by_one_until in {snapshot.id for snapshot in delta.snapshots}
        piece = self._piece(cut.unfamiliar(delta, dealt), one_by_one=one_by_one)
        passing = cut.passing(delta, piece, standing.passed_id)
        chosen = cut.plan(piece, standing.cursor, self._policy, passing)
        if isinstance(chosen, cut.Halt):
            self._halt(chosen)
            return None
        alone = one_by_one or chosen.end_id != delta.end_id  # it cannot grow any more
        chosen = self._measure(chosen)
        if chosen.brings_rows and self._waits(chosen, standing, alone=alone):
            return None
        return self._open(chosen)

    def _piece(self, delta: Delta, *, one_by_one: bool) -> Delta:
        if one_by_one:
            return cut.first(delta)
        if self._policy.coalesce == "each" and delta.start_id is not None:
            return cut.first(delta, self._policy.min_rows)
        return delta

    def _halt(self, halt: cut.Halt) -> None:
        self._ledger.halt(self.name, halt.reason, halt.at)
        self._telling.say(f"halted: {halt.reason}; `retraind resume` lets it pass")
        log.error("halted", reason=halt.reason, head=halt.at)

    def _measure(self, delta: Delta) -> Delta:
        """Count what rewrites really changed, where the snapshots' own counts cannot tell."""
        if delta.whole or delta.way == "appended":
            return delta
        if delta.brings_rows:
            try:
                delta = replace(delta, changes=self._changes(delta))
            except (GiveUp, Unreadable):
                return delta  # opened as it is, so that its attempts are counted
        if self._policy.forget == "full" and delta.removed:
            return replace(delta, way="whole")
        return delta

    def _changes(self, delta: Delta) -> Changes:
        if self._measured is None or self._measured[0] != delta.key:
            columns = self._decider.columns(delta)
            self._measured = delta.key, self._table.measure(delta, columns.to_read)
        return self._measured[1]

    def _waits(self, delta: Delta, standing: Standing, *, alone: bool) -> bool:
        """Say whether the delta has to wait, and tell why and until when."""
        moment = self._clock()
        waiting = Waiting(
            snapshots=len(delta.snapshots),
            rows=delta.rows,
            seen_at=standing.waits_since or moment,
            moved_at=standing.moved_at or moment,
            trained_at=self._ledger.trained_at(self.name),
        )
        policy = self._policy
        if alone or not delta.exact:
            policy = policy.model_copy(update={"min_rows": 0})
        wait = not_now(waiting, policy, moment)
        if wait is not None:
            self._telling.say(wait.reason, next_at=wait.next_at)
        return wait is not None

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
        told = [text for text in (delta.note, self._table.evolution(delta).sentence) if text]
        delta = replace(delta, note="; ".join(told))
        work = self._ledger.open(self.name, delta)
        self._telling.say(f"delta {work.sequence}")
        log.info(
            "delta_opened", delta=work.sequence, rows=delta.rows, snapshots=len(delta.snapshots),
            start=delta.start_id, end=delta.end_id, way=delta.way, note=delta.note,
        )  # fmt: skip
        if (count := left_out(delta)) and self._policy.rewrites == "skip":
            log.warning("rows_left_out", delta=work.sequence, rows=count)
        if delta.removed:
            log.warning("rows_removed", delta=work.sequence, rows=delta.removed)
        return work

    def _attempt(self, work: Work) -> Record | None:
        """Try to close a delta: the one place where exceptions become outcomes."""
        self._ledger.beat()  # what could not be written down is not begun
        try:
            return self._settled(work, self._decider.decide)
        except NotOwner:
            raise
        except (GiveUp, BadInput) as fault:
            self._telling.failed(fault)
            return self._end(work, fault)
        except Exception as error:  # a fault of ours must not stall the table for ever
            self._telling.failed(error)
            jitter = random.random()  # noqa: S311 (no secret)
            seconds = retry.wait(error, work.attempts, work.faults, jitter)
            if not isinstance(error, TryLater):
                log.exception("unforeseen", delta=work.sequence)
            if seconds is None:
                return self._end(work, error)
            self._postpone(work, error, seconds)
            return None

    def _settled(self, work: Work, decide: Callable[[Work], Record]) -> Record:
        record = decide(work)
        if record.model:  # before it is settled: after a crash in between it is done again
            self._registry.point("challenger", record.model.version)
        self._ledger.settle(record)
        self._metering.tell(record)
        if (live := record.live) and live.alarmed:
            log.warning(
                "champion_fails", delta=record.sequence, version=live.version,
                reason=fails(record), evidence=live.alarm,
            )  # fmt: skip
        return record

    def _end(self, work: Work, fault: Exception) -> Record | None:
        """Give the delta up; where not even that can be recorded now, later."""
        try:
            return self._settled(work, lambda work: self._decider.give_up(work, fault))
        except TryLater as outage:
            self._telling.failed(outage)
            self._postpone(work, outage, retry.delay(work.attempts, 1.0))
            return None

    def _postpone(self, work: Work, trouble: Exception, seconds: float) -> None:
        fault, told = retry.limit(trouble) is not None, retry.words(trouble)
        until = self._clock() + timedelta(seconds=seconds)
        self._ledger.postpone(work, told, until, fault=fault)
        again = f"delta {work.sequence} is tried again at {until:%H:%M:%S}: {told}"
        self._telling.say(again, next_at=until)
        log.warning(
            "delta_postponed", delta=work.sequence, attempt=work.attempts + 1,
            seconds=round(seconds, 1), trouble=told,
        )  # fmt: skip


def _told(delta: Delta) -> str:
    return f"{len(delta.snapshots)} snapshot(s) with {delta.rows} appended rows wait"

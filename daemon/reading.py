"""What the ledger tells: where pipelines stand, what is open, what was decided."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from pydantic import TypeAdapter

from daemon.store import Store, time_or_none, to_time
from handlers.facts import Cursor, Delta, Fate, GiveUp, Kind, Model, Record, State, run_key

DELTA = TypeAdapter(Delta)
RECORD = TypeAdapter(Record)
BEGUN = "begun"
"""The outcome of a deployment that has none yet; there is at most one of a pipeline."""
FORCED = "forced"
"""How a model became champion that had not won."""
PARKED = (
    "FROM deltas AS d WHERE pipeline = ? AND state = 'parked' AND NOT EXISTS "
    "(SELECT 1 FROM deltas WHERE pipeline = d.pipeline AND retry_of = d.sequence)"
)
LAST = 2**62
"""After all deltas."""
SERVED = (
    "SELECT version, run_id FROM champions AS c WHERE pipeline = ? AND version IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM deployments WHERE pipeline = c.pipeline "
    "                AND version = c.version AND outcome = 'refused')"
)
"""Champions that did not fail to serve."""


@dataclass(frozen=True, slots=True)
class Work:
    """An open delta: what is to be done, and how the attempts at it went."""

    pipeline: str
    sequence: int
    delta: Delta
    opened_at: datetime
    attempts: int = 0
    faults: int = 0
    """Attempts that failed in a way that may be the delta's own fault, unlike an outage."""
    next_try_at: datetime | None = None
    trouble: str = ""
    retry_of: int | None = None
    wish: str = ""
    """What an operator asked for: `release` it in spite of the contract, or `drop` it."""
    wisher: str = ""

    @property
    def key(self) -> str:
        """Name the work for ever."""
        return run_key(self.pipeline, self.sequence, self.delta)


@dataclass(frozen=True, slots=True)
class Champion:
    """What should serve, since when, and why."""

    model: Model
    since: datetime
    how: str
    reason: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """One attempt to bring the endpoint level with the champion."""

    version: str
    at: datetime
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reigned:
    """A version that became champion; None where none could take over."""

    version: str | None
    since: datetime
    how: str
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a pipeline stands."""

    name: str
    cursor: Cursor | None = None
    one_by_one_until: int | None = None
    head_id: int | None = None
    doing: str = ""
    paused: str | None = None
    moved_at: datetime | None = None
    """When the head was seen to move last."""
    waits_since: datetime | None = None
    """When what waits now was first seen."""
    next_at: datetime | None = None
    """When it may be acted on, where only time is missing."""
    halted_id: int | None = None
    """The head at which a policy stopped the pipeline, while it is stopped."""
    passed_id: int | None = None
    """The head up to which `resume` let it go on after a halt."""
    pins: str = ""
    """Which snapshots are kept from expiry, or why none are."""


@dataclass(frozen=True, slots=True)
class Fated:
    """What became of a snapshot, and in which delta."""

    snapshot_id: int
    sequence: int
    kind: Kind
    added: int
    state: Fate
    reason: str
    undone: str | None


@dataclass(frozen=True, slots=True)
class Doubts:
    """What happened to a model's rows since it learnt from them."""

    undone_snapshots: int
    undone_rows: int
    """Rows that it learnt from, and that a rollback or a replaced table took back."""
    removed_rows: int
    """Rows deleted from the table since; some may be among those that it learnt from."""


class Reading(Store):
    """What every page, every command and the daemon itself read."""

    def standing(self, pipeline: str) -> Standing:
        """Say where a pipeline stands; a pipeline never seen stands at the beginning."""
        row = self.one("SELECT * FROM pipelines WHERE name = ?", pipeline)
        if row is None:
            return Standing(pipeline)
        cursor = Cursor(row["table_uuid"], row["cursor_id"]) if row["cursor_id"] else None
        return Standing(
            name=pipeline, cursor=cursor, one_by_one_until=row["one_by_one_until"],
            head_id=row["head_id"], doing=row["doing"], paused=row["paused"],
            moved_at=time_or_none(row["moved_at"]), waits_since=time_or_none(row["waits_since"]),
            next_at=time_or_none(row["next_at"]), halted_id=row["halted_id"],
            passed_id=row["passed_id"], pins=row["pins"],
        )  # fmt: skip

    def pending(self, pipeline: str) -> Work | None:
        """Give the oldest open delta."""
        row = self.one(
            "SELECT * FROM deltas WHERE pipeline = ? AND state = 'open' ORDER BY sequence LIMIT 1",
            pipeline,
        )
        return self.work(row) if row else None

    def works(self, pipeline: str) -> list[Work]:
        """Give all work on a pipeline, in order, as it was opened and as its attempts went."""
        rows = self.all("SELECT * FROM deltas WHERE pipeline = ? ORDER BY sequence", pipeline)
        return [self.work(row) for row in rows]

    def history(
        self, pipeline: str | None = None, limit: int = 20, before: int | None = None
    ) -> list[Record]:
        """Give closed deltas, newest first; of one pipeline also only those `before` a number.

        One pipeline's are closed in the order of their numbers, whatever the clock said.
        """
        return [self.record(row) for row in self._newest(pipeline, limit, before)]

    def _newest(self, pipeline: str | None, limit: int, before: int | None) -> list[sqlite3.Row]:
        if pipeline is None:
            return self.all(
                "SELECT record FROM deltas WHERE record IS NOT NULL "
                "ORDER BY closed_at DESC, sequence DESC LIMIT ?",
                limit,
            )
        return self.all(
            "SELECT record FROM deltas WHERE record IS NOT NULL AND pipeline = ? AND sequence < ? "
            "ORDER BY sequence DESC LIMIT ?",
            pipeline, LAST if before is None else before, limit,
        )  # fmt: skip

    def closed(self, pipeline: str, sequence: int) -> Record | None:
        """Give a closed delta by its number."""
        row = self.one(
            "SELECT record FROM deltas WHERE record IS NOT NULL AND pipeline = ? AND sequence = ?",
            pipeline,
            sequence,
        )
        return self.record(row) if row else None

    def retried_in(self, pipeline: str, sequence: int) -> int | None:
        """Say in which delta a parked one was taken up again."""
        row = self.one(
            "SELECT sequence FROM deltas WHERE pipeline = ? AND retry_of = ? "
            "ORDER BY sequence DESC LIMIT 1",
            pipeline,
            sequence,
        )
        return int(row["sequence"]) if row else None

    def champions(self, pipeline: str, limit: int = 20) -> list[Reigned]:
        """Say which versions became champion and how, newest first."""
        rows = self.all(
            "SELECT * FROM champions WHERE pipeline = ? ORDER BY id DESC LIMIT ?", pipeline, limit
        )
        return [Reigned(r["version"], to_time(r["since"]), r["how"], r["reason"]) for r in rows]

    def champion(self, pipeline: str) -> Champion | None:
        """Say what should serve; None before the first promotion."""
        row = self.one(
            "SELECT * FROM champions WHERE pipeline = ? ORDER BY id DESC LIMIT 1", pipeline
        )
        if row is None or row["version"] is None:
            return None
        model = Model(row["version"], row["run_id"])
        return Champion(model, to_time(row["since"]), row["how"], row["reason"])

    def withdrawn(self, pipeline: str) -> bool:
        """Say whether the last champion was refused and none could take over."""
        row = self.one(
            "SELECT version FROM champions WHERE pipeline = ? ORDER BY id DESC LIMIT 1", pipeline
        )
        return row is not None and row["version"] is None

    def forced(self, pipeline: str | None = None) -> dict[tuple[str, str], str]:
        """Say which versions a person made champion although they had not won, and why."""
        rows = self.all(
            "SELECT pipeline, version, reason FROM champions "
            "WHERE how = ?1 AND pipeline = coalesce(?2, pipeline) ORDER BY id",
            FORCED,
            pipeline,
        )
        return {(row["pipeline"], row["version"]): row["reason"] for row in rows}

    def former(self, pipeline: str) -> Model | None:
        """Give the champion that a rollback brings back.

        That is the one which the champion first replaced; from a forced one, the one just before.
        """
        champion = self.champion(pipeline)
        if champion is None or champion.how != FORCED:
            return self.before(pipeline, champion.model.version) if champion else None
        row = self.one(
            f"{SERVED} AND version != ? ORDER BY id DESC LIMIT 1",
            pipeline,
            champion.model.version,
        )
        return Model(row["version"], row["run_id"]) if row else None

    def refusal(self, pipeline: str, version: str) -> str | None:
        """Say why the endpoint refused a version, if its last deployment ended so."""
        row = self.one(
            "SELECT outcome, reason FROM deployments WHERE pipeline = ? AND version = ? "
            "AND outcome != ? ORDER BY id DESC LIMIT 1",
            pipeline, version, BEGUN,
        )  # fmt: skip
        return row["reason"] if row and row["outcome"] == "refused" else None

    def before(self, pipeline: str, version: str | None) -> Model | None:
        """Give the champion that this one replaced, leaving out those that failed to serve.

        Where no version is given, the last champion that did not fail.
        """
        row = self.one(
            f"{SERVED} AND NOT EXISTS (SELECT 1 FROM champions WHERE pipeline = c.pipeline "  # noqa: S608 (a constant)
            "                          AND version = ? AND id <= c.id) "
            "ORDER BY id DESC LIMIT 1",
            pipeline,
            version,
        )
        return Model(row["version"], row["run_id"]) if row else None

    def made(self, pipeline: str, version: str) -> Record | None:
        """Find the decision that made a model version."""
        row = self.one(
            "SELECT record FROM deltas WHERE pipeline = ? AND version = ? "
            "AND state IN ('promoted', 'kept') ORDER BY sequence DESC LIMIT 1",
            pipeline,
            version,
        )
        return self.record(row) if row else None

    def by_run(self, run: str) -> Record:
        """Find a model's record by its MLflow run: id, beginning of one, or name (`cards-7`).

        Raises:
            GiveUp: no model was made in that run, or several begin so.
        """
        made = [record for record in self.history(limit=-1) if record.model]
        found = [r for r in made if f"{r.pipeline}-{r.sequence}" == run]
        found = found or [r for r in made if r.model and r.model.run_id.startswith(run)]
        if len(found) == 1:
            return found[0]
        problem = "Several models were made in runs that begin with" if found else "No model has"
        raise GiveUp(
            f"{problem} the run {run!r}.",
            "Give the id of an MLflow run, or its name: pipeline and delta, as in cards-7.",
        )

    def dealt(self, pipeline: str) -> set[int]:
        """Give the snapshots of closed deltas that need no second look: all but parked ones.

        With a cherry-picked one goes that which it was picked from, as it may be picked again.
        """
        rows = self.all(
            "SELECT snapshot_id, source_id FROM snapshots JOIN deltas AS d"
            " USING (pipeline, sequence)"
            " WHERE pipeline = ? AND d.state IN ('promoted', 'kept', 'skipped', 'dropped')",
            pipeline,
        )
        return {id_ for row in rows for id_ in row if id_ is not None}

    def fates(self, pipeline: str) -> dict[int, Fated]:
        """Say what became of each snapshot that was ever dealt with.

        The latest delta tells, unless it only skipped what an earlier one had dealt with.
        """
        rows = self.all(
            "SELECT s.*, d.state AS delta FROM snapshots AS s JOIN deltas AS d "
            "USING (pipeline, sequence) "
            "WHERE pipeline = ? AND d.state NOT IN ('split', 'abandoned') ORDER BY sequence",
            pipeline,
        )
        found: dict[int, Fated] = {}
        for row in rows:
            new = Fated(
                row["snapshot_id"], row["sequence"], Kind(row["kind"]), row["added"],
                Fate(row["state"]), row["reason"], row["undone"],
            )  # fmt: skip
            old = found.get(new.snapshot_id)
            known = old is not None and old.state in {Fate.TRAINED, Fate.REWRITTEN}
            if known and row["delta"] == State.SKIPPED.value:
                continue
            found[new.snapshot_id] = new
        return found

    def trained_at(self, pipeline: str) -> datetime | None:
        """Say when the last training ended."""
        row = self.one(
            "SELECT closed_at FROM deltas WHERE pipeline = ? AND state IN ('promoted', 'kept') "
            "ORDER BY sequence DESC LIMIT 1",
            pipeline,
        )
        return to_time(row["closed_at"]) if row else None

    def doubts(self, record: Record) -> Doubts:
        """Say what happened since to the rows that a model learnt from."""
        undone = self.all(
            "SELECT DISTINCT snapshot_id, added FROM snapshots WHERE pipeline = ? "
            "AND undone_in > ? AND state IN ('trained', 'rewritten') AND sequence BETWEEN ? AND ?",
            record.pipeline, record.sequence, _reach(record), record.sequence,
        )  # fmt: skip
        later = self.all(  # a delta that was taken up again was counted when it was new
            "SELECT removed FROM deltas WHERE pipeline = ? AND sequence > ? "
            "AND retry_of IS NULL AND state NOT IN ('split', 'abandoned')",
            record.pipeline, record.sequence,
        )  # fmt: skip
        return Doubts(
            undone_snapshots=len(undone),
            undone_rows=sum(row["added"] for row in undone),
            removed_rows=sum(row["removed"] for row in later),
        )

    def proven(self, pipeline: str) -> str | None:
        """Give the version of the last deployment if it was proven, None if it was not (yet)."""
        row = self.one(
            "SELECT version, outcome FROM deployments WHERE pipeline = ? ORDER BY id DESC LIMIT 1",
            pipeline,
        )
        return row["version"] if row and row["outcome"] == "deployed" else None

    def promoted(self, pipeline: str, version: str) -> Model | None:
        """Find a version that was a champion once."""
        row = self.one(
            "SELECT run_id FROM champions WHERE pipeline = ? AND version = ? LIMIT 1",
            pipeline,
            version,
        )
        return Model(version, row["run_id"]) if row else None

    def deployments(self, pipeline: str, limit: int = 20) -> list[Deployment]:
        """Give how the attempts to deploy ended, newest first."""
        rows = self.all(
            "SELECT * FROM deployments WHERE pipeline = ? AND outcome != ? "
            "ORDER BY id DESC LIMIT ?",
            pipeline, BEGUN, limit,
        )  # fmt: skip
        return [Deployment(r["version"], to_time(r["at"]), r["outcome"], r["reason"]) for r in rows]

    def parked(self, pipeline: str) -> list[Record]:
        """Give the parked deltas that were not retried, oldest first."""
        rows = self.all(
            f"SELECT record {PARKED} ORDER BY sequence",
            pipeline,
        )
        return [self.record(row) for row in rows]

    def count_parked(self, pipeline: str) -> int:
        """Count the parked deltas that were not retried."""
        row = self.one(f"SELECT count(*) AS count {PARKED}", pipeline)
        return int(row["count"]) if row else 0

    def record(self, row: sqlite3.Row) -> Record:
        """Read the record of a closed delta's row.

        Raises:
            TryLater: the file is damaged there.
        """
        try:
            return _parsed(row["record"])
        except ValueError as error:
            raise self._damaged(error) from error

    def work(self, row: sqlite3.Row) -> Work:
        """Read a delta's row as the work that it is, or was.

        Raises:
            TryLater: the file is damaged there.
        """
        try:
            delta = DELTA.validate_json(row["delta"])
        except ValueError as error:
            raise self._damaged(error) from error
        return Work(
            pipeline=row["pipeline"],
            sequence=row["sequence"],
            delta=delta,
            opened_at=to_time(row["opened_at"]),
            attempts=row["attempts"],
            faults=row["faults"],
            next_try_at=time_or_none(row["next_try_at"]),
            trouble=row["trouble"] or "",
            retry_of=row["retry_of"],
            wish=row["wish"],
            wisher=row["wisher"],
        )


@lru_cache(maxsize=1000)
def _parsed(text: str) -> Record:
    """Read a record, once: closed ones never change, and the pages show the same ones for long."""
    return RECORD.validate_json(text)


def _reach(record: Record) -> int:
    """Give the first delta whose rows a model may have learnt from; 0 for all before its own."""
    learnt = record.learnt
    if record.delta.whole:
        return 0
    if learnt is None or learnt.strategy == "fresh":
        return record.sequence
    used = [member for member in learnt.members if member.weight]
    if learnt.strategy != "ensemble" or any(member.kind != "fresh" for member in used):
        return 0
    return min([record.sequence, *(member.sequence for member in used if member.run_id)])

"""The ledger: what was decided, what is open, and what should serve.

Verdict, champion and cursor move in one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from daemon.store import Store, time_or_none, to_time
from handlers.facts import Cursor, Delta, Model, Record, State, TryLater, run_key

DELTA = TypeAdapter(Delta)
RECORD = TypeAdapter(Record)


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
class Standing:
    """Where a pipeline stands."""

    name: str
    cursor: Cursor | None = None
    one_by_one_until: int | None = None
    head_id: int | None = None
    doing: str = ""
    paused: str | None = None


class Ledger(Store):
    """What the daemon and its operators write down, and what every page and command reads."""

    # -- reading -----------------------------------------------------------------------------

    def standing(self, pipeline: str) -> Standing:
        """Say where a pipeline stands; a pipeline never seen stands at the beginning."""
        row = self.one("SELECT * FROM pipelines WHERE name = ?", pipeline)
        if row is None:
            return Standing(pipeline)
        cursor = Cursor(row["table_uuid"], row["cursor_id"]) if row["cursor_id"] else None
        return Standing(
            pipeline, cursor, row["one_by_one_until"], row["head_id"],
            row["doing"], row["paused"],
        )  # fmt: skip

    def pending(self, pipeline: str) -> Work | None:
        """Give the oldest open delta."""
        row = self.one(
            "SELECT * FROM deltas WHERE pipeline = ? AND state = 'open' ORDER BY sequence LIMIT 1",
            pipeline,
        )
        return _work(row) if row else None

    def history(self, pipeline: str | None = None, limit: int = 20) -> list[Record]:
        """Give closed deltas, newest first."""
        rows = self.all(
            "SELECT record FROM deltas "
            "WHERE record IS NOT NULL AND pipeline = coalesce(?, pipeline) "
            "ORDER BY closed_at DESC, sequence DESC LIMIT ?",
            pipeline,
            limit,
        )
        return [RECORD.validate_json(row["record"]) for row in rows]

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

    def before(self, pipeline: str, version: str | None) -> Model | None:
        """Give the champion that this one replaced, leaving out those that failed to serve.

        Where no version is given, the last champion that did not fail.
        """
        row = self.one(
            "SELECT version, run_id FROM champions AS c WHERE pipeline = ? AND version IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM deployments WHERE pipeline = c.pipeline "
            "                AND version = c.version AND outcome = 'refused') "
            "AND NOT EXISTS (SELECT 1 FROM champions WHERE pipeline = c.pipeline "
            "                AND version = ? AND id <= c.id) "
            "ORDER BY id DESC LIMIT 1",
            pipeline,
            version,
        )
        return Model(row["version"], row["run_id"]) if row else None

    def made(self, pipeline: str, version: str) -> Record | None:
        """Find the decision that made a model version."""
        # Read here, not by SQLite: to its JSON functions an infinite score is malformed.
        rows = self.all(
            "SELECT record FROM deltas WHERE pipeline = ? AND state IN ('promoted', 'kept') "
            "ORDER BY sequence DESC",
            pipeline,
        )
        records = (RECORD.validate_json(row["record"]) for row in rows)
        return next((r for r in records if r.model and r.model.version == version), None)

    def trained(self, pipeline: str) -> set[int]:
        """Give the snapshots whose rows were trained on."""
        rows = self.all(
            "SELECT snapshot_id FROM snapshots WHERE pipeline = ? AND state = 'trained'", pipeline
        )
        return {row["snapshot_id"] for row in rows}

    def unread(self, pipeline: str) -> int:
        """Count the rows that were added to the table but not trained on."""
        row = self.one(
            "SELECT coalesce(sum(added), 0) AS rows FROM (SELECT DISTINCT snapshot_id, added "
            "FROM snapshots WHERE pipeline = ? AND state = 'unread')",
            pipeline,
        )
        return int(row["rows"]) if row else 0

    def proven(self, pipeline: str) -> str | None:
        """Give the version of the last deployment that was proven, None if one failed since."""
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
        """Give the attempts to deploy, newest first."""
        rows = self.all(
            "SELECT * FROM deployments WHERE pipeline = ? ORDER BY id DESC LIMIT ?", pipeline, limit
        )
        return [Deployment(r["version"], to_time(r["at"]), r["outcome"], r["reason"]) for r in rows]

    def parked(self, pipeline: str) -> list[Record]:
        """Give the parked deltas that were not retried, oldest first."""
        rows = self.all(
            "SELECT record FROM deltas AS d WHERE pipeline = ? AND state = 'parked' AND NOT EXISTS "
            "(SELECT 1 FROM deltas WHERE pipeline = d.pipeline AND retry_of = d.sequence) "
            "ORDER BY sequence",
            pipeline,
        )
        return [RECORD.validate_json(row["record"]) for row in rows]

    # -- the daemon's writing ----------------------------------------------------------------

    def looked(self, pipeline: str, head: Cursor | None, doing: str) -> None:
        """Note where the table's head is and what the pipeline does or waits for."""
        row = self.one("SELECT head_id, doing FROM pipelines WHERE name = ?", pipeline)
        if row and row["doing"] == doing and (not head or head.snapshot_id == row["head_id"]):
            return  # a look that finds nothing new costs no write
        with self.write() as db:
            self._ensure(db, pipeline)
            db.execute(
                "UPDATE pipelines SET head_id = coalesce(?, head_id), doing = ? WHERE name = ?",
                (head.snapshot_id if head else None, doing, pipeline),
            )

    def open(self, pipeline: str, delta: Delta, retry_of: int | None = None) -> Work:
        """Write down the work before it starts, so that a crash resumes just this delta."""
        with self.write() as db:
            sequence = self._open(db, pipeline, delta, retry_of)
        work = self.one(
            "SELECT * FROM deltas WHERE pipeline = ? AND sequence = ?", pipeline, sequence
        )
        return _work(work)  # type: ignore[arg-type]

    def postpone(self, work: Work, trouble: str, until: datetime, *, fault: bool = False) -> None:
        """Note that an attempt failed for now."""
        with self.write() as db:
            db.execute(
                "UPDATE deltas SET attempts = attempts + 1, faults = faults + ?, trouble = ?, "
                "next_try_at = ? WHERE pipeline = ? AND sequence = ?",
                (fault, trouble, until.isoformat(), work.pipeline, work.sequence),
            )

    def settle(self, record: Record) -> None:
        """Close a delta: verdict, champion and cursor move together or not at all.

        Raises:
            TryLater: the champion changed since the comparison; it must be made again.
        """
        with self.write() as db:
            if record.verdict is not None and record.state in (State.PROMOTED, State.KEPT):
                current = self.champion(record.pipeline)
                version = current.model.version if current else None
                if version != record.verdict.against:
                    raise TryLater(
                        f"The champion became {version or 'none'} while its challenger was "
                        f"compared with {record.verdict.against or 'none'}.",
                        "The comparison is made again.",
                    )
            self._settle(db, record)

    def restore(self, records: Iterable[Record], champion: Model | None) -> int:
        """Rebuild a lost ledger from records in order; give how many there were."""
        count = 0
        with self.write() as db:
            for record in records:
                self._ensure(db, record.pipeline)
                missing = db.execute(
                    "INSERT OR IGNORE INTO deltas "
                    "(pipeline, sequence, state, delta, retry_of, opened_at) "
                    "VALUES (?, ?, 'open', ?, ?, ?)",
                    (
                        record.pipeline, record.sequence, DELTA.dump_json(record.delta).decode(),
                        record.retry_of, record.opened_at.isoformat(),
                    ),
                )  # fmt: skip
                if not missing.rowcount:
                    continue  # a first delta that was split or abandoned leaves no cursor
                self._settle(db, record)
                count += 1
                last = record
            if count and champion:
                self._crown(db, last.pipeline, champion, "restored", "the registry's alias")
        return count

    def deployed(self, pipeline: str, version: str, proof: str) -> None:
        """Note a deployment that was proven."""
        with self.write() as db:
            self._note_deployment(db, pipeline, version, "deployed", proof)

    def refuse(self, pipeline: str, model: Model, reason: str) -> Model | None:
        """Take the championship from a model that does not serve as it should.

        Gives the champion that takes over: the last one that served, or None.
        """
        with self.write() as db:
            self._note_deployment(db, pipeline, model.version, "refused", reason)
            current = self.champion(pipeline)
            if current and current.model.version != model.version:
                return current.model  # an operator chose another one in the meantime
            successor = self.before(pipeline, None)
            self._crown(db, pipeline, successor, "fell back", reason)
        return successor

    # -- the operator's writing (needs no ownership) -----------------------------------------

    def pause(self, pipeline: str, who: str, reason: str) -> None:
        """Stop acting on new snapshots; looking goes on."""
        with self.write(owned=False) as db:
            self._ensure(db, pipeline)
            db.execute("UPDATE pipelines SET paused = ? WHERE name = ?", (reason or who, pipeline))
            self._audit(db, who, "pause", pipeline, reason)

    def resume(self, pipeline: str, who: str) -> None:
        """Act on new snapshots again."""
        with self.write(owned=False) as db:
            self._ensure(db, pipeline)
            db.execute("UPDATE pipelines SET paused = NULL WHERE name = ?", (pipeline,))
            self._audit(db, who, "resume", pipeline, "")

    def rollback(self, pipeline: str, who: str, model: Model, reason: str) -> None:
        """Make an earlier champion the champion again; the next tick deploys it."""
        with self.write(owned=False) as db:
            self._crown(db, pipeline, model, "rolled back", reason or f"by {who}")
            self._audit(db, who, "rollback", pipeline, f"to {model.version}: {reason}")

    def retry(self, pipeline: str, who: str, records: Sequence[Record]) -> None:
        """Open parked deltas anew, and let postponed ones be tried at once."""
        with self.write(owned=False) as db:
            parked = {record.sequence for record in self.parked(pipeline)}
            records = [record for record in records if record.sequence in parked]
            for record in records:
                self._open(db, pipeline, record.delta, record.sequence)
            db.execute(
                "UPDATE deltas SET next_try_at = NULL WHERE pipeline = ? AND state = 'open'",
                (pipeline,),
            )
            listed = ", ".join(str(record.sequence) for record in records)
            self._audit(db, who, "retry", pipeline, listed)

    def audit(self, limit: int = 50) -> list[dict[str, str]]:
        """Give what operators did, newest first."""
        rows = self.all("SELECT * FROM audit ORDER BY id DESC LIMIT ?", limit)
        return [dict(row) for row in rows]

    # -- inside a transaction ----------------------------------------------------------------

    def _open(
        self, db: sqlite3.Connection, pipeline: str, delta: Delta, retry_of: int | None
    ) -> int:
        self._ensure(db, pipeline)
        row = db.execute(
            "SELECT coalesce(max(sequence), 0) + 1 FROM deltas WHERE pipeline = ?", (pipeline,)
        ).fetchone()
        db.execute(
            "INSERT INTO deltas (pipeline, sequence, state, delta, retry_of, opened_at) "
            "VALUES (?, ?, 'open', ?, ?, ?)",
            (pipeline, row[0], DELTA.dump_json(delta).decode(), retry_of, self.now()),
        )
        return int(row[0])

    def _settle(self, db: sqlite3.Connection, record: Record) -> None:
        closed = db.execute(
            "UPDATE deltas SET state = ?, record = ?, closed_at = ? "
            "WHERE pipeline = ? AND sequence = ? AND state = 'open'",
            (
                record.state.value, json.dumps(RECORD.dump_python(record, mode="json")),
                record.closed_at.isoformat(), record.pipeline, record.sequence,
            ),
        )  # fmt: skip
        if closed.rowcount != 1:
            msg = f"delta {record.sequence} of {record.pipeline} is not open"
            raise RuntimeError(msg)
        db.executemany(
            "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (record.pipeline, record.sequence, s.snapshot_id, s.kind.value, s.added, s.state,
                 s.reason)
                for s in record.snapshots
            ],
        )  # fmt: skip
        if record.state is State.PROMOTED:
            self._crown(db, record.pipeline, record.model, "promoted", record.reason)
        if record.state is State.SPLIT:
            db.execute(
                "UPDATE pipelines SET one_by_one_until = ? WHERE name = ?",
                (record.delta.end_id, record.pipeline),
            )
        elif record.retry_of is None and record.state is not State.ABANDONED:
            self._advance(db, record)

    def _advance(self, db: sqlite3.Connection, record: Record) -> None:
        db.execute(
            "UPDATE pipelines SET table_uuid = ?, cursor_id = ? WHERE name = ?",
            (record.delta.table_uuid, record.delta.end_id, record.pipeline),
        )
        passed = [(record.pipeline, s.id) for s in record.delta.snapshots]
        db.executemany(
            "UPDATE pipelines SET one_by_one_until = NULL WHERE name = ? AND one_by_one_until = ?",
            passed,
        )

    def _crown(
        self, db: sqlite3.Connection, pipeline: str, model: Model | None, how: str, reason: str
    ) -> None:
        db.execute(
            "INSERT INTO champions (pipeline, version, run_id, since, how, reason) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                pipeline, model.version if model else None, model.run_id if model else None,
                self.now(), how, reason,
            ),
        )  # fmt: skip

    def _note_deployment(
        self, db: sqlite3.Connection, pipeline: str, version: str, outcome: str, reason: str
    ) -> None:
        db.execute(
            "INSERT INTO deployments (pipeline, version, at, outcome, reason) "
            "VALUES (?, ?, ?, ?, ?)",
            (pipeline, version, self.now(), outcome, reason),
        )

    def _audit(
        self, db: sqlite3.Connection, who: str, action: str, pipeline: str, detail: str
    ) -> None:
        db.execute(
            "INSERT INTO audit (at, who, action, pipeline, detail) VALUES (?, ?, ?, ?, ?)",
            (self.now(), who, action, pipeline, detail),
        )

    def _ensure(self, db: sqlite3.Connection, pipeline: str) -> None:
        db.execute("INSERT OR IGNORE INTO pipelines (name) VALUES (?)", (pipeline,))


def _work(row: sqlite3.Row) -> Work:
    return Work(
        pipeline=row["pipeline"],
        sequence=row["sequence"],
        delta=DELTA.validate_json(row["delta"]),
        opened_at=to_time(row["opened_at"]),
        attempts=row["attempts"],
        faults=row["faults"],
        next_try_at=time_or_none(row["next_try_at"]),
        trouble=row["trouble"] or "",
        retry_of=row["retry_of"],
    )

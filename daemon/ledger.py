"""The ledger: what was decided, what is open, and what should serve.

Verdict, champion and cursor move in one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from daemon.reading import BEGUN, DELTA, FORCED, RECORD, Reading, Work
from handlers.facts import Cursor, Delta, Model, Record, State, TryLater

Wish = Literal["", "release", "drop"]


class Ledger(Reading):
    """What the daemon and its operators write down."""

    # -- the daemon's writing ----------------------------------------------------------------

    def looked(
        self, pipeline: str, head: Cursor | None, doing: str, next_at: datetime | None = None
    ) -> None:
        """Note where the table's head is, what the pipeline does or waits for, and until when."""
        known = self.standing(pipeline)
        moved = head is not None and head.snapshot_id != known.head_id
        if not moved and (known.doing, known.next_at) == (doing, next_at):
            return  # a look that finds nothing new costs no write
        with self.write() as db:
            self._ensure(db, pipeline)
            db.execute(
                "UPDATE pipelines SET doing = ?, next_at = ? WHERE name = ?",
                (doing, next_at.isoformat() if next_at else None, pipeline),
            )
            if head is not None and moved:
                db.execute(
                    "UPDATE pipelines SET head_id = ?, moved_at = ?, waits_since = "
                    "CASE WHEN cursor_id = ? THEN NULL ELSE coalesce(waits_since, ?) END "
                    "WHERE name = ?",
                    (head.snapshot_id, self.now(), head.snapshot_id, self.now(), pipeline),
                )

    def halt(self, pipeline: str, reason: str, at: int) -> None:
        """Stop the pipeline by policy, until a person resumes it."""
        with self.write() as db:
            self._ensure(db, pipeline)
            db.execute(
                "UPDATE pipelines SET paused = ?, halted_id = ? WHERE name = ?",
                (f"halted: {reason}", at, pipeline),
            )
            self._audit(db, "retraind", "halt", pipeline, reason)

    def pinned(self, pipeline: str, told: str) -> None:
        """Note which snapshots are kept from expiry, or why none are."""
        with self.write() as db:
            db.execute("UPDATE pipelines SET pins = ? WHERE name = ?", (told, pipeline))

    def open(self, pipeline: str, delta: Delta, retry_of: int | None = None) -> Work:
        """Write down the work before it starts, so that a crash resumes just this delta."""
        with self.write() as db:
            sequence = self._open(db, pipeline, delta, retry_of)
        work = self.one(
            "SELECT * FROM deltas WHERE pipeline = ? AND sequence = ?", pipeline, sequence
        )
        return self.work(work)  # type: ignore[arg-type]

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

    def deploying(self, pipeline: str, version: str) -> None:
        """Note that a deployment begins: until it is proven, no earlier proof counts."""
        with self.write() as db:
            self._note_deployment(db, pipeline, version, BEGUN, "")

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
        """Act on new snapshots again; after a halt, what stopped it is let through."""
        with self.write(owned=False) as db:
            self._ensure(db, pipeline)
            db.execute(
                "UPDATE pipelines SET paused = NULL, halted_id = NULL, "
                "passed_id = coalesce(halted_id, passed_id) WHERE name = ?",
                (pipeline,),
            )
            self._audit(db, who, "resume", pipeline, "")

    def rollback(self, pipeline: str, who: str, model: Model, reason: str) -> None:
        """Make an earlier champion the champion again; the next tick deploys it."""
        with self.write(owned=False) as db:
            self._crown(db, pipeline, model, "rolled back", reason or f"by {who}")
            self._audit(db, who, "rollback", pipeline, f"to {model.version}: {reason}")

    def promote(self, pipeline: str, who: str, model: Model, reason: str) -> None:
        """Make a model champion although it has not won; the next tick deploys it."""
        with self.write(owned=False) as db:
            self._crown(db, pipeline, model, FORCED, f"forced by {who}: {reason}")
            self._audit(db, who, "promote", pipeline, f"{model.version}: {reason}")

    def retry(
        self, pipeline: str, who: str, records: Sequence[Record], wish: Wish = "", why: str = ""
    ) -> None:
        """Open parked deltas anew, and let postponed ones be tried at once.

        `release` has them trained on in spite of the data contract, `drop` has them closed.
        """
        with self.write(owned=False) as db:
            parked = {record.sequence for record in self.parked(pipeline)}
            records = [record for record in records if record.sequence in parked]
            for record in records:
                sequence = self._open(db, pipeline, record.delta, record.sequence)
                db.execute(
                    "UPDATE deltas SET wish = ?, wisher = ? WHERE pipeline = ? AND sequence = ?",
                    (wish, f"{who}: {why}" if why else who, pipeline, sequence),
                )
            if wish != "drop":
                db.execute(
                    "UPDATE deltas SET next_try_at = NULL WHERE pipeline = ? AND state = 'open'",
                    (pipeline,),
                )
            listed = ", ".join(str(record.sequence) for record in records)
            self._audit(db, who, wish or "retry", pipeline, f"{listed} {why}".strip())

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
            "UPDATE deltas SET state = ?, record = ?, closed_at = ?, removed = ?, version = ? "
            "WHERE pipeline = ? AND sequence = ? AND state = 'open'",
            (
                record.state.value, json.dumps(RECORD.dump_python(record, mode="json")),
                record.closed_at.isoformat(), record.delta.removed,
                record.model.version if record.model else None,
                record.pipeline, record.sequence,
            ),
        )  # fmt: skip
        if closed.rowcount != 1:
            msg = f"delta {record.sequence} of {record.pipeline} is not open"
            raise RuntimeError(msg)
        sources = {snapshot.id: snapshot.source_id for snapshot in record.delta.snapshots}
        db.executemany(
            "INSERT INTO snapshots "
            "(pipeline, sequence, snapshot_id, kind, added, state, reason, source_id) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (record.pipeline, record.sequence, s.snapshot_id, s.kind.value, s.added,
                 s.state.value, s.reason, sources.get(s.snapshot_id))
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
        delta = record.delta
        self._mark(db, record)
        db.execute(
            "UPDATE pipelines SET table_uuid = ?, cursor_id = ?, next_at = NULL, "
            "waits_since = CASE WHEN head_id = ? THEN NULL ELSE moved_at END WHERE name = ?",
            (delta.table_uuid, delta.end_id, delta.end_id, record.pipeline),
        )
        for column in ("one_by_one_until", "passed_id"):  # what they waited for has passed
            db.executemany(
                f"UPDATE pipelines SET {column} = NULL WHERE name = ? AND {column} = ?",  # noqa: S608 (two constants)
                [(record.pipeline, snapshot.id) for snapshot in delta.snapshots],
            )

    def _mark(self, db: sqlite3.Connection, record: Record) -> None:
        """Mark the snapshots that left the history, and unmark those that came back."""
        delta, name, at = record.delta, record.pipeline, record.sequence
        mark = (
            "UPDATE snapshots SET undone = ?, undone_in = ? WHERE pipeline = ? AND snapshot_id = ?"
        )
        db.executemany(mark, [(delta.note, at, name, snapshot_id) for snapshot_id in delta.gone])
        db.executemany(mark, [(None, None, name, snapshot.id) for snapshot in delta.snapshots])
        db.execute(
            "UPDATE snapshots SET undone = ?, undone_in = ? WHERE pipeline = ? AND sequence < ? "
            "AND undone IS NULL AND EXISTS "
            "(SELECT 1 FROM pipelines WHERE name = ? AND table_uuid != ?)",
            (delta.note, at, name, at, name, delta.table_uuid),
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
        db.execute("DELETE FROM deployments WHERE pipeline = ? AND outcome = ?", (pipeline, BEGUN))
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

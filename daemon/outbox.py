"""What is to be told, and what was: kept in the ledger's file, so that no restart repeats it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from config.notify import Event
from daemon.news import Condition, Crowned, Notice
from daemon.reading import Reading
from daemon.store import to_time
from handlers.facts import Record

KEPT_FOR = timedelta(days=30)
"""How long what was told is remembered; by then nothing asks for it any more."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a pipeline was gone through."""

    since: datetime
    """When telling began; what was decided before is no news."""
    sequence: int
    """All deltas up to this one were dealt with."""
    champion: int
    """All lines of the list of champions up to this one were."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A notice that is not delivered to all targets yet."""

    id: int
    event: Event
    text: str
    told: frozenset[str]
    """Keys of the targets that have it."""
    attempts: int


class Outbox:
    """The notices of all pipelines."""

    def __init__(self, book: Reading) -> None:
        self._book = book

    # -- what there is to tell ---------------------------------------------------------------

    def mark(self, pipeline: str) -> Mark | None:
        """Say how far a pipeline was gone through; None before telling begins."""
        row = self._book.one("SELECT * FROM noticed WHERE pipeline = ?", pipeline)
        return Mark(to_time(row["since"]), row["sequence"], row["champion"]) if row else None

    def reached(self, pipeline: str, since: datetime) -> Mark:
        """Say how far one could go now: not beyond a delta that is still open."""
        row = self._book.one(
            "SELECT coalesce((SELECT min(sequence) - 1 FROM deltas "
            "WHERE pipeline = ?1 AND state = 'open'), "
            "(SELECT max(sequence) FROM deltas WHERE pipeline = ?1), 0) AS sequence, "
            "coalesce((SELECT max(id) FROM champions WHERE pipeline = ?1), 0) AS champion",
            pipeline,
        )
        return Mark(since, row["sequence"], row["champion"]) if row else Mark(since, 0, 0)

    def closed(self, pipeline: str, mark: Mark) -> list[Record]:
        """Give the decisions beyond the mark, in their order."""
        rows = self._book.all(
            "SELECT sequence FROM deltas WHERE pipeline = ? AND sequence > ? AND state != 'open' "
            "ORDER BY sequence",
            pipeline,
            mark.sequence,
        )
        found = (self._book.closed(pipeline, row["sequence"]) for row in rows)
        return [record for record in found if record and record.closed_at >= mark.since]

    def lost(self, pipeline: str, sequence: int) -> int:
        """Count the challengers that lost one after the other, up to this delta."""
        row = self._book.one(
            "SELECT count(*) AS count FROM deltas WHERE pipeline = ?1 AND state = 'kept' "
            "AND sequence <= ?2 AND sequence > coalesce((SELECT max(sequence) FROM deltas "
            "WHERE pipeline = ?1 AND state = 'promoted' AND sequence <= ?2), 0)",
            pipeline,
            sequence,
        )
        return int(row["count"]) if row else 0

    def crowned(self, pipeline: str, mark: Mark) -> list[Crowned]:
        """Give the champions beyond the mark."""
        rows = self._book.all(
            "SELECT id, version, how, reason FROM champions WHERE pipeline = ? AND id > ?",
            pipeline,
            mark.champion,
        )
        return [Crowned(row["id"], row["version"], row["how"], row["reason"]) for row in rows]

    def conditions(self, pipeline: str) -> list[tuple[Condition, bool]]:
        """Give the troubles that were seen, and whether each was told."""
        rows = self._book.all("SELECT * FROM conditions WHERE pipeline = ?", pipeline)
        return [
            (
                Condition(
                    row["event"], row["about"], to_time(row["since"]), "", row["over"]
                ),
                bool(row["told"]),
            )
            for row in rows
        ]  # fmt: skip

    def keep(
        self, pipeline: str, mark: Mark, notices: Iterable[Notice],
        troubles: Mapping[Condition, bool],
    ) -> None:  # fmt: skip
        """Write down what is to be told, how far that reaches, and the troubles that there are."""
        with self._book.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO noticed VALUES (?, ?, ?, ?)",
                (pipeline, mark.since.isoformat(), mark.sequence, mark.champion),
            )
            db.execute("DELETE FROM conditions WHERE pipeline = ?", (pipeline,))
            db.executemany(
                "INSERT INTO conditions VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (pipeline, c.event, c.about, c.since.isoformat(), c.over, told)
                    for c, told in troubles.items()
                ],
            )
            db.executemany(
                "INSERT OR IGNORE INTO notices (pipeline, event, about, text, at) "
                "VALUES (?, ?, ?, ?, ?)",
                [(pipeline, n.event, n.about, n.text, self._book.now()) for n in notices],
            )

    def forget(self) -> None:
        """Forget all, where nobody is told any more: what happens until then is no news later."""
        if self._book.one("SELECT 1 FROM noticed LIMIT 1"):
            with self._book.write() as db:
                for table in ("noticed", "conditions", "notices"):
                    db.execute(f"DELETE FROM {table}")  # noqa: S608 (three constants)

    # -- what is delivered -------------------------------------------------------------------

    def waiting(self, pipeline: str) -> list[Waiting]:
        """Give what is to be told and whose time has come, oldest first."""
        rows = self._book.all(
            "SELECT * FROM notices WHERE pipeline = ? AND state = 'waiting' "
            "AND (next_try_at IS NULL OR next_try_at <= ?) ORDER BY id",
            pipeline,
            self._book.now(),
        )
        return [
            Waiting(row["id"], row["event"], row["text"], frozenset(row["told"].split()),
                    row["attempts"])
            for row in rows
        ]  # fmt: skip

    def sent(self, pipeline: str, since: datetime) -> int:
        """Count the messages that went out since then."""
        row = self._book.one(
            "SELECT count(DISTINCT sent_at) AS count FROM notices "
            "WHERE pipeline = ? AND sent_at > ?",
            pipeline,
            since.isoformat(),
        )
        return int(row["count"]) if row else 0

    def delivered(self, notices: Sequence[Waiting], key: str) -> None:
        """Note that a target has these, in one message."""
        with self._book.write() as db:
            db.executemany(
                "UPDATE notices SET told = told || ' ' || ?, sent_at = coalesce(sent_at, ?) "
                "WHERE id = ?",
                [(key, self._book.now(), notice.id) for notice in notices],
            )

    def ended(self, notices: Sequence[Waiting], state: str) -> None:
        """Note that nothing more is done about these: `sent`, or `failed`."""
        before = (self._book.clock() - KEPT_FOR).isoformat()
        with self._book.write() as db:
            db.executemany(
                "UPDATE notices SET state = ? WHERE id = ?",
                [(state, notice.id) for notice in notices],
            )
            db.execute("DELETE FROM notices WHERE state != 'waiting' AND at < ?", (before,))

    def postponed(self, notices: Sequence[Waiting], until: datetime) -> None:
        """Note that some target did not take these."""
        with self._book.write() as db:
            db.executemany(
                "UPDATE notices SET attempts = attempts + 1, next_try_at = ? WHERE id = ?",
                [(until.isoformat(), notice.id) for notice in notices],
            )

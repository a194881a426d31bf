"""The file under the ledger: transactions, ownership, format.

One SQLite file with a rollback journal, which is safe on NFS where a write-ahead log is not.
Every transaction of the daemon first proves that it still owns the state, so two daemons on the
same state never both act.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import RLock

from handlers.facts import GiveUp, TryLater

SCHEMA = """
CREATE TABLE pipelines (
    name TEXT PRIMARY KEY, table_uuid TEXT, cursor_id INTEGER, one_by_one_until INTEGER,
    head_id INTEGER, doing TEXT NOT NULL DEFAULT '', paused TEXT
);
CREATE TABLE deltas (
    pipeline TEXT NOT NULL REFERENCES pipelines (name), sequence INTEGER NOT NULL,
    state TEXT NOT NULL, delta TEXT NOT NULL, record TEXT, retry_of INTEGER,
    opened_at TEXT NOT NULL, closed_at TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, faults INTEGER NOT NULL DEFAULT 0,
    next_try_at TEXT, trouble TEXT,
    PRIMARY KEY (pipeline, sequence)
);
CREATE INDEX open_deltas ON deltas (pipeline, sequence) WHERE state = 'open';
CREATE TABLE snapshots (
    pipeline TEXT NOT NULL, sequence INTEGER NOT NULL, snapshot_id INTEGER NOT NULL,
    kind TEXT NOT NULL, added INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (pipeline, sequence, snapshot_id),
    FOREIGN KEY (pipeline, sequence) REFERENCES deltas (pipeline, sequence)
);
CREATE TABLE champions (
    id INTEGER PRIMARY KEY, pipeline TEXT NOT NULL REFERENCES pipelines (name),
    version TEXT, run_id TEXT, since TEXT NOT NULL, how TEXT NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE deployments (
    id INTEGER PRIMARY KEY, pipeline TEXT NOT NULL REFERENCES pipelines (name),
    version TEXT NOT NULL, at TEXT NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
    pipeline TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE TABLE owner (
    one INTEGER PRIMARY KEY CHECK (one = 1), token TEXT NOT NULL, host TEXT NOT NULL,
    pid INTEGER NOT NULL, started REAL NOT NULL, url TEXT NOT NULL, beat_at TEXT NOT NULL
);
"""
MIGRATIONS = (
    SCHEMA,
    """
ALTER TABLE pipelines ADD COLUMN moved_at TEXT;
ALTER TABLE pipelines ADD COLUMN waits_since TEXT;
ALTER TABLE pipelines ADD COLUMN next_at TEXT;
ALTER TABLE pipelines ADD COLUMN halted_id INTEGER;
ALTER TABLE pipelines ADD COLUMN passed_id INTEGER;
ALTER TABLE pipelines ADD COLUMN pins TEXT NOT NULL DEFAULT '';
ALTER TABLE deltas ADD COLUMN wish TEXT NOT NULL DEFAULT '';
ALTER TABLE deltas ADD COLUMN wisher TEXT NOT NULL DEFAULT '';
ALTER TABLE deltas ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE snapshots ADD COLUMN undone TEXT;
ALTER TABLE snapshots ADD COLUMN undone_in INTEGER;
UPDATE snapshots SET state = 'quarantined' WHERE state = 'parked';
UPDATE snapshots SET state = 'rewritten' WHERE state = 'unread'
""",
    "ALTER TABLE snapshots ADD COLUMN source_id INTEGER",
    # To SQLite's JSON functions an infinite score is malformed, so the version is cut out as text.
    """
ALTER TABLE deltas ADD COLUMN version TEXT;
UPDATE deltas SET version = substr(record, instr(record, '"model": {"version": "') + 22)
WHERE instr(record, '"model": {"version": "');
UPDATE deltas SET version = substr(version, 1, instr(version, '"') - 1) WHERE version IS NOT NULL;
CREATE INDEX made ON deltas (pipeline, version) WHERE version IS NOT NULL;
CREATE INDEX closed ON deltas (closed_at) WHERE record IS NOT NULL;
CREATE INDEX parked ON deltas (pipeline, sequence) WHERE state = 'parked';
CREATE INDEX retries ON deltas (pipeline, retry_of) WHERE retry_of IS NOT NULL
""",
    # Records are long: without it, counting deltas would read all of them.
    "CREATE INDEX delta_states ON deltas (pipeline, state, sequence)",
    """
CREATE TABLE noticed (
    pipeline TEXT PRIMARY KEY, since TEXT NOT NULL, sequence INTEGER NOT NULL,
    champion INTEGER NOT NULL
);
CREATE TABLE conditions (
    pipeline TEXT NOT NULL, event TEXT NOT NULL, about TEXT NOT NULL, since TEXT NOT NULL,
    over TEXT NOT NULL, told INTEGER NOT NULL, PRIMARY KEY (pipeline, event, about)
);
CREATE TABLE notices (
    id INTEGER PRIMARY KEY, pipeline TEXT NOT NULL, event TEXT NOT NULL, about TEXT NOT NULL,
    text TEXT NOT NULL, at TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
    told TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at TEXT, sent_at TEXT, UNIQUE (pipeline, event, about)
);
CREATE INDEX waiting_notices ON notices (pipeline, id) WHERE state = 'waiting'
""",
)
"""What brings a file from each format to the next; the first makes it."""
VERSION = len(MIGRATIONS)
MOVE_AWAY = "Stop the daemon and move the file away; it is rebuilt from MLflow."


class NotOwner(Exception):
    """This process lost the state to another one and must not act on it any more."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that acts on this state."""

    token: str
    host: str
    pid: int
    started: float
    url: str
    beat_at: datetime


def now() -> datetime:
    """Give the time in UTC."""
    return datetime.now(timezone.utc)


class Store:
    """One SQLite file, safe to share between threads."""

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = now) -> None:
        self.path = path
        self.clock = clock
        self._lock = RLock()
        self._token: str | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.text_factory = bytes.decode  # whose error tells damage from an outage
            self._db.execute("PRAGMA busy_timeout = 10000")
            self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except (OSError, sqlite3.Error, UnicodeError) as error:
            outage = isinstance(error, OSError | sqlite3.OperationalError)
            raise GiveUp(
                f"The ledger {path} cannot be opened: {error}.",
                "Give this user write permission there, or set `state_dir` elsewhere."
                if outage
                else MOVE_AWAY,
            ) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # -- ownership ---------------------------------------------------------------------------

    def owner(self) -> Owner | None:
        """Say which process acts on this state, dead or alive."""
        row = self.one("SELECT * FROM owner")
        if row is None:
            return None
        return Owner(
            row["token"],
            row["host"],
            row["pid"],
            row["started"],
            row["url"],
            to_time(row["beat_at"]),
        )

    def claim(self, owner: Owner, instead_of: Owner | None) -> bool:
        """Take ownership, unless another process took it since `instead_of` was read."""
        with self.write(owned=False) as db:
            row = db.execute("SELECT token, beat_at FROM owner").fetchone()
            current = (row["token"], to_time(row["beat_at"])) if row else None
            seen = (instead_of.token, instead_of.beat_at) if instead_of else None
            if current != seen:
                return False
            db.execute(
                "INSERT OR REPLACE INTO owner VALUES (1, ?, ?, ?, ?, ?, ?)",
                (owner.token, owner.host, owner.pid, owner.started, owner.url, self.now()),
            )
        self._token = owner.token
        return True

    def beat(self) -> None:
        """Tell that the owner is alive."""
        with self.write() as db:
            db.execute("UPDATE owner SET beat_at = ?", (self.now(),))

    def release(self) -> None:
        """Give ownership up; harmless if it was lost before."""
        with self.write(owned=False) as db:
            db.execute("DELETE FROM owner WHERE token = ?", (self._token,))
        self._token = None

    def _migrate(self) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise GiveUp(
                f"The ledger {self.path} has format {found}, newer than this program's {VERSION}.",
                "Use the newer retraind that wrote it.",
            )
        if found < VERSION:
            with self.write(owned=False) as db:
                found = db.execute("PRAGMA user_version").fetchone()[0]  # another may be faster
                for migration in MIGRATIONS[found:]:
                    for statement in migration.split(";"):
                        db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def write(self, *, owned: bool = True) -> Iterator[sqlite3.Connection]:
        """Run one transaction; the daemon's own first proves that it still owns the state."""
        with self._lock, self._outages("written"):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                if owned:
                    self._prove_ownership()
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _outages(self, verb: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise TryLater(
                f"The ledger {self.path} could not be {verb}: {error}.",
                "Look for a full disk or a lock held by another program.",
            ) from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise  # a fault of ours, not of the file
            raise self._damaged(error) from error
        except UnicodeDecodeError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> TryLater:
        """Tell that the file holds what was never written."""
        return TryLater(f"The ledger {self.path} is damaged: {_first_line(error)}.", MOVE_AWAY)

    def _prove_ownership(self) -> None:
        row = self._db.execute("SELECT token, host, pid FROM owner").fetchone()
        if row is None or row["token"] != self._token:
            whose = f"process {row['pid']} on {row['host']} owns it now" if row else "it has none"
            raise NotOwner(
                f"This process does not own the state in {self.path.parent}: {whose}. "
                f"Nothing was changed. Stop one of the two daemons."
            )

    def one(self, sql: str, *values: object) -> sqlite3.Row | None:
        """Read one row."""
        with self._lock, self._outages("read"):
            row: sqlite3.Row | None = self._db.execute(sql, values).fetchone()
            return row

    def all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """Read all rows."""
        with self._lock, self._outages("read"):
            return self._db.execute(sql, values).fetchall()

    def now(self) -> str:
        """Give the time as the file keeps it."""
        return self.clock().isoformat()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def to_time(text: str) -> datetime:
    """Read a time of the file."""
    return datetime.fromisoformat(text)


def time_or_none(text: str | None) -> datetime | None:
    """Read a time of the file that may not be there."""
    return to_time(text) if text else None

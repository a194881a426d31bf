"""The nouns of the program, frozen, and its two error words.

Every other module speaks in these. Nothing here opens a door or computes more than a property.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Literal


class RetraindError(Exception):
    """A failure that was foreseen: its text is what happened and where, then the remedy."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what} {remedy}".strip())
        self.what = what
        self.remedy = remedy


class TryLater(RetraindError):
    """An outage: the same work may succeed later, so nothing is given up and nothing is lost."""


class Unreadable(TryLater):
    """An outage that looks like damage: after some attempts, these rows are given up."""


class GiveUp(RetraindError):
    """A permanent fault of this delta or this model: trying again changes nothing."""


class Kind(str, Enum):
    """What a snapshot did to the rows, judged by its operation *and* its summary."""

    APPEND = "append"
    EMPTY = "empty"
    COMPACTION = "compaction"
    DELETE = "delete"
    REWRITE = "rewrite"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One entry of the table's snapshot log, as Iceberg's metadata gives it."""

    id: int
    parent_id: int | None
    committed_at: datetime
    operation: str
    summary: Mapping[str, str] = field(default_factory=dict)

    def count(self, key: str) -> int:
        """Give a count of the summary (`added-records`, `total-records`, ...), 0 if absent."""
        return int(self.summary.get(key, 0))

    @property
    def added(self) -> int:
        """Rows in the data files that this snapshot added."""
        return self.count("added-records")

    @property
    def kind(self) -> Kind:
        """Classify by operation and summary: unknown operations that add rows are rewrites."""
        files = self.count("added-data-files")
        if self.operation == "append":
            return Kind.APPEND if self.added or files else Kind.EMPTY
        if self.operation == "replace" and self.added <= self.count("deleted-records"):
            return Kind.COMPACTION
        if self.added or (files and "added-records" not in self.summary):
            return Kind.REWRITE
        removed = ("deleted-records", "added-position-deletes", "added-equality-deletes")
        return Kind.DELETE if any(map(self.count, removed)) else Kind.EMPTY


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last snapshot that was dealt with, and the identity of the table it belongs to."""

    table_uuid: str
    snapshot_id: int


@dataclass(frozen=True, slots=True)
class Delta:
    """The snapshots between two points of the log: `start_id` exclusive, `end_id` inclusive.

    A `start_id` of None means the whole table as it stands at `end_id`.
    """

    table: str
    branch: str
    table_uuid: str
    start_id: int | None
    end_id: int
    snapshots: tuple[Snapshot, ...]
    note: str = ""

    @property
    def key(self) -> str:
        """Name the delta for ever: the same range of the same table has the same key."""
        start = "origin" if self.start_id is None else self.start_id
        return f"{self.table_uuid}:{self.branch}:{start}..{self.end_id}"

    @property
    def cursor(self) -> Cursor:
        """Where the cursor stands once this delta is closed."""
        return Cursor(self.table_uuid, self.end_id)

    @property
    def rows(self) -> int:
        """Count the rows that reading this delta must return, from the snapshots' summaries."""
        if self.start_id is None:
            return self.snapshots[-1].count("total-records") if self.snapshots else 0
        return sum(s.added for s in self.snapshots if s.kind is Kind.APPEND)

    @property
    def exact(self) -> bool:
        """Whether `rows` is exact: delete files hide rows, and not every writer counts."""
        if self.start_id is None:
            last = self.snapshots[-1:]
            return all("total-records" in s.summary for s in last) and not any(
                s.count("total-delete-files") for s in last
            )
        appends = (s for s in self.snapshots if s.kind is Kind.APPEND)
        return all("added-records" in s.summary for s in appends)

    @property
    def brings_rows(self) -> bool:
        """Whether there is anything to read; a writer that does not count may leave it open."""
        if self.start_id is None:
            return bool(self.rows) or not self.exact
        return any(s.kind is Kind.APPEND for s in self.snapshots)


Scores = Mapping[str, float]
"""Metric name -> value, all computed on the same rows."""


class Decision(str, Enum):
    """What the comparison says about the challenger."""

    PROMOTE = "promote"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one comparison, with the sentence that explains it to a person."""

    decision: Decision
    sentence: str
    metric: str
    rows: int
    challenger: Scores
    champion: Scores | None
    trivial: Scores
    gain: float | None
    against: str | None
    """Version of the champion that the challenger was compared with; None if there was none."""


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model version and the run that made it."""

    version: str
    run_id: str


class State(str, Enum):
    """Where a delta stands: open, or closed in one of the ways that follow."""

    OPEN = "open"
    PROMOTED = "promoted"
    KEPT = "kept"
    SKIPPED = "skipped"
    PARKED = "parked"
    SPLIT = "split"
    ABANDONED = "abandoned"


Fate = Literal["trained", "skipped", "unread", "parked"]
"""What became of the rows of one snapshot; `unread` ones were added but not trained on."""


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """How one snapshot of a closed delta was accounted for, and why."""

    snapshot_id: int
    kind: Kind
    added: int
    committed_at: datetime
    state: Fate
    reason: str


@dataclass(frozen=True, slots=True)
class Learnt:
    """What went into a challenger, for the record."""

    strategy: str
    parameters: Mapping[str, Any]
    features: tuple[str, ...]
    train_rows: int
    held_out_rows: int
    unlabelled_rows: int
    holdout: float
    salt: str
    row_key: tuple[str, ...] = ()
    """As configured; empty where the whole row was the key."""
    label: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One closed delta: the decision and everything needed to explain it.

    The ledger and MLflow keep the very same record, so either can be rebuilt from the other.
    """

    pipeline: str
    sequence: int
    delta: Delta
    state: State
    reason: str
    opened_at: datetime
    closed_at: datetime
    snapshots: tuple[SnapshotRecord, ...]
    retry_of: int | None = None
    learnt: Learnt | None = None
    verdict: Verdict | None = None
    model: Model | None = None

    @property
    def key(self) -> str:
        """Name the unit of work for ever; a retry of a parked delta is a new one."""
        return run_key(self.pipeline, self.sequence, self.delta)


def run_key(pipeline: str, sequence: int, delta: Delta) -> str:
    """Name the work on a delta, so that it is found again after a crash."""
    return f"{pipeline}#{sequence}:{delta.key}"


Progress = Callable[[str, int, int], None]
"""Called as (step, done, total) during long work; raises `TryLater` when asked to stop."""

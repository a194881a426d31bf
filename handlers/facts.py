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


class Expired(GiveUp):
    """The snapshots of a delta are not kept by the table any more; no read of it can succeed."""


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
    def source_id(self) -> int | None:
        """The snapshot that this one was cherry-picked from: it carries the very same rows."""
        return int(found) if (found := self.summary.get("source-snapshot-id")) else None

    @property
    def removed(self) -> int:
        """Rows that this snapshot took away on balance, as far as its summary tells."""
        hidden = self.count("added-position-deletes") + self.count("added-equality-deletes")
        return max(0, self.count("deleted-records") - self.added) + hidden

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


Way = Literal["appended", "changed", "apart", "whole"]
"""How the rows of a delta are read.

`appended`: what append snapshots added, by an incremental read. `changed`: what the end state has
and the start state has not, where a snapshot in between rewrote or deleted rows. `apart`: of these,
what append snapshots added. `whole`: the table as it stands at the end.
"""


@dataclass(frozen=True, slots=True)
class Thin:
    """A sample to read instead of all rows: the share of the keys whose hash is low enough."""

    key: tuple[str, ...]
    share: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What a delta changed, measured by comparing the table at its two ends."""

    new: int
    removed: int


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
    way: Way = "appended"
    changes: Changes | None = None
    gone: tuple[int, ...] = ()
    """Snapshots that were dealt with once and left the history since."""

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
    def whole(self) -> bool:
        """Whether the whole table is read, not only what is new."""
        return self.start_id is None or self.way == "whole"

    @property
    def total(self) -> int:
        """Count the rows of the table at the delta's end; 0 where its writer did not."""
        return self.snapshots[-1].count("total-records") if self.snapshots else 0

    @property
    def rows(self) -> int:
        """Count the rows to read: exactly if `exact`, else at most so many."""
        if self.whole:
            return self.total
        if self.way != "appended" and self.changes is not None:
            return self.changes.new
        bring = {Kind.APPEND, Kind.REWRITE} if self.way == "changed" else {Kind.APPEND}
        return sum(s.added for s in self.snapshots if s.kind in bring)

    @property
    def exact(self) -> bool:
        """Whether `rows` is exact: delete files hide rows, and not every writer counts."""
        if self.whole:
            last = self.snapshots[-1:]
            return all("total-records" in s.summary for s in last) and not any(
                s.count("total-delete-files") for s in last
            )
        if self.way != "appended":
            return self.changes is not None
        appends = (s for s in self.snapshots if s.kind is Kind.APPEND)
        return all("added-records" in s.summary for s in appends)

    @property
    def brings_rows(self) -> bool:
        """Whether there is anything to read; a writer that does not count may leave it open."""
        if self.whole or (self.way != "appended" and self.changes is not None):
            return bool(self.rows) or not self.exact
        bring = {Kind.APPEND, Kind.REWRITE} if self.way == "changed" else {Kind.APPEND}
        return any(s.kind in bring for s in self.snapshots)

    @property
    def removed(self) -> int:
        """Count the rows that were taken away: measured, else as the summaries tell."""
        if self.changes is not None:
            return self.changes.removed
        return 0 if self.start_id is None else sum(s.removed for s in self.snapshots)


Scores = Mapping[str, float]
"""Metric name -> value, all computed on the same rows."""


class Decision(str, Enum):
    """What the comparison says about the challenger."""

    PROMOTE = "promote"
    KEEP = "keep"
    WAIT = "wait"
    """It won, but that may be chance: the champion is kept and the evidence goes on."""


@dataclass(frozen=True, slots=True)
class Look:
    """A mean gain on rows that the models compared had not learnt from, in the metric's units."""

    rows: int
    gain: float
    error: float | None
    """Its standard error; None where the rows cannot tell it."""


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
    looks: tuple[Look, ...] = ()
    """What this delta adds to the evidence against that champion, in the order of looking."""
    signal: Look | None = None
    """How much better the challenger is than the best constant on the held-out rows."""
    evidence: float | None = None
    """Against the champion, of all looks since it reigns; see `handlers.sequential`."""
    interval: tuple[float, float] | None = None
    """Where the mean gain of all these looks lies, however often one looked."""
    gathered: int = 0
    """Rows of all these looks."""
    detectable: float | None = None
    """The gain that so many held-out rows show in four cases of five, at this level."""
    loss: Look | None = None
    """The challenger's mean loss by the proper score, told as a look."""


@dataclass(frozen=True, slots=True)
class Live:
    """How what served did on a delta before anything learnt from it (predict, then learn)."""

    version: str
    rows: int
    scores: Scores
    loss: Look
    """The champion's mean loss by the proper score, told as a look."""
    alarm: float
    """Evidence since it reigns that its loss is above what it promised; 20 is 5 % doubt."""
    alarmed: bool
    contender: str | None = None
    """Version of the last challenger, where it was scored beside the champion."""
    gain: Look | None = None
    """What the contender gains over the champion on the delta's training rows."""
    promised: float | None = None
    """Its mean loss on the held-out rows that it won on."""
    failing: Look | None = None
    """Where it is alarmed: its mean loss since that rose above the promise."""


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model version and the run that made it."""

    version: str
    run_id: str


MODEL_PATH = "model"
"""Where a run keeps its model."""


class State(str, Enum):
    """Where a delta stands: open, or closed in one of the ways that follow."""

    OPEN = "open"
    PROMOTED = "promoted"
    KEPT = "kept"
    SKIPPED = "skipped"
    PARKED = "parked"
    DROPPED = "dropped"
    SPLIT = "split"
    ABANDONED = "abandoned"


class Fate(str, Enum):
    """What became of one snapshot."""

    TRAINED = "trained"
    """Its rows were trained on, or held out to judge on."""
    SKIPPED = "skipped"
    """It brought no rows, or was left out for a reason."""
    REWRITTEN = "rewritten"
    """It rewrote or deleted rows, and the pipeline's policy dealt with that."""
    QUARANTINED = "quarantined"
    """Its delta is parked until a person decides."""
    LOST = "lost"
    """It was expired before it was read."""

    @classmethod
    def _missing_(cls, value: object) -> Fate | None:
        """Read the names that the first records used."""
        return {"parked": cls.QUARANTINED, "unread": cls.REWRITTEN}.get(str(value))


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule of the data contract that rows break, with figures and up to three examples."""

    rule: str
    column: str
    count: int
    of: int
    examples: tuple[str, ...]
    sentence: str


class BrokenContract(GiveUp):
    """Rows break the data contract: they are quarantined until a person decides."""

    def __init__(self, breaches: tuple[Breach, ...]) -> None:
        told = "; ".join(breach.sentence for breach in breaches)
        super().__init__(
            f"the data contract is broken: {told}.",
            "`retraind retry --release` trains on them all the same, `retraind drop` closes it.",
        )
        self.breaches = breaches


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """How one snapshot of a closed delta was accounted for, and why."""

    snapshot_id: int
    kind: Kind
    added: int
    committed_at: datetime
    state: Fate
    reason: str


Size = Literal["large", "moderate", "unclear", "small"]
"""How far something moved; unclear is what so few rows cannot tell from chance."""


@dataclass(frozen=True, slots=True)
class Drifted:
    """How far a column, or what a model predicts, moved from the rows that it learnt from."""

    name: str
    kind: Literal["feature", "prediction"]
    psi: float
    """Population stability index, less what it is without drift; see `handlers.drift`."""
    size: Size
    told: str
    """The bin that moved most, and its share of the rows then and now; empty if none moved."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A model that a challenger was pooled from, or that was left out of it, and why."""

    kind: str
    """The strategy that made it: `fresh`, `full`, ...; `served`, if it was all that its run made.
    """
    run_id: str
    """The run that keeps it; empty for one that this run made and keeps."""
    sequence: int
    """The delta that it was made for; 0 for this one."""
    weight: float
    loss: float | None = None
    """By which it was weighed; for a tournament, over all records so far."""
    estimate: float | None = None
    """The loss as cross-fitted on the very rows that it learnt from, before it was corrected."""
    records: float = 0.0
    """How many records that loss stands for, older ones counting less."""
    reason: str = ""
    """Why it was left out, or how its loss was found."""
    by: str = ""
    """The run whose model of this kind was scored for the record of a tournament."""
    within: str = ""
    """The candidate that it is a part of; empty where it is a part of the challenger itself."""


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
    split_by: tuple[str, ...] = ()
    """The columns that were hashed, in any case."""
    balance: bool = False
    max_categories: int = 200
    rows_digest: str = ""
    """Of the training rows and their labels, in their order."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions of this code and of what it was run with."""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    """The strategy's further settings."""
    members: tuple[Weighed, ...] = ()
    """The models that went into it."""
    notes: tuple[str, ...] = ()
    """What the strategy did otherwise than usual, and why."""
    window_start: int | None = None
    """The snapshot after which the rows of a window begin; None for the beginning of the table."""


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
    breaches: tuple[Breach, ...] = ()
    live: Live | None = None
    drift: tuple[Drifted, ...] = ()
    """How its rows lie beside those that the champion learnt from, the furthest moved first."""

    @property
    def key(self) -> str:
        """Name the unit of work for ever; a retry of a parked delta is a new one."""
        return run_key(self.pipeline, self.sequence, self.delta)


def run_key(pipeline: str, sequence: int, delta: Delta) -> str:
    """Name the work on a delta, so that it is found again after a crash."""
    return f"{pipeline}#{sequence}:{delta.key}"


Progress = Callable[[str, int, int], None]
"""Called as (step, done, total) during long work; raises `TryLater` when asked to stop."""

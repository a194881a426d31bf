"""What the JSON API answers about deltas, typed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from daemon.schema import Id, Moved, Number, Scores, Shown
from daemon.views import Z
from handlers.facts import Decision, Fate, Kind, Look, State, Way


class Mean(Shown):
    """A mean over rows, with the interval that holds the true one in 95 cases of 100."""

    rows: int
    mean: Number
    low: Number
    high: Number
    """Null, like `low`, where so few rows cannot tell it."""


def mean(look: Look | None) -> Mean | None:
    """Tell a look with its interval."""
    if look is None:
        return None
    spread = None if look.error is None else Z * look.error
    low, high = (None, None) if spread is None else (look.gain - spread, look.gain + spread)
    return Mean(rows=look.rows, mean=look.gain, low=low, high=high)


class Measured(Shown):
    """How a version does."""

    version: str | None
    """Null for a challenger that was not kept."""
    scores: Scores
    """On the held-out rows of the delta, which neither model has seen."""
    loss: Mean | None
    """Its mean loss: the challenger's on these rows; the champion's on all rows of the delta,
    before anything learnt from them."""


class Gain(Shown):
    """What the challenger gains over what it was compared with, in units of the metric."""

    here: Number
    """On this delta's held-out rows."""
    low: Number
    high: Number
    """The interval of all looks since the champion reigns, however often one looked."""
    rows: int
    """Of all these looks."""
    evidence: Number
    """Of all these looks; 20 is 5 % doubt."""
    detectable: Number
    """The gain that so many held-out rows show in four cases of five."""
    looks: tuple[Mean, ...]
    """What this delta adds to the evidence, in order."""
    signal: Mean | None
    """Over the best constant."""


class Comparison(Shown):
    """Challenger and champion on the same rows, and the rule that decided."""

    decision: Decision
    rule: str
    """The sentence that names the rule which decided, with the figures that it looked at."""
    metric: str
    held_out_rows: int
    challenger: Measured
    champion: Measured | None
    """Null where there was none, or it could not score the rows."""
    trivial: Scores
    """Of the predictor that knows only how often each label occurs."""
    gain: Gain


class Live(Shown):
    """How what served did on a delta, before anything learnt from it."""

    version: str
    rows: int
    scores: Scores
    loss: Mean
    promised: Number
    """Its mean loss on the held-out rows that it won on."""
    alarm: Number
    """Evidence since it reigns that it does worse than it promised; 20 is 5 % doubt."""
    alarmed: bool
    contender: str | None
    """Version of the last challenger, where it was scored beside it."""
    contender_gain: Mean | None


class Member(Shown):
    """A model or a strategy that the challenger was pooled from, or that was left out."""

    kind: str
    run_id: str
    """The run that keeps it; empty for one that this run made."""
    delta: int
    """The delta that it was made for; 0 for this one."""
    weight: Number
    loss: Number
    records: Number
    reason: str
    """Why it was left out, or how its loss was found."""
    within: str
    """The candidate of a tournament that it is a part of."""


class Learning(Shown):
    """What went into a challenger."""

    strategy: str
    parameters: Mapping[str, bool | int | Number | str]
    features: tuple[str, ...]
    train_rows: int
    held_out_rows: int
    unlabelled_rows: int
    row_key: tuple[str, ...]
    notes: tuple[str, ...]
    members: tuple[Member, ...]
    environment: Mapping[str, str]
    """Versions of the code and of what it was run with."""


class Snapshot(Shown):
    """One snapshot of a delta, and what became of it."""

    id: Id
    kind: Kind
    rows: int
    """That it added."""
    committed_at: datetime
    state: Fate
    reason: str


class Breach(Shown):
    """A rule of the data contract that rows break."""

    rule: str
    column: str
    count: int
    of: int
    """Rows in all, of which `count` break it."""
    examples: tuple[str, ...]
    sentence: str


class Brief(Shown):
    """One delta, in short."""

    pipeline: str
    delta: int
    state: State
    reason: str
    """Of an open one, what the last attempt failed on."""
    opened_at: datetime
    closed_at: datetime | None
    """Null while it is open."""
    rows: int
    """To read: at most so many, until they were read."""
    removed_rows: int
    retry_of: int | None
    """The parked delta that this one takes up again."""
    version: str | None
    """Of the model that it made."""
    forced: str | None
    """Who made that model champion although it had not won, and why."""
    decision: Decision | None
    against: str | None
    """The champion that the challenger was compared with."""
    metric: str | None
    score: Number
    """The challenger's, by that metric."""
    rival: Number
    """The champion's, on the same rows."""
    gain: Number
    gain_low: Number
    gain_high: Number
    alarmed: bool
    """Whether what served did worse than it promised."""
    drifted: int
    """Columns that moved far."""


class Attempts(Shown):
    """How the attempts at an open delta went."""

    made: int
    next_at: datetime | None
    trouble: str
    wish: str
    """What an operator asked for: `release` or `drop`; else empty."""


class Delta(Brief):
    """One delta, with everything that explains it."""

    table: str
    branch: str
    snapshot_from: Id | None
    """Exclusive; null for the beginning of the table."""
    snapshot_to: Id
    read: Way
    note: str
    snapshots: tuple[Snapshot, ...]
    """Empty while the delta is open."""
    attempts: Attempts | None
    """Null once it is closed."""
    run_id: str | None
    breaches: tuple[Breach, ...]
    learnt: Learning | None
    comparison: Comparison | None
    live: Live | None
    drift: tuple[Moved, ...]
    """The furthest moved first."""
    reproduce: str | None
    """The command that makes its model again."""


class Deltas(Shown):
    """Deltas of a pipeline, newest first."""

    deltas: tuple[Brief, ...]
    next: int | None
    """To be given as `before` for those that follow; null at the end."""

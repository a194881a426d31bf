"""What the JSON API answers, typed, so that its OpenAPI document is precise.

The facts are those of `daemon.views`, but snapshot ids are text here: most programs that read JSON
count exactly up to 2^53 only, and Iceberg's ids are larger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from daemon.views import finite
from handlers.facts import Size


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) else value


def _finite(value: object) -> object:
    return finite(value) if isinstance(value, float) else value


Id = Annotated[
    str,
    BeforeValidator(_text),
    Field(pattern=r"^-?\d+$", description="An Iceberg snapshot's id, as text: it exceeds 2^53."),
]
Number = Annotated[
    float | None, BeforeValidator(_finite), Field(description="Null where it is not finite.")
]
Scores = dict[str, Number]
"""Metric -> value; null where it could not be computed."""


class Shown(BaseModel):
    """A frozen group of facts."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Problem(Shown):
    """What kept a request from being answered."""

    detail: str
    """What happened, and where."""
    remedy: str
    """What helps; empty if nothing is known to."""


class Step(Shown):
    """What a pipeline does at this moment."""

    name: str
    """The step; empty when it does nothing."""
    done: int
    total: int
    """Of which `done` are done; 0 of 0 where that cannot be counted."""


class Crown(Shown):
    """The champion of a pipeline at this moment."""

    version: str
    run_id: str
    since: datetime
    how: str
    reason: str
    doubts: tuple[str, ...]
    """What happened since to the rows that it learnt from."""


class Waiting(Shown):
    """A delta that is open: it is worked on, or waits for its next attempt."""

    delta: int
    rows: int
    attempts: int
    trouble: str
    next_try_at: datetime | None


class Parked(Shown):
    """A delta that cannot be trained on, until a person decides."""

    delta: int
    rows: int
    reason: str


class Pipeline(Shown):
    """Where a pipeline stands."""

    name: str
    table: str
    branch: str
    label: str
    task: str
    metric: str
    """That decides."""
    strategy: str
    poll_every: float
    """Seconds between two looks."""
    looked: bool
    """Whether this daemon has finished its first look."""
    activity: Step
    cursor: Id | None
    """The last snapshot that was dealt with."""
    head: Id | None
    """The newest snapshot seen."""
    doing: str
    """What it does or waits for, in a sentence."""
    next_at: datetime | None
    """When it goes on, where only time is missing."""
    paused: str | None
    """Why; null where it is not."""
    halted: bool
    """Whether a policy paused it."""
    pins: str
    champion: Crown | None
    deployed: str | None
    """The version that was proven to serve."""
    endpoint: str
    open: Waiting | None
    parked: tuple[Parked, ...]
    last: int | None
    """The last delta that was closed."""


class Pipelines(Shown):
    """Every pipeline."""

    pipelines: tuple[Pipeline, ...]


class Reign(Shown):
    """From when on a version was champion, and how it came to that."""

    id: int
    version: str | None
    """Null where none could take over."""
    run_id: str | None
    since: datetime
    until: datetime | None
    """Null while it reigns."""
    how: str
    reason: str


class Champions(Shown):
    """Champions of a pipeline, newest first."""

    champions: tuple[Reign, ...]
    next: int | None
    """To be given as `before` for those that follow; null at the end."""


class Deployment(Shown):
    """One attempt to have the endpoint serve a version."""

    id: int
    version: str
    at: datetime
    outcome: str
    """`deployed` once it was proven, `refused` where it was not, `begun` while it goes on."""
    reason: str


class Deployments(Shown):
    """Deployments of a pipeline, newest first."""

    deployments: tuple[Deployment, ...]
    next: int | None
    """To be given as `before` for those that follow; null at the end."""


class Deed(Shown):
    """What somebody did, on record."""

    id: int
    at: datetime
    who: str
    action: str
    pipeline: str
    detail: str


class Audit(Shown):
    """What was done, newest first."""

    audit: tuple[Deed, ...]
    next: int | None
    """To be given as `before` for those that follow; null at the end."""


class Point(Shown):
    """How what was served did on one delta."""

    delta: int
    served: str | None
    """Its version."""
    value: Number
    low: Number
    high: Number
    """The interval of `value`, as far as it is known."""
    alarm: bool
    promoted: str | None
    """The version that this delta promoted."""


class Moved(Shown):
    """How far a column, or what the model predicts, moved since the champion learnt."""

    name: str
    kind: Literal["feature", "prediction"]
    psi: Number
    """Population stability index, less what it is without drift."""
    size: Size
    told: str
    """What moved most; empty if nothing did."""


class Trend(Shown):
    """How what was served did over the deltas, oldest first, and what moved in the last one."""

    metric: str | None
    """The loss that is measured; null before the first decision."""
    points: tuple[Point, ...]
    delta: int | None
    """The last one decided."""
    against: str | None
    drift: tuple[Moved, ...]


class Asked(Shown):
    """A look that was asked for."""

    pipeline: str
    told: str


class Done(Shown):
    """What an action did."""

    done: str


class Version(Shown):
    """What changes whenever anything changes that is shown."""

    version: str
    """Opaque; also the `ETag`."""

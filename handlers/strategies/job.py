"""What one challenger is made of: the rows that can be asked for, and what earlier runs left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from config.settings import Candidate, Train
from handlers import pool
from handlers.facts import Progress, Weighed
from handlers.rows import Columns, Part, Split, split
from handlers.scorer import Scorer, Task
from handlers.train import Material, train

FRESH: Candidate = "fresh"
FULL: Candidate = "full"
WINDOW: Candidate = "window"
ENSEMBLE: Candidate = "ensemble"
SERVED = "served"


@dataclass(frozen=True, slots=True)
class Told:
    """Rows, and what is to be noted about them."""

    rows: pa.Table
    note: str = ""
    start_id: int | None = None
    """The snapshot after which they begin; None for the beginning of the table."""


@dataclass(frozen=True, slots=True)
class Reads:
    """Rows beyond the delta; at most about so many, where a number is given."""

    whole: Callable[[int], pa.Table]
    """Of the table at the delta's end."""
    window: Callable[[int, int], Told]
    """Of so many deltas, this one included; then the most rows."""
    before: Callable[[int], Told]
    """Of the table at the delta's start."""
    everything: bool = False
    """The delta is the whole table: what was learnt before counts no more."""


@dataclass(frozen=True, slots=True)
class Run:
    """An earlier run on the same label, task and split, whose rows are still in the table."""

    run_id: str
    sequence: int
    kinds: tuple[str, ...]
    """The strategies of the models that it keeps."""
    load: Callable[[str], Scorer]
    """Brings one of these, or the model that it `served`; it may raise `GiveUp`."""
    members: tuple[Weighed, ...] = ()
    rows: int = 0
    """Of the table when it was made; 0 if nobody counted."""


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier runs left behind, looked up when it is asked for."""

    champion: Callable[[], Run | None] = lambda: None
    runs: Callable[[], Iterable[Run]] = tuple
    """Newest first."""
    sequence: int = 0
    """The number of this delta."""
    rows: int = 0
    """Of the table at its end; 0 if nobody counted."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenger, what it learnt from, and what to keep beside it."""

    scorer: Scorer
    material: Material
    made: Mapping[str, Scorer] = field(default_factory=dict)
    """The models that were made on the way, by kind: later runs may use them."""
    members: tuple[Weighed, ...] = ()
    notes: tuple[str, ...] = ()
    window_start: int | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One challenger to make: `challenge`'s arguments, with the delta already split."""

    reads: Reads
    columns: Columns
    task: Task
    settings: Train
    past: Past
    progress: Progress
    parts: Split
    classes: tuple[str, ...] = ()

    def part(self, rows: pa.Table, most: int | None = None) -> Part:
        """Give the training rows of a table, or of a sample of it."""
        parts = split(rows, self.columns, self.task, self.settings)
        return parts.train.sample(most or self.settings.max_rows)

    def train(self, part: Part, classes: tuple[str, ...] = ()) -> Scorer:
        """Train a model."""
        told = classes or self.classes
        return train(part, self.columns, self.task, self.settings, self.progress, told)

    def material(self, part: Part | None = None) -> Material:
        """Judge on the delta's held-out rows, whatever was learnt from."""
        return Material(part or self.parts.train, self.parts.held_out, self.parts.unlabelled)

    def loss(self, scorer: Scorer) -> float | None:
        """Weigh a model on the delta's training rows, which it must not have learnt from."""
        rows = self.parts.train
        return pool.loss(scorer, rows, self.settings.weighing) if len(rows.rows) else None

    def weights(self, losses: Sequence[float], priors: Sequence[float]) -> list[float]:
        """Turn such losses into weights."""
        rule, rows = self.settings.weighing, self.parts.train
        trivial = pool.prior_loss(rows, self.task, rule) if len(rows.rows) else 0.0
        return pool.weights(losses, priors, rule, trivial, len(rows.rows))


# -- by the rows they read ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rows to learn from, and where they come from."""

    part: Part
    note: str = ""
    start_id: int | None = None


def _fresh_part(job: Job) -> Drawn:
    return Drawn(job.parts.train)


def _full_part(job: Job) -> Drawn:
    if job.reads.everything:
        return Drawn(job.parts.train.sample(job.settings.max_rows))
    return Drawn(job.part(job.reads.whole(job.settings.max_rows)))


def _window_part(job: Job) -> Drawn:
    if job.reads.everything:
        return Drawn(job.parts.train.sample(job.settings.max_rows))
    told = job.reads.window(job.settings.window, job.settings.max_rows)
    return Drawn(job.part(told.rows), told.note, told.start_id)


PARTS: Mapping[str, Callable[[Job], Drawn]] = {
    "fresh": _fresh_part, "full": _full_part, "window": _window_part,
}  # fmt: skip


def by(kind: str) -> Callable[[Job], Challenge]:
    """Train one model on the rows of a kind."""

    def make(job: Job) -> Challenge:
        drawn = PARTS[kind](job)
        return Challenge(
            job.train(drawn.part), job.material(drawn.part),
            notes=(drawn.note,) if drawn.note else (), window_start=drawn.start_id,
        )  # fmt: skip

    return make

"""The three doors in memory, a clock, and a daemon that can be killed at any outside effect."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
from builders import EPOCH, TABLE
from lake import Lake, Rows, live

from config.settings import Pipeline
from daemon import owner
from daemon.doors import Doors
from daemon.ledger import Ledger
from daemon.reading import RECORD
from daemon.reconcile import Reconciler
from daemon.tally import NOBODY, Tally
from handlers import drift, lineage
from handlers.drift import Profile
from handlers.endpoint import Answer
from handlers.evidence import PROFILE, PROOF, write_proof
from handlers.evolution import Evolution, Field, evolution
from handlers.facts import (
    Changes,
    Cursor,
    Delta,
    Expired,
    GiveUp,
    Kind,
    Model,
    Record,
    Snapshot,
    Thin,
    TryLater,
    Unreadable,
)
from handlers.registry import MEMBERS, SCORER
from handlers.scorer import Scorer

NAME = "cards"
TYPES = {"key": "bigint", "x": "double", "label": "double", "z": "double"}
ARROW = {"key": pa.int64(), "x": pa.float64(), "label": pa.float64(), "z": pa.float64()}


class Killed(BaseException):
    """The process died here."""


@dataclass(slots=True)
class Fuse:
    """Does something at the n-th effect from now."""

    left: int
    act: Callable[[str], None]


class World:
    """All that outlives the daemon, and what may happen to it meanwhile."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now = EPOCH
        self.lake = Lake(lambda: self.now)
        self.out: set[str] = set()
        self.fuse: Fuse | None = None
        self.table = FakeTable(self)
        self.registry = FakeRegistry(self)
        self.endpoint = FakeEndpoint(self)

    def effect(self, door: str) -> None:
        """Pass a point at which an outage shows, or at which the process may die."""
        if door in self.out:
            raise TryLater(f"The {door} is out.")
        if self.fuse is None:
            return
        self.fuse.left -= 1
        if self.fuse.left < 0:
            fuse, self.fuse = self.fuse, None
            fuse.act(door)


class MortalLedger(Ledger):
    """The real ledger, whose process may die before and after each commit."""

    def __init__(self, world: World) -> None:
        self._world, self._started = world, False
        super().__init__(world.home / "ledger.db", clock=lambda: world.now)
        self._db.execute("PRAGMA synchronous = OFF")
        assert self.claim(owner.myself(), self.owner())
        self._started = True

    @contextmanager
    def write(self, *, owned: bool = True) -> Iterator[Any]:
        """Run a transaction."""
        with super().write(owned=owned) as db:
            yield db
            if self._started:
                self._world.effect("ledger")
        if self._started:
            self._world.effect("ledger, committed")


class FakeTable:
    """The door to the little Iceberg, with the real door's errors."""

    name = TABLE
    branch = "main"

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def _lake(self) -> Lake:
        """Refresh the handle."""
        self._world.effect("table")
        return self._world.lake

    def head(self) -> Cursor | None:
        """Say where the branch stands."""
        lake = self._lake
        return Cursor(lake.uuid, lake.head) if lake.head is not None else None

    def since(self, cursor: Cursor | None, head: Cursor | None = None) -> Delta | None:
        """Give what came after the cursor."""
        head = head or self.head()
        if head is None:
            if cursor is not None:
                raise TryLater("The table has no commits.")
            return None
        return lineage.since(head, cursor, self._lake.ancestors, self.name, self.branch)

    def contains(self, snapshot_id: int) -> bool:
        """Say whether a snapshot is an ancestor of the head, be it the last one that is named."""
        lake = self._lake
        named = lake.ancestors(lake.head) if lake.head is not None else ()
        return any(snapshot_id in {snapshot.id, snapshot.parent_id} for snapshot in named)

    def log(self) -> tuple[Snapshot, ...]:
        """Give the branch's history, oldest first."""
        lake = self._lake
        return tuple(lake.commits[i].snapshot for i in reversed(lake.history()))

    def elsewhere(self) -> tuple[Snapshot, ...]:
        """Give the snapshots outside the branch."""
        lake = self._lake
        return tuple(lake.commits[i].snapshot for i in sorted(lake.kept - set(lake.history())))

    def schema(self, delta: Delta | None = None) -> Mapping[str, str]:
        """Give the columns: of a whole table its own, of an incremental read the current ones."""
        if delta is not None:
            self._require(self._lake, delta)
        column = _column(self._lake, delta)
        return {name: TYPES[name] for name in TYPES if name != "z" or column is not None}

    def evolution(self, delta: Delta) -> Evolution:
        """Say how the columns changed between the delta's start and now."""
        lake = self._lake
        start = delta.start_id if delta.start_id in lake.kept else None
        then = lake.commits[start].column if start is not None else lake.column
        return evolution(_fields(then), _fields(lake.column))

    def read(self, delta: Delta, columns: Sequence[str], thin: Thin | None = None) -> pa.Table:
        """Read the rows of a delta, all of them: samples are an economy of Spark's."""
        found, _ = self._compared(delta)
        rows = self._project(found, columns, delta)
        if thin is None and delta.exact and rows.num_rows != delta.rows:
            raise GiveUp(f"{rows.num_rows} rows were read, but the snapshots added {delta.rows}.")
        return rows

    def measure(self, delta: Delta, columns: Sequence[str]) -> Changes:  # noqa: ARG002 (as the door has it; rows differ in all columns or in none)
        """Count what a delta changed."""
        new, removed = self._compared(delta)
        return Changes(new.total(), removed.total())

    def _compared(self, delta: Delta) -> tuple[Rows, Rows]:
        lake = self._lake
        self._require(lake, delta)
        files, new, removed = compare(lake, delta)
        if files & lake.damaged:
            self.head()
            raise Unreadable("A data file is damaged.")
        return new, removed

    def _require(self, lake: Lake, delta: Delta) -> None:
        if not lineage.complete(delta, lake.ancestors):
            raise Expired(f"snapshots between {delta.start_id} and {delta.end_id} were expired.")

    def _project(self, rows: Rows, columns: Sequence[str], delta: Delta) -> pa.Table:
        column = _column(self._lake, delta)
        listed = list(rows.elements())
        values = {
            name: [
                row.z if row.field == column else None for row in listed
            ] if name == "z" else [getattr(row, name) for row in listed]
            for name in columns
        }  # fmt: skip
        return pa.table({n: pa.array(values[n], ARROW[n]) for n in columns})


def compare(lake: Lake, delta: Delta) -> tuple[set[Any], Rows, Rows]:
    """Give what a delta's read opens and finds, and what it takes away; see `difference`."""
    after = lake.commits[delta.end_id].files
    if delta.whole:
        return set(after), live(after.items()), Rows()
    own = [s.id for s in delta.snapshots if s.kind is Kind.APPEND]
    told = {
        file
        for i in own
        for file in set(lake.commits[i].files) - set(_base(lake, i))
    }  # fmt: skip
    if delta.way == "appended":
        return told, Rows(row for file in told for row in file.rows), Rows()
    before = lake.commits[cast("int", delta.start_id)].files
    gone = [(f, d) for f, d in before.items() if after.get(f) != d]
    come = [(f, d) for f, d in after.items() if before.get(f) != d]
    opened = {file for file, _ in gone + come}
    removed = live(gone) - live(come)
    if delta.way == "changed":
        return opened, live(come) - live(gone), removed
    appended = live((f, d) for f, d in come if f in told)
    others = live((f, d) for f, d in come if f not in told)
    return opened, appended - (live(gone) - others), removed


def _base(lake: Lake, snapshot_id: int) -> Any:
    base = lake.commits[snapshot_id].base
    return lake.commits[base].files if base is not None else {}


def _column(lake: Lake, delta: Delta | None) -> int | None:
    """Give the id of column `z` in the schema that a read shows."""
    return lake.commits[delta.end_id].column if delta and delta.whole else lake.column


def _fields(column: int | None) -> tuple[Field, ...]:
    fixed = (Field(1, "key", "long"), Field(2, "x", "double"), Field(3, "label", "double"))
    return fixed if column is None else (*fixed, Field(column, "z", "double"))


@dataclass(slots=True)
class Run:
    """One MLflow run."""

    id: str
    work: str
    key: str | None = None
    record: str = ""


class FakeRegistry:
    """MLflow in memory; what it keeps of a record went through JSON."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._versions = itertools.count(1)
        self.runs: list[Run] = []
        self.aliases: dict[str, str] = {}

    def find(self, key: str) -> Record | None:
        """Find the completed work of a run key."""
        self._world.effect("registry")
        found = next((run for run in self.runs if run.key == key), None)
        return RECORD.validate_json(found.record) if found else None

    def history(self) -> list[Record]:
        """Give the completed records in order."""
        self._world.effect("registry")
        records = [RECORD.validate_json(run.record) for run in self.runs if run.key]
        return sorted(records, key=lambda record: record.sequence)

    def record(
        self,
        record: Record,
        scorer: Scorer | None,
        sample: pd.DataFrame | None,
        explanation: Mapping[str, Any] | None = None,  # noqa: ARG002 (as the door has it)
        profile: Profile | None = None,
        made: Mapping[str, Scorer] | None = None,
    ) -> Record:
        """Keep a decision, its key last."""
        self._world.effect("registry")
        run = Run(f"run-{len(self.runs)}", record.key)
        self.runs.append(run)
        if scorer is not None and sample is not None:
            folder = self._folder(run.id)
            scorer.save(folder / SCORER)
            write_proof(scorer, sample, folder / PROOF)
            if profile is not None:
                drift.write(profile, folder / PROFILE)
            for kind, member in (made or {}).items():
                member.save(folder / MEMBERS / kind)
            record = replace(record, model=Model(str(next(self._versions)), run.id))
            self._world.effect("registry")
        run.record = RECORD.dump_json(record).decode()
        for other in self.runs:
            if other.work == record.key and other is not run:
                other.key = None
        self._world.effect("registry")
        run.key = record.key
        self._world.effect("registry, done")
        return record

    def point(self, alias: str, version: str) -> bool:
        """Point an alias at a version, if the registry answers."""
        with suppress(TryLater):
            self._world.effect("registry")
            self.aliases[alias] = version
            self._world.effect("registry, done")
            return True
        return False

    def pointed(self, alias: str) -> str | None:
        """Say which version an alias points at."""
        self._world.effect("registry")
        return self.aliases.get(alias)

    def fetch(self, model: Model, home: Path) -> Path:
        """Bring a model here; what was fetched once needs no registry."""
        mark = home / model.run_id
        if not mark.exists():
            self._world.effect("registry")
            mark.mkdir(parents=True)
        return self._folder(model.run_id)

    def fetch_member(self, model: Model, kind: str | None, home: Path) -> Path:
        """Bring a model that a run made on its way."""
        folder = self.fetch(model, home)
        return folder / MEMBERS / kind if kind else folder / SCORER

    def _folder(self, run_id: str) -> Path:
        return self._world.home / "artifacts" / run_id


class FakeEndpoint:
    """A server in memory that loads real models."""

    where = "nowhere"

    def __init__(self, world: World) -> None:
        self._world = world
        self.model: Model | None = None
        self.spoilt: set[str] = set()
        """Versions whose answers are wrong."""
        self._scorer: Scorer | None = None

    def serving(self) -> str | None:
        """Name the version that answers."""
        self._world.effect("endpoint")
        return self.model.version if self.model else None

    def deploy(self, model: Model, folder: Path) -> None:
        """Load a model and serve it."""
        self._world.effect("endpoint")
        self._scorer, self.model = Scorer.load(folder), model
        self._world.effect("endpoint, done")

    def predict(self, rows: pd.DataFrame) -> Answer:
        """Score rows."""
        self._world.effect("endpoint")
        if self.model is None or self._scorer is None:
            raise TryLater("Nothing answers.")
        wrong = 0.25 if self.model.version in self.spoilt else 0.0
        return Answer(self.model.version, self._scorer.score(rows) + wrong)

    def stop(self) -> None:
        """Serve nothing."""
        self._world.effect("endpoint")
        self.model = self._scorer = None


class Daemon:
    """One life of the daemon: a ledger that it owns and a reconciler, both new."""

    def __init__(self, world: World, pipeline: Pipeline, tally: Tally | None = None) -> None:
        self.book = MortalLedger(world)
        doors = Doors(*cast("Any", (world.table, world.registry, world.endpoint)))
        self.reconciler = Reconciler(
            NAME, pipeline, doors, self.book, world.home / "models", lambda *_: None,
            lambda: world.now, tally=tally or NOBODY,
        )  # fmt: skip

    def close(self) -> None:
        """Leave, as a process does that was killed: nothing is released."""
        self.book.close()


def later(world: World, seconds: float) -> None:
    """Let time pass, or set the clock back."""
    world.now += timedelta(seconds=seconds)

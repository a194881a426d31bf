"""Gives a strategy what it may ask for: rows of the table, and models of earlier runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from config.settings import Pipeline
from daemon.doors import Access
from daemon.ledger import Ledger
from handlers import rows
from handlers.facts import Cursor, Delta, Learnt, Model, Record, Thin
from handlers.lineage import mutated
from handlers.scorer import Scorer
from handlers.strategies import Past, Reads, Run, Told
from handlers.strategies.job import FRESH, FULL, SERVED, WINDOW

LOOK_BACK = 200
"""Decisions among which members are looked for."""
WHOLE: tuple[str, ...] = (FRESH, FULL, WINDOW)
"""What a model of the whole table stands for."""
PLAIN = ("fresh", "full", "window")
"""Strategies whose served model is all that they make."""


@dataclass(frozen=True)
class Lookup:
    """What one delta's challenger may draw on. Nothing is read before it is asked for.

    `then` is what was learnt at the first time, where a model is made once more: the same runs and
    the same window are drawn on, whatever became of them since.
    """

    pipeline: Pipeline
    name: str
    doors: Access
    ledger: Ledger
    models: Path
    delta: Delta
    sequence: int
    then: Learnt | None = None

    def reads(self, columns: rows.Columns) -> Reads:
        """Give the rows that a strategy may ask for."""
        return Reads(
            lambda most: self._whole(columns, most),
            partial(self._window, columns),
            partial(self._before, columns),
            everything=self.delta.whole,
        )

    def past(self) -> Past:
        """Give the runs that a strategy may ask for."""

        def runs() -> Iterator[Run]:
            return map(self._run, self._records())

        return Past(self._champion, runs, self.sequence, self.delta.total)

    # -- rows --------------------------------------------------------------------------------

    def _whole(self, columns: rows.Columns, most: int) -> rows.Table:
        return self._read(replace(self.delta, way="whole"), columns, most)

    def _window(self, columns: rows.Columns, deltas: int, most: int) -> Told:
        """Read what came since the start of the delta that many before this one."""
        start = self.then.window_start if self.then else self._start(deltas)
        if start is None:
            return Told(self._whole(columns, most))
        wanted = Cursor(self.delta.table_uuid, start)
        end = Cursor(self.delta.table_uuid, self.delta.end_id)
        found = self.doors.table.since(wanted, end)
        if found is None or found.start_id != start:
            note = f"the whole table instead of a window: {found.note if found else 'no rows'}"
            return Told(self._whole(columns, most), note)
        if mutated(found.snapshots):
            skipped = self.pipeline.delta.rewrites == "skip"
            found = replace(found, way="apart" if skipped else "changed")
        return Told(self._read(found, columns, most), start_id=start)

    def _start(self, deltas: int) -> int | None:
        """Find where the window begins: at the beginning, if there were not so many deltas."""
        found = [record.delta.start_id for record in self._records()][: deltas - 1]
        return found[-1] if len(found) == deltas - 1 else None

    def _before(self, columns: rows.Columns, most: int) -> Told:
        """Draw rows from the table as it was before the delta."""
        start = self.delta.start_id
        if start is None or start not in self.doors.table.kept([start]):
            note = f"earlier rows are drawn from the table with the delta in it: {start} expired"
            return Told(self._whole(columns, most), note)
        then = replace(self.delta, start_id=None, end_id=start, snapshots=(), changes=None)
        earlier = max(1, self.delta.total - self.delta.rows)
        thin = Thin(columns.key, min(1.0, most / earlier))
        return Told(self.doors.table.read(then, columns.to_read, thin))

    def _read(self, delta: Delta, columns: rows.Columns, most: int) -> rows.Table:
        if delta.rows <= most:
            return self.doors.table.read(delta, columns.to_read)
        thin = Thin(columns.key, most / delta.rows)
        return self.doors.table.read(delta, columns.to_read, thin)

    # -- runs --------------------------------------------------------------------------------

    def _records(self) -> Iterator[Record]:
        """Give decisions with a model to draw on, newest first, back to a read of the whole table.

        What was learnt before that may have been read anew because it was deleted.
        """
        for record in self.ledger.history(self.name, -1 if self.then else LOOK_BACK):
            if record.model is None or record.sequence >= self.sequence:
                continue
            if not self._drawn_on(record):
                continue
            yield record
            if record.delta.whole:
                return

    def _drawn_on(self, record: Record) -> bool:
        learnt, mine = record.learnt, self.pipeline
        if learnt is None or record.model is None:
            return False
        if self.then is not None:
            runs = {run for told in self.then.members for run in (told.run_id, told.by)}
            return record.model.run_id in runs
        here = (mine.label, mine.task, mine.row_key, mine.train.salt, mine.train.holdout)
        there = (learnt.label, learnt.task, learnt.row_key, learnt.salt, learnt.holdout)
        gone = {snapshot.id for snapshot in record.delta.snapshots} & set(self.delta.gone)
        same_table = record.delta.table_uuid == self.delta.table_uuid
        return here == there and same_table and not gone and self._stands(record, FRESH)

    def _stands(self, record: Record, kind: str) -> bool:
        """Say whether no row was taken back that a model of this kind may have learnt from."""
        if record.learnt is None:
            return False
        as_if = replace(record, learnt=replace(record.learnt, strategy=kind))
        return not self.ledger.doubts(as_if).undone_snapshots

    def _run(self, record: Record) -> Run:
        learnt, model = record.learnt, record.model
        assert learnt is not None  # noqa: S101 (`_drawn_on` has seen to it)
        assert model is not None  # noqa: S101
        places = _places(record)
        if self.then is not None:
            drawn_on = {t.kind for t in self.then.members if model.run_id in {t.run_id, t.by}}
        else:
            drawn_on = set(places) if self._stands(record, FULL) else {FRESH}
        where = {kind: place for kind, place in places.items() if kind in drawn_on}
        load = partial(self._load, model, where)
        return Run(
            model.run_id, record.sequence, tuple(where), load, learnt.members, record.delta.total
        )

    def _load(self, model: Model, where: dict[str, str | None], kind: str) -> Scorer:
        place = where.get(kind) if kind != SERVED else None
        return Scorer.load(self.doors.registry.fetch_member(model, place, self.models))

    def _champion(self) -> Run | None:
        """Give the champion's run, or whichever was continued then."""
        champion = self.ledger.champion(self.name)
        wanted = champion.model.run_id if champion else None
        if self.then is not None:
            wanted = next((told.run_id for told in self.then.members), None)
        for record in self._records():
            if record.model and record.model.run_id == wanted:
                stands = self.then is not None or self._stands(record, FULL)
                return self._run(record) if stands else None
        return None


def _places(record: Record) -> dict[str, str | None]:
    """Say which kinds of models a run keeps, and where: None stands for the one it served.

    A model of the whole table is one of a window and of the whole, too.
    """
    learnt = record.learnt
    if learnt is None:
        return {}
    alone = learnt.strategy in PLAIN or (record.delta.whole and not learnt.members)
    plain: dict[str, str | None] = {learnt.strategy: None} if alone else {}
    made: dict[str, str | None] = {
        told.kind: told.kind for told in learnt.members if not told.run_id and not told.reason
    }
    places = {**plain, **made}
    if record.delta.whole and places:
        first = places.get(FRESH, next(iter(places.values())))
        stands_for: dict[str, str | None] = dict.fromkeys(WHOLE, first)
        return stands_for | places
    return places

"""Holds what the daemon did against what was true: the promises of the design, one by one.

It looks only at what lasts: the ledger's file, the registry's runs, the endpoint. Which rows a
delta should have read, it computes from the states of the little Iceberg, whatever was expired.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from lake import Row, Rows
from world import NAME, World, compare

from daemon.accounting import accounting
from daemon.ledger import Ledger
from daemon.reading import RECORD
from handlers.cut import REWRITES
from handlers.facts import Delta, Record, State

TRAINED = frozenset({State.PROMOTED, State.KEPT})
PASSING = frozenset({State.SPLIT, State.ABANDONED})


class Oracle:
    """Remembers every decision, and checks each new one when it appears."""

    def __init__(self, world: World, rewrites: str) -> None:
        self._world = world
        self._rewrites = rewrites
        self._known: dict[int, str] = {}
        self.records: dict[int, Record] = {}
        self._promoted: set[str] = set()
        self._trained: Rows = Counter()
        """How often each row was trained on since the whole table was last."""
        self._last_whole = 0
        self._accounted: set[Row] = set()
        """Rows that a delta was trained on, or that it set aside with its reason."""

    # -- after every step --------------------------------------------------------------------

    def check(self, book: Ledger) -> None:
        """Check what must hold at any time, even while the daemon is dead."""
        rows = book.all("SELECT sequence, state, record, retry_of FROM deltas")
        opened = [row for row in rows if row["state"] == "open"]
        assert sum(row["retry_of"] is None for row in opened) <= 1, "two open deltas"
        retried = [row["retry_of"] for row in rows if row["retry_of"] is not None]
        assert len(retried) == len(set(retried)), "a parked delta is retried twice"
        for row in sorted(rows, key=lambda row: row["sequence"]):
            if row["state"] != "open":
                self._closed(row["sequence"], row["record"])
        self._check_cursor(book, {row["sequence"] for row in rows if row["state"] != "open"})
        self._check_evidence()
        self._check_serving(book)

    def _closed(self, sequence: int, text: str) -> None:
        if sequence in self._known:
            assert self._known[sequence] == text, f"the record of delta {sequence} changed"
            return
        self._known[sequence] = text
        record = RECORD.validate_json(text)
        self.records[sequence] = record
        self._judge(record)

    def _check_cursor(self, book: Ledger, closed: set[int]) -> None:
        cursor = book.standing(NAME).cursor
        named = {
            record.delta.cursor
            for record in self.records.values()
            if record.sequence in closed and record.state not in PASSING
        }
        assert cursor is None or cursor in named, f"no decision names the cursor {cursor}"

    def _check_evidence(self) -> None:
        keys = Counter(run.key for run in self._world.registry.runs if run.key)
        assert not keys or max(keys.values()) == 1, f"two runs with one key: {keys}"
        missing = [r.sequence for r in self.records.values() if r.key not in keys]
        assert not missing, f"deltas {missing} have no run"

    def _check_serving(self, book: Ledger) -> None:
        crowned = book.all("SELECT version FROM champions WHERE version IS NOT NULL")
        self._promoted |= {row["version"] for row in crowned}
        won = {r.model.version for r in self.records.values()
               if r.model and r.state is State.PROMOTED}  # fmt: skip
        assert self._promoted <= won, f"champions {self._promoted - won} were never promoted"
        model = self._world.endpoint.model
        served = model.version if model else None
        assert served is None or served in self._promoted, f"{served} is served, never promoted"

    # -- one decision ------------------------------------------------------------------------

    def _judge(self, record: Record) -> None:
        """Check which rows a decision took, and remember them."""
        if record.state in PASSING:
            return
        delta = record.delta
        if record.state in TRAINED:
            self._judge_trained(record, self._read(delta))
        elif record.state is State.SKIPPED:
            self._judge_skipped(record)
        if record.state is State.PARKED or record.state is State.DROPPED:
            self._accounted |= set(self._read(delta))
        if self._rewrites == "skip":
            self._accounted |= self._rewritten(delta)

    def _read(self, delta: Delta) -> Rows:
        return compare(self._world.lake, delta)[1]

    def _new(self, delta: Delta) -> Rows:
        """Give the rows that a delta's end has and its start has not."""
        lake = self._world.lake
        start = delta.start_id if delta.start_id in lake.commits else None
        return lake.state(delta.end_id) - lake.state(start)

    def _judge_trained(self, record: Record, read: Rows) -> None:
        delta, learnt = record.delta, record.learnt
        assert learnt is not None
        told = learnt.train_rows + learnt.held_out_rows + learnt.unlabelled_rows
        if learnt.strategy == "fresh":
            assert told == read.total(), f"{told} rows of {read.total()}: {delta}"
        assert not delta.exact or delta.rows == read.total()
        new = self._new(delta)
        if self._rewrites == "skip" and not delta.whole:
            left = self._rewritten(delta)
            new = Counter({row: n for row, n in new.items() if row not in left})
            read_new = Counter({row: n for row, n in read.items() if row not in left})
            assert read_new == new, f"delta {record.sequence} read {read_new - new}, not {new}"
        elif not delta.whole:
            assert read == new, f"read {read - new} more and {new - read} less: {delta}"
        self._count(record, read)
        self._accounted |= set(read)

    def _count(self, record: Record, read: Rows) -> None:
        """Count how often rows were trained on; the whole table is read by policy, on record."""
        if record.delta.whole:
            self._last_whole = record.sequence
            self._trained |= read
            for row in read:
                self._trained[row] = read[row]
            return
        if record.retry_of is not None and record.retry_of < self._last_whole:
            return  # a person asked for rows that were parked when the whole table was read
        self._trained += read
        came = self._came()
        twice = {row: n for row in read if (n := self._trained[row]) > came[row]}
        assert not twice, f"delta {record.sequence} trains again on {twice}"

    def _came(self) -> Rows:
        """Count how often each row came; a cherry-picked snapshot brings what came before."""
        lake, found = self._world.lake, Rows()
        for snapshot_id, commit in lake.commits.items():
            if commit.snapshot.source_id is None:
                found += lake.arrivals(snapshot_id)
        return found

    def _judge_skipped(self, record: Record) -> None:
        """Skip only what brings nothing, what policy leaves out, or what was dealt with before."""
        new = set(self._new(record.delta)) - self._accounted - self._came_back()
        if self._rewrites == "skip":
            new -= self._rewritten(record.delta)
        assert not new, f"delta {record.sequence} skips {len(new)} rows: {record.reason}"

    def _rewritten(self, delta: Delta) -> set[Row]:
        """Give the rows that came by rewrites."""
        lake = self._world.lake
        ids = [s.id for s in delta.snapshots if s.kind in REWRITES]
        return {row for i in ids for row in lake.arrivals(i)}

    # -- once all is quiet -------------------------------------------------------------------

    def check_settled(self, book: Ledger, min_rows: int, *, waits: bool) -> None:
        """Check what must hold once every outage is over and every wait has passed."""
        world, standing = self._world, book.standing(NAME)
        champion = book.champion(NAME)
        model = world.endpoint.model
        served, wanted = model and model.version, champion and champion.model.version
        assert served == wanted, f"{served} is served, {wanted} is champion"
        pending = book.pending(NAME)
        assert pending is None, f"stays open: {pending}"
        table = world.table
        book_of_snapshots: dict[str, Any] = accounting(
            standing, table.log(), table.elsewhere(), book.fates(NAME)
        )
        assert book_of_snapshots["adds_up"], book_of_snapshots
        head = table.head()
        if standing.cursor != head:
            delta = table.since(standing.cursor)
            where = f"the cursor is at {standing.cursor}, the head at {head}: {standing.doing}"
            assert delta is not None, where
            assert waits, where
            assert "min_rows" in standing.doing, where
            assert self._rewrites == "skip" or self._new(delta).total() < min_rows, where
        self._check_nothing_lost(standing.cursor.snapshot_id if standing.cursor else None)

    def _check_nothing_lost(self, cursor: int | None) -> None:
        """Every row up to the cursor that is still there was trained on or set aside."""
        lake = self._world.lake
        there = lake.state(cursor) if cursor in lake.commits else Rows()
        lost = set(there & lake.state(lake.head)) - self._accounted
        lost -= self._came_back()
        assert not lost, f"{len(lost)} rows were lost in silence: {sorted(lost, key=str)[:3]}"

    def _came_back(self) -> set[Row]:
        """Give rows that were gone at the end of their delta, until a rollback undid that.

        Their snapshots are in a closed delta, which could not read them.
        """
        lake = self._world.lake
        return {
            row
            for record in self.records.values()
            if record.state not in PASSING
            for id_ in self._covered(record.delta)
            for row in lake.arrivals(id_) - lake.state(record.delta.end_id)
        }

    def _covered(self, delta: Delta) -> list[int]:
        """Name a delta's snapshots; a whole table's are all up to its end, expired ones too."""
        if not delta.whole:
            return [snapshot.id for snapshot in delta.snapshots]
        found, next_id = [], cast("int | None", delta.end_id)
        while next_id is not None:
            found.append(next_id)
            next_id = self._world.lake.commits[next_id].base
        return found

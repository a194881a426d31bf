"""A little Iceberg in memory: data files, delete files, snapshots, branches, expiry.

It keeps every state for ever, expired or not, so that a test can ask what was true. Operations and
summaries are those that Iceberg writes; rows are told apart by their whole content.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from handlers.facts import Kind, Snapshot


class Row(NamedTuple):
    """A row: its key, a feature, the label, and a feature in a column that may come and go."""

    key: int
    x: float
    label: float | None
    z: float
    field: int
    """Id of the column that `z` was written to; other columns of that name do not show it."""


Rows = Counter[Row]


@dataclass(frozen=True, eq=False, slots=True)
class File:
    """A data file."""

    rows: tuple[Row, ...]


Deletes = tuple[frozenset[int], ...]
"""Delete files, each with the positions that it deletes."""
Files = Mapping[File, Deletes]
"""The live data files with the delete files that apply to each."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One snapshot with the state that it stands for."""

    snapshot: Snapshot
    files: Files
    column: int | None
    """Id of column `z` in its schema, None without."""
    base: int | None
    """The true parent; the snapshot's own pointer may be cut by an expiry."""

    @property
    def rows(self) -> Rows:
        """Give the rows that a scan finds."""
        return live(self.files.items())


def live(files: Iterable[tuple[File, Deletes]]) -> Rows:
    """Read files without what is deleted of them."""
    return Counter(row for file, deletes in files for row in _left(file, deletes))


def _left(file: File, deletes: Deletes) -> Iterator[Row]:
    dead = frozenset().union(*deletes)
    return (row for position, row in enumerate(file.rows) if position not in dead)


@dataclass(slots=True)
class Lake:
    """One table."""

    clock: Callable[[], datetime]
    uuid: str = "uuid-1"
    head: int | None = None
    column: int | None = 4
    """Id of column `z` in the current schema, None without."""
    commits: dict[int, Commit] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    """Snapshots that are in the table's metadata."""
    damaged: set[File] = field(default_factory=set)
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _columns: Iterator[int] = field(default_factory=lambda: itertools.count(5))

    # -- what is asked -----------------------------------------------------------------------

    def ancestors(self, snapshot_id: int) -> Iterator[Snapshot]:
        """Walk the parent links as far as the metadata keeps them, youngest first."""
        found: int | None = snapshot_id
        while found is not None and found in self.kept:
            snapshot = self.commits[found].snapshot
            yield snapshot
            found = snapshot.parent_id

    def history(self) -> list[int]:
        """Give the ids of the branch, youngest first, as far as they are kept."""
        return [s.id for s in self.ancestors(self.head)] if self.head is not None else []

    @property
    def files(self) -> Files:
        """Give the branch's live files."""
        return self.commits[self.head].files if self.head is not None else {}

    @property
    def rows(self) -> list[Row]:
        """Give the branch's rows in the order of their keys."""
        return sorted(live(self.files.items()).elements(), key=str)

    def state(self, snapshot_id: int | None) -> Rows:
        """Give the rows of a snapshot, kept or not; none before the first."""
        return self.commits[snapshot_id].rows if snapshot_id is not None else Counter()

    def arrivals(self, snapshot_id: int) -> Rows:
        """Give the rows that a snapshot has and its parent has not."""
        return self.state(snapshot_id) - self.state(self.commits[snapshot_id].base)

    def origin(self, snapshot_id: int) -> int:
        """Give the snapshot that a cherry-picked one carries the rows of, else itself."""
        source = self.commits[snapshot_id].snapshot.source_id
        return snapshot_id if source is None else self.origin(source)

    # -- commits -----------------------------------------------------------------------------

    def commit(self, operation: str, files: Files, *, staged: bool = False, **extra: str) -> int:
        """Add a snapshot behind the branch's head; a staged one leaves the branch as it is."""
        return self._add(operation, files, self.head, staged=staged, extra=extra)

    def _add(
        self, operation: str, files: Files, parent: int | None, *, staged: bool,
        extra: Mapping[str, str],
    ) -> int:  # fmt: skip
        new = next(self._ids) * 7919 % 999_983  # ids tell nothing of the order
        before = self.commits[parent].files if parent is not None else {}
        told = summary(before, files) | {k.replace("_", "-"): v for k, v in extra.items()}
        snapshot = Snapshot(new, parent, self.clock(), operation, told)
        self.commits[new] = Commit(snapshot, dict(files), self.column, parent)
        self.kept.add(new)
        if not staged:
            self.head = new
        return new

    def append(self, rows: Sequence[Row], *, staged: bool = False) -> int:
        """INSERT, or an insert-only MERGE under copy-on-write."""
        files = {File(tuple(rows)): ()} if rows else {}
        return self.commit("append", {**self.files, **files}, staged=staged)

    def append_uncounted(self, rows: Sequence[Row]) -> int:
        """Append as a writer does that tells files but no rows."""
        new = self.append(rows)
        commit = self.commits[new]
        told = {k: v for k, v in commit.snapshot.summary.items() if k != "added-records"}
        self.commits[new] = replace(commit, snapshot=replace(commit.snapshot, summary=told))
        return new

    def insert(self, rows: Sequence[Row]) -> int:
        """Insert by a merge-on-read MERGE: an overwrite that takes nothing away."""
        return self.commit("overwrite", {**self.files, File(tuple(rows)): ()})

    def rewrite(self, old: Sequence[Row], new: Sequence[Row], *, in_place: bool) -> int:
        """UPDATE, MERGE or DELETE: merge-on-read if `in_place`, else copy-on-write."""
        files = self._masked(old) if in_place else self._copied(old)
        if new:
            files[File(tuple(new))] = ()
        added = any(file not in self.files for file in files)
        return self.commit("overwrite" if added else "delete", files)

    def _masked(self, old: Sequence[Row]) -> dict[File, Deletes]:
        found = {}
        for file, deletes in self.files.items():
            dead = frozenset().union(*deletes)
            hit = frozenset(p for p, row in enumerate(file.rows) if row in old and p not in dead)
            found[file] = (*deletes, hit) if hit else deletes
        return found

    def _copied(self, old: Sequence[Row]) -> dict[File, Deletes]:
        found: dict[File, Deletes] = {}
        for file, deletes in self.files.items():
            left = tuple(_left(file, deletes))
            carried = tuple(row for row in left if row not in old)
            if len(carried) == len(left):
                found[file] = deletes
            elif carried:
                found[File(carried)] = ()
        return found

    def truncate(self, count: int) -> int:
        """Delete whole files, the oldest ones, by metadata alone."""
        return self.commit("delete", dict(list(self.files.items())[count:]))

    def overwrite(self, rows: Sequence[Row]) -> int:
        """INSERT OVERWRITE of everything."""
        return self.commit("overwrite", {File(tuple(rows)): ()})

    def compact(self) -> int:
        """Rewrite all data files into one, without what was deleted."""
        return self.commit("replace", {File(tuple(self.rows)): ()})

    def empty(self) -> int:
        """Commit nothing."""
        return self.commit("append", self.files)

    def replace_table(self, rows: Sequence[Row]) -> int:
        """CREATE OR REPLACE: a new lineage of the same table."""
        files = {File(tuple(rows)): ()}
        return self._add("overwrite", files, None, staged=False, extra={})

    # -- the log -----------------------------------------------------------------------------

    def set_head(self, snapshot_id: int) -> None:
        """Roll back or forward."""
        self.head = snapshot_id

    def pickable(self) -> list[int]:
        """Give the appends outside the branch whose rows it does not have yet."""
        mine = self.history()
        picked = {self.commits[i].snapshot.source_id for i in mine} | set(mine)
        return [
            i
            for i in sorted(self.kept - picked)
            if self.commits[i].snapshot.kind is Kind.APPEND and self.origin(i) not in picked
        ]

    def pick(self, source: int) -> int:
        """Cherry-pick: fast-forward where that goes, else a new snapshot with the same files."""
        commit = self.commits[source]
        if commit.snapshot.parent_id == self.head:
            self.head = source
            return source
        base = self.commits[commit.base].files if commit.base is not None else {}
        added = {file: d for file, d in commit.files.items() if file not in base}
        return self.commit("append", {**self.files, **added}, source_snapshot_id=str(source))

    def expire(self, keep: int, *, cut: bool) -> None:
        """Expire all but the branch's last snapshots; PyIceberg `cut`s the parent link."""
        mine = self.history()[:keep]
        self.kept &= set(mine)
        oldest = self.commits[mine[-1]] if mine else None
        if cut and oldest:
            orphan = replace(oldest.snapshot, parent_id=None)
            self.commits[orphan.id] = replace(oldest, snapshot=orphan)

    def recreate(self) -> None:
        """Drop the table and make another one under its name."""
        self.uuid = f"uuid-{int(self.uuid.removeprefix('uuid-')) + 1}"
        self.kept.clear()
        self.head = None

    def alter(self, *, wanted: bool) -> None:
        """Add column `z` or drop it; what is added anew is another column."""
        if wanted != (self.column is not None):
            self.column = next(self._columns) if wanted else None


def summary(before: Files, after: Files) -> dict[str, str]:
    """Count as Iceberg does: what is zero is left out, but for the totals."""
    added = [file for file in after if file not in before]
    deleted = [file for file in before if file not in after]
    fresh = [d for file in after for d in after[file] if d not in before.get(file, ())]
    gone = [d for file in before for d in before[file] if d not in after.get(file, ())]
    counts = {
        "added-data-files": len(added),
        "added-records": sum(len(file.rows) for file in added),
        "deleted-data-files": len(deleted),
        "deleted-records": sum(len(file.rows) for file in deleted),
        "added-delete-files": len(fresh),
        "added-position-delete-files": len(fresh),
        "added-position-deletes": sum(map(len, fresh)),
        "removed-delete-files": len(gone),
        "removed-position-deletes": sum(map(len, gone)),
    }
    totals = {
        "total-data-files": len(after),
        "total-records": sum(len(file.rows) for file in after),
        "total-delete-files": sum(map(len, after.values())),
    }
    told = {name: str(count) for name, count in counts.items() if count}
    return told | {name: str(count) for name, count in totals.items()}

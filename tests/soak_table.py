"""What the soak knows of its table: every snapshot ever committed, with the rows it stands for.

Whoever changes a row gives it a new version number, so a row is known by two numbers, its id and
its version: its *image*. The states are read by a session of the soak's own at the moment of the
commit, before anything can expire them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SHIFT = 1 << 20
"""What an id is multiplied with to leave room for a version."""
Numbers = np.ndarray[Any, np.dtype[np.int64]]
Images = frozenset[int]


def image(row: int, version: int) -> int:
    """Pack an id and a version into one number."""
    return row * SHIFT + version


def ids(images: Images) -> frozenset[int]:
    """Give the ids of these images."""
    return frozenset(one // SHIFT for one in images)


@dataclass(frozen=True, slots=True)
class Known:
    """A snapshot, and what was in the table with it."""

    id: int
    parent_id: int | None
    operation: str
    source_id: int | None
    """What it was cherry-picked from."""
    images: Numbers
    """Sorted."""
    arrivals: Numbers
    """For each of them, the snapshot that brought it; a cherry-picked one brings nothing new."""


class Book:
    """Every snapshot and every state of the branch, whatever the table forgets."""

    def __init__(self) -> None:
        self.known: dict[int, Known] = {}
        self.kept: frozenset[int] = frozenset()
        """What the table's metadata still has."""
        self.head = 0
        self.been: set[int] = set()
        """What was ever in the branch's history."""
        self.state = lru_cache(maxsize=64)(self._state)
        self._looked = datetime.now(timezone.utc)
        self._seen_last: dict[int, datetime] = {}
        """When an expired snapshot was seen last."""

    def note(
        self, number: int, parent: int | None, operation: str, rows: Iterable[int],
        source: int | None = None,
    ) -> None:  # fmt: skip
        """Write down a snapshot with the rows that are in the table with it."""
        images = np.array(sorted(rows), dtype=np.int64)
        assert len(np.unique(images)) == len(images), f"the soak wrote a row twice: {number}"
        arrivals = np.full(len(images), number)
        for base in (source, parent):  # the parent's word counts last
            if base in self.known:
                _carry(self.known[base], images, arrivals)
        self.known[number] = Known(number, parent, operation, source, images, arrivals)

    def stand(self, head: int, kept: Iterable[int], at: datetime | None = None) -> None:
        """Write down where the branch stands, and which snapshots the table keeps."""
        former, self.kept = self.kept, frozenset(kept)
        self._seen_last |= dict.fromkeys(former - self.kept, self._looked)
        self._looked = at or datetime.now(timezone.utc)
        self.head = head
        self.been |= set(self.history())

    def ancestors(self, number: int) -> Iterator[Known]:
        """Walk from a snapshot to the first one, whatever was expired."""
        found: int | None = number
        while found in self.known:
            known = self.known[found]
            yield known
            found = known.parent_id

    def between(self, cursor: int, head: int) -> list[Known]:
        """Give the ancestors of one snapshot that are not those of another."""
        old = {known.id for known in self.ancestors(cursor)}
        return [known for known in self.ancestors(head) if known.id not in old]

    def lost(self, number: int, by: datetime) -> bool:
        """Say whether a snapshot may have been expired by then."""
        return number in self._seen_last and self._seen_last[number] <= by

    def history(self) -> list[int]:
        """Give the branch's snapshots, youngest first, as far back as the table keeps them."""
        found = []
        for known in self.ancestors(self.head):
            if known.id not in self.kept:
                break
            found.append(known.id)
        return found

    def _state(self, number: int | None) -> Images:
        """Give the rows of a snapshot, kept or not; none before the first."""
        return frozenset(self.known[number].images.tolist()) if number is not None else frozenset()

    def arrival(self, number: int, images: Images) -> dict[int, int]:
        """Say which snapshot brought each of these images to the state of a snapshot."""
        known = self.known[number]
        at = np.searchsorted(known.images, sorted(images))
        return dict(zip(sorted(images), known.arrivals[at].tolist(), strict=True))


class Chronicle(Book):
    """The book of one table, kept by a Spark session of the soak's own."""

    def __init__(self, session: SparkSession, table: str) -> None:
        super().__init__()
        self.table = table
        self._session = session

    @property
    def handle(self) -> Any:
        """Give Iceberg's own table object, as it is now."""
        jvm: Any = self._session._jvm
        loader = jvm.org.apache.iceberg.spark.Spark3Util
        return loader.loadIcebergTable(self._session._jsparkSession, self.table)

    def look(self) -> None:
        """Note what was committed since the last look."""
        table = self.handle
        found = {int(one.snapshotId()): one for one in table.snapshots()}
        new = [one for number, one in found.items() if number not in self.known]
        for one in sorted(new, key=lambda one: int(one.sequenceNumber())):
            number, source = int(one.snapshotId()), one.summary().get("source-snapshot-id")
            self.note(
                number, one.parentId(), str(one.operation()), self._read(number),
                int(source) if source else None,
            )  # fmt: skip
        current = table.currentSnapshot()
        self.stand(int(current.snapshotId()) if current else 0, found)

    def _read(self, number: int) -> list[int]:
        """Read a state by time travel."""
        rows = self._session.sql(
            f"SELECT id * {SHIFT} + version AS image FROM {self.table} VERSION AS OF {number}"
        ).collect()
        return [row.image for row in rows]


def _carry(base: Known, images: Numbers, arrivals: Numbers) -> None:
    """Take over from a state how the images came that are in it already."""
    if len(base.images):
        at = np.minimum(np.searchsorted(base.images, images), len(base.images) - 1)
        there = base.images[at] == images
        arrivals[there] = base.arrivals[at[there]]

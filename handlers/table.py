"""The door to the Iceberg table: where its log stands, what is new, and the rows of a delta.

The log is read from a JVM table object that is refreshed at each look, never through a cached
catalog: a session catalog that is polled never sees the commits of other processes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from time import monotonic
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from handlers import lineage
from handlers.difference import Difference, difference
from handlers.evolution import Evolution, Field, evolution
from handlers.facts import (
    Changes,
    Cursor,
    Delta,
    Expired,
    GiveUp,
    Snapshot,
    Thin,
    TryLater,
    Unreadable,
)
from handlers.spark import Sessions, load, thrown

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


HASHES = 1_000_000


class Table:
    """One Iceberg table on one branch.

    The held table object is refreshed at each look, and loaded anew every `reload_every` seconds:
    a hadoop catalog's refresh does not notice a table that was dropped and made again with as many
    versions as before.
    """

    def __init__(
        self, sessions: Sessions, name: str, branch: str = "main", reload_every: float = 60.0
    ) -> None:
        self.name = name
        self.branch = branch
        self._sessions = sessions
        self._reload_every = reload_every
        self._handle: Any = None
        self._loaded = 0.0

    def head(self) -> Cursor | None:
        """Say where the branch stands now; None if nothing was committed to it yet.

        Raises:
            TryLater: the table or its catalog is missing or cannot be reached.
        """
        with self._outages("looked at"):
            table = self._refreshed()
            snapshot = table.snapshot(self.branch)
            if snapshot is None:
                return None
            return Cursor(table.uuid().toString(), snapshot.snapshotId())

    def since(self, cursor: Cursor | None, head: Cursor | None = None) -> Delta | None:
        """Give what came after the cursor, None if nothing did; `lineage` tells how.

        `head` is where the branch stands, if it was just looked at.

        Raises:
            TryLater: as `head`, and where a branch that was followed is gone.
        """
        head = head or self.head()
        if head is None:
            if cursor is not None:
                raise TryLater(
                    f"The table {self.name} has no branch {self.branch!r} any more, or no commits.",
                    "It is looked for again at each tick; check `branch`.",
                )
            return None
        with self._outages("read the log of"):
            return lineage.since(head, cursor, self._ancestors, self.name, self.branch)

    def contains(self, snapshot_id: int) -> bool:
        """Say whether a snapshot is still an ancestor of the branch's head."""
        return any(snapshot_id in {s.id, s.parent_id} for s in self._ancestry())

    def log(self) -> tuple[Snapshot, ...]:
        """Give the branch's history as far back as the table keeps it, oldest first."""
        return tuple(reversed(list(self._ancestry())))

    def elsewhere(self) -> tuple[Snapshot, ...]:
        """Give the snapshots outside the branch's history: staged, rolled back, other branches."""
        mine = {snapshot.id for snapshot in self._ancestry()}
        with self._outages("read the log of"):
            return tuple(
                snapshot
                for found in self._refreshed().snapshots()
                if (snapshot := self._snapshot(found)).id not in mine
            )

    def _ancestry(self) -> Iterator[Snapshot]:
        with self._outages("read the log of"):
            head = self._refreshed().snapshot(self.branch)
            if head is not None:
                yield from self._ancestors(head.snapshotId())

    def schema(self, delta: Delta | None = None) -> Mapping[str, str]:
        """Give columns and their Spark types (`double`, `array<string>`, ...).

        Those of a delta's rows, which may lack what was added to the table later; else those of
        the table as it is now.

        Raises:
            Expired: the delta's snapshots are gone.
        """
        with self._outages("read the schema of"):
            if delta is None:
                frame = self._sessions().read.format("iceberg").load(self.name)
            else:
                self._require(delta)
                frame = self._frame(delta)
            return {field.name: field.dataType.simpleString() for field in frame.schema.fields}

    def evolution(self, delta: Delta) -> Evolution:
        """Say how the columns changed between the delta's start and now."""
        with self._outages("read the schema of"):
            table = self._refreshed()
            start = table.snapshot(delta.start_id) if delta.start_id is not None else None
            after = self._fields(table.schema())
            if start is None or start.schemaId() is None:
                return evolution(after, after)
            return evolution(self._fields(table.schemas().get(start.schemaId())), after)

    def read(self, delta: Delta, columns: Sequence[str], thin: Thin | None = None) -> pa.Table:
        """Read the rows of a delta: just these columns, order unspecified; or a sample of them.

        Raises:
            GiveUp: the rows read are not as many as the snapshots say they added.
            Expired: the snapshots are gone.
            Unreadable: the rows cannot be read, although the table itself answers.
        """
        with self._damage(delta):
            if delta.whole or delta.way == "appended":
                rows = _collect(_thinned(self._chosen(self._frame(delta), columns), thin))
            else:
                with self._difference(delta, columns) as found:
                    return _collect(_thinned(found.new, thin))
        if thin is None and delta.exact and rows.num_rows != delta.rows:
            raise GiveUp(
                f"{self.name}: {rows.num_rows} rows were read between snapshots "
                f"{delta.start_id} and {delta.end_id}, but the snapshots added {delta.rows}.",
                "A data file or the log is damaged; repair the table, then `retraind retry`.",
            )
        return rows

    def measure(self, delta: Delta, columns: Sequence[str]) -> Changes:
        """Count what a delta with rewrites changed in these columns; raises as `read`."""
        with self._damage(delta), self._difference(delta, columns) as found:
            return Changes(new=found.new.count(), removed=found.removed.count())

    # -- tags --------------------------------------------------------------------------------

    def pins(self, pattern: str) -> Mapping[str, int]:
        """Give the tags whose whole name matches, with the snapshots that they keep."""
        with self._outages("asked for its tags"):
            return {
                name: ref.snapshotId()
                for name, ref in dict(self._refreshed().refs()).items()
                if ref.isTag() and re.fullmatch(pattern, name)
            }

    def kept(self, snapshot_ids: Iterable[int]) -> frozenset[int]:
        """Say which of these snapshots the table still keeps."""
        with self._outages("read the log of"):
            table = self._refreshed()
            return frozenset(found for found in snapshot_ids if table.snapshot(found) is not None)

    def pin(self, wanted: Mapping[str, int], released: Collection[str]) -> None:
        """Set tags and remove others, in one commit to the table's metadata.

        Raises:
            TryLater: the catalog cannot be reached, or this user may not.
        """
        with self._outages("tagged"):
            change = self._refreshed().manageSnapshots()
            for name in released:  # first, as a name may be among both
                change = change.removeTag(name)
            for name, snapshot_id in wanted.items():
                change = change.createTag(name, snapshot_id)
            change.commit()

    # -- inside ------------------------------------------------------------------------------

    @contextmanager
    def _damage(self, delta: Delta) -> Iterator[None]:
        """Tell rows that cannot be read from a table that cannot be reached."""
        self._require(delta)
        try:
            with self._outages("read"):
                yield
        except TryLater as error:
            self.head()  # where not even the log can be read, this is an outage of the catalog
            raise Unreadable(error.what, error.remedy) from error

    def _require(self, delta: Delta) -> None:
        """Refuse a delta whose snapshots are gone: Iceberg's own error looks like an outage."""
        with self._outages("read the log of"):
            self._refreshed()
            if not lineage.complete(delta, self._ancestors):
                raise Expired(
                    f"{self.name}: snapshots between {delta.start_id} and {delta.end_id} were "
                    f"expired.",
                    "Their rows are in the table, but no longer to be told from older ones.",
                )

    @contextmanager
    def _difference(self, delta: Delta, columns: Sequence[str]) -> Iterator[Difference]:
        with difference(self._sessions(), self._refreshed(), delta, columns) as found:
            yield found

    def _chosen(self, frame: DataFrame, columns: Sequence[str]) -> DataFrame:
        """Select columns; those that an older snapshot did not have yet are null."""
        from pyspark.sql.functions import lit  # noqa: PLC0415 (optional, slow to import)

        if later := [name for name in columns if name not in frame.columns]:
            types = self.schema()
            frame = frame.withColumns({name: lit(None).cast(types[name]) for name in later})
        return frame.select([f"`{name}`" for name in columns])

    def _frame(self, delta: Delta) -> DataFrame:
        """Plan the read. Both ids are explicit: Iceberg ignores branch names here in silence."""
        reader = self._sessions().read.format("iceberg")
        if delta.whole:
            return reader.option("snapshot-id", str(delta.end_id)).load(self.name)
        return (
            reader.option("start-snapshot-id", str(delta.start_id))
            .option("end-snapshot-id", str(delta.end_id))
            .load(self.name)
        )

    def _refreshed(self) -> Any:  # noqa: ANN401 (a py4j handle)
        if self._handle is None or monotonic() - self._loaded > self._reload_every:
            self._loaded = monotonic()
            self._handle = load(self._sessions(), self.name)
        else:
            self._handle.refresh()
        return self._handle

    def _ancestors(self, snapshot_id: int) -> Iterator[Snapshot]:
        """Walk from a snapshot to the oldest ancestor that the table still keeps."""
        next_id: int | None = snapshot_id
        while next_id is not None:
            found = self._handle.snapshot(next_id)
            if found is None:
                return
            snapshot = self._snapshot(found)
            yield snapshot
            next_id = snapshot.parent_id

    def _snapshot(self, found: Any) -> Snapshot:  # noqa: ANN401 (a py4j handle)
        parser = self._sessions()._jvm.org.apache.iceberg.SnapshotParser  # type: ignore[union-attr] # noqa: SLF001 (one call instead of a dozen per snapshot)
        return _snapshot(json.loads(parser.toJson(found)))

    def _fields(self, schema: Any) -> tuple[Field, ...]:  # noqa: ANN401 (a py4j handle)
        parser = self._sessions()._jvm.org.apache.iceberg.SchemaParser  # type: ignore[union-attr] # noqa: SLF001 (see above)
        fields = json.loads(parser.toJson(schema))["fields"]
        return tuple(Field(f["id"], f["name"], _type(f["type"])) for f in fields)

    @contextmanager
    def _outages(self, verb: str) -> Iterator[None]:
        """Turn what Spark, py4j and the catalog throw into `TryLater`."""
        from py4j.protocol import Py4JError  # noqa: PLC0415 (comes with pyspark, which is optional)
        from pyspark.errors import AnalysisException, PySparkException  # noqa: PLC0415

        try:
            yield
        except AnalysisException as error:
            self._handle = None
            if error.getErrorClass() in {"TABLE_OR_VIEW_NOT_FOUND", "SCHEMA_NOT_FOUND"}:
                raise TryLater(
                    f"The table {self.name} does not exist (yet).",
                    "It is looked for again at each tick; check `table` if it should be there.",
                ) from error
            raise TryLater(
                f"The table {self.name} could not be {verb}: {thrown(error)}.",
                "Check `table`, `spark.catalog` and `spark.conf`.",
            ) from error
        except (PySparkException, Py4JError, OSError) as error:
            self._handle = None
            told = thrown(error)
            if "is not an Iceberg table" in told:
                raise TryLater(
                    f"The table {self.name} is not an Iceberg table.",
                    "Make it one with Iceberg's procedure `system.migrate`, or check `table`.",
                ) from error
            raise TryLater(
                f"The table {self.name} could not be {verb}: {told}.",
                "The catalog, its storage or Spark is failing; `retraind doctor` tells which.",
            ) from error


def _thinned(frame: DataFrame, thin: Thin | None) -> DataFrame:
    """Keep a share of the rows by a hash of their keys, before any of them leaves Spark."""
    if thin is None or thin.share >= 1:
        return frame
    from pyspark.sql.functions import lit, pmod, xxhash64  # noqa: PLC0415 (optional, see above)

    hashed = pmod(xxhash64(*(f"`{name}`" for name in thin.key)), lit(HASHES))
    return frame.filter(hashed < round(HASHES * thin.share))


def _collect(frame: DataFrame) -> pa.Table:
    """Bring rows to this process as Arrow; the place for a faster reader."""
    if to_arrow := getattr(frame, "toArrow", None):  # Spark 4
        return to_arrow()
    from pyspark.sql.pandas.types import to_arrow_schema  # noqa: PLC0415 (see above)

    schema = to_arrow_schema(frame.schema)
    batches = frame._collect_as_arrow()  # noqa: SLF001 (3.5 has no public way that keeps types)
    return pa.Table.from_batches(batches) if batches else schema.empty_table()


def _type(found: Any) -> str:  # noqa: ANN401 (a name, or the JSON of a nested type)
    return found if isinstance(found, str) else str(found["type"])


def _snapshot(entry: Mapping[str, Any]) -> Snapshot:
    """Read one snapshot as Iceberg's table metadata writes it (spec, section Snapshots)."""
    summary = dict(entry.get("summary", {}))
    return Snapshot(
        id=entry["snapshot-id"],
        parent_id=entry.get("parent-snapshot-id"),
        committed_at=datetime.fromtimestamp(entry["timestamp-ms"] / 1000, tz=timezone.utc),
        operation=summary.pop("operation", "unknown"),
        summary=summary,
    )

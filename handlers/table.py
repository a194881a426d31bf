"""The door to the Iceberg table: where its log stands, what is new, and the rows of a delta.

The log is read from a JVM table object that is refreshed at each look, never through a cached
catalog: a session catalog that is polled never sees the commits of other processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from time import monotonic
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from handlers.facts import Cursor, Delta, GiveUp, Snapshot, TryLater, Unreadable

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from handlers.spark import Sessions


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

    def since(self, cursor: Cursor | None) -> Delta | None:
        """Give what came after the cursor, None if nothing did.

        A cursor that is no ancestor of the head means that history was rewritten: the delta
        then starts at the youngest common ancestor or, where there is none, is the whole table;
        its `note` tells.
        """
        head = self.head()
        if head is None or head == cursor:
            return None
        with self._outages("read the log of"):
            if cursor is None:
                return self._delta(head, None, "")
            if cursor.table_uuid != head.table_uuid:
                return self._delta(head, None, "history rewritten: the table was replaced")
            start = self._common_ancestor(cursor.snapshot_id, head.snapshot_id)
            if start == cursor.snapshot_id:
                return self._delta(head, start, "")
            if start is None:
                note = f"history rewritten: snapshot {cursor.snapshot_id} is in no history left"
            else:
                note = f"history rewritten: rolled back from {cursor.snapshot_id} to {start}"
            return self._delta(head, start, note)

    def contains(self, snapshot_id: int) -> bool:
        """Say whether a snapshot is still an ancestor of the branch's head."""
        with self._outages("read the log of"):
            head = self._refreshed().snapshot(self.branch)
            return head is not None and any(
                s.id == snapshot_id for s in self._ancestors(head.snapshotId())
            )

    def schema(self, delta: Delta | None = None) -> Mapping[str, str]:
        """Give columns and their Spark types (`double`, `array<string>`, ...).

        Those of a delta's rows, which may lack what was added to the table later; else those of
        the table as it is now.
        """
        with self._outages("read the schema of"):
            if delta is None:
                frame = self._sessions().read.format("iceberg").load(self.name)
            else:
                frame = self._frame(delta)
            return {field.name: field.dataType.simpleString() for field in frame.schema.fields}

    def read(self, delta: Delta, columns: Sequence[str]) -> pa.Table:
        """Read the rows of a delta: just these columns, order unspecified.

        Raises:
            GiveUp: the rows read are not as many as the snapshots say they added, or the
                snapshots are gone.
            Unreadable: the rows cannot be read, although the table itself answers.
        """
        self._still_there(delta)
        try:
            with self._outages("read"):
                rows = _collect(self._chosen(self._frame(delta), columns))
        except TryLater as error:
            self.head()  # where not even the log can be read, this is an outage of the catalog
            raise Unreadable(error.what, error.remedy) from error
        if delta.exact and rows.num_rows != delta.rows:
            raise GiveUp(
                f"{self.name}: {rows.num_rows} rows were read between snapshots "
                f"{delta.start_id} and {delta.end_id}, but the snapshots added {delta.rows}.",
                "A data file or the log is damaged; repair the table, then `retraind retry`.",
            )
        return rows

    def _still_there(self, delta: Delta) -> None:
        """Refuse a delta whose snapshots were expired: no read of it will ever succeed."""
        with self._outages("read the log of"):
            self._refreshed()
            for snapshot in self._ancestors(delta.end_id):
                if delta.start_id in (None, snapshot.id, snapshot.parent_id):
                    return
        raise GiveUp(
            f"{self.name}: the snapshots between {delta.start_id} and {delta.end_id} were expired.",
            "Their rows are in the table, but no longer to be told from older ones.",
        )

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
        if delta.start_id is None:
            return reader.option("snapshot-id", str(delta.end_id)).load(self.name)
        return (
            reader.option("start-snapshot-id", str(delta.start_id))
            .option("end-snapshot-id", str(delta.end_id))
            .load(self.name)
        )

    def _refreshed(self) -> Any:  # noqa: ANN401 (a py4j handle)
        if self._handle is None or monotonic() - self._loaded > self._reload_every:
            session = self._sessions()
            self._loaded = monotonic()
            loader = session._jvm.org.apache.iceberg.spark.Spark3Util  # type: ignore[union-attr] # noqa: SLF001 (py4j is the only way to a refreshed table)
            self._handle = loader.loadIcebergTable(session._jsparkSession, self.name)  # noqa: SLF001
        else:
            self._handle.refresh()
        return self._handle

    def _delta(self, head: Cursor, start: int | None, note: str) -> Delta:
        between: list[Snapshot] = []
        for snapshot in self._ancestors(head.snapshot_id):
            if snapshot.id == start:
                break
            between.append(snapshot)
        return Delta(
            table=self.name, branch=self.branch, table_uuid=head.table_uuid, start_id=start,
            end_id=head.snapshot_id, snapshots=tuple(reversed(between)), note=note,
        )  # fmt: skip

    def _common_ancestor(self, cursor: int, head: int) -> int | None:
        """Find the youngest snapshot from which both descend: the cursor itself as a rule."""
        lineage: set[int] = set()
        for snapshot in self._ancestors(head):
            if snapshot.id == cursor:
                return cursor
            lineage.add(snapshot.id)
            if snapshot.parent_id == cursor:  # expired itself, yet an ancestor all the same
                return cursor
        return next((s.id for s in self._ancestors(cursor) if s.id in lineage), None)

    def _ancestors(self, snapshot_id: int | None) -> Iterator[Snapshot]:
        """Walk from a snapshot to the oldest ancestor that the table still keeps."""
        parser = self._sessions()._jvm.org.apache.iceberg.SnapshotParser  # type: ignore[union-attr] # noqa: SLF001 (one call instead of a dozen per snapshot)
        while snapshot_id is not None:
            found = self._handle.snapshot(snapshot_id)
            if found is None:
                return
            snapshot = _snapshot(json.loads(parser.toJson(found)))
            yield snapshot
            snapshot_id = snapshot.parent_id

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
                f"The table {self.name} could not be {verb}: {_first_line(error)}.",
                "Check `table`, `spark.catalog` and `spark.conf`.",
            ) from error
        except (PySparkException, Py4JError, OSError) as error:
            self._handle = None
            raise TryLater(
                f"The table {self.name} could not be {verb}: {_first_line(error)}.",
                "The catalog, its storage or Spark is failing; `retraind doctor` tells which.",
            ) from error


def _collect(frame: DataFrame) -> pa.Table:
    """Bring rows to this process as Arrow; the place for a faster reader."""
    if to_arrow := getattr(frame, "toArrow", None):  # Spark 4
        return to_arrow()
    from pyspark.sql.pandas.types import to_arrow_schema  # noqa: PLC0415 (see above)

    schema = to_arrow_schema(frame.schema)
    batches = frame._collect_as_arrow()  # noqa: SLF001 (3.5 has no public way that keeps types)
    return pa.Table.from_batches(batches) if batches else schema.empty_table()


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


def _first_line(error: Exception) -> str:
    cause = getattr(error, "java_exception", None)
    text = str(cause) if cause is not None else str(error)
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__

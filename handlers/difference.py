"""Compares the table at two snapshots, exactly and by what differs: the files not in both.

Iceberg's own changelog does not read delete files (merge-on-read), and its incremental read leaves
rewrites out and returns rows that were deleted later. Rows of the files that only the end state
has, less the rows of those that only the start state has, are the rows that really are new, however
they were written: carried-over rows are in both and cancel out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from handlers.facts import Delta, Kind

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Task = Any
"""A py4j handle of a FileScanTask: a data file, and the delete files that apply to it."""
Tasks = Mapping[tuple[str, frozenset[str]], Task]
"""By what makes them the same: the file, and what is deleted of it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The rows of the files that are not in both states, all with the same columns."""

    before: DataFrame
    after: DataFrame
    appended: DataFrame
    """Rows of the end state as well: those to be told apart, in files of append snapshots."""
    apart: bool

    @property
    def new(self) -> DataFrame:
        """The rows that really are new; where told apart, only appended ones."""
        if self.apart:
            return self.appended.exceptAll(self.before.exceptAll(self.after))
        return self.after.exceptAll(self.before)

    @property
    def removed(self) -> DataFrame:
        """The rows of the start state that are gone."""
        return self.before.exceptAll(self.after.unionAll(self.appended))


@contextmanager
def difference(
    session: SparkSession,
    table: Any,  # noqa: ANN401 (a py4j handle)
    delta: Delta,
    columns: Sequence[str],
) -> Iterator[Difference]:
    """Plan the comparison of a delta's two ends; its frames can be read while the body runs."""
    before, after = _tasks(table, delta.start_id), _tasks(table, delta.end_id)
    told_apart = _appended(table, delta) if delta.way == "apart" else frozenset()
    gone = [task for key, task in before.items() if key not in after]
    come = {key: task for key, task in after.items() if key not in before}
    appended = [task for key, task in come.items() if key[0] in told_apart]
    others = [task for key, task in come.items() if key[0] not in told_apart]
    manager = session._jvm.org.apache.iceberg.spark.ScanTaskSetManager.get()  # type: ignore[union-attr] # noqa: SLF001 (py4j)
    staged: list[str] = []

    def frame(tasks: Sequence[Task]) -> DataFrame:
        reader = session.read.format("iceberg")
        if tasks:
            staged.append(uuid4().hex)
            manager.stageTasks(table, staged[-1], _java_list(session, tasks))
            reader = reader.option("scan-task-set-id", staged[-1])
        found = reader.load(delta.table).select([f"`{name}`" for name in columns])
        return found if tasks else found.limit(0)

    try:
        yield Difference(frame(gone), frame(others), frame(appended), delta.way == "apart")
    finally:
        for key in staged:
            manager.removeTasks(table, key)


def _tasks(table: Any, snapshot_id: int | None) -> Tasks:  # noqa: ANN401 (a py4j handle)
    """Plan a scan of one state."""
    planned = table.newScan().useSnapshot(snapshot_id).planFiles()
    try:
        found = {}
        tasks = planned.iterator()
        while tasks.hasNext():
            task = tasks.next()
            deletes = frozenset(_identity(delete) for delete in task.deletes())
            found[str(task.file().path()), deletes] = task
        return found
    finally:
        planned.close()


def _identity(delete: Any) -> str:  # noqa: ANN401 (a py4j handle)
    """Name a delete file; those of format 3 share a Puffin file at different offsets."""
    path = str(delete.path())
    return f"{path}@{delete.contentOffset()}" if path.endswith(".puffin") else path


def _appended(table: Any, delta: Delta) -> frozenset[str]:  # noqa: ANN401 (a py4j handle)
    """Name the data files that the delta's append snapshots added."""
    return frozenset(
        str(file.path())
        for snapshot in delta.snapshots
        if snapshot.kind is Kind.APPEND
        for file in table.snapshot(snapshot.id).addedDataFiles(table.io())
    )


def _java_list(session: SparkSession, tasks: Sequence[Task]) -> Any:  # noqa: ANN401 (a py4j handle)
    found = session._jvm.java.util.ArrayList()  # type: ignore[union-attr] # noqa: SLF001 (py4j)
    for task in tasks:
        found.add(task)
    return found

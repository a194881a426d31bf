"""Appends a batch of rows to the table, as a producer would: by append, overwrite or merge."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from handlers.facts import GiveUp
from handlers.spark import Sessions, thrown

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Mode = Literal["append", "overwrite", "merge"]


def read_file(path: Path) -> pa.Table:
    """Read a batch from a `.parquet` or `.csv` file.

    Raises:
        GiveUp: the file is missing, unreadable, empty or of another kind.
    """
    readers = {".parquet": pyarrow.parquet.read_table, ".csv": pyarrow.csv.read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise GiveUp(f"{path} is neither .parquet nor .csv.", "Convert it to one of them.")
    try:
        rows: pa.Table = reader(path)
    except (OSError, pa.ArrowException) as error:
        raise GiveUp(f"{path} cannot be read: {error}.", "Check the path and the file.") from error
    if not rows.num_rows:
        raise GiveUp(f"{path} holds no rows.", "Nothing was appended.")
    return rows


def exists(sessions: Sessions, table: str) -> bool:
    """Say whether there is such a table.

    Raises:
        GiveUp: the catalog cannot be asked.
    """
    session = sessions()
    with _refusals(table):
        return bool(session.catalog.tableExists(table))


def append(
    sessions: Sessions, table: str, rows: pa.Table, mode: Mode, key: Sequence[str], scratch: Path
) -> None:
    """Commit the rows as one snapshot; creates the table on first use.

    `scratch` must be visible to Spark's executors; `key` are the columns that a merge matches on.

    Raises:
        GiveUp: columns or types do not fit the table, or a merge has no key.
    """
    if mode == "merge" and not key:
        raise GiveUp("A merge needs to know which rows are the same.", "Set `row_key`.")
    session = sessions()
    with _refusals(table):
        if not session.catalog.tableExists(table):
            with _staged(session, rows, scratch) as frame:
                _create(session, table, frame)
            return
        fitted = _fit(session, table, rows)
        with _staged(session, fitted, scratch) as frame:
            _commit(session, table, frame, mode, key)


def _create(session: SparkSession, table: str, frame: DataFrame) -> None:
    """Create and fill, in one snapshot."""
    namespace = table.rpartition(".")[0]
    session.sql(f"CREATE NAMESPACE IF NOT EXISTS {namespace}")
    frame.writeTo(table).using("iceberg").tableProperty("format-version", "2").create()


def _commit(
    session: SparkSession, table: str, frame: DataFrame, mode: Mode, key: Sequence[str]
) -> None:
    from pyspark.sql.functions import lit  # noqa: PLC0415 (optional, slow to import)

    if mode == "append":
        frame.writeTo(table).append()
    elif mode == "overwrite":
        frame.writeTo(table).overwrite(lit(True))  # noqa: FBT003 (Spark's literal TRUE)
    else:
        frame.createOrReplaceTempView("retraind_batch")
        same = " AND ".join(f"old.`{name}` <=> new.`{name}`" for name in key)
        session.sql(
            f"MERGE INTO {table} AS old USING retraind_batch AS new ON {same} "
            "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
        )


def _fit(session: SparkSession, table: str, rows: pa.Table) -> pa.Table:
    """Cast the rows to the table's columns, in its order; nothing is dropped or made up."""
    from pyspark.sql.pandas.types import to_arrow_schema  # noqa: PLC0415 (optional, slow to import)

    wanted = to_arrow_schema(session.table(table).schema)
    unknown = [name for name in rows.column_names if name not in wanted.names]
    missing = [name for name in wanted.names if name not in rows.column_names]
    if unknown or missing:
        told = [f"it lacks {', '.join(missing)}"] if missing else []
        told += [_stranger(name, wanted.names) for name in unknown]
        raise GiveUp(f"The batch does not fit {table}: {'; '.join(told)}.", "Nothing was appended.")
    try:
        return rows.select(wanted.names).cast(wanted)
    except (pa.ArrowException, ValueError) as error:
        raise GiveUp(
            f"The batch does not fit {table}: {error}.", "Nothing was appended."
        ) from error


def _stranger(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"{name!r} is no column of it" + (f" (nearest: {close[0]!r})" if close else "")


@contextmanager
def _staged(session: SparkSession, rows: pa.Table, scratch: Path) -> Iterator[DataFrame]:
    """Hand the rows to Spark as a Parquet file, which keeps every type exactly."""
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "batch.parquet"
        pyarrow.parquet.write_table(rows, path, coerce_timestamps="us")
        yield session.read.parquet(path.resolve().as_uri())


@contextmanager
def _refusals(table: str) -> Iterator[None]:
    from py4j.protocol import Py4JError  # noqa: PLC0415 (optional, slow to import)
    from pyspark.errors import PySparkException  # noqa: PLC0415

    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise GiveUp(
            f"The batch could not be committed to {table}: {thrown(error)}.",
            "Check the table's name, the catalog and the batch's columns.",
        ) from error

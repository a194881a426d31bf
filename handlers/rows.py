"""From a table's columns to training and held-out rows. Pure: the same rows give the same split."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from config.settings import Pipeline, Train
from handlers.facts import GiveUp, TryLater
from handlers.scorer import FeatureKind, Task

Table = pa.Table
BUCKETS = 10_000
GREATEST = float(np.finfo(np.float32).max)
"""What XGBoost's numbers can hold."""
KINDS: tuple[tuple[str, FeatureKind], ...] = (
    (r"tinyint|smallint|int|bigint|float|double|decimal\(.*\)", "number"),
    (r"boolean", "boolean"),
    (r"string|varchar\(.*\)|char\(.*\)", "category"),
    (r"date|timestamp|timestamp_ntz", "time"),
)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that a pipeline uses, resolved against the table's schema."""

    features: tuple[tuple[str, FeatureKind], ...]
    label: str
    key: tuple[str, ...]
    also: tuple[str, ...] = ()
    """Columns that only the champion reads."""
    checked: tuple[str, ...] = ()
    """Columns that only the data contract looks at."""

    @property
    def ordering(self) -> list[str]:
        """Name the columns that fix the order of rows: the key first, then what is learnt from."""
        features = (name for name, _ in self.features)
        return list(dict.fromkeys([*self.key, *features, self.label, *self.also]))

    @property
    def to_read(self) -> list[str]:
        """Name each column to read, once."""
        return list(dict.fromkeys([*self.ordering, *self.checked]))

    @property
    def inputs(self) -> list[str]:
        """Name the columns that either model reads."""
        return list(dict.fromkeys([*(name for name, _ in self.features), *self.also]))


@dataclass(frozen=True, slots=True)
class Part:
    """Rows in canonical order with their labels (class names, or float64 for regression)."""

    rows: pd.DataFrame
    labels: pd.Series[Any]
    buckets: np.ndarray[Any, np.dtype[np.int64]] | None = None
    """Of the rows' keys, shape (n,): a further split is drawn from them, and rows of one entity,
    which resemble each other, share theirs."""

    def where(self, mask: np.ndarray[Any, Any]) -> Part:
        """Give the rows at which the mask is true, in their order."""
        found = self.buckets[mask] if self.buckets is not None else None
        rows, labels = self.rows[mask], self.labels[mask]
        return Part(rows.reset_index(drop=True), labels.reset_index(drop=True), found)

    def folds(self, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number the rows 0..count-1 by their keys' hash, shape (n,); else by their places."""
        return (self.buckets if self.buckets is not None else np.arange(len(self.rows))) % count

    def sample(self, most: int) -> Part:
        """Draw about so many rows at most by the hash of their keys, the same ones at any time."""
        if len(self.rows) <= most:
            return self
        places = np.arange(len(self.rows)) if self.buckets is None else self.buckets
        hashed = pd.util.hash_array(places) % BUCKETS  # held out was by the bucket itself
        return self.where(hashed < BUCKETS * most // len(self.rows))


@dataclass(frozen=True, slots=True)
class Split:
    """Training rows, and held-out rows that no model ever trains on."""

    train: Part
    held_out: Part
    unlabelled: int


def choose(
    schema: Mapping[str, str],
    pipeline: Pipeline,
    also: Iterable[str] = (),
    checked: Iterable[str] = (),
    lost: Mapping[str, str] | None = None,
) -> Columns:
    """Resolve the pipeline's columns against the table's schema (name -> Spark type).

    Names are found whatever their case, as in SQL. `also` are the champion's columns and `checked`
    the data contract's, read as well where the table has them. `lost` are names that the delta's
    own snapshots took away, with what became of each.

    Raises:
        GiveUp: a column that the pipeline names was lost within the delta.
        TryLater: a column is not there or cannot be used; the text has the nearest name. The
            configuration or the table must change, and until then the rows wait.
    """
    named = (pipeline.label, *(pipeline.features or ()), *pipeline.row_key)
    found = {name: resolve(name, schema) for name in dict.fromkeys((*named, *pipeline.ignore))}
    if wrong := [name for name in dict.fromkeys(named) if found[name] is None]:
        _refuse(wrong, schema, pipeline.table, lost or {})
    asked = [found[name] or name for name in named]
    kinds = {name: kind for name, text in schema.items() if (kind := _kind(text))}
    if unfit := [name for name in dict.fromkeys(asked) if name not in kinds]:
        listed = ", ".join(f"{name} ({schema[name]})" for name in unfit)
        raise TryLater(
            f"{pipeline.table}: no model can learn from, predict or be split by {listed}.",
            "Correct the configuration, or store them as numbers, text or times.",
        )
    label, *others = asked
    count = len(pipeline.features or ())
    _distinct([label, *others[:count]], pipeline.table)
    _distinct([label, *others[count:]], pipeline.table)
    if pipeline.features is None:
        left_out = {label, *others, *(found[name] for name in pipeline.ignore)}
        features = [name for name in schema if name in kinds and name not in left_out]
    else:
        features = others[:count]
    if not features:
        raise TryLater(
            f"{pipeline.table} has no column left to learn from.",
            "Set `features`, or shorten `ignore`.",
        )
    key = others[count:] or [name for name in schema if name in kinds]
    return Columns(
        features=tuple((name, kinds[name]) for name in features),
        label=label,
        key=tuple(key),
        also=tuple(name for name in also if name in kinds),
        checked=tuple(column for name in checked if (column := resolve(name, schema))),
    )


def resolve(name: str, schema: Mapping[str, str]) -> str | None:
    """Find a column whatever the case of its name; None if there is none, or more than one."""
    if name in schema:
        return name
    alike = [column for column in schema if column.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def _distinct(columns: list[str], table: str) -> None:
    """Refuse names that differ in case only: the label would be learnt from, or a column twice."""
    if twice := [name for name in dict.fromkeys(columns) if columns.count(name) > 1]:
        raise TryLater(
            f"{table}: the configuration names {', '.join(twice)} twice, in different cases.",
            "Correct `label`, `features` or `row_key`; the rows wait until then.",
        )


def _refuse(
    wrong: list[str], schema: Mapping[str, str], table: str, lost: Mapping[str, str]
) -> NoReturn:
    gone = {name: column for name in wrong if (column := resolve(name, lost))}
    if told := [f"{name} was {lost[column]}" for name, column in gone.items()]:
        raise GiveUp(
            f"{table} lost column(s) that the configuration names: {', '.join(told)}.",
            "Correct `label`, `features` or `row_key`, then `retraind retry`.",
        )
    hints = "; ".join(_hint(name, schema) for name in wrong)
    raise TryLater(
        f"{table} lacks column(s) that the configuration names: {hints}.",
        "Correct `label`, `features` or `row_key`; the rows wait until then.",
    )


def _kind(spark_type: str) -> FeatureKind | None:
    return next((kind for pattern, kind in KINDS if re.fullmatch(pattern, spark_type)), None)


def _hint(name: str, schema: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(name, schema, n=1, cutoff=0.5)
    return f"{name!r} (nearest: {close[0]!r})" if close else f"{name!r} (has: {', '.join(schema)})"


def split(rows: pa.Table, columns: Columns, task: Task, settings: Train) -> Split:
    """Put rows into canonical order and split them by the hash of their key.

    The order makes training repeatable: rows come back from a table in any order, and with
    subsampling the order of rows changes the model. Rows without a label are left out.

    Raises:
        GiveUp: no row has a label, or one cannot be read as the number that the task needs.
    """
    blank = pc.is_null(rows[columns.label], nan_is_null=True)
    labelled = rows.filter(pc.invert(blank))
    if not labelled.num_rows:
        raise GiveUp(
            f"All {rows.num_rows} rows have no label: {columns.label!r} is null throughout.",
            "Append the rows with their labels, or backfill them and `retraind retry`.",
        )
    ordered = labelled.sort_by([(name, "ascending") for name in columns.ordering])
    found = buckets(ordered, columns.key, settings.salt)
    held_out = found < round(settings.holdout * BUCKETS)
    whole = Part(inputs(ordered, columns), _labels(ordered[columns.label], task), found)
    return Split(
        train=whole.where(~held_out),
        held_out=whole.where(held_out),
        unlabelled=rows.num_rows - labelled.num_rows,
    )


def digest(part: Part, names: Iterable[str]) -> str:
    """Name labels and these columns of the rows by their content and order."""
    columns = [part.rows[name] for name in names] + [part.labels]
    hashed = [pd.util.hash_pandas_object(column, index=False).to_numpy() for column in columns]
    return blake2b(np.column_stack(hashed).tobytes(), digest_size=8).hexdigest()


def buckets(rows: pa.Table, key: tuple[str, ...], salt: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Hash each row's key into 0..9999, shape (n,).

    Keyed BLAKE2b over the length-prefixed text of the key columns: the same key falls into the
    same bucket for ever, on any machine, whatever else the row holds.
    """
    hasher = blake2b(digest_size=8, key=blake2b(salt.encode(), digest_size=32).digest())

    def bucket(text: str) -> int:
        keyed = hasher.copy()
        keyed.update(text.encode())
        return int.from_bytes(keyed.digest(), "big") % BUCKETS

    texts = pc.binary_join_element_wise(*(_texts(rows[name]) for name in key), "")
    return np.fromiter(map(bucket, texts.to_pylist()), np.int64, count=rows.num_rows)


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write values as length-prefixed text, so that neighbours cannot run into each other."""
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if pa.types.is_date32(column.type) else pa.int64())
    text = column.cast(pa.string())
    prefixed = pc.binary_join_element_wise(pc.binary_length(text).cast(pa.string()), text, ":")
    return pc.fill_null(prefixed, "-")


def inputs(rows: pa.Table, columns: Columns) -> pd.DataFrame:
    """Give what the models read of each row, in the order of the rows."""
    names = columns.inputs
    table = rows.select(names)
    for position, name in enumerate(names):
        if pa.types.is_decimal(table.schema.field(name).type):
            table = table.set_column(position, name, table[name].cast(pa.float64()))
    frame: pd.DataFrame = table.to_pandas(date_as_object=False)
    return frame


def _labels(column: pa.ChunkedArray, task: Task) -> pd.Series[Any]:
    """Read labels: numbers for regression, else class names, the same for 1, 1.0 and true."""
    if task == "regression":
        try:
            numbers = column.cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise GiveUp(
                f"The labels are no numbers: {error}.", "Correct them, then `retraind retry`."
            ) from error
        if pc.any(pc.greater(pc.abs(numbers), GREATEST)).as_py():
            raise GiveUp(
                f"A label is infinite, or beyond {GREATEST:.1e}, what a model's numbers hold.",
                "Correct it, then `retraind retry`.",
            )
        values: pd.Series[Any] = numbers.to_pandas()
        return values
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    elif pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    names: pd.Series[Any] = column.cast(pa.string()).to_pandas()
    return names

"""Checks a delta's rows against what the configuration says they must be like. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from config.contract import ColumnRule, Freshness
from config.settings import Pipeline
from handlers.facts import Breach

EXAMPLES = 3
LONGEST_TEXT = 60
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)


def needed(pipeline: Pipeline) -> tuple[str, ...]:
    """Name the columns that the contract looks at, each once."""
    contract = pipeline.contract
    names = [
        *contract.columns,
        *((pipeline.label,) if contract.min_per_class else ()),
        *(pipeline.row_key if contract.max_duplicates < 1 else ()),
        *((contract.freshness.column,) if contract.freshness else ()),
    ]
    return tuple(dict.fromkeys(names))


def breaches(
    rows: pa.Table, schema: Mapping[str, str], pipeline: Pipeline, now: datetime
) -> tuple[Breach, ...]:
    """Give every breach; what a column holds is looked at only where it is there, of its type.

    A column counts as there if `rows` and `schema` (name -> Spark type) have it, in any case, as
    in SQL. Beside those of `needed`, `rows` has the row key, for the examples.
    """
    contract = pipeline.contract
    found = {name: _resolve(name, schema, rows) for name in (*needed(pipeline), *pipeline.row_key)}
    there = {name: column for name, column in found.items() if column}
    key = tuple(there[name] for name in pipeline.row_key if name in there)
    sheet = _Sheet(rows, key)
    lacking = [name for name in needed(pipeline) if name not in there]
    told = [sheet.whole("missing", name, _lacking(name, schema)) for name in lacking]
    for name, rule in contract.columns.items():
        if column := there.get(name):
            told += _column(sheet, column, rule, schema[column])
    if contract.min_per_class and pipeline.label in there:
        told += _classes(sheet, there[pipeline.label], pipeline)
    if contract.max_duplicates < 1 and len(key) == len(pipeline.row_key):
        told += _duplicates(sheet, contract.max_duplicates)
    if contract.freshness and contract.freshness.column in there:
        told += _freshness(sheet, there[contract.freshness.column], contract.freshness, now)
    return tuple(told)


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Rows and the columns that name one of them."""

    rows: pa.Table
    key: tuple[str, ...]

    def whole(self, rule: str, column: str, what: str) -> Breach:
        """Tell of a breach by the column itself, so by every row."""
        count = self.rows.num_rows
        return Breach(rule, column, count, count, (), f"{column}: {what}")

    def some(
        self, rule: str, column: str, mask: pa.ChunkedArray, what: str, tolerated: float = 0.0
    ) -> Iterator[Breach]:
        """Tell of the rows that a mask marks, where they are more than the share tolerated."""
        marked = self.rows.select([*dict.fromkeys([*self.key, column])]).filter(mask)
        count, of = marked.num_rows, self.rows.num_rows
        if count and count / of > tolerated:
            examples = tuple(dict.fromkeys(self._examples(marked, column)))
            verb = "row is" if of == 1 else "rows is" if count == 1 else "rows are"
            sentence = f"{column}: {count} of {of} {verb} {what}, e.g. {examples[0]}"
            yield Breach(rule, column, count, of, examples, sentence)

    def _examples(self, marked: pa.Table, column: str) -> Iterator[str]:
        """Tell the first rows by key and value, so that the same rows give the same examples."""
        if self.key:
            marked = marked.sort_by([(name, "ascending") for name in self.key])
        for position in range(min(EXAMPLES, marked.num_rows)):
            value = f"{column}={_text(marked[column][position])}"
            yield f"{_named(marked, self.key, position)}: {value}" if self.key else value


def _resolve(name: str, schema: Mapping[str, str], rows: pa.Table) -> str | None:
    read = [column for column in rows.column_names if column in schema]
    alike = [column for column in read if column.casefold() == name.casefold()]
    return name if name in read else alike[0] if len(alike) == 1 else None


def _lacking(name: str, schema: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(name, schema, n=1, cutoff=0.5)
    return "is no column of the table" + (f"; the nearest is {close[0]!r}" if close else "")


def _column(sheet: _Sheet, name: str, rule: ColumnRule, kind: str) -> Iterator[Breach]:
    if rule.type is not None and _plain(rule.type) != _plain(kind):
        yield sheet.whole("type", name, f"is {kind}, not {rule.type} (type)")
        return
    cells = sheet.rows[name]
    blank = pc.is_null(cells, nan_is_null=True)
    what = f"null (max_null: {_bound(rule.max_null)})"
    yield from sheet.some("max_null", name, blank, what, rule.max_null)
    yield from _bounds(sheet, name, rule, kind)
    if rule.values is not None:
        strange = pc.and_not(pc.invert(_among(cells, rule.values)), blank)
        listed = _short(", ".join(map(_said, rule.values)))
        yield from sheet.some("values", name, strange, f"none of {listed} (values)")


def _plain(spark_type: str) -> str:
    return "".join(spark_type.split()).lower()


def _bounds(sheet: _Sheet, name: str, rule: ColumnRule, kind: str) -> Iterator[Breach]:
    cells = sheet.rows[name]
    sides = (("min", rule.min, pc.less, "below"), ("max", rule.max, pc.greater, "above"))
    for which, bound, beyond, side in sides:
        if bound is None:
            continue
        if not _is_number(cells.type):
            what = f"is {kind}, no number to hold against {which}: {_bound(bound)}"
            yield sheet.whole(which, name, what)
            continue
        # A bound of 0.1 is the 0.1 of the column's own type, or single precision would exceed it.
        numbers = cells if pa.types.is_floating(cells.type) else cells.cast("float64", safe=False)
        mask = beyond(numbers, pa.scalar(bound, numbers.type))
        yield from sheet.some(which, name, mask, f"{side} {_bound(bound)} ({which})")


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _among(cells: pa.ChunkedArray, values: tuple[str | int | float | bool, ...]) -> pa.ChunkedArray:
    """Mark the cells that are one of these values, each read as the column's type."""
    wanted = [found for value in values if (found := _read(value, cells.type)) is not None]
    if not wanted:
        return pa.chunked_array([pa.repeat(pa.scalar(value=False), len(cells))])
    return pc.is_in(cells, value_set=pa.concat_arrays(wanted))


def _read(value: object, kind: pa.DataType) -> pa.Array | None:
    """Read a value as a column's type; None if no cell of that type can be it."""
    try:
        # By way of its text, because a float would be rounded to the decimal's scale in silence.
        exact = Decimal(str(value)) if pa.types.is_decimal(kind) else value
        return pa.array([exact]).cast(kind)
    except (pa.ArrowException, ArithmeticError):
        return None


def _classes(sheet: _Sheet, name: str, pipeline: Pipeline) -> Iterator[Breach]:
    """Count the labelled rows of each class; a binary delta has two."""
    least, rule, labels = pipeline.contract.min_per_class, "min_per_class", sheet.rows[name]
    labelled = labels.filter(pc.invert(pc.is_null(labels, nan_is_null=True)))
    counted = labelled.value_counts()
    counts = sorted((_text(cell["values"]), cell["counts"].as_py()) for cell in counted)
    of = len(labelled)
    if pipeline.task == "binary" and len(counts) <= 1:
        held = f"class {counts[0][0]} only" if counts else "no class"
        sentence = f"{name}: {of} labelled rows hold {held}; both are needed ({rule}: {least})"
        yield Breach(rule, name, 0, of, (), sentence)
    for text, count in counts:
        if count < least:
            sentence = (
                f"{name}: {count} of {of} labelled rows are of class {text} ({rule}: {least})"
            )
            yield Breach(rule, name, count, of, (), sentence)


def _duplicates(sheet: _Sheet, tolerated: float) -> Iterator[Breach]:
    """Count the rows whose key is another row's as well, but for one row of each key."""
    rule, column, of = "max_duplicates", ", ".join(sheet.key), sheet.rows.num_rows
    keys = sheet.rows.group_by(list(sheet.key), use_threads=False).aggregate([([], "count_all")])
    count = of - keys.num_rows
    if count and count / of > tolerated:
        again = keys.filter(pc.greater(keys["count_all"], 1))
        again = again.sort_by([(name, "ascending") for name in sheet.key]).slice(0, EXAMPLES)
        examples = tuple(
            f"{_named(again, sheet.key, position)}: {again['count_all'][position]} rows"
            for position in range(again.num_rows)
        )
        what = f"{count} of {of} rows repeat a key ({rule}: {_bound(tolerated)})"
        yield Breach(rule, column, count, of, examples, f"{column}: {what}, e.g. {examples[0]}")


def _freshness(sheet: _Sheet, name: str, wanted: Freshness, now: datetime) -> Iterator[Breach]:
    """Compare the newest time with now; a date counts until its end, times without zone as UTC."""
    rule, cells = "freshness", sheet.rows[name]
    if not (pa.types.is_timestamp(cells.type) or pa.types.is_date(cells.type)):
        what = f"is neither date nor timestamp, so its age is unknown ({rule})"
        yield sheet.whole(rule, name, what)
        return
    newest = pc.max(cells)
    if not newest.is_valid:
        yield sheet.whole(rule, name, f"holds no time at all ({rule})")
        return
    age = (now - EPOCH) // MICROSECOND - newest.cast(pa.timestamp("us"), safe=False).value
    age -= DAY // MICROSECOND if pa.types.is_date(cells.type) else 0
    if age > wanted.within * 1e6:
        old, most = timedelta(microseconds=age), timedelta(seconds=wanted.within)
        sentence = f"{name}: the newest, {_text(newest)}, is {old} old, more than {most} ({rule})"
        yield Breach(rule, name, len(cells) - cells.null_count, len(cells), (), sentence)


def _named(rows: pa.Table, key: tuple[str, ...], position: int) -> str:
    return ", ".join(f"{name}={_text(rows[name][position])}" for name in key)


def _text(cell: Any) -> str:  # noqa: ANN401 (any scalar of Arrow's)
    """Write a cell as a person reads it; Arrow writes the times, Python's calendar is shorter."""
    if cell.is_valid and pa.types.is_timestamp(cell.type):
        text = str(cell.cast(pa.timestamp(cell.type.unit)).cast("string"))
        return f"{text.removesuffix('.000000')}{' UTC' if cell.type.tz else ''}"
    if cell.is_valid and pa.types.is_date(cell.type):
        return str(cell.cast("string"))
    return _said(cell.as_py())


def _said(value: object) -> str:
    """Write a value: text in quotes, so that `'null'` is not null."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return _short(repr(value) if isinstance(value, str) else str(value))


def _bound(value: float) -> str:
    """Write a number as the configuration has it, in full: 0, 0.1, 1e+300."""
    return repr(value).removesuffix(".0")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."

"""What the rows of a delta must be like, and what is said of those that are not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Pipeline
from handlers.contract import EXAMPLES, breaches, needed
from handlers.facts import Breach

MANY = settings(max_examples=60, deadline=None)
NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
UTC = pa.timestamp("us", "UTC")
TYPES: dict[str, pa.DataType] = {
    "tinyint": pa.int8(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "decimal(10,2)": pa.decimal128(10, 2),
    "boolean": pa.bool_(),
    "string": pa.string(),
    "date": pa.date32(),
    "timestamp": UTC,
    "timestamp_ntz": pa.timestamp("us"),
    "binary": pa.binary(),
    "array<int>": pa.list_(pa.int32()),
    "struct<a:int>": pa.struct({"a": pa.int32()}),
    "map<string,int>": pa.map_(pa.string(), pa.int32()),
    "void": pa.null(),
}
"""Spark's types and what they arrive as."""
EXAMPLE: dict[str, Any] = {
    "boolean": True,
    "string": "basic",
    "date": date(2026, 1, 31),
    "timestamp": NOW,
    "timestamp_ntz": NOW.replace(tzinfo=None),
    "binary": b"\x00",
    "array<int>": [1],
    "struct<a:int>": {"a": 1},
    "map<string,int>": [("a", 1)],
    "void": None,
}
NUMBERS = [kind for kind in TYPES if kind not in EXAMPLE]


def pipeline(validate: dict[str, Any], **changes: Any) -> Pipeline:
    """Make a pipeline with this contract."""
    base = {"table": "lake.bank.cards", "label": "fraud", "row_key": ["id"]}
    return Pipeline.model_validate({**base, "validate": validate, **changes})


def checked(
    validate: dict[str, Any],
    kinds: dict[str, str],
    values: Mapping[str, Sequence[Any]],
    **changes: Any,
) -> tuple[Breach, ...]:
    """Check columns of these Spark types; an `id` is added where there is none."""
    count = len(next(iter(values.values())))
    kinds, values = {"id": "bigint", **kinds}, {"id": list(range(count)), **values}
    rows = pa.table({name: pa.array(values[name], TYPES[kinds[name]]) for name in values})
    return breaches(rows, kinds, pipeline(validate, **changes), NOW)


def column(rule: dict[str, Any], kind: str, values: Sequence[Any], **changes: Any) -> list[Breach]:
    """Check one column, `amount`, against one rule."""
    return list(
        checked({"columns": {"amount": rule}}, {"amount": kind}, {"amount": values}, **changes)
    )


def is_blank(value: object) -> bool:
    """Say whether a cell counts as null."""
    return value is None or (isinstance(value, float) and math.isnan(value))


# -- the columns that are read ---------------------------------------------------------------


def test_an_empty_contract_needs_nothing() -> None:
    """Without rules no column is read for their sake."""
    assert needed(pipeline({})) == ()


def test_each_rule_needs_its_columns_once() -> None:
    """What is read more is what the rules name, without repetition."""
    wanted = pipeline(
        {
            "columns": {"amount": {}, "fraud": {}, "day": {}},
            "min_per_class": 1,
            "max_duplicates": 0.5,
            "freshness": {"column": "day", "within": "1d"},
        }
    )
    assert needed(wanted) == ("amount", "fraud", "day", "id")
    assert needed(pipeline({"freshness": {"column": "day", "within": 1}})) == ("day",)
    assert needed(pipeline({"min_per_class": 1})) == ("fraud",)
    assert needed(pipeline({"max_duplicates": 0})) == ("id",)


@MANY
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(TYPES)), st.lists(st.booleans(), min_size=3, max_size=3)),
        max_size=4,
    )
)
def test_nothing_breaks_an_empty_contract(drawn: list[tuple[str, list[bool]]]) -> None:
    """Whatever the rows are, without rules there is no breach."""
    kinds = {f"c{i}": kind for i, (kind, _) in enumerate(drawn)}
    values: dict[str, list[Any]] = {
        f"c{i}": [EXAMPLE.get(kind, 1) if there else None for there in cells]
        for i, (kind, cells) in enumerate(drawn)
    }
    values["fraud"] = [1, 1, 1]
    assert checked({}, {**kinds, "fraud": "int"}, values) == ()


# -- missing, type ---------------------------------------------------------------------------


def test_a_column_that_is_missing_is_one_breach() -> None:
    """A column that is named must be there; what else is wanted of it is not told as well."""
    found = checked(
        {
            "columns": {"amonut": {"type": "double", "min": 0, "max_null": 0}},
            "min_per_class": 3,
            "max_duplicates": 0,
            "freshness": {"column": "at", "within": 1},
        },
        {"amount": "double"},
        {"amount": [1.0, 2.0]},
        row_key=["id", "key"],
    )
    assert [(b.rule, b.column, b.count, b.of) for b in found] == [
        ("missing", name, 2, 2) for name in ("amonut", "fraud", "key", "at")
    ]
    assert found[0].sentence == "amonut: is no column of the table; the nearest is 'amount'"
    assert found[1].sentence == "fraud: is no column of the table"


def test_names_are_found_whatever_their_case() -> None:
    """A column is told under the table's name for it; where two are meant, neither is taken."""
    contract = {
        "columns": {"AMOUNT": {"min": 0}, "Part": {}},
        "min_per_class": 1,
        "max_duplicates": 0,
        "freshness": {"column": "AT", "within": 1},
    }
    found = checked(
        contract,
        {"amount": "int", "Fraud": "int", "at": "timestamp", "PART": "int", "part": "int"},
        {"amount": [-1], "Fraud": [1], "at": [None], "PART": [1], "part": [1]},
        row_key=["ID"],
    )
    assert [(b.rule, b.column) for b in found] == [
        ("missing", "Part"),
        ("min", "amount"),
        ("min_per_class", "Fraud"),
        ("freshness", "at"),
    ]
    assert found[1].examples == ("id=0: amount=-1",)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_the_type_is_the_one_that_is_wanted(kind: str) -> None:
    """Another type is one breach, and its cells are not looked at; spelling does not matter."""
    found = column({"type": "real", "max_null": 0, "min": 0}, kind, [None])
    assert found == [Breach("type", "amount", 1, 1, (), f"amount: is {kind}, not real (type)")]
    assert column({"type": kind.upper().replace(",", ", ")}, kind, [None]) == []


# -- null ------------------------------------------------------------------------------------


@MANY
@given(st.sampled_from(sorted(TYPES)), st.lists(st.booleans(), max_size=30), st.integers(0, 30))
def test_nulls_are_counted_exactly(kind: str, filled: list[bool], most: int) -> None:
    """Of any type, a share of nulls above the one allowed is a breach; exactly it is none."""
    share = most / max(len(filled), most, 1)
    values = [EXAMPLE.get(kind, 1) if there else None for there in filled]
    blanks = sum(is_blank(value) for value in values)
    found = column({"max_null": share}, kind, values)
    if blanks and blanks / len(values) > share:
        assert [(b.rule, b.count, b.of) for b in found] == [("max_null", blanks, len(values))]
        assert len(found[0].examples) == min(blanks, EXAMPLES)
    else:
        assert found == []


def test_nan_counts_as_null() -> None:
    """NaN is no number: it is told as what it is, and no bound or list is held against it."""
    rule = {"max_null": 0.5, "min": 0, "max": 1, "values": [0, 1]}
    (found,) = column(rule, "double", [1.0, math.nan, None])
    assert found.sentence == "amount: 2 of 3 rows are null (max_null: 0.5), e.g. id=1: amount=nan"
    assert found.examples == ("id=1: amount=nan", "id=2: amount=null")


# -- min, max --------------------------------------------------------------------------------


def test_the_sentence_of_a_bound() -> None:
    """The sentence has the exact figures and the first row by its key, in any order of rows."""
    values: dict[str, list[Any]] = {"id": [7, 42, 9, 50], "amount": [1.0, -3.0, 2.5, -0.5]}
    contract = {"columns": {"amount": {"min": 0, "max": 2.25}}}
    below, above = checked(contract, {"amount": "double"}, values)
    assert below.sentence == "amount: 2 of 4 rows are below 0 (min), e.g. id=42: amount=-3.0"
    assert below.examples == ("id=42: amount=-3.0", "id=50: amount=-0.5")
    assert above.sentence == "amount: 1 of 4 rows is above 2.25 (max), e.g. id=9: amount=2.5"
    turned = {name: cells[::-1] for name, cells in values.items()}
    assert checked(contract, {"amount": "double"}, turned) == (below, above)


@MANY
@given(
    st.sampled_from(NUMBERS),
    st.lists(st.none() | st.integers(-100, 100), max_size=30),
    st.none() | st.integers(-400, 400).map(lambda n: n / 4),
    st.none() | st.integers(0, 400).map(lambda n: n / 4),
)
def test_bounds_are_counted_exactly(
    kind: str, values: list[int | None], least: float | None, width: float | None
) -> None:
    """Each number below min or above max is counted, whatever its type; the bounds fit."""
    most = None if width is None else (least or 0.0) + width
    rule = {"min": least, "max": most}
    numbers = [value for value in values if value is not None]
    expected = {
        "min": sum(least is not None and number < least for number in numbers),
        "max": sum(most is not None and number > most for number in numbers),
    }
    found = column(rule, kind, values)
    assert {b.rule: b.count for b in found} == {k: n for k, n in expected.items() if n}
    assert {b.of for b in found} <= {len(values)}


@MANY
@given(st.lists(st.floats(width=32) | st.none(), max_size=20), st.sampled_from(["float", "double"]))
def test_every_float_is_compared(values: list[float | None], kind: str) -> None:
    """Infinities are beyond any bound, NaN beyond none."""
    found = column({"min": -1.5, "max": 1.5}, kind, values)
    numbers = [value for value in values if value is not None]
    expected = {"min": sum(n < -1.5 for n in numbers), "max": sum(n > 1.5 for n in numbers)}
    assert {b.rule: b.count for b in found} == {k: n for k, n in expected.items() if n}


@pytest.mark.parametrize(
    ("kind", "value"), [("float", 0.1), ("double", 0.1), ("decimal(10,2)", Decimal("0.10"))]
)
def test_a_bound_is_not_exceeded_by_itself(kind: str, value: object) -> None:
    """0.1 is neither below nor above 0.1, though single precision has another 0.1 than double."""
    assert column({"min": 0.1, "max": 0.1, "values": [0.1]}, kind, [value]) == []


def test_large_numbers() -> None:
    """Integers that no float holds and bounds that no column reaches are no crash."""
    values = [2**63 - 1, -(2**63), 0]
    assert column({"min": -1e300, "max": 1e300}, "bigint", values) == []
    assert column({"min": -1e300, "max": 1e300}, "float", [1.0]) == []
    assert [b.count for b in column({"min": 0, "max": 1e18}, "bigint", values)] == [1, 1]


@pytest.mark.parametrize("kind", sorted(EXAMPLE))
def test_a_bound_on_what_is_no_number(kind: str) -> None:
    """Where there are no numbers, a bound is a breach of the whole column, not a crash."""
    low, high = column({"min": 0, "max": 1e300}, kind, [EXAMPLE[kind], None])
    assert low == Breach(
        "min", "amount", 2, 2, (), f"amount: is {kind}, no number to hold against min: 0"
    )
    assert high.sentence.endswith("max: 1e+300")


# -- values ----------------------------------------------------------------------------------


@MANY
@given(
    st.lists(st.none() | st.sampled_from(["a", "b", "c", "null", ""]), max_size=20),
    st.lists(st.sampled_from(["a", "b", "c", "null", ""]), min_size=1, max_size=3),
)
def test_texts_that_are_not_accepted_are_counted(
    values: list[str | None], accepted: list[str]
) -> None:
    """Each text outside the list is counted; null is a matter of `max_null`."""
    strange = [value for value in values if value is not None and value not in accepted]
    found = column({"values": accepted}, "string", values)
    assert [b.count for b in found] == ([len(strange)] if strange else [])


@pytest.mark.parametrize(
    ("kind", "accepted", "taken", "refused"),
    [
        ("int", [1, 2.0, "3", 2.5, "x"], [1, 2, 3], [0, 4]),
        ("bigint", [2**63 - 1, 2**70], [2**63 - 1], [2**62]),
        ("double", [1, 0.5], [1.0, 0.5], [0.0, math.inf]),
        ("decimal(10,2)", [1, 0.1, "2.50", 0.123, "x", 1e300], [Decimal("0.10"), Decimal("2.5")],
         [Decimal("0.12"), Decimal("0.00")]),
        ("boolean", [True], [True], [False]),
        ("string", ["1", 2, True], ["1", "2", "true"], ["True", "3"]),
        ("date", ["2026-01-31"], [date(2026, 1, 31)], [date(2026, 2, 1)]),
        ("timestamp", ["2026-01-31T12:00:00Z"], [NOW], [NOW + timedelta(seconds=1)]),
        ("binary", ["a"], [b"a"], [b"b"]),
        ("array<int>", [1, "1"], [], [[1]]),
        ("struct<a:int>", [1], [], [{"a": 1}]),
        ("void", [1], [], []),
    ],
)  # fmt: skip
def test_accepted_values_are_read_as_the_column_is(
    kind: str, accepted: list[Any], taken: list[Any], refused: list[Any]
) -> None:
    """A value counts as what it is in the column's type; one that fits no cell accepts none."""
    found = column({"values": accepted}, kind, [*taken, None, *refused])
    assert [b.count for b in found] == ([len(refused)] if refused else [])


def test_the_sentence_of_values() -> None:
    """Texts are told in quotes, a long list and a long text are cut."""
    rule = {"values": ["basic", 2]}
    (found,) = column(rule, "string", ["basic", "x" * 99, "2"], row_key=[])
    assert found.sentence.startswith("amount: 1 of 3 rows is none of 'basic', 2 (values), e.g. ")
    assert found.examples == (f"amount='{'x' * 56}...",)
    (found,) = column({"values": list(range(99))}, "int", [-1])
    assert "... (values)" in found.sentence
    assert len(found.sentence) < 150


# -- examples --------------------------------------------------------------------------------


def test_examples_name_the_row() -> None:
    """Every column of the key is told, and no more than three rows; without key, only values."""
    kinds = {"a": "string", "amount": "int"}
    values: dict[str, list[Any]] = {"a": list("edcba"), "amount": [1, 1, 1, 1, 9]}
    contract = {"columns": {"amount": {"max": 0}}}
    (found,) = checked(contract, kinds, values, row_key=["a", "id"])
    assert found.examples == (
        "a='a', id=4: amount=9",
        "a='b', id=3: amount=1",
        "a='c', id=2: amount=1",
    )
    (found,) = checked(contract, kinds, values, row_key=[])
    assert found.examples == ("amount=1",)
    (found,) = checked({"columns": {"id": {"max": 3}}}, kinds, values)
    assert found.examples == ("id=4: id=4",)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("timestamp", 0, "1970-01-01 00:00:00 UTC"),
        ("timestamp_ntz", 1500, "1970-01-01 00:00:00.001500"),
        ("timestamp", 10**18, "<value out of range: 1000000000000000000> UTC"),
        ("date", 2932896 + 366, "10000-12-31"),
        ("boolean", True, "true"),
        ("decimal(10,2)", Decimal("1.50"), "1.50"),
        ("binary", b"a", "b'a'"),
    ],
)
def test_cells_are_told_as_they_are(kind: str, value: Any, text: str) -> None:
    """Any value is told exactly, be it a time that Python's calendar does not have."""
    (found,) = column({"values": ["1999-01-01T00:00Z"]}, kind, [value], row_key=[])
    assert found.examples == (f"amount={text}",)


# -- classes ---------------------------------------------------------------------------------


@MANY
@given(
    st.sampled_from(["int", "double", "string", "decimal(10,2)", "boolean"]),
    st.lists(st.none() | st.integers(0, 3), max_size=30),
    st.integers(1, 8),
    st.sampled_from(["binary", "multiclass"]),
)
def test_every_class_has_its_rows(
    kind: str, labels: list[int | None], least: int, task: str
) -> None:
    """Each class that occurs is counted without the unlabelled rows; a binary delta holds two."""
    turn = {"string": str, "double": float, "boolean": bool, "decimal(10,2)": Decimal}.get(
        kind, int
    )
    values = [None if label is None else turn(label) for label in labels]
    classes = Counter(value for value in values if value is not None)
    found = checked({"min_per_class": least}, {"fraud": kind}, {"fraud": values}, task=task)
    expected = sorted(count for count in classes.values() if count < least)
    if task == "binary" and len(classes) < 2:
        expected = [0, *expected]
    assert sorted(b.count for b in found) == expected
    assert {(b.rule, b.column, b.of) for b in found} <= {
        ("min_per_class", "fraud", sum(classes.values()))
    }


def test_the_sentences_of_classes() -> None:
    """The sentence tells the class, its rows and how many it needs; NaN is no class."""
    values = {"fraud": [0.0, 0.0, 1.0, None, math.nan]}
    (found,) = checked({"min_per_class": 2}, {"fraud": "double"}, values)
    assert found.sentence == (
        "fraud: 1 of 3 labelled rows are of class 1.0 (min_per_class: 2)"
    )  # fmt: skip
    (found,) = checked({"min_per_class": 2}, {"fraud": "int"}, {"fraud": [1, 1, None]})
    assert found.sentence == (
        "fraud: 2 labelled rows hold class 1 only; both are needed (min_per_class: 2)"
    )
    (found,) = checked({"min_per_class": 2}, {"fraud": "int"}, {"fraud": [None]})
    assert "0 labelled rows hold no class" in found.sentence


# -- duplicates ------------------------------------------------------------------------------


@MANY
@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 3), st.none() | st.sampled_from("ab")), max_size=20
    ),
    st.integers(0, 9),
)
def test_repeated_keys_are_counted_exactly(
    keys: list[tuple[int | None, str | None]], tenths: int
) -> None:
    """The rows beyond the first of each key are counted, a null in a key like any value."""
    values: dict[str, list[Any]] = {"id": [k[0] for k in keys], "part": [k[1] for k in keys]}
    count = len(keys) - len(set(keys))
    contract = {"max_duplicates": tenths / 10}
    found = checked(contract, {"part": "string"}, values, row_key=["id", "part"])
    if count and count / len(keys) > tenths / 10:
        assert [(b.rule, b.column, b.count, b.of) for b in found] == [
            ("max_duplicates", "id, part", count, len(keys))
        ]
        assert len(found[0].examples) == min(
            EXAMPLES, sum(often > 1 for often in Counter(keys).values())
        )
    else:
        assert found == ()


def test_the_sentence_of_duplicates() -> None:
    """The sentence tells how many rows are too many, the examples which keys how often."""
    (found,) = checked({"max_duplicates": 0.25}, {}, {"id": [5, 42, 7, 42, 7, 42]})
    assert found.sentence == (
        "id: 3 of 6 rows repeat a key (max_duplicates: 0.25), e.g. id=7: 2 rows"
    )
    assert found.examples == ("id=7: 2 rows", "id=42: 3 rows")


# -- freshness -------------------------------------------------------------------------------


@MANY
@given(
    st.sampled_from(["timestamp", "timestamp_ntz"]),
    st.lists(st.none() | st.integers(-7200, 7200), min_size=1, max_size=10),
    st.integers(1, 7200),
)
def test_the_newest_time_decides(kind: str, ages: list[int | None], within: int) -> None:
    """It is the newest row that must be fresh, to the second; times ahead are fresh."""
    zone = timezone.utc if kind == "timestamp" else None
    values = [
        None if age is None else (NOW - timedelta(seconds=age)).replace(tzinfo=zone) for age in ages
    ]
    contract = {"freshness": {"column": "at", "within": within}}
    found = checked(contract, {"at": kind}, {"at": values})
    known = [age for age in ages if age is not None]
    assert bool(found) == (not known or min(known) > within)


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        ("date", date(2026, 1, 31), None),
        ("date", date(2026, 1, 30), None),
        (
            "date",
            date(2026, 1, 29),
            "at: the newest, 2026-01-29, is 1 day, 12:00:00 old, more than 12:00:00 (freshness)",
        ),
        (
            "timestamp",
            NOW - timedelta(hours=13),
            "at: the newest, 2026-01-30 23:00:00 UTC, is 13:00:00 old, more than 12:00:00",
        ),
        ("timestamp", NOW - timedelta(hours=12), None),
        ("timestamp", None, "at: holds no time at all (freshness)"),
        ("string", "now", "at: is neither date nor timestamp, so its age is unknown (freshness)"),
        ("timestamp", 10**18, None),
        ("date", -(10**7), "at: the newest, "),
    ],
)  # fmt: skip
def test_the_sentence_of_freshness(kind: str, value: Any, sentence: str | None) -> None:
    """The sentence tells the newest time, its age and the limit; a date counts until its end."""
    contract = {"freshness": {"column": "at", "within": "12h"}}
    found = checked(contract, {"at": kind}, {"at": [value]})
    assert bool(found) == (sentence is not None)
    assert all(b.sentence.startswith(str(sentence)) for b in found)


# -- all together ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_no_rows_break_little(kind: str) -> None:
    """Of no rows only that can be told which the schema tells; nothing is divided by zero."""
    rule = {"max_null": 0, "min": 0, "max": 1, "values": [1]}
    found = column(rule, kind, [])
    assert [b.rule for b in found] == ([] if kind in NUMBERS else ["min", "max"])
    assert checked({"max_duplicates": 0}, {}, {"id": []}) == ()


def test_chunks_do_not_matter() -> None:
    """Rows from many files are checked like rows from one."""
    whole = pa.table({"id": [1, 2, 3, 1], "fraud": [0, 0, 1, 1], "amount": [1.0, -1.0, None, 7.0]})
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 0), whole.slice(1)])
    wanted = pipeline(
        {
            "columns": {"amount": {"max_null": 0, "min": 0, "max": 5, "values": [1, "x"]}},
            "min_per_class": 3,
            "max_duplicates": 0,
        }
    )
    schema = {"id": "bigint", "fraud": "bigint", "amount": "double"}
    found = breaches(whole, schema, wanted, NOW)
    rules = ["max_null", "min", "max", "values", "min_per_class", "min_per_class", "max_duplicates"]
    assert [b.rule for b in found] == rules
    assert breaches(parts, schema, wanted, NOW) == found

"""Which columns are used, how rows are split, and in what order they are learnt from."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Pipeline, Train
from handlers import rows
from handlers.facts import GiveUp, TryLater
from handlers.rows import BUCKETS, Columns, Part, buckets, choose, split
from handlers.scorer import Feature, Scorer, Task

EXAMPLES = settings(max_examples=25, deadline=None)
KEYS = st.none() | st.text(max_size=4) | st.sampled_from(["a", "ab", "", "-", "1:a", ":"])


def chunked(table: pa.Table, cuts: Sequence[int]) -> pa.Table:
    """Give the same table in chunks, as batches from many files are."""
    edges = sorted({0, table.num_rows, *(cut % (table.num_rows + 1) for cut in cuts)})
    pieces = [table.slice(start, end - start) for start, end in pairwise(edges)]
    return pa.concat_tables(pieces) if pieces else table


def frames_equal(one: Part, other: Part) -> bool:
    """Say whether two parts hold the same rows in the same order, types included."""
    return (
        one.rows.equals(other.rows)
        and one.labels.equals(other.labels)
        and list(one.rows.dtypes) == list(other.rows.dtypes)
        and one.rows.index.equals(other.rows.index)
    )


# -- buckets ---------------------------------------------------------------------------------


@EXAMPLES
@given(
    st.lists(
        st.tuples(KEYS, st.integers(-(2**31), 2**31 - 1) | st.none()), min_size=1, max_size=12
    ),
    st.lists(st.integers(0, 20), max_size=3),
    st.randoms(use_true_random=False),
    st.text(max_size=5),
)
def test_the_bucket_depends_on_salt_and_key_alone(
    keys: list[tuple[str | None, int | None]], cuts: list[int], chance: random.Random, salt: str
) -> None:
    """Not on other columns, other rows, their order, chunks, or the width of an integer."""
    text, number = [k[0] for k in keys], [k[1] for k in keys]
    wide = pa.table({"k": pa.array(text, pa.string()), "n": pa.array(number, pa.int64())})
    found = buckets(wide, ("k", "n"), salt)
    assert found.shape == (len(keys),)
    assert ((found >= 0) & (found < BUCKETS)).all()
    narrow = pa.table(
        {
            "n": pa.array(number, pa.int32()),
            "other": [chance.random() for _ in keys],
            "k": pa.array(text, pa.large_string()),
        }
    )
    assert (buckets(chunked(narrow, cuts), ("k", "n"), salt) == found).all()
    picked = [chance.randrange(len(keys)) for _ in range(chance.randrange(1, 8))]
    assert (buckets(wide.take(picked), ("k", "n"), salt) == found[picked]).all()


@EXAMPLES
@given(
    st.lists(KEYS, min_size=1, max_size=3).flatmap(
        lambda first: st.tuples(
            st.just(first), st.lists(KEYS, min_size=len(first), max_size=len(first))
        )
    )
)
def test_different_keys_are_hashed_from_different_texts(
    pair: tuple[list[str | None], list[str | None]],
) -> None:
    """The text that is hashed tells the columns apart, whatever characters or nulls they hold."""
    texts = []
    for values in pair:
        columns = [pa.chunked_array([pa.array([value], pa.string())]) for value in values]
        texts.append("".join(rows._texts(column)[0].as_py() for column in columns))
    assert (texts[0] == texts[1]) == (pair[0] == pair[1])


def test_neighbouring_columns_do_not_run_together() -> None:
    """("a", "bc") is another key than ("ab", "c"), and null another than "" or "-"."""
    left = ["a", "ab", "", None, "-", "1:a"]
    right = ["bc", "c", "", None, "-", ""]
    table = pa.table({"l": left, "r": right})
    assert len(set(buckets(table, ("l", "r"), "salt"))) == len(left)
    assert (buckets(table, ("l", "r"), "salt") != buckets(table, ("r", "l"), "salt"))[0]


def test_buckets_are_spread_evenly() -> None:
    """Close keys fall everywhere: each twentieth of the range gets its twentieth of the keys."""
    table = pa.table({"k": np.arange(20_000)})
    found = buckets(table, ("k",), "retraind")
    counts, _ = np.histogram(found, bins=20, range=(0, BUCKETS))
    assert np.abs(counts / 1000 - 1).max() < 0.12
    assert abs((found < 2000).mean() - 0.2) < 0.01


def test_the_salt_deals_anew() -> None:
    """Another salt is another split, unrelated to the first."""
    table = pa.table({"k": np.arange(5000)})
    one, other = (buckets(table, ("k",), salt) < 2000 for salt in ("a", "b"))
    assert 0.02 < (one & other).mean() < 0.06


def test_buckets_stay_for_ever() -> None:
    """These numbers may never change: a model of last year must still know its held-out rows."""
    table = pa.table(
        {
            "id": [1, 2, None],
            "day": [date(2026, 1, 31), None, date(1969, 12, 31)],
            "s": ["ä", "", "x"],
        }
    )
    assert buckets(table, ("id", "day", "s"), "retraind").tolist() == [8030, 4629, 7876]
    assert buckets(table, ("id",), "retraind").tolist() == [22, 4173, 8895]


@pytest.mark.parametrize(
    "values",
    [
        [1.5, None, float("nan"), -0.0],
        [Decimal("1.50"), None],
        [True, False, None],
        [date(2026, 1, 31), None, date(9999, 12, 31)],
        [datetime(2026, 1, 31, 12, tzinfo=timezone.utc), None],
        [datetime(2026, 1, 31, 12), None],  # noqa: DTZ001 (timestamp_ntz has no zone)
    ],
)
def test_any_plain_type_can_be_a_key(values: list[Any]) -> None:
    """Numbers, decimals, booleans, dates and timestamps are hashed, nulls among them."""
    found = buckets(pa.table({"k": values}), ("k",), "retraind")
    assert len(set(found.tolist())) == len(values)


# -- split -----------------------------------------------------------------------------------

COLUMNS = Columns(
    features=(("x", "number"), ("c", "category")), label="y", key=("id",), also=("z",)
)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 6) | st.none(),
        st.none() | st.floats(allow_nan=True, width=32),
        st.none() | st.sampled_from(["a", "b"]),
        st.none() | st.sampled_from([0, 1]),
        st.none() | st.integers(0, 3),
    ),
    min_size=1,
    max_size=15,
)


def table_of(drawn: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Make a table of drawn rows."""
    types = {
        "id": pa.int64(),
        "x": pa.float64(),
        "c": pa.string(),
        "y": pa.int32(),
        "z": pa.int64(),
    }
    columns = list(zip(*drawn, strict=True))
    return pa.table({n: pa.array(v, t) for (n, t), v in zip(types.items(), columns, strict=True)})


def multiset(*parts: Part) -> list[str]:
    """Write the rows of parts as sorted text, to compare them as a bag."""
    return sorted(
        repr((*map(str, row), str(label)))
        for part in parts
        for row, label in zip(part.rows.to_numpy(object), part.labels, strict=True)
    )


@EXAMPLES
@given(ROWS, st.randoms(use_true_random=False), st.lists(st.integers(0, 20), max_size=3))
def test_the_order_and_chunks_of_the_input_do_not_matter(
    drawn: list[tuple[Any, ...]], chance: random.Random, cuts: list[int]
) -> None:
    """Rows come back from a table in any order; the frames are the same, row for row."""
    drawn[0] = (*drawn[0][:3], 1, drawn[0][4])
    shuffled = list(drawn)
    chance.shuffle(shuffled)
    one = split(table_of(drawn), COLUMNS, "binary", Train(holdout=0.4))
    other = split(chunked(table_of(shuffled), cuts), COLUMNS, "binary", Train(holdout=0.4))
    assert frames_equal(one.train, other.train)
    assert frames_equal(one.held_out, other.held_out)
    assert one.unlabelled == other.unlabelled


@EXAMPLES
@given(ROWS)
def test_each_labelled_row_is_in_one_part(drawn: list[tuple[Any, ...]]) -> None:
    """Training and held-out rows together are the labelled rows, none twice, none lost."""
    drawn[0] = (*drawn[0][:3], 1, drawn[0][4])
    table = table_of(drawn)
    found = split(table, COLUMNS, "binary", Train(holdout=0.4))
    labelled = table.filter(table["y"].is_valid())
    whole = split(labelled, COLUMNS, "binary", Train(holdout=0.001))
    assert multiset(found.train, found.held_out) == multiset(whole.train, whole.held_out)
    assert len(found.train.rows) + len(found.held_out.rows) == labelled.num_rows
    assert found.unlabelled == table.num_rows - labelled.num_rows


@EXAMPLES
@given(ROWS)
def test_rows_of_one_key_stay_together(drawn: list[tuple[Any, ...]]) -> None:
    """An entity is either learnt from or held out, never both: its rows resemble each other."""
    drawn[0] = (*drawn[0][:3], 1, drawn[0][4])
    columns = Columns(features=(("id", "number"), ("x", "number")), label="y", key=("id",))
    found = split(table_of(drawn), columns, "binary", Train(holdout=0.4))
    train, held_out = (set(p.rows["id"].fillna(-1)) for p in (found.train, found.held_out))
    assert not train & held_out


def test_later_rows_do_not_move_earlier_ones() -> None:
    """A row that was held out in one delta is held out in every table that holds it."""
    table = pa.table({"id": range(300), "x": np.zeros(300), "y": [0, 1] * 150})
    columns = Columns(features=(("id", "number"),), label="y", key=("id",))
    whole = split(table, columns, "binary", Train()).held_out.rows["id"]
    piece = split(table.slice(100, 50), columns, "binary", Train()).held_out.rows["id"]
    assert set(piece) == {i for i in whole if 100 <= i < 150}
    assert len(piece) > 0


def test_the_holdout_is_the_share_that_was_asked_for() -> None:
    """`holdout` is the share of keys held out, and a greater one holds out the same and more."""
    table = pa.table({"id": range(4000), "y": [0, 1] * 2000})
    columns = Columns(features=(("id", "number"),), label="y", key=("id",))
    small, large = (
        set(split(table, columns, "binary", Train(holdout=h)).held_out.rows["id"])
        for h in (0.1, 0.5)
    )
    assert abs(len(small) / 4000 - 0.1) < 0.02
    assert abs(len(large) / 4000 - 0.5) < 0.03
    assert small < large


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([None, None], pa.int32()),
        pa.array([None, float("nan")], pa.float64()),
        pa.array([None, None], pa.string()),
        pa.array([], pa.bool_()),
    ],
)
def test_no_labels_is_given_up(labels: pa.Array) -> None:
    """A delta without one label teaches nothing: parked, with the column and the remedy."""
    table = pa.table({"id": range(len(labels)), "fraud": labels})
    columns = Columns(features=(("id", "number"),), label="fraud", key=("id",))
    with pytest.raises(GiveUp, match=r"'fraud'.*retraind retry"):
        split(table, columns, "binary", Train())


def test_nan_is_no_label() -> None:
    """A NaN of a float column is as empty as a null, and is counted with it."""
    table = pa.table({"id": [1, 2, 3, 4], "y": [1.0, float("nan"), None, 0.0]})
    columns = Columns(features=(("id", "number"),), label="y", key=("id",))
    found = split(table, columns, "regression", Train())
    assert found.unlabelled == 2
    assert sorted([*found.train.labels, *found.held_out.labels]) == [0.0, 1.0]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 0], pa.int8()),
        pa.array([1, 0], pa.int64()),
        pa.array([1.0, 0.0], pa.float32()),
        pa.array([1.0, 0.0], pa.float64()),
        pa.array([True, False]),
        pa.array(["1", "0"]),
        pa.array([Decimal("1.00"), Decimal("0.00")]),
    ],
    ids=lambda values: str(values.type),
)
def test_one_is_one_class_whatever_its_type(values: pa.Array) -> None:
    """1, 1.0, true, "1" and 1.00 are the same class: a schema may change, a class may not."""
    assert rows._labels(pa.chunked_array([values]), "binary").tolist() == ["1", "0"]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2], pa.int32()),
        pa.array([1.0, 2.0], pa.float32()),
        pa.array(["1", "2.0"]),
        pa.array([Decimal("1.0"), Decimal("2.0")]),
    ],
    ids=lambda values: str(values.type),
)
def test_labels_of_a_regression_are_numbers(values: pa.Array) -> None:
    """Any number, and text that is one, becomes a float64."""
    found = rows._labels(pa.chunked_array([values]), "regression")
    assert found.tolist() == [1.0, 2.0]
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    "values",
    [pa.array(["many", "2"]), pa.array([date(2026, 1, 31)] * 2), pa.array([1.0, float("inf")])],
    ids=lambda values: str(values.type),
)
def test_a_regression_of_no_number_is_given_up(values: pa.Array) -> None:
    """Text, times and infinities are no numbers to learn: parked with the remedy, no crash."""
    table = pa.table({"id": [1, 2], "y": values})
    columns = Columns(features=(("id", "number"),), label="y", key=("id",))
    with pytest.raises(GiveUp, match="retraind retry"):
        split(table, columns, "regression", Train())


# -- choose ----------------------------------------------------------------------------------

SCHEMA = {
    "id": "bigint",
    "amount": "decimal(10,2)",
    "merchant": "string",
    "code": "varchar(3)",
    "foreign": "boolean",
    "day": "date",
    "at": "timestamp",
    "local_at": "timestamp_ntz",
    "tags": "array<string>",
    "where": "struct<lat:double,lon:double>",
    "raw": "binary",
    "fraud": "int",
}


def pipeline(**wanted: Any) -> Pipeline:
    """Make a pipeline on the table of these tests."""
    return Pipeline(**{"table": "lake.bank.cards", "label": "fraud", **wanted})


def test_default_features_are_every_usable_column() -> None:
    """All plain columns but the label, the key and the ignored ones; the others are left out."""
    found = choose(SCHEMA, pipeline(row_key=("id",), ignore=("code", "nowhere")))
    assert dict(found.features) == {
        "amount": "number",
        "merchant": "category",
        "foreign": "boolean",
        "day": "time",
        "at": "time",
        "local_at": "time",
    }
    assert found.key == ("id",)
    assert "tags" not in found.to_read


@EXAMPLES
@given(
    st.sampled_from(["fraud", "foreign", "merchant"]),
    st.sets(st.sampled_from(["id", "amount", "code", "day"]), max_size=3),
    st.sets(st.sampled_from(["id", "at", "local_at", "raw"]), max_size=3),
)
def test_what_is_left_out_is_left_out(label: str, key: set[str], ignore: set[str]) -> None:
    """The label, the key and the ignored columns are never features unless asked for."""
    chosen = pipeline(label=label, row_key=tuple(sorted(key)), ignore=tuple(sorted(ignore)))
    names = {name for name, _ in choose(SCHEMA, chosen).features}
    assert not names & ({label} | key | ignore)
    assert names | {label} | key | ignore | {"tags", "where", "raw"} == set(SCHEMA)


def test_chosen_features_are_taken_in_order() -> None:
    """What is asked for is what is used, in the order in which it was asked for."""
    found = choose(
        SCHEMA, pipeline(features=("merchant", "id"), row_key=("id",)), also=["day", "x"]
    )
    assert found.features == (("merchant", "category"), ("id", "number"))
    assert found.also == ("day",)
    assert sorted(found.to_read) == ["day", "fraud", "id", "merchant"]


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ({"label": "fruad"}, "'fruad' (nearest: 'fraud')"),
        ({"features": ("amuont",)}, "'amuont' (nearest: 'amount')"),
        ({"row_key": ("ID_",)}, "'ID_'"),
        ({"label": "zzzzzz"}, "has: id, amount"),
    ],
)
def test_wrong_names_wait_with_the_nearest(wanted: Mapping[str, Any], hint: str) -> None:
    """A name that the table lacks delays the rows, and the text has the nearest name."""
    with pytest.raises(TryLater) as caught:
        choose(SCHEMA, pipeline(**wanted))
    assert hint in str(caught.value)
    assert "the rows wait" in str(caught.value)


@pytest.mark.parametrize("name", ["tags", "where", "raw"])
@pytest.mark.parametrize("role", ["features", "row_key", "label"])
def test_nested_columns_are_refused_where_asked_for(name: str, role: str) -> None:
    """No model learns from, predicts or is split by a nested column: refused before any read."""
    wanted = name if role == "label" else (name,)
    with pytest.raises(TryLater, match=name):
        choose(SCHEMA, pipeline(**{role: wanted}))


@EXAMPLES
@given(st.data())
def test_names_are_found_whatever_their_case(data: st.DataObject) -> None:
    """As in SQL: another case of the same names chooses the same columns, as the table has them."""
    wanted = {"label": "fraud", "features": ("merchant", "day"), "row_key": ("id",)}
    ignored = ("amount", "code")

    def cased(name: str) -> str:
        letters = [data.draw(st.sampled_from([c.lower(), c.upper()])) for c in name]
        return "".join(letters)

    other = {
        key: cased(names) if isinstance(names, str) else tuple(map(cased, names))
        for key, names in wanted.items()
    }
    checked = ["at", "nowhere"]
    found = choose(SCHEMA, pipeline(**other), checked=map(cased, checked))
    assert found == choose(SCHEMA, pipeline(**wanted), checked=checked)
    assert (found.label, found.key, found.checked) == ("fraud", ("id",), ("at",))
    assert choose(SCHEMA, pipeline(ignore=tuple(map(cased, ignored)))) == choose(
        SCHEMA, pipeline(ignore=ignored)
    )


def test_the_exact_name_wins_and_a_doubtful_one_is_refused() -> None:
    """Among columns that differ in case only, one must be named as it is written."""
    schema = {"id": "int", "ID": "int", "fraud": "int", "x": "double"}
    assert choose(schema, pipeline(row_key=("ID",))).key == ("ID",)
    assert rows.resolve("Id", schema) is None
    with pytest.raises(TryLater, match="'Id'"):
        choose(schema, pipeline(row_key=("Id",)))


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({"features": ("Fraud", "id")}, "fraud"),
        ({"row_key": ("FRAUD",)}, "fraud"),
        ({"features": ("id", "ID")}, "id"),
        ({"row_key": ("id", "at", "Id")}, "id"),
    ],
)
def test_another_case_does_not_let_the_answer_in(wanted: Mapping[str, Any], name: str) -> None:
    """The label is no feature and no key, and no column is taken twice, in whatever case."""
    with pytest.raises(TryLater, match=f"names {name} twice"):
        choose(SCHEMA, pipeline(**wanted))
    choose(SCHEMA, pipeline(features=("id", "at"), row_key=("ID",)))  # a key may be learnt from


@pytest.mark.parametrize("name", ["fraud", "Fraud"])
@pytest.mark.parametrize("role", ["label", "features", "row_key"])
def test_a_column_that_the_delta_took_away_is_given_up(role: str, name: str) -> None:
    """It does not come back by waiting: the text says what became of it, in whatever case."""
    schema = {column: type_ for column, type_ in SCHEMA.items() if column != "fraud"}
    wanted = {"label": "foreign", role: name if role == "label" else (name,)}
    lost = {"fraud": "renamed to is_fraud", "other": "dropped"}
    with pytest.raises(GiveUp, match=f"{name} was renamed to is_fraud") as caught:
        choose(schema, pipeline(**wanted), lost=lost)
    assert "other" not in caught.value.what
    assert "retraind retry" in caught.value.remedy
    with pytest.raises(TryLater, match="the rows wait"):
        choose(schema, pipeline(**wanted), lost={"other": "dropped"})


def test_a_lost_column_that_nobody_names_is_no_matter() -> None:
    """What the pipeline does not name may go, and so may a name that there is again."""
    lost = {"other": "dropped", "fraud": "dropped and made anew"}
    assert choose(SCHEMA, pipeline(), lost=lost) == choose(SCHEMA, pipeline())


def test_what_the_contract_looks_at_is_read_but_not_learnt_from() -> None:
    """Checked columns are read whatever their type, once, and fix neither order nor features."""
    found = choose(SCHEMA, pipeline(features=("amount",)), checked=["TAGS", "amount", "nowhere"])
    assert found.checked == ("tags", "amount")
    assert "tags" not in found.ordering + found.inputs
    assert found.to_read == [*found.ordering, "tags"]
    assert len(set(found.to_read)) == len(found.to_read)


def test_nothing_left_to_learn_from() -> None:
    """A table without a usable column is refused with the remedy."""
    with pytest.raises(TryLater, match="shorten `ignore`"):
        choose({"fraud": "int", "id": "bigint", "tags": "array<int>"}, pipeline(ignore=("id",)))


def test_without_a_key_the_whole_row_is_the_key() -> None:
    """Without `row_key` equal rows fall together: every plain column is hashed."""
    found = choose(SCHEMA, pipeline(ignore=("day",)))
    assert set(found.key) == set(SCHEMA) - {"tags", "where", "raw"}
    assert set(found.key) <= set(found.to_read)


# -- from Arrow to the model's matrix ---------------------------------------------------------

UTC = timezone.utc
VALUES: Mapping[str, tuple[pa.DataType, list[Any], list[float | None]]] = {
    "tinyint": (pa.int8(), [1, None, -1], [1, None, -1]),
    "bigint": (pa.int64(), [2**40, None, 0], [2.0**40, None, 0]),
    "float": (pa.float32(), [0.5, float("inf"), float("nan")], [0.5, None, None]),
    "double": (pa.float64(), [0.5, None, -float("inf")], [0.5, None, None]),
    "decimal(10,2)": (pa.decimal128(10, 2), [Decimal("1.25"), None, Decimal(-3)], [1.25, None, -3]),
    "boolean": (pa.bool_(), [True, None, False], [1, None, 0]),
    "string": (pa.string(), ["b", None, "a"], [1, None, 0]),
    "date": (pa.date32(), [date(1970, 1, 3), None, date(9999, 12, 31)], [2, None, 2932896]),
    "timestamp": (
        pa.timestamp("us", tz="UTC"),
        [datetime(1970, 1, 1, 12, tzinfo=UTC), None, datetime(1, 1, 1, tzinfo=UTC)],
        [0.5, None, -719162],
    ),
    "timestamp_ntz": (
        pa.timestamp("us"),
        [datetime(1970, 1, 2), None, datetime(9999, 12, 31)],  # noqa: DTZ001 (has no zone)
        [1, None, 2932896],
    ),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0,), (1,)])
def test_every_plain_type_reaches_the_matrix(kind: str, order: tuple[int, ...]) -> None:
    """Each Spark type arrives with its value and its nulls, alone or among others."""
    type_, given_values, expected = VALUES[kind]
    picked = pa.array([given_values[i] for i in order], type_)
    table = pa.table({"id": range(len(order)), "v": picked, "y": ["a"] * len(order)})
    columns = choose({"id": "int", "v": kind, "y": "string"}, pipeline(label="y", row_key=("id",)))
    found = split(table, columns, "binary", Train())
    name, feature_kind = columns.features[0]
    feature = Feature(name, feature_kind, ("a", "b") if feature_kind == "category" else ())
    scorer = Scorer("binary", (feature,), ("a", "b"), xgb.Booster())
    parts = [scorer.matrix(part.rows)[:, 0] for part in (found.train, found.held_out)]
    wanted = np.array([np.nan if expected[i] is None else expected[i] for i in order], np.float32)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.sort(wanted), equal_nan=True)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_labels_stay_with_their_rows(task: Task) -> None:
    """Sorting and splitting move a label with its row."""
    order = np.random.default_rng(0).permutation(200)
    table = pa.table({"id": order, "y": order % 7})
    columns = Columns(features=(("id", "number"),), label="y", key=("id",))
    found = split(table, columns, task, Train())
    for part in (found.train, found.held_out):
        assert (part.rows["id"] % 7).tolist() == part.labels.astype(float).tolist()
        assert part.rows.index.equals(pd.RangeIndex(len(part.rows)))
        assert part.rows["id"].is_monotonic_increasing

"""A model as it is stored and served answers as it did where it was judged."""

from __future__ import annotations

import ast
import json
import sys
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Train
from handlers import scorer as module
from handlers.rows import Columns, split
from handlers.scorer import BadInput, Feature, FeatureKind, Scorer, Task, _load_pyfunc
from handlers.train import train

EXAMPLES = settings(max_examples=30, deadline=None)
COLUMNS = Columns(
    features=(("n", "number"), ("b", "boolean"), ("c", "category"), ("t", "time")),
    label="y",
    key=("id",),
)
TYPES = {
    "n": pa.float64(),
    "b": pa.bool_(),
    "c": pa.string(),
    "t": pa.timestamp("us", tz="UTC"),
}
WHEN = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(timezone.utc))  # noqa: DTZ001 (hypothesis adds the zone)


def made(task: Task) -> Scorer:
    """Train a small model with a feature of each kind."""
    chance = np.random.default_rng(5)
    count = 240
    n = chance.normal(size=count)
    day = chance.integers(-400, 30_000, count)
    signal = n + (day > 15_000) + chance.normal(size=count) * 0.3
    labels = {
        "binary": signal > 0.5,
        "multiclass": np.digitize(signal, [0, 1]),
        "regression": signal,
    }[task]
    table = pa.table(
        {
            "id": np.arange(count),
            "n": n,
            "b": chance.random(count) < 0.5,
            "c": chance.choice(["red", "green", ""], count),
            "t": pa.array(day * 86_400_000_000, TYPES["t"]),
            "y": labels,
        }
    )
    wanted = Train(rounds=5)
    return train(split(table, COLUMNS, task, wanted).train, COLUMNS, task, wanted, lambda *_: None)


MODELS: dict[Task, Scorer] = {task: made(task) for task in ("binary", "multiclass", "regression")}
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.none() | st.floats(-3, 3) | st.floats(allow_nan=False),
            "b": st.none() | st.booleans(),
            "c": st.none() | st.sampled_from(["red", "green", "", "violet"]) | st.text(max_size=2),
            "t": st.none() | WHEN,
        }
    ),
    min_size=1,
    max_size=6,
)


def offline(drawn: list[dict[str, Any]]) -> pd.DataFrame:
    """Give rows as they come from the table, where the model is judged."""
    table = pa.table(
        {name: pa.array([row[name] for row in drawn], type_) for name, type_ in TYPES.items()}
    )
    frame: pd.DataFrame = table.to_pandas(date_as_object=False)
    return frame


def plain(value: object) -> object:
    """Write one value as JSON knows it."""
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return None
    return value.isoformat() if isinstance(value, datetime) else value


def through_json(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Send rows over the wire: what arrives are JSON's own types."""
    records = [
        {name: plain(value) for name, value in row.items()} for row in rows.to_dict("records")
    ]
    arrived: list[dict[str, Any]] = json.loads(json.dumps(records))
    return arrived


def encoded(kind: FeatureKind, values: list[Any], *known: str) -> list[float | None]:
    """Encode one column; None where it counts as missing."""
    found = Feature("f", kind, known).encode(pd.Series(values, dtype=object))
    assert found.dtype == np.float32
    return [None if np.isnan(value) else float(value) for value in found]


# -- stored ------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", MODELS)
def test_a_stored_model_is_the_same_model(task: Task, tmp_path: Path) -> None:
    """Saved and loaded it has the same bytes, features, classes and predictions."""
    model = MODELS[task]
    model.save(tmp_path / "one")
    loaded = Scorer.load(tmp_path / "one")
    loaded.save(tmp_path / "two")
    for name in (module.ABOUT, module.BOOSTER):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (loaded.task, loaded.features, loaded.classes) == (
        model.task,
        model.features,
        model.classes,
    )
    rows = offline([{"n": 0.3, "b": True, "c": "red", "t": None}] * 3)
    assert np.array_equal(loaded.score(rows), model.score(rows))


def test_mlflow_loads_the_same_model(tmp_path: Path) -> None:
    """MLflow loads it by the name of its contract, and gets an object that predicts."""
    model = MODELS["binary"]
    model.save(tmp_path)
    rows = offline([{"n": 0.3, "b": True, "c": "red", "t": None}])
    assert np.array_equal(_load_pyfunc(str(tmp_path)).predict(rows), model.score(rows))


def test_several_classes_are_predicted_by_name() -> None:
    """For several classes MLflow gets a column for each, named as the class."""
    rows = offline([{"n": 0.3, "b": True, "c": "red", "t": None}] * 2)
    found = MODELS["multiclass"].predict(rows, {"any": 1})
    assert list(found.columns) == ["0", "1", "2"]
    assert np.allclose(found.sum(axis=1), 1)


def test_any_name_and_category_can_be_stored(tmp_path: Path) -> None:
    """Quotes, umlauts and line ends in names and categories come back as they were."""
    booster = MODELS["regression"].booster
    feature = Feature('ä"\n<[x]', "category", ("", "\u2028", "☂", '"'))
    Scorer("regression", (feature,), (), booster).save(tmp_path)
    assert Scorer.load(tmp_path).features == (feature,)


# -- served ------------------------------------------------------------------------------------


@EXAMPLES
@given(ROWS, st.sampled_from(sorted(MODELS)))
def test_rows_sent_as_json_score_as_they_did_offline(
    drawn: list[dict[str, Any]], task: Task
) -> None:
    """Numbers, booleans, categories, times and nulls: the answer over the wire is identical."""
    model = MODELS[task]
    rows = offline(drawn)
    expected = model.score(rows)
    arrived = through_json(rows)
    assert np.array_equal(model.score(pd.DataFrame(arrived, columns=model.columns)), expected)
    objects = pd.DataFrame(arrived, columns=model.columns, dtype=object)
    assert np.array_equal(model.score(objects), expected)


@settings(max_examples=20, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_each_row_is_scored_for_itself(drawn: list[dict[str, Any]], chance: Any) -> None:
    """A score depends on its row alone: not on its neighbours, nor on the order of columns."""
    model = MODELS["binary"]
    rows = offline(drawn)
    together = model.score(rows)
    names = [*model.columns, "another"]
    chance.shuffle(names)
    for position in range(len(rows)):
        single = rows.iloc[[position]].assign(another="x")[names]
        assert model.score(single)[0] == together[position]
    backwards = rows.iloc[::-1]
    assert np.array_equal(model.score(backwards), together[::-1])


@pytest.mark.filterwarnings("ignore:.*Empty dataset")
@pytest.mark.parametrize("task", MODELS)
def test_no_rows_have_no_scores(task: Task) -> None:
    """An empty frame is answered with an empty answer."""
    assert len(MODELS[task].score(offline([]))) == 0


@pytest.mark.parametrize("task", MODELS)
def test_a_row_of_nulls_is_scored(task: Task) -> None:
    """Everything missing is still a row: it has a finite score."""
    rows = pd.DataFrame({name: [None] for name in COLUMNS.inputs})
    assert np.isfinite(MODELS[task].score(rows)).all()


# -- encoding ----------------------------------------------------------------------------------


def test_numbers() -> None:
    """Numbers of any type are read, as is text that is a number; empty is missing."""
    given_ = [1, 2.5, True, "3", Decimal("0.5"), None, float("nan"), ""]
    assert encoded("number", given_) == [1, 2.5, 1, 3, 0.5, None, None, None]
    assert encoded("number", [None, None]) == [None, None]


def test_infinities_count_as_missing() -> None:
    """What float32 cannot hold is missing, offline and served alike."""
    model = MODELS["binary"]
    rows = offline([{"n": n, "b": True, "c": "red", "t": None} for n in (0.5, 1.0, 2.0, 3.0)])
    rows["n"] = [np.inf, -np.inf, 1e300, np.nan]
    assert np.isnan(model.matrix(rows)[:, 0]).all()
    assert len(set(model.score(rows).tolist())) == 1


def test_booleans() -> None:
    """True, 1 and "true" are one; False, 0 and "FALSE" the other; null is missing."""
    given_ = [True, 1, 1.0, "true", "TRUE", False, 0, "False", None, float("nan")]
    assert encoded("boolean", given_) == [1, 1, 1, 1, 1, 0, 0, 0, None, None]
    assert encoded("boolean", [None]) == [None]


def test_categories() -> None:
    """A category is its place in the list; what is not in the list is missing."""
    given_ = ["b", "a", "", "B", 1, True, None, float("nan"), pd.NA]
    assert encoded("category", given_, "", "a", "b") == [2, 1, 0] + [None] * 6
    assert encoded("category", ["a", None]) == [None, None]


def test_times() -> None:
    """Dates and times in any ISO form are days since 1970 in UTC, from year 1 to year 9999."""
    given_ = [
        "1970-01-02",
        "1970-01-02T12:00:00",
        "1970-01-02T12:00:00Z",
        "1970-01-02T14:00:00+02:00",
        "1970-01-02 12:00:00.000000",
        None,
        date(1970, 1, 3),
        datetime(1970, 1, 3, 12, tzinfo=timezone.utc),
        pd.Timestamp("1969-12-31"),
    ]
    assert encoded("time", given_) == [1, 1.5, 1.5, 1.5, 1.5, None, 2, 2.5, -1]
    for text in ("1970-01-02T12:00:00-00:30", "1970-01-02T12:30Z", "1970-01-03T00+02"):
        assert encoded("time", [text, "1970-01-02 12:00"])[1] == 1.5
    assert encoded("time", ["9999-12-31", "0001-01-01", None]) == [2932896, -719162, None]
    assert encoded("time", ["9999-12-31T12:00:00+00:00", "1970-01-02"]) == [2932896.5, 1]
    assert encoded("time", [None]) == [None]


@EXAMPLES
@given(st.lists(st.none() | WHEN, min_size=1, max_size=5))
def test_a_time_is_one_number_however_it_is_written(times: list[datetime | None]) -> None:
    """Arrow's column, pandas' column, datetime objects and ISO text give the same float32."""
    arrow = pa.array(times, TYPES["t"]).to_pandas()
    feature = Feature("t", "time")
    expected = feature.encode(arrow)
    texts = [None if moment is None else moment.isoformat() for moment in times]
    assert np.array_equal(feature.encode(pd.Series(texts, dtype=object)), expected, equal_nan=True)
    exact = [np.nan if t is None else (t.timestamp()) / 86_400 for t in times]
    assert np.allclose(expected, np.array(exact, dtype=np.float32), rtol=1e-6, equal_nan=True)


# -- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("number", "many"),
        ("number", [1]),
        ("number", 10**400),
        ("boolean", "yes"),
        ("boolean", 2),
        ("boolean", [True]),
        ("category", ["red"]),
        ("category", {"a": 1}),
        ("time", "yesterday"),
        ("time", "31.01.2026"),
        ("time", 1_700_000_000),
        ("time", 1.5),
        ("time", True),
        ("time", [1]),
        ("time", "9999-99-99"),
        ("time", "12026-01-01"),
    ],
)
@pytest.mark.parametrize("others", [[], [None]])
def test_a_value_of_another_kind_is_refused(
    kind: FeatureKind, value: object, others: list[None]
) -> None:
    """What cannot be meant is refused in one line that names the column and the kind."""
    feature = Feature("amount", kind, ("red",))
    rows = pd.DataFrame({"amount": pd.Series([*others, value], dtype=object)})
    model = Scorer("binary", (feature,), ("0", "1"), xgb.Booster())
    with pytest.raises(BadInput, match=f"column 'amount' must hold a {kind}: ") as caught:
        model.matrix(rows)
    assert "\n" not in str(caught.value)


@EXAMPLES
@given(
    st.sampled_from(["number", "boolean", "category", "time"]),
    st.lists(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=6)
        | st.dates().map(str)
        | st.lists(st.integers(), max_size=2)
        | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
        min_size=1,
        max_size=4,
    ),
)
def test_any_json_is_scored_or_refused(kind: FeatureKind, values: list[Any]) -> None:
    """Whatever a caller sends: numbers, or a BadInput that names the column; nothing else."""
    rows = pd.DataFrame({"f": pd.Series(values, dtype=object)})
    model = Scorer("binary", (Feature("f", kind, ("a", "1")),), ("0", "1"), xgb.Booster())
    try:
        told = str(model.matrix(rows).shape)
    except BadInput as error:
        told = str(error)
    assert told == f"({len(values)}, 1)" or told.startswith("column 'f' must hold a ")


def test_a_missing_column_is_named() -> None:
    """Every missing column is named, and the text lists those that are expected."""
    rows = offline([{"n": 0.3, "b": True, "c": "red", "t": None}]).drop(columns=["b", "t"])
    with pytest.raises(BadInput, match=r"missing column\(s\) 'b', 't'; expected \['n', 'b', 'c'"):
        MODELS["binary"].score(rows)


# -- shipped alone -----------------------------------------------------------------------------


def test_the_module_imports_nothing_that_an_endpoint_lacks() -> None:
    """It is shipped inside every model, so it needs the standard library and three packages."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(str(node.module).split(".")[0])
    assert names - set(sys.stdlib_module_names) == {"numpy", "pandas", "xgboost"}

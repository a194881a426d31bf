"""What the configuration accepts, refuses and says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from config.endpoint import LONGEST_NAME, ClouderaEndpoint, LocalEndpoint
from config.loading import load
from config.section import UNITS, Duration, Section, fields
from config.settings import METRICS, ConfigError, Pipeline, Settings

ROOT = Path(__file__).resolve().parent.parent
BASE = "pipelines:\n  cards: {table: lake.bank.cards, label: fraud}\n"
Read = Callable[[str], Settings]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):  # noqa: TID251 (the test must not depend on who runs it)
        if name.upper().startswith("RETRAIND_") or name == "CDSW_APP_PORT":
            monkeypatch.delenv(name)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Load a configuration from its text."""

    def read(text: str) -> Settings:
        path = tmp_path / "retraind.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return read


@pytest.fixture
def refused(read: Read) -> Callable[[str], str]:
    """Load a configuration that must be refused; gives the text of the error."""

    def refused(text: str) -> str:
        with pytest.raises(ConfigError) as caught:
            read(text)
        return str(caught.value)

    return refused


def pipeline(**wanted: object) -> str:
    """Write a configuration of one pipeline, with these settings changed."""
    base = {"table": "lake.bank.cards", "label": "fraud"}
    return yaml.safe_dump({"pipelines": {"cards": {**base, **wanted}}})


def models(model: type[BaseModel] = Settings) -> Iterator[type[BaseModel]]:
    """Walk every group of settings, from the top."""
    yield model
    for field in model.model_fields.values():
        for section in sections(field.annotation):
            yield from models(section)


def sections(annotation: object) -> list[type[Section]]:
    """Find the groups that a field's type mentions."""
    kinds = [annotation, *get_args(annotation)]
    return [k for k in kinds if isinstance(k, type) and issubclass(k, Section)]


def leaves(
    model: type[BaseModel], kind: int = 0, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, FieldInfo]]:
    """Walk every single setting: its environment variable and its field; `kind` of endpoint."""
    for name, field in fields(model).items():
        inside = [*path, name, "cards"] if get_origin(field.annotation) is dict else [*path, name]
        if found := sections(field.annotation):
            yield from leaves(found[min(kind, len(found) - 1)], kind, tuple(inside))
        else:
            yield "RETRAIND_" + "__".join([*path, name]).upper(), field


# -- precedence ------------------------------------------------------------------------------


def test_defaults_file_environment_in_rising_order(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment wins over the file, the file over the defaults, and the rest stays."""
    text = BASE.replace("fraud}", "fraud, train: {rounds: 20, seed: 5}}")
    assert read(BASE).pipelines["cards"].train.rounds == 150
    assert read(text).pipelines["cards"].train.rounds == 20
    monkeypatch.setenv("RETRAIND_PIPELINES__CARDS__TRAIN__ROUNDS", "30")
    train = read(text).pipelines["cards"].train
    assert (train.rounds, train.seed) == (30, 5)


SPECIAL = {
    "TABLE": "other.bank.cards",
    "LABEL": "stolen",
    "TASK": "multiclass",
    "STRATEGY": "full",
    "WEIGHING": "aue",
    "CANDIDATES": '["full"]',
    "METRIC": "auc",
    "DRIVER_MEMORY": "2g",
    "FEATURES": '["a", "b"]',
    "ROW_KEY": '["id"]',
    "IGNORE": '["c"]',
    "URL": "https://ml.example.com",
    "MODELSERVICE": "https://ml.example.com/model",
    "AUTHORIZE": "true",
    "ADDONS": '["spark"]',
    "ENVIRONMENT": '{"A": "b"}',
    "CONF": '{"spark.a": "b"}',
    "PARAMETERS": '{"max_depth": 3}',
    "MAX_WAIT": "90.5",
    "QUIET_FOR": "60.5",
    "COOLDOWN": "30.5",
    "COALESCE": "each",
    "REWRITES": "skip",
    "HISTORY": "halt",
    "FORGET": "full",
    "MIN": "-1.5",
    "MAX": "1.5",
    "VALUES": '["a", 1, true, 0.5]',
    "WITHIN": "90.5",
    "REQUIRE": '{"accuracy": 0.5}',
    "SLICES": '["a"]',
    "MAX_FORGETTING": "0.5",
    "MAX_LATENCY": "0.5",
    "MAX_MEGABYTES": "0.5",
    "TOKEN": "a-token-of-some-length",
    "HOSTS": '["a"]',
    "URLS": '["**********"]',
    "EVENTS": '["parked"]',
    "LINK": "https://retraind.example.com",
}
"""What to put into a variable whose setting takes no arbitrary value of its type."""


def another(name: str, default: object) -> str:
    """Give a value for a variable that is not the default."""
    for ending, value in SPECIAL.items():
        if name.endswith(f"_{ending}"):
            return value
    if isinstance(default, bool):
        return str(not default).lower()
    if isinstance(default, int | float):
        return str(default / 2 + 0.125 if isinstance(default, float) else default + 1)
    return "elsewhere"


@pytest.mark.parametrize("kind", ["local", "cloudera"])
def test_every_single_value_can_come_from_the_environment(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a file, each setting has a variable of its own, and that variable is obeyed."""
    place = ["local", "cloudera"].index(kind)
    wanted = {name: another(name, field.default) for name, field in leaves(Settings, place)}
    wanted["RETRAIND_PIPELINES__CARDS__ENDPOINT__KIND"] = kind
    for name, text in wanted.items():
        monkeypatch.setenv(name, text)
    loaded = load(None)
    settings = loaded.model_dump(mode="json", by_alias=True)
    assert loaded.http.token is not None
    settings["http"]["token"] = loaded.http.token.get_secret_value()  # which no dump shows
    for name, text in wanted.items():
        value: Any = settings
        for part in name.removeprefix("RETRAIND_").lower().split("__"):
            value = value[part]
        shown = value if isinstance(value, str) else json.dumps(value)
        assert shown == text, name
    assert len(wanted) > 55


def test_a_whole_group_comes_as_json(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping in a variable is JSON, keeps the case of its keys and is merged with the file."""
    monkeypatch.setenv("RETRAIND_SPARK__CONF", '{"spark.driver.extraJavaOptions": "-Xss2m"}')
    settings = read(BASE + "spark: {conf: {spark.ui.enabled: 'true'}}\n")
    assert settings.spark.conf == {
        "spark.driver.extraJavaOptions": "-Xss2m",
        "spark.ui.enabled": "true",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RETRAIND_PIPELINES", "{oops"),
        ("RETRAIND_PIPELINES__CARDS__ROW_KEY", "id"),
        ("RETRAIND_SPARK__CONF", "a=b"),
        ("RETRAIND_HTTP", ""),
    ],
)
def test_a_variable_that_is_no_json_is_named(
    name: str, value: str, refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list or a mapping that cannot be read is a mistake of the variable's, told by its name."""
    monkeypatch.setenv(name, value)
    text = refused(BASE)
    assert name in text
    assert "JSON" in text


def test_the_platforms_port_wins(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Application that answers elsewhere than on CDSW_APP_PORT is dead, whoever says so.

    On another address than loopback other pods would reach it without the platform's login.
    """
    monkeypatch.setenv("CDSW_APP_PORT", "8100")
    text = BASE + "http: {host: 127.0.0.2, port: 9}\n"
    assert read(BASE).http.port == 8100
    assert (read(text).http.port, read(text).http.host) == (8100, "127.0.0.1")
    monkeypatch.setenv("RETRAIND_HTTP__PORT", "77")
    assert read(text).http.port == 8100
    monkeypatch.delenv("CDSW_APP_PORT")
    assert (read(text).http.port, read(text).http.host) == (77, "127.0.0.2")


@pytest.mark.parametrize(("port", "part"), [("abc", "http.port"), ("5001", "already http.port")])
def test_an_unusable_platform_port_is_told(
    port: str, part: str, refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform's port that is no number, or is an endpoint's as well, is told like the rest."""
    monkeypatch.setenv("CDSW_APP_PORT", port)
    assert part in refused(BASE)


# -- mistakes --------------------------------------------------------------------------------

WRONG = """
stat_dir: x
stop_within: soon
spark: {mastr: x, driver_memory: 1 gig}
http: {port: 70000}
pipelines:
  cards: {table: cards, labl: fraud, poll_every: -1, train: {round: 9, holdout: 1.5}}
  Bad Name: {table: a.b, label: y}
  train: {table: a.b, label: y, taks: binary, endpoint: {prot: 1}}
  checked:
    table: a.b
    label: y
    contract: {}
    delta: {min_row: 3, max_wait: never, rewrites: all}
    validate:
      min_per_clas: 3
      columns: {columns: {mni: 0, max_null: 2}, age: {min: 2, max: 1}, sex: {values: []}}
      freshness: {column: time}
"""
MISTAKES = {
    "stat_dir": "did you mean 'state_dir'?",
    "stop_within": "500ms",
    "spark.mastr": "did you mean 'master'?",
    "spark.driver_memory": "`1g`",
    "http.port": "65535",
    "pipelines.cards.table": "catalog.database.table",
    "pipelines.cards.label": "is required",
    "pipelines.cards.labl": "did you mean 'label'?",
    "pipelines.cards.poll_every": "greater than 0",
    "pipelines.cards.train.round": "did you mean 'rounds'?",
    "pipelines.cards.train.holdout": "less than 0.9",
    "pipelines.Bad Name": "lower case letters",
    "pipelines.train.taks": "did you mean 'task'?",
    "pipelines.train.endpoint.prot": "did you mean 'port'?",
    "pipelines.checked.contract": "known: table",
    "pipelines.checked.delta.min_row": "did you mean 'min_rows'?",
    "pipelines.checked.delta.max_wait": "500ms",
    "pipelines.checked.delta.rewrites": "'skip'",
    "pipelines.checked.validate.min_per_clas": "did you mean 'min_per_class'?",
    "pipelines.checked.validate.columns.columns.mni": "did you mean 'min'?",
    "pipelines.checked.validate.columns.columns.max_null": "less than or equal to 1",
    "pipelines.checked.validate.columns.age": "min: 2 is above max: 1",
    "pipelines.checked.validate.columns.sex.values": "at least 1",
    "pipelines.checked.validate.freshness.within": "is required",
    "environment RETRAIND_STATEDIR": "did you mean 'state_dir'?",
}


def test_every_mistake_is_listed_at_once_with_its_path(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run tells all mistakes, each on a line that has its path and the remedy."""
    monkeypatch.setenv("RETRAIND_STATEDIR", "x")
    first, *lines = refused(WRONG).splitlines()
    told = {line.removeprefix("  - ").split(": ")[0]: line for line in lines}
    assert told.keys() == MISTAKES.keys()
    assert f"{len(MISTAKES)} mistake(s)" in first
    for path, hint in MISTAKES.items():
        assert hint in told[path]


def test_mistakes_between_settings_are_listed_together(refused: Callable[[str], str]) -> None:
    """Settings that contradict each other are all told, not just the first of them."""
    text = refused(
        pipeline(
            promote={"metric": "rmse"},
            features=["fraud", "a", "a"],
            row_key=["fraud"],
            task="binary",
        )
    )
    for part in ("promote.metric", "features: contains", "features: names", "row_key: contains"):
        assert part in text


def test_mistakes_of_the_contract_are_listed_with_the_others(refused: Callable[[str], str]) -> None:
    """A rule that the pipeline gives no meaning to is told beside whatever else is wrong."""
    text = refused(
        pipeline(
            task="regression",
            validate={"min_per_class": 5, "max_duplicates": 0.1},
            features=[],
        )
    )
    for part in ("features: names", "validate.min_per_class: ", "validate.max_duplicates: "):
        assert part in text


@pytest.mark.parametrize(
    ("validate", "changes"),
    [
        ({"min_per_class": 5}, {}),
        ({"min_per_class": 5}, {"task": "multiclass"}),
        ({"min_per_class": 0}, {"task": "regression"}),
        ({"max_duplicates": 0}, {"row_key": ["id"]}),
        ({"max_duplicates": 1}, {}),
        ({"columns": {"amount": {"min": 1, "max": 1}, "id": {}}}, {}),
    ],
)
def test_contracts_that_are_taken(
    validate: dict[str, Any], changes: dict[str, Any], read: Read
) -> None:
    """`validate` in the file is `contract` in the program, and what is consistent is taken."""
    taken = read(pipeline(validate=validate, **changes)).pipelines["cards"].contract
    assert taken.model_dump(mode="json", exclude_unset=True) == validate


def test_values_keep_their_type(read: Read) -> None:
    """An accepted value is the text, number or boolean that was written, none is turned."""
    wanted = ["1", 1, 1.0, True, "true"]
    mine = read(pipeline(validate={"columns": {"a": {"values": wanted}}})).pipelines["cards"]
    values = mine.contract.columns["a"].values
    assert values is not None
    assert [(type(v), v) for v in values] == [(type(v), v) for v in wanted]


@pytest.mark.parametrize("quiet", ["5m", "6m"])
def test_a_quiet_time_that_decides_nothing_is_refused(
    quiet: str, read: Read, refused: Callable[[str], str]
) -> None:
    """After `max_wait` nothing is waited for, so `quiet_for` must be shorter to mean anything."""
    text = refused(pipeline(delta={"max_wait": "5m", "quiet_for": quiet}))
    assert "pipelines.cards.delta: quiet_for: must be shorter" in text
    assert read(pipeline(delta={"quiet_for": quiet})).pipelines["cards"].delta.max_wait is None
    assert read(pipeline(delta={"max_wait": "7m", "quiet_for": quiet})).pipelines


@pytest.mark.parametrize("name", ["_env_file", "_cli_parse_args", "1", "_secrets_dir"])
def test_no_key_reaches_the_library_below(name: str, refused: Callable[[str], str]) -> None:
    """A top-level key that is no setting is refused, even where pydantic would understand it."""
    assert f"{name}: unknown setting" in refused(f"{name}: x\n{BASE}")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("RETRAIND_STAT_DIR", "'state_dir'"),
        ("RETRAIND_PIPELINE__CARDS__LABEL", "'pipelines'"),
        ("retraind_stop_witin", "'stop_within'"),
        ("RETRAIND_ZZZ", "known: state_dir"),
    ],
)
def test_unknown_variables_are_refused(
    name: str, known: str, refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A RETRAIND_ variable that means nothing is a mistake, told with the nearest name."""
    monkeypatch.setenv(name, "x")
    text = refused(BASE)
    assert f"environment {name}: unknown setting" in text
    assert known in text


def test_unknown_nested_variables_are_refused(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable below a known group is checked like a key of the file."""
    monkeypatch.setenv("RETRAIND_PIPELINES__CARDS__TRAIN__ROUND", "3")
    assert "pipelines.cards.train.round: unknown setting; did you mean 'rounds'?" in refused(BASE)


@pytest.mark.parametrize(
    ("task", "metric"),
    [(t, m) for t in METRICS for m in sorted({m for ms in METRICS.values() for m in ms})],
)
def test_the_metric_fits_the_task(
    task: str, metric: str, read: Read, refused: Callable[[str], str]
) -> None:
    """A metric of another task is refused with those that fit; all others are taken."""
    text = pipeline(task=task, promote={"metric": metric})
    if metric in METRICS[task]:
        assert read(text).pipelines["cards"].metric == metric
    else:
        assert f"{metric!r} does not fit task {task}; use {METRICS[task][0]}" in refused(text)


@pytest.mark.parametrize("task", METRICS)
def test_the_default_metric_follows_the_task(task: str, read: Read) -> None:
    """Where no metric is set, the first of the task's decides."""
    assert read(pipeline(task=task)).pipelines["cards"].metric == METRICS[task][0]


@pytest.mark.parametrize("where", ["features", "row_key"])
def test_the_label_is_no_input(where: str, refused: Callable[[str], str]) -> None:
    """A model that sees the answer learns nothing, so the label is refused as an input."""
    text = refused(pipeline(**{where: ["amount", "fraud"]}))
    assert f"{where}: contains the label 'fraud'" in text


def test_the_label_may_be_ignored(read: Read) -> None:
    """To ignore the label is superfluous and harms nobody."""
    assert read(pipeline(ignore=["fraud"])).pipelines["cards"].ignore == ("fraud",)


def test_no_features_is_not_all_features(refused: Callable[[str], str]) -> None:
    """An empty list would mean the opposite of what it says; it is refused."""
    assert "features: names no column" in refused(pipeline(features=[]))


def test_two_pipelines_need_two_ports(read: Read, refused: Callable[[str], str]) -> None:
    """Two endpoints cannot share a port, nor can an endpoint and the dashboard."""
    two = BASE + "  loans: {table: lake.bank.loans, label: paid}\n"
    text = refused(two)
    assert "pipelines.loans.endpoint.port: 5001" in text
    assert "pipelines.cards.endpoint.port" in text
    apart = two.replace("paid}", "paid, endpoint: {port: 5002}}")
    assert read(apart).pipelines["loans"].endpoint == LocalEndpoint(port=5002)
    assert "5002 is already http.port" in re.sub(
        r"\s+", " ", refused(apart + "http: {port: 5002}\n")
    )


CLOUDERA = """
pipelines:
  cards: {table: a.b, label: y, endpoint: {kind: cloudera, replica: 2, cpu: 0}}
  loans: {table: a.b, label: y, endpoint: {kind: clouded}}
  local: {table: a.b, label: y, endpoint: {kind: cloudera, model: "no spaces"}}
  endpoint: {table: a.b, label: y, endpoint: {port: 0, model: x}}
"""


def test_each_kind_of_endpoint_has_its_own_settings(refused: Callable[[str], str]) -> None:
    """A mistake is told with the path that the file has, and the settings of that kind."""
    text = refused(CLOUDERA)
    assert "pipelines.cards.endpoint.replica: unknown setting; did you mean 'replicas'?" in text
    assert "pipelines.cards.endpoint.cpu: " in text
    assert "pipelines.loans.endpoint: " in text
    assert "'local', 'cloudera'" in text
    assert "pipelines.local.endpoint.model: does not fit; expected: Name of the model" in text
    assert "pipelines.endpoint.endpoint.port: " in text
    assert "pipelines.endpoint.endpoint.model: unknown setting; known: kind, host, port" in text


def test_two_pipelines_need_two_models(read: Read, refused: Callable[[str], str]) -> None:
    """Two pipelines would replace each other's model; the default names differ."""
    two = """
pipelines:
  cards: {table: a.b, label: y, endpoint: {kind: cloudera}}
  loans: {table: a.c, label: y, endpoint: {kind: cloudera, model: retraind-cards}}
"""
    assert "loans.endpoint.model: retraind-cards is already pipelines.cards.endp" in refused(two)
    assert len(read(two.replace("model: retraind-cards", "")).pipelines) == 2


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True))
def test_the_name_of_a_model_is_never_too_long(pipeline: str) -> None:
    """The default name is cut to a label's length, and two long names stay apart."""
    endpoint = ClouderaEndpoint(kind="cloudera")
    names = {endpoint.name(pipeline), endpoint.name(f"{pipeline}x")}
    assert len(names) == 2
    for name in names:
        assert len(name) <= LONGEST_NAME
        assert ClouderaEndpoint(kind="cloudera", model=name.rstrip("-_")).name("") in name


@pytest.mark.parametrize("name", ["a.b", "lake.bank.cards", "spark_catalog.a.b.c", "a.b-c$d"])
def test_table_names_that_are_taken(name: str, read: Read) -> None:
    """A table has a database, and may have a catalog and nested namespaces."""
    assert read(pipeline(table=name)).pipelines["cards"].table == name


@pytest.mark.parametrize(
    "name", ["cards", "a.b.c.d.e", "a b.c", "`a`.b", "a..b", "a.b.", "a.b\n", ""]
)
def test_table_names_that_are_refused(name: str, refused: Callable[[str], str]) -> None:
    """The refusal shows how a table is named, not the pattern that checks it."""
    text = refused(pipeline(table=name))
    assert "pipelines.cards.table: " in text
    assert "`catalog.database.table`" in text
    assert "pattern" not in text
    assert repr(name) in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "- a\n- b\n",
        "a: [1\n",
        "state_dir: 2026-99-99\n" + BASE,
        "\x00",
        "pipelines:",
        "pipelines: {}",
        "http: 5\n" + BASE,
        "http:\n" + BASE,
        "pipelines: {cards: [1]}",
    ],
)
def test_a_broken_file_is_explained(text: str, refused: Callable[[str], str]) -> None:
    """Whatever the file holds, the answer is a ConfigError that names the file."""
    assert "retraind.yaml" in refused(text)


@examples(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*Settings.model_fields, *fields(Pipeline), "cards", "_x"])
                | st.integers(),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_file_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, tree: object
) -> None:
    """Any YAML at all gives settings or a ConfigError, never another exception."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8", errors="replace")
    try:
        told = f"{path}: {len(load(path).pipelines)}"
    except ConfigError as error:
        told = str(error)
    assert str(path) in told


def test_a_missing_file_and_bad_bytes_are_explained(tmp_path: Path) -> None:
    """No file, a folder, or a file in another encoding: a ConfigError with the path."""
    bad = tmp_path / "latin.yaml"
    bad.write_bytes(b"state_dir: \xff\n")
    for path in (tmp_path / "none.yaml", tmp_path, bad):
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            load(path)


# -- durations -------------------------------------------------------------------------------

DURATION: TypeAdapter[float] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1.5m", 90),
        ("2h", 7200),
        ("500ms", 0.5),
        ("1d", 86400),
        ("90", 90),
        (90, 90),
        (0.25, 0.25),
        (" 5 s ", 5),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    """Seconds as a number, or a number with a unit."""
    assert DURATION.validate_python(text) == seconds


@examples(max_examples=40, deadline=None)
@given(st.integers(1, 10**6), st.integers(0, 999), st.sampled_from(sorted(UNITS)))
def test_a_duration_is_its_number_times_its_unit(whole: int, part: int, unit: str) -> None:
    """The unit scales the number, whatever the number."""
    number = f"{whole}.{part:03}"
    assert DURATION.validate_python(number + unit) == float(number) * UNITS[unit]


@examples(max_examples=40, deadline=None)
@given(
    st.sampled_from(["5 minutes", "1.2.3s", ".", "", "-5s", "1e3s", "inf", "nan", "5S", "1h30m"])
    | st.booleans()
    | st.text(max_size=6).filter(lambda t: not re.search(r"\d", t))
)
def test_a_bad_duration_is_told_the_forms(value: object) -> None:
    """What is no duration is refused with the forms that are."""
    with pytest.raises(ValidationError, match=re.escape("500ms, 90s, 1.5m, 2h, 1d")):
        DURATION.validate_python(value)


@pytest.mark.parametrize("value", [0, -1, "0s", float("inf"), float("nan"), None, [1]])
def test_a_duration_is_positive_and_finite(value: object) -> None:
    """An interval of nothing, or without end, would stop the daemon."""
    with pytest.raises(ValidationError):
        DURATION.validate_python(value)


# -- the models themselves -------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", {m.__name__: m for m in models()}.values(), ids=lambda m: m.__name__
)
def test_every_setting_has_a_sentence(model: type[BaseModel]) -> None:
    """Each field says what it is in a sentence; a group says it in its class."""
    assert (model.__doc__ or "").strip().endswith(".")
    for name, field in model.model_fields.items():
        group = sections(field.annotation)
        sentence = field.description or (group[0].__doc__ if group else "") or ""
        assert re.match(r"[A-Z`].{8,}\.$", " ".join(sentence.split())), f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    "model", {m.__name__: m for m in models()}.values(), ids=lambda m: m.__name__
)
def test_every_group_is_frozen_and_closed(model: type[BaseModel]) -> None:
    """No group can be changed once read, and none takes a key that it does not know."""
    assert model.model_config["frozen"]
    assert model.model_config["extra"] == "forbid"


def test_settings_cannot_be_changed(read: Read) -> None:
    """What was read stays as it was read, at every level."""
    settings = read(BASE)
    for group, name in (
        (settings, "state_dir"),
        (settings.spark, "master"),
        (settings.pipelines["cards"], "label"),
        (settings.pipelines["cards"].train, "rounds"),
    ):
        before = getattr(group, name)
        with pytest.raises(ValidationError):
            setattr(group, name, before)
        assert getattr(group, name) == before


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.name)
def test_the_shipped_examples_load(path: Path) -> None:
    """Every example in `config/` is a configuration that is taken as it stands."""
    assert load(path).pipelines

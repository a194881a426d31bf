"""Settings: frozen models by concern, read from one YAML file and the environment.

Precedence: environment (`RETRAIND_` prefix, `__` between levels), then the file, then defaults.
Unknown keys are refused; all mistakes are reported at once, each with its path in the file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

CONFIG_VARIABLE = "RETRAIND_CONFIG"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
IDENTIFIER = r"[^.\s`]+(\.[^.\s`]+){1,3}"


class ConfigError(Exception):
    """The configuration cannot be used; the text lists every mistake with its path."""


def _seconds(value: object) -> object:
    """Read `90`, `"90s"`, `"1.5m"`, `"2h"`, `"1d"`, `"500ms"` as seconds."""
    if not isinstance(value, str | bool):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|[smhd])?", str(value).strip())
    if not found:
        msg = "is no duration; write seconds (90) or a unit: 500ms, 90s, 1.5m, 2h, 1d"
        raise ValueError(msg)
    return float(found[1]) * UNITS[found[2] or "s"]


def _property(value: object) -> object:
    """Write YAML's booleans and numbers as Spark reads them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Spark(Section):
    """How to reach Spark and the catalog that holds the tables."""

    master: str = "local[2]"
    """Spark master URL, e.g. `local[2]`, `spark://host:7077`, `yarn`, `k8s://...`."""
    catalog: str = "lake"
    """Name of the embedded Iceberg catalog (type hadoop), unless `conf` defines it otherwise."""
    warehouse: Path | None = None
    """Folder of the embedded catalog's tables; default `<state_dir>/lake`."""
    iceberg_jar: Path | None = None
    """Iceberg runtime jar to use instead of the one found on this machine."""
    packages: str | None = None
    """Maven coordinates of the Iceberg runtime, resolved by Spark, instead of a jar."""
    java_home: Path | None = None
    """Java home to use instead of the one found on this machine."""
    driver_memory: str = Field("1g", pattern=r"^\d+[kmgKMG]$")
    """Heap of the Spark driver, e.g. `1g`."""
    conf: dict[str, Annotated[str, BeforeValidator(_property)]] = {}
    """Further Spark properties; they win over everything derived from the settings above."""


class Mlflow(Section):
    """Where runs and models are kept."""

    tracking_uri: str | None = None
    """MLflow tracking URI; default an SQLite database in `state_dir`, or the platform's own."""
    registry_uri: str | None = None
    """MLflow registry URI; default the tracking URI."""
    experiment: str = "retraind"
    """Prefix of the experiment name; each pipeline has its own, `<prefix>-<pipeline>`."""
    timeout: Duration = 20.0
    """Seconds that one HTTP request to MLflow may take."""
    retries: int = Field(2, ge=0, le=10)
    """HTTP retries inside one attempt; after that the tick is tried later."""


class Http(Section):
    """The daemon's own pages and health checks."""

    host: str = "127.0.0.1"
    """Address to bind; only loopback unless set otherwise."""
    port: int = Field(8090, ge=0, le=65535)
    """Port of the dashboard; Cloudera AI's `CDSW_APP_PORT` wins where it is set."""


class DeltaPolicy(Section):
    """When a delta is worth acting on."""

    min_rows: int = Field(200, ge=1)
    """Wait, keeping the cursor, until a delta has at least this many new rows."""


class Train(Section):
    """How a challenger is made."""

    strategy: Literal["fresh", "full"] = "fresh"
    """`fresh` trains on the delta alone, `full` on the whole table at the delta's end."""
    rounds: int = Field(150, ge=1, le=100_000)
    """Boosting rounds (trees per class)."""
    parameters: dict[str, bool | int | float | str] = {}
    """XGBoost parameters on top of the gentle defaults (depth 4, eta 0.1, subsample 0.8, ...)."""
    holdout: float = Field(0.2, ge=0.001, lt=0.9)
    """Share of the rows, chosen by a hash of the row key, that no model ever trains on."""
    salt: str = "retraind"
    """Key of that hash. Changing it makes new models incomparable with the old ones."""
    seed: int = 0
    """Seed of the training's random draws."""
    threads: int = Field(1, ge=1)
    """Threads of one training; 1 gives the same model on every machine."""
    balance: bool = False
    """Weigh the classes equally. Helps recall of rare classes, distorts probabilities."""
    max_categories: int = Field(200, ge=2)
    """Most frequent values kept of a string feature; rarer ones count as missing."""


BINARY_METRICS = ("log_loss", "auc", "average_precision", "accuracy", "f1", "recall")
MULTICLASS_METRICS = ("log_loss", "auc", "accuracy", "f1")
REGRESSION_METRICS = ("rmse", "mae", "r2")
METRICS = {
    "binary": BINARY_METRICS,
    "multiclass": MULTICLASS_METRICS,
    "regression": REGRESSION_METRICS,
}
Metric = Literal[
    "log_loss", "auc", "average_precision", "accuracy", "f1", "recall", "rmse", "mae", "r2"
]


class Promote(Section):
    """When the challenger replaces the champion."""

    metric: Metric | None = None
    """Metric that decides; default log_loss for classes, rmse for regression."""
    min_gain: float = Field(0.0, ge=0)
    """The challenger must be better by more than this, in units of the metric."""
    min_held_out: int = Field(30, ge=1)
    """Nothing is promoted on fewer held-out rows than this."""


class LocalEndpoint(Section):
    """The embedded endpoint: an HTTP server in a process of its own."""

    kind: Literal["local"] = "local"
    """Which implementation serves the model."""
    host: str = "127.0.0.1"
    """Address to bind; only loopback unless set otherwise."""
    port: int = Field(5001, ge=1, le=65535)
    """Port of the scoring server."""
    start_within: Duration = 60.0
    """Seconds the server may take to answer its first ping."""
    verify_rows: int = Field(100, ge=1)
    """Held-out rows whose answers are compared with the offline predictions after a deployment."""
    outlive: bool = True
    """Keep serving when the daemon stops; the next start takes the endpoint over."""


class Pipeline(Section):
    """One table, its model and its endpoint."""

    table: str = Field(pattern=rf"^{IDENTIFIER}$")
    """Iceberg table, as Spark names it: `catalog.database.table` or `database.table`."""
    branch: str = "main"
    """Branch of the table whose commits count."""
    label: str
    """Column to predict."""
    task: Literal["binary", "multiclass", "regression"] = "binary"
    """What kind of value the label is."""
    features: tuple[str, ...] | None = None
    """Columns to learn from; default every usable column but the label, the key and `ignore`."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out when `features` is not given."""
    row_key: tuple[str, ...] = ()
    """Columns that identify a row (or the entity, where rows of one entity resemble each other)."""
    poll_every: Duration = 5.0
    """Seconds between two looks at the table."""
    delta: DeltaPolicy = DeltaPolicy()
    train: Train = Train()
    promote: Promote = Promote()
    endpoint: LocalEndpoint = LocalEndpoint()

    @property
    def metric(self) -> str:
        """Give the metric that decides, by task if none is set."""
        return self.promote.metric or METRICS[self.task][0]

    @model_validator(mode="after")
    def _consistent(self) -> Pipeline:
        found: list[str] = []
        if self.metric not in METRICS[self.task]:
            fit = ", ".join(METRICS[self.task])
            found.append(
                f"promote.metric: {self.metric!r} does not fit task {self.task}; use {fit}"
            )
        if self.features == ():
            found.append("features: names no column; leave it out to use every column that fits")
        for name in ("features", "row_key", "ignore"):
            columns = getattr(self, name) or ()
            if self.label in columns and name != "ignore":
                found.append(f"{name}: contains the label {self.label!r}, which is the answer")
            if len(set(columns)) < len(columns):
                found.append(f"{name}: names a column twice")
        if found:
            raise ValueError("; ".join(found))
        return self


class Settings(BaseSettings):
    """Everything that retraind is told."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="RETRAIND_",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
    )

    state_dir: Path = Path("retraind-state")
    """Folder of the ledger, the models being served and, by default, the lake and MLflow."""
    stop_within: Duration = 20.0
    """Seconds that a stop waits for running work before the process leaves."""
    spark: Spark = Spark()
    mlflow: Mlflow = Mlflow()
    http: Http = Http()
    pipelines: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], Pipeline] = Field(
        min_length=1
    )
    """Pipelines by name (lower case letters, digits, `-`, `_`)."""

    @model_validator(mode="after")
    def _ports_differ(self) -> Settings:
        taken: dict[int, str] = {self.http.port: "http.port"}
        for name, pipeline in self.pipelines.items():
            where = f"pipelines.{name}.endpoint.port"
            if other := taken.get(pipeline.endpoint.port):
                msg = f"{where}: {pipeline.endpoint.port} is already {other}; give each its own"
                raise ValueError(msg)
            taken[pipeline.endpoint.port] = where
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings' contract)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the platform win over the environment, and that over the file (the init values)."""
        platform = InitSettingsSource(settings_cls, _platform(init_settings().get("http", {})))
        return platform, env_settings, init_settings


def load(path: Path | None) -> Settings:
    """Read the settings from a YAML file (None: the environment alone).

    Raises:
        ConfigError: unreadable file, bad YAML, or bad settings; lists every mistake at once.
    """
    where = str(path) if path else "the environment"
    values = _read(path) if path else {}
    # A leading underscore would be an instruction to pydantic-settings instead of a setting.
    odd = [key for key in values if not isinstance(key, str) or key.startswith("_")]
    mistakes = [f"{key}: unknown setting{_nearest(str(key), Settings)}" for key in odd]
    mistakes += _unknown_variables()
    try:
        settings = Settings(**{key: value for key, value in values.items() if key not in odd})
    except ValidationError as error:
        mistakes += [_sentence(item) for item in error.errors()]
    except SettingsError as error:
        mistakes += _unparsed(str(error))
    if mistakes:
        listed = "\n".join(f"  - {mistake}" for mistake in mistakes)
        msg = f"The configuration in {where} has {len(mistakes)} mistake(s):\n{listed}"
        raise ConfigError(msg)
    return settings


def _read(path: Path) -> dict[Any, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"Cannot read the configuration {path}: {error.strerror}. Check --config."
        raise ConfigError(msg) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date like 2026-99-99
        msg = f"The configuration {path} is not valid YAML: {error}"
        raise ConfigError(msg) from error
    if not isinstance(values, dict):
        msg = f"The configuration {path} must be a mapping with `pipelines:` at its top level."
        raise ConfigError(msg)
    return values


def _platform(http: object) -> dict[str, Any]:
    """Bind where Cloudera AI expects an Application to answer, whatever else is said."""
    port = os.environ.get("CDSW_APP_PORT")
    return {"http": {"port": port}} if port and isinstance(http, dict) else {}


def _unknown_variables() -> Iterator[str]:
    for name in sorted(os.environ):
        if name.upper().startswith("RETRAIND_") and name != CONFIG_VARIABLE:
            field = name.lower().removeprefix("retraind_").split("__")[0]
            if field not in Settings.model_fields:
                yield f"environment {name}: unknown setting{_nearest(field, Settings)}"


def _unparsed(error: str) -> Iterator[str]:
    """Name the variables that pydantic-settings could not read; it names only the setting."""
    field = found[1] if (found := re.search(r'field "(\w+)"', error)) else ""
    for name in sorted(os.environ):
        if name.upper().startswith(f"RETRAIND_{field}".upper()):
            yield f"environment {name}: cannot be read; a list or a mapping is written as JSON"


def _sentence(item: Any) -> str:  # noqa: ANN401 (pydantic's ErrorDetails, kept untyped for 2.x)
    """Turn one pydantic error into `path: what is wrong (what was given)`."""
    location = [str(part) for part in item["loc"] if part != "[key]"]
    path = ".".join(location) if location else "settings"
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown setting{_nearest(location[-1], _model_at(location[:-1]))}"
    if item["type"] == "missing":
        return f"{path}: is required"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "string_pattern_mismatch":
        field = _model_at(location[:-1]).model_fields.get(
            location[-1], Settings.model_fields["pipelines"]
        )
        message = f"does not fit; expected: {str(field.description).rstrip('.')}"
    given = "" if isinstance(item["input"], dict | BaseModel) else f" (given: {item['input']!r})"
    return f"{path}: {message}{given}"


def _nearest(name: str, model: type[BaseModel]) -> str:
    close = difflib.get_close_matches(name, model.model_fields, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(model.model_fields)}"


def _model_at(location: list[str]) -> type[BaseModel]:
    """Follow a path into the settings; the keys of mappings are stepped over."""
    model: type[BaseModel] = Settings
    for position, part in enumerate(location):
        if position == 1 and location[0] == "pipelines":  # a pipeline's name, be it even `train`
            continue
        field = model.model_fields.get(part)
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), model)
    return model

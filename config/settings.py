"""Settings: frozen models by concern. `loading` reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from config.contract import Contract
from config.endpoint import Cloudera, ClouderaEndpoint, LocalEndpoint, MlflowEndpoint
from config.http import Http
from config.notify import Notify
from config.section import Duration, Section
from config.workload import is_workload

IDENTIFIER = r"[^.\s`]+(\.[^.\s`]+){1,3}"


class ConfigError(Exception):
    """The configuration cannot be used; the text lists every mistake with its path."""


def _property(value: object) -> object:
    """Write YAML's booleans and numbers as Spark reads them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Filled = Annotated[str | None, BeforeValidator(lambda value: None if value == "" else value)]
"""A text that may be left empty, as the platform's forms leave variables."""


class Spark(Section):
    """How to reach Spark and the catalog that holds the tables."""

    master: str = "local[2]"
    """Spark master URL, e.g. `local[2]`, `spark://host:7077`, `yarn`, `k8s://...`."""
    data_connection: Filled = None
    """Data connection of a Cloudera AI project, whose session is used; the lab's `CONNECTION_NAME`
    in a workload."""
    catalog: str = "lake"
    """Name of the embedded Iceberg catalog (type hadoop), unless `conf` defines it otherwise;
    `spark_catalog` is the Hive metastore that Spark knows."""
    database: Filled = None
    """Database of tables that are named without one; the lab's `DBNAME` in a workload."""
    data_lake: Filled = None
    """Directory of the data lake that Spark asks leave for, e.g. `s3a://bucket/path`; the lab's
    `STORAGE` in a workload."""
    warehouse: Path | None = None
    """Folder of the embedded catalog's tables; default `<state_dir>/lake`."""
    iceberg_jar: Path | None = None
    """Iceberg runtime jar to use instead of the one found on this machine; may hold a `*`."""
    packages: str | None = None
    """Maven coordinates of the Iceberg runtime, resolved by Spark, instead of a jar."""
    java_home: Path | None = None
    """Java home to use instead of the one found on this machine."""
    driver_memory: str = Field("1g", pattern=r"^\d+[kmgKMG]$")
    """Heap of the Spark driver, e.g. `1g`."""
    conf: dict[str, Annotated[str, BeforeValidator(_property)]] = Field({})
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


class DeltaPolicy(Section):
    """When a delta is worth acting on, and what to do with rows that were not appended."""

    min_rows: int = Field(200, ge=1)
    """Wait, keeping the cursor, until a delta has at least this many new rows."""
    max_wait: Duration | None = None
    """Act after this long, even on fewer rows than `min_rows` or while commits go on."""
    quiet_for: Duration | None = None
    """Wait until no commit came for this long, so that a burst of commits is one delta."""
    cooldown: Duration | None = None
    """Least time between the end of one training and the next; `max_wait` does not shorten it."""
    coalesce: Literal["all", "each"] = "all"
    """`all` makes one delta of the snapshots that wait, `each` one for each that brings rows."""
    rewrites: Literal["added", "full", "skip", "halt"] = "added"
    """Rows that came by MERGE, UPDATE or INSERT OVERWRITE: `added` trains on those that are new,
    `full` on the table as it is then, `skip` records them, `halt` stops until `resume`."""
    history: Literal["full", "halt"] = "full"
    """No common snapshot is left, as the table was replaced or its history expired: `full` trains
    on the whole table, `halt` stops until `resume`."""
    forget: Literal["record", "full"] = "record"
    """Rows were deleted: `record` only says so, `full` trains on the table without them."""
    pin: bool = False
    """Keep the snapshots of the champion and of the one before it from expiry, by Iceberg tags
    `retraind-<pipeline>-<version>`."""

    @model_validator(mode="after")
    def _consistent(self) -> DeltaPolicy:
        if self.max_wait and self.quiet_for and self.quiet_for >= self.max_wait:
            msg = "quiet_for: must be shorter than max_wait, or it never decides anything"
            raise ValueError(msg)
        return self


Candidate = Literal["fresh", "window", "full", "ensemble"]


class Train(Section):
    """How a challenger is made."""

    strategy: Literal["fresh", "full", "window", "continue", "ensemble", "tournament"] = "ensemble"
    """`fresh` trains on the delta alone, `full` on the table at the delta's end, `window` on the
    last deltas. `continue` adds trees to the champion. `ensemble` pools one model for each of the
    last deltas, `tournament` several `candidates`; both weigh by the newest rows."""
    max_rows: int = Field(200_000, ge=1)
    """About so many rows are learnt from where more than the delta is read: a sample that a hash
    of the row key draws."""
    window: int = Field(5, ge=2)
    """Deltas whose rows `window` and `window_member` learn from, this one included."""
    continue_rounds: int = Field(20, ge=1)
    """Rounds that `continue` adds, on the delta and as many earlier rows."""
    continue_eta: float = Field(0.05, gt=0, le=1)
    """Learning rate of these rounds."""
    max_rounds: int = Field(1000, ge=1)
    """`continue` begins anew, as `full`, where the model would get more rounds than this."""
    members: int = Field(10, ge=2)
    """Models of single deltas that `ensemble` pools at most."""
    refresh_share: float | None = Field(0.1, gt=0, le=1)
    """`ensemble` has one more member that learns from the whole table, made anew when so large a
    share of the table is new to it; none if null."""
    window_member: bool = True
    """`ensemble` has one more member that learns from the last deltas, as `window` does."""
    weighing: Literal["exponential", "aue"] = "exponential"
    """`exponential` weighs by exp(-30 (loss - best)) of log losses, `aue` as the Accuracy Updated
    Ensemble."""
    candidates: tuple[Candidate, ...] = ("ensemble", "window", "full")
    """What `tournament` makes and weighs by its record: `fresh`, `window`, `full`, `ensemble`."""
    rounds: int = Field(150, ge=1, le=100_000)
    """Boosting rounds (trees per class)."""
    parameters: dict[str, bool | int | float | str] = Field({})
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

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        booster = str(self.parameters.get("booster", "gbtree"))
        vector = self.parameters.get("multi_strategy") == "multi_output_tree"
        sums = {"continue": booster == "gblinear", "ensemble": booster != "gbtree" or vector}
        sums["tournament"] = sums["ensemble"]
        found: list[str] = []
        if sums.get(self.strategy):
            found.append(
                f"strategy: {self.strategy!r} needs plain trees; leave `booster` and "
                f"`multi_strategy` out of parameters, or use fresh, full or window"
            )
        if not self.candidates or len(set(self.candidates)) < len(self.candidates):
            found.append("candidates: names none, or one twice")
        if found:
            raise ValueError("; ".join(found))
        return self


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
    confidence: float = Field(0.95, ge=0, lt=1)
    """How sure that must be, over all looks at one champion together; 0 trusts each comparison."""
    min_held_out: int = Field(30, ge=1)
    """Nothing is promoted on fewer held-out rows than this, counting those of earlier looks."""
    require: dict[str, float] = Field({})
    """Scores that it must reach on held-out rows, e.g. `auc: 0.7`, `calibration_error: 0.05`: at
    least, or at most where lower is better."""
    slices: tuple[str, ...] = ()
    """Features by whose values the rows are cut; it must not be worse for certain on any slice."""
    max_forgetting: float | None = Field(None, ge=0)
    """By how much it may be worse than the champion on held-out rows of the whole table, in units
    of the metric. Reads the whole table for every delta."""
    max_latency: Duration | None = None
    """Time that scoring one row may take (median of 50)."""
    max_megabytes: float | None = Field(None, gt=0)
    """Size that the model's file may have."""


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
    # Not named as in the file, because pydantic's models have a method of that name.
    contract: Contract = Field(Contract(), alias="validate")
    train: Train = Train()
    promote: Promote = Promote()
    endpoint: LocalEndpoint | ClouderaEndpoint | MlflowEndpoint = Field(
        LocalEndpoint(), discriminator="kind"
    )

    @property
    def binary(self) -> bool:
        """Whether the label has two classes."""
        return self.task == "binary"

    @property
    def metric(self) -> str:
        """Give the metric that decides, by task if none is set."""
        return self.promote.metric or METRICS[self.task][0]

    @model_validator(mode="before")
    @classmethod
    def _local_unless_told(cls, values: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        """An endpoint that does not say which kind it is, is the embedded one."""
        endpoint = values.get("endpoint") if isinstance(values, dict) else None
        if isinstance(endpoint, dict) and "kind" not in endpoint:
            return {**values, "endpoint": {**endpoint, "kind": "local"}}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Pipeline:
        found: list[str] = []
        if self.metric not in METRICS[self.task]:
            fit = ", ".join(METRICS[self.task])
            found.append(
                f"promote.metric: {self.metric!r} does not fit task {self.task}; use {fit}"
            )
        known = {*METRICS[self.task], *(("brier", "calibration_error") if self.binary else ())}
        if strange := sorted(set(self.promote.require) - known):
            found.append(
                f"promote.require: {strange[0]!r} does not fit task {self.task}; "
                f"use {', '.join(sorted(known))}"
            )
        if self.features == ():
            found.append("features: names no column; leave it out to use every column that fits")
        if self.contract.min_per_class and self.task == "regression":
            found.append("validate.min_per_class: a regression has no classes; leave it out")
        if self.contract.max_duplicates < 1 and not self.row_key:
            found.append("validate.max_duplicates: needs row_key, which says what a duplicate is")
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
    notify: Notify = Notify()
    cloudera: Cloudera = Cloudera()
    pipelines: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], Pipeline] = Field(
        min_length=1
    )
    """Pipelines by name (lower case letters, digits, `-`, `_`)."""

    @model_validator(mode="before")
    @classmethod
    def _in_database(cls, values: Any) -> Any:  # noqa: ANN401 (whatever the sources gave)
        """Complete the names of tables that leave out their database."""
        spark, pipelines = values.get("spark"), values.get("pipelines")
        if not isinstance(spark, dict) or not isinstance(pipelines, dict):
            return values
        if not isinstance(database := spark.get("database"), str) or not database:
            return values
        named = {name: _completed(pipeline, database) for name, pipeline in pipelines.items()}
        return {**values, "pipelines": named}

    @model_validator(mode="after")
    def _endpoints_differ(self) -> Settings:
        taken: dict[int | str, str] = {self.http.port: "http.port"}
        for name, pipeline in self.pipelines.items():
            endpoint, where = pipeline.endpoint, f"pipelines.{name}.endpoint"
            what: int | str
            if isinstance(endpoint, LocalEndpoint):
                what, where = endpoint.port, f"{where}.port"
            elif isinstance(endpoint, MlflowEndpoint):
                what, where = endpoint.address(name), f"{where}.deployment"
            else:
                what, where = endpoint.name(name), f"{where}.model"
            if other := taken.get(what):
                msg = f"{where}: {what} is already {other}; give each its own"
                raise ValueError(msg)
            taken[what] = where
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
        """Let the platform win over the environment, that over the file, the lab's names last."""
        platform = InitSettingsSource(settings_cls, _platform(init_settings().get("http", {})))
        lab = InitSettingsSource(settings_cls, _lab())
        return platform, env_settings, init_settings, lab


def _completed(pipeline: object, database: str) -> object:
    """Put a pipeline's table into the database, if it is not in one."""
    table = pipeline.get("table") if isinstance(pipeline, dict) else None
    if not isinstance(pipeline, dict) or not isinstance(table, str) or "." in table:
        return pipeline
    prefix = database if "." in database else f"spark_catalog.{database}"
    return {**pipeline, "table": f"{prefix}.{table}"}


def _lab() -> dict[str, Any]:
    """Give what the lab's scripts are told by variables of the project."""
    names = {"data_connection": "CONNECTION_NAME", "data_lake": "STORAGE", "database": "DBNAME"}
    if not is_workload():
        return {}
    found = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
    return {"spark": found} if found else {}


def _platform(http: object) -> dict[str, Any]:
    """Bind where Cloudera AI expects an Application to answer, whatever else is said.

    That is on loopback: other pods reach every other address without the platform's login.
    """
    port = os.environ.get("CDSW_APP_PORT")
    where = {"host": "127.0.0.1", "port": port}
    return {"http": where} if port and isinstance(http, dict) else {}

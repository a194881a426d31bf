"""Spark on the platform: the lab's variables, the hand-made session, data connections."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from config import machine
from config.loading import load
from config.machine import Found, Machine
from config.settings import ConfigError, Settings
from handlers import spark
from handlers.facts import TryLater

BARE = "pipelines:\n  cards: {table: cards, label: fraud}\n"
LAB = {"CONNECTION_NAME": "lake", "STORAGE": "s3a://bucket/lake", "DBNAME": "bank"}
ACCESS = "access.hadoopFileSystems"


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LAB, "CDSW_ENGINE_ID", "CDSW_APP_PORT", "PYSPARK_SUBMIT_ARGS", "SPARK_HOME"):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)


Read = Callable[[str], Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a configuration from its text."""

    def read(text: str) -> Settings:
        path = tmp_path / "retraind.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return read


def parts(iceberg: str = "") -> Machine:
    """Give a machine with this Iceberg runtime."""
    return Machine(Found("java", ""), Found("spark", ""), Found(iceberg, ""), Found("uri", ""))


def properties(settings: Settings) -> dict[str, str]:
    """Derive the properties."""
    return spark.properties(parts("/opt/iceberg.jar"), settings)


# -- the lab's variables -------------------------------------------------------------------------


def test_the_labs_variables_count_in_a_workload(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stand in for settings that are missing; elsewhere names so common mean nothing."""
    for name, value in LAB.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"cards\.table"):
        read(BARE)
    monkeypatch.setenv("CDSW_ENGINE_ID", "x")
    found = read(BARE)
    assert (found.spark.data_connection, found.spark.data_lake) == ("lake", "s3a://bucket/lake")
    assert found.pipelines["cards"].table == "spark_catalog.bank.cards"
    monkeypatch.setenv("DBNAME", "")
    with pytest.raises(ConfigError, match=r"cards\.table"):
        read(BARE)


def test_settings_win_over_the_labs_variables(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file wins over them, and RETRAIND_... over the file; full names stay as they are."""
    for name, value in {**LAB, "CDSW_ENGINE_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RETRAIND_SPARK__DATA_LAKE", "hdfs://other")
    found = read(
        "spark: {database: lake.shop, data_lake: s3a://mine}\n"
        f"{BARE}  others: {{table: a.b, label: x, endpoint: {{port: 5002}}}}\n"
    )
    assert (found.spark.data_connection, found.spark.data_lake) == ("lake", "hdfs://other")
    tables = {name: pipeline.table for name, pipeline in found.pipelines.items()}
    assert tables == {"cards": "lake.shop.cards", "others": "a.b"}


@pytest.mark.parametrize(
    "text",
    [
        "spark: {database: 7}\n" + BARE, "spark: 7\n" + BARE,
        "spark: {database: d}\npipelines: 7\n",
        "spark: {database: d}\npipelines: {cards: 7}\n",
        "spark: {database: d}\npipelines: {cards: {table: 7, label: x}}\n",
    ],
)  # fmt: skip
def test_wrong_settings_around_a_database_are_mistakes(read: Read, text: str) -> None:
    """Whatever stands there, it is told as a mistake of the configuration."""
    with pytest.raises(ConfigError, match="mistake"):
        read(text)


# -- the hand-made session -----------------------------------------------------------------------


def test_the_session_catalog_is_the_labs(read: Read) -> None:
    """Hive's tables by Iceberg's session catalog, leave for the lake, and the jar."""
    found = properties(
        read("spark: {catalog: spark_catalog, data_lake: s3a://b, database: bank}\n" + BARE)
    )
    catalog = "spark.sql.catalog.spark_catalog"
    assert found[catalog] == "org.apache.iceberg.spark.SparkSessionCatalog"
    assert (found[f"{catalog}.type"], found[f"{catalog}.cache-enabled"]) == ("hive", "false")
    assert found["spark.sql.catalogImplementation"] == "hive"
    assert found[f"spark.yarn.{ACCESS}"] == found[f"spark.kerberos.{ACCESS}"] == "s3a://b"
    assert found["spark.jars"] == "/opt/iceberg.jar"
    assert f"{catalog}.warehouse" not in found


def test_a_jar_may_be_named_by_a_pattern(tmp_path: Path, read: Read) -> None:
    """Versions change under a running project: the last of those that fit is taken."""
    for version in ("1.5.0", "1.5.2"):
        (tmp_path / f"iceberg-spark-runtime-3.5_2.12-{version}.jar").touch()
    text = f"spark: {{iceberg_jar: {tmp_path}/iceberg-*.jar, database: bank}}\n" + BARE
    assert machine.iceberg(read(text)).value.endswith("1.5.2.jar")
    with pytest.raises(ConfigError, match=r"spark\.iceberg_jar: .*x-\*\.jar does not exist"):
        machine.iceberg(read(text.replace("iceberg-*", "x-*")))


# -- data connections ----------------------------------------------------------------------------

CONNECTED = "spark: {data_connection: lake, database: bank, conf: {spark.x: a b}}\n" + BARE


class Session:
    """Stands in for a session."""

    _jsparkSession = "a driver"  # noqa: N815 (pyspark's name)

    def __init__(self) -> None:
        self.conf: Any = {}
        self.conf = type("Conf", (dict,), {"set": dict.__setitem__})()


def connections(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Any]) -> None:
    """Let the platform's library answer so when it is asked for a connection."""
    module = ModuleType("cml.data_v1")
    module.__dict__["get_connection"] = answer
    package = ModuleType("cml")
    package.__dict__["data_v1"] = module
    monkeypatch.setitem(sys.modules, "cml", package)
    monkeypatch.setitem(sys.modules, "cml.data_v1", module)


def connected(settings: Settings) -> Any:
    """Ask for the session of the data connection."""
    return spark._connected("lake", parts(machine.iceberg(settings).value), settings)


def test_a_data_connection_keeps_what_is_the_platforms(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Master, catalog and jar are its own; memory, time zone and `spark.conf` are ours."""
    session = Session()
    asked = []

    class Connection:
        def get_spark_session(self) -> Session:
            return session

    def answer(name: str) -> Connection:
        asked.append(name)
        return Connection()

    connections(monkeypatch, answer)
    assert connected(read(CONNECTED)) is session
    assert asked == ["lake"]
    words = shlex.split(os.environ["PYSPARK_SUBMIT_ARGS"])  # noqa: TID251 (how Spark is told)
    assert words[-1] == "pyspark-shell"
    given = dict(word.split("=", 1) for word in words[1:-1:2])
    assert given["spark.driver.memory"] == "1g"
    assert given["spark.x"] == "a b"
    assert given["spark.sql.catalog.spark_catalog.cache-enabled"] == "false"
    strange = ("spark.master", "spark.driver.host", "spark.jars", "spark.sql.catalogImplementation")
    assert not set(strange) & set(given)
    assert session.conf["spark.sql.session.timeZone"] == "UTC"
    connected(read(CONNECTED.replace("{data", "{master: 'local[1]', data")))
    assert "--conf 'spark.master=local[1]'" in os.environ["PYSPARK_SUBMIT_ARGS"]  # noqa: TID251


def test_a_data_connection_that_gives_nothing_is_told(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No platform, no such name, a session without a driver: each delays work, with its remedy."""
    settings = read(CONNECTED)
    monkeypatch.setitem(sys.modules, "cml", None)
    with pytest.raises(TryLater, match="cannot be used") as caught:
        connected(settings)
    assert "elsewhere leave `spark.data_connection` out" in caught.value.remedy

    def missing(name: str) -> Any:
        raise ValueError(f"no data connection {name!r}")

    connections(monkeypatch, missing)
    with pytest.raises(TryLater, match="gave no session: no data connection 'lake'"):
        connected(settings)
    monkeypatch.setattr(Session, "_jsparkSession", None)
    monkeypatch.delattr(Session, "_jsparkSession")
    remote = type("Connection", (), {"get_spark_session": lambda _: Session()})
    connections(monkeypatch, lambda _: remote())
    with pytest.raises(TryLater, match="Spark Connect"):
        connected(settings)

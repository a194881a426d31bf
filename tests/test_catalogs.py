"""Real catalogs by configuration alone: a Hive metastore to which another process commits, REST.

The catalog is a static part of Spark's configuration, so nothing here runs in the session that the
other real tests share: the daemon, its commands and the committer are processes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from committer import Committer, Row
from conftest import free_port, pipeline
from hive_metastore import Metastore
from rest_catalog import RestCatalog
from sites import Site, until

from config import machine
from config.settings import Settings
from handlers.cards import Recipe, cards
from handlers.spark import properties

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the metastore, its warehouse, and the committer's log."""
    return tmp_path_factory.mktemp("hive")


@pytest.fixture(scope="module")
def metastore(home: Path) -> Iterator[Metastore]:
    """Give the running metastore."""
    metastore = Metastore(home, machine.look(settings(home, {})))
    metastore.start()
    yield metastore
    metastore.kill()


@pytest.fixture(scope="module")
def conf(home: Path, metastore: Metastore) -> dict[str, str]:
    """Give the Spark properties that reach the metastore, as on Cloudera."""
    catalog = "spark.sql.catalog.spark_catalog"
    return {
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.warehouse.dir": str(home / "warehouse"),
        "spark.hadoop.hive.metastore.uris": metastore.uri,
        catalog: "org.apache.iceberg.spark.SparkSessionCatalog",
        f"{catalog}.type": "hive",
        f"{catalog}.cache-enabled": "false",
    }


@pytest.fixture(scope="module")
def committer(home: Path, conf: dict[str, str]) -> Iterator[Committer]:
    """Give the other process, which commits through the same metastore."""
    wanted = settings(home, conf)
    found = machine.look(wanted)
    committer = Committer(found.java.value, properties(found, wanted), home / "committer.log")
    yield committer
    committer.close()


def settings(home: Path, conf: dict[str, str]) -> Settings:
    """Give settings with these Spark properties."""
    return Settings.model_validate(
        {"state_dir": home, "spark": {"conf": conf}, "pipelines": {"any": pipeline("any.table")}}
    )


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, conf: dict[str, str], committer: Committer
) -> Iterator[Site]:
    """Give a running daemon that polls one table for each test that asks for a shop."""
    committer.sql("CREATE DATABASE shop")
    tables = {name: f"spark_catalog.shop.{name}" for name in ("commits", "rewrites", "outage")}
    site = Site(tmp_path_factory.mktemp("site"), conf, **tables)
    site.start()
    yield site
    site.close()


@dataclass(frozen=True)
class Shop:
    """A table that the committer fills while the daemon watches it."""

    name: str
    site: Site
    committer: Committer

    def sql(self, text: str) -> list[Row]:
        """Let the committer run SQL; `{t}` stands for the table."""
        return self.committer.sql(text.format(t=self.site.tables[self.name]))

    def sell(self, rows: int, batch: int) -> None:
        """Let the committer commit a generated batch; batch 0 creates the table."""
        path = self.site.home / f"{self.name}{batch}.parquet"
        pq.write_table(cards(Recipe(rows, batch=batch)), path)
        create = "CREATE TABLE {t} USING iceberg AS"
        self.sql(f"{'INSERT INTO {t}' if batch else create} SELECT * FROM parquet.`{path}`")

    def head(self) -> int:
        """Ask the committer where the table stands."""
        (main,) = self.sql("SELECT snapshot_id FROM {t}.refs WHERE name = 'main'")
        return int(main["snapshot_id"])

    def committed(self) -> list[int]:
        """Ask the committer for every snapshot, those that were rolled back included."""
        return sorted(row["snapshot_id"] for row in self.sql("SELECT * FROM {t}.snapshots"))

    def standing(self) -> dict[str, Any]:
        """Ask the daemon where the pipeline stands."""
        pipelines: list[dict[str, Any]] = self.site.get("/api/status")["pipelines"]
        (standing,) = [found for found in pipelines if found["name"] == self.name]
        return standing

    def decisions(self) -> list[dict[str, Any]]:
        """Ask the daemon what it decided, newest first."""
        return [found for found in self.site.decisions() if found["pipeline"] == self.name]

    def accounted(self) -> list[int]:
        """Give the snapshots of all decisions, each as often as it was dealt with."""
        return sorted(s["id"] for decision in self.decisions() for s in decision["snapshots"])

    def until_level(self) -> None:
        """Wait until the daemon has dealt with everything that was committed."""
        head = self.head()
        until(lambda: self.standing()["cursor"] == head, f"the cursor stands at the head {head}")


def test_append_creates_the_table_through_the_metastore(
    tmp_path: Path, conf: dict[str, str], committer: Committer
) -> None:
    """A table that does not exist yet is waited for; `append` creates it, its rows are served.

    The other process finds the very snapshot in the metastore, and `doctor` finds nothing wrong.
    """
    site = Site(tmp_path, conf, payments="spark_catalog.bank.payments")
    with closing(site):
        site.start()
        until(lambda: "does not exist (yet)" in str(site.get("/api/status")), "the daemon waits")
        appended = site.ask("append", "--rows", "1500")
        until(lambda: site.version() == "1", "the first model is served")
        (decision,) = site.decisions()
        (found,) = committer.sql("SELECT snapshot_id FROM bank.payments.snapshots")
        assert decision["snapshot_to"] == appended["snapshot"] == found["snapshot_id"]
        assert (decision["state"], decision["rows"]) == ("promoted", 1500)
        assert [finding["told"] for finding in site.ask("doctor") if not finding["ok"]] == []


def test_every_commit_of_another_process_is_seen_and_accounted_for(
    site: Site, committer: Committer
) -> None:
    """A daemon that polls each second misses no commit: the rows of its decisions add up."""
    shop = Shop("commits", site, committer)
    sizes = [1500, 400, 300, 500, 250, 450]
    for batch, rows in enumerate(sizes):
        shop.sell(rows, batch)
    shop.until_level()
    assert sum(decision["rows"] for decision in shop.decisions()) == sum(sizes)
    assert shop.accounted() == shop.committed()


def test_rewrites_and_rollbacks_of_another_process_stall_nothing(
    site: Site, committer: Committer
) -> None:
    """Whatever another process does to the table, the cursor reaches the head, and goes on.

    Every snapshot occurs in the history, those that a rollback undid later included.
    """
    shop = Shop("rewrites", site, committer)
    shop.sell(1500, 0)
    shop.until_level()
    before = shop.head()
    source = "(SELECT * FROM {t} LIMIT 300) AS new ON old.transaction_id = new.transaction_id"
    system = "spark_catalog.system"
    for statement in (
        f"MERGE INTO {{t}} AS old USING {source} WHEN MATCHED THEN UPDATE SET age = new.age + 1",
        "UPDATE {t} SET age = age + 1 WHERE age < 60",
        "DELETE FROM {t} WHERE age > 80",
        f"CALL {system}.rewrite_data_files(table => '{{t}}', options => map('rewrite-all','true'))",
        f"CALL {system}.rollback_to_snapshot('{{t}}', {before})",
    ):
        shop.sql(statement)
        shop.until_level()
    shop.sell(600, 1)
    shop.until_level()
    assert set(shop.accounted()) >= set(shop.committed())
    assert shop.decisions()[0]["snapshot_to"] == shop.head()


def test_a_metastore_that_was_killed_is_waited_for(
    site: Site, committer: Committer, metastore: Metastore
) -> None:
    """While the metastore is gone the daemon says so and serves on; back, nothing was lost."""
    shop = Shop("outage", site, committer)
    shop.sell(1500, 0)
    until(lambda: site.version("outage") == "1", "the first model is served")
    shop.sell(600, 1)
    metastore.kill()
    until(lambda: "metastore" in shop.standing()["doing"].lower(), "the outage is told")
    assert site.version("outage") == "1"
    assert site.get("/healthz") == "ok"
    metastore.start()
    shop.sell(700, 2)
    shop.until_level()
    assert sum(decision["rows"] for decision in shop.decisions()) == 1500 + 600 + 700
    assert shop.accounted() == shop.committed()
    until(lambda: not any(map(troubled, site.get("/api/status")["pipelines"])), "all recover")


def test_a_rest_catalog_needs_nothing_but_configuration(tmp_path: Path) -> None:
    """Rows are appended, read between snapshots and accounted for through Iceberg's REST."""
    with closing(RestCatalog(tmp_path, machine.look(settings(tmp_path, {})))) as rest:
        catalog = "spark.sql.catalog.rest"
        conf = {
            catalog: "org.apache.iceberg.spark.SparkCatalog",
            f"{catalog}.type": "rest",
            f"{catalog}.uri": rest.uri,
            f"{catalog}.cache-enabled": "false",
        }
        site = Site(tmp_path, conf, payments="rest.shop.payments")
        for batch, rows in enumerate((1500, 500)):
            site.run("append", "--rows", str(rows), "--batch", str(batch))
            site.run("once")
        told = site.run("account")
        site.run("stop-endpoint")  # it outlives what started it
    assert "2 snapshot(s) in the branch's history: 2 trained (2,000 rows). They add up." in told


def troubled(standing: dict[str, Any]) -> bool:
    """Say whether a pipeline tells of the metastore still."""
    return "metastore" in standing["doing"].lower()


def test_what_cannot_be_watched_is_told_with_its_remedy(
    tmp_path: Path, conf: dict[str, str], committer: Committer
) -> None:
    """No table, no database, no Iceberg table, nobody at the catalog's address, no driver for it.

    Iceberg's loader hides why a catalog cannot be loaded, and looks for the table elsewhere.
    """
    committer.sql("CREATE TABLE default.plain (fraud_trx INT) USING parquet")
    catalogs = {
        "rest": {"type": "rest", "uri": f"http://127.0.0.1:{free_port()}"},
        "jdbc": {"type": "jdbc", "uri": "jdbc:postgresql://127.0.0.1/catalog"},
    }
    for name, catalog in catalogs.items():
        conf = {**conf, f"spark.sql.catalog.{name}": "org.apache.iceberg.spark.SparkCatalog"}
        for key, value in (*catalog.items(), ("warehouse", str(tmp_path))):
            conf[f"spark.sql.catalog.{name}.{key}"] = value
    expected = {
        "default.missing": ("does not exist (yet)", "check `table`"),
        "spark_catalog.nowhere.payments": ("does not exist (yet)", "check `table`"),
        "default.plain": ("default.plain is not an Iceberg table.", "system.migrate"),
        "rest.shop.payments": ("Connection refused", "`retraind doctor`"),
        "jdbc.shop.payments": ("No suitable driver found for jdbc:postgresql:", "doctor`"),
    }
    site = Site(tmp_path, conf, **{f"table{n}": table for n, table in enumerate(expected)})
    site.run("once", code=1)
    told = {item["table"]: item["doing"] for item in site.ask("status")["pipelines"]}
    for table, fragments in expected.items():
        assert all(fragment in told[table] for fragment in fragments), told[table]

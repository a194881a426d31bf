"""Builds the Spark session: the one the configuration asks for, on the parts the machine has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from config import machine as to_config
from config.settings import Settings
from handlers.facts import TryLater

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from config.machine import Machine

Sessions = Callable[[], "SparkSession"]
"""Gives the shared session, starting it at the first call."""

SESSION_CATALOG = "spark_catalog"
LEAVES = ("spark.yarn.access.hadoopFileSystems", "spark.kerberos.access.hadoopFileSystems")
"""Properties, of older and newer Sparks, that name the storage to ask leave for."""
PLATFORMS_OWN = {
    "spark.master": "master",
    "spark.driver.host": "master",
    "spark.driver.bindAddress": "master",
    "spark.sql.catalog": "catalog",
}
"""What a data connection knows better, unless these settings are given."""
QUIET = Path(__file__).resolve().parent.parent / "config" / "log4j2.properties"


def properties(machine: Machine, settings: Settings) -> dict[str, str]:
    """Derive the Spark properties; whatever `spark.conf` says wins."""
    wanted = settings.spark
    derived = {
        "spark.master": wanted.master,
        "spark.app.name": "retraind",
        "spark.driver.memory": wanted.driver_memory,
        "spark.driver.maxResultSize": "0",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={QUIET.as_uri()}",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.extensions": (
            "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"
        ),
    }
    if wanted.master.startswith("local"):
        # Loopback only, and few shuffle partitions: the embedded default is one small machine.
        derived |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": "2",
        }
    if machine.iceberg.value:
        key = "spark.jars.packages" if wanted.packages else "spark.jars"
        derived[key] = machine.iceberg.value
    if wanted.data_lake:
        derived |= dict.fromkeys(LEAVES, wanted.data_lake)
    return derived | _catalog(settings) | dict(wanted.conf)


def _catalog(settings: Settings) -> dict[str, str]:
    """Derive the properties of the catalog: the Hive metastore's, or the embedded one."""
    wanted = settings.spark
    catalog = f"spark.sql.catalog.{wanted.catalog}"
    if catalog in wanted.conf:
        return {}
    # A catalog that caches would hide the commits of other processes.
    fresh = {f"{catalog}.cache-enabled": "false"}
    if wanted.catalog == SESSION_CATALOG:
        return fresh | {
            "spark.sql.catalogImplementation": "hive",
            "spark.sql.hive.hwc.execution.mode": "spark",  # Cloudera's; unknown elsewhere
            catalog: "org.apache.iceberg.spark.SparkSessionCatalog",
            f"{catalog}.type": "hive",
        }
    warehouse = (wanted.warehouse or settings.state_dir / "lake").resolve()
    return fresh | {
        catalog: "org.apache.iceberg.spark.SparkCatalog",
        f"{catalog}.type": "hadoop",
        f"{catalog}.warehouse": str(warehouse),
    }


def sessions(machine: Machine, settings: Settings) -> Sessions:
    """Give a function that starts the session once and then returns it.

    It is started where it is first needed, so that a Spark that cannot start delays work
    (`TryLater`) instead of ending the daemon.
    """
    lock = Lock()

    @cache
    def start() -> SparkSession:
        machine.export(settings)
        logging.getLogger("py4j").setLevel(logging.ERROR)
        if name := settings.spark.data_connection:
            return _connected(name, machine, settings)
        return _built(machine, settings)

    def session() -> SparkSession:
        with lock:  # a second thread would get the session before its catalogs are set
            if _forgotten():
                start.cache_clear()
            found = start()
        # Each Python thread has a JVM thread of its own, and Iceberg's utilities look catalogs up
        # in the configuration of the thread's active session.
        found._jvm.SparkSession.setActiveSession(found._jsparkSession)  # type: ignore[union-attr] # noqa: SLF001 (py4j)
        return found

    return session


def _built(machine: Machine, settings: Settings) -> SparkSession:
    from pyspark.errors import PySparkException  # noqa: PLC0415 (slow to import, and optional)
    from pyspark.sql import SparkSession  # noqa: PLC0415

    builder = SparkSession.builder
    for key, value in properties(machine, settings).items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        raise TryLater(
            f"Spark did not start ({settings.spark.master}): {error}.",
            "`retraind doctor` checks Java, Spark and the Iceberg jar one by one.",
        ) from error


def _connected(name: str, machine: Machine, settings: Settings) -> SparkSession:
    """Have the platform build the session of a data connection, with ours as its defaults."""
    ours = properties(machine, settings)
    for key, setting in PLATFORMS_OWN.items():
        if setting not in settings.spark.model_fields_set:
            ours = {name: value for name, value in ours.items() if not name.startswith(key)}
    fresh = {f"spark.sql.catalog.{SESSION_CATALOG}.cache-enabled": "false"}
    to_config.submit({**ours, **fresh, **settings.spark.conf})
    try:
        import cml.data_v1 as connections  # noqa: PLC0415 (only in a workload)

        found: SparkSession = connections.get_connection(name).get_spark_session()
    except ImportError as error:
        raise TryLater(
            f"The data connection {name!r} cannot be used: {error}.",
            "There are data connections in workloads of Cloudera AI with a Spark addon only; "
            "elsewhere leave `spark.data_connection` out.",
        ) from error
    except Exception as error:  # the platform's library names none of its errors
        raise TryLater(
            f"The data connection {name!r} gave no session: {thrown(error)}.",
            "Check its name on the project's page of data connections, and your right to use it.",
        ) from error
    if not hasattr(found, "_jsparkSession"):
        raise TryLater(
            f"The data connection {name!r} gave a Spark Connect session, without a driver here.",
            "Leave `spark.data_connection` out, and set `spark.catalog: spark_catalog`.",
        )
    found.conf.set("spark.sql.session.timeZone", "UTC")
    return found


def load(session: SparkSession, name: str) -> Any:  # noqa: ANN401 (a py4j handle)
    """Load an Iceberg table; the handle can be refreshed, unlike what a cached catalog gives.

    Where a catalog cannot be loaded, Spark looks for the table elsewhere and hides the reason, so
    the catalog is asked for first.
    """
    spark, catalog = session._jsparkSession, name.partition(".")[0]  # noqa: SLF001 (py4j)
    if session.conf.get(f"spark.sql.catalog.{catalog}", ""):
        spark.sessionState().catalogManager().catalog(catalog)
    loader = session._jvm.org.apache.iceberg.spark.Spark3Util  # type: ignore[union-attr] # noqa: SLF001 (py4j)
    return loader.loadIcebergTable(spark, name)


def thrown(error: Exception) -> str:
    """Tell in one line what Spark or the catalog threw and, if another, what was at its root."""
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    first = _line(java.toString() if java else str(error)) or type(error).__name__
    root = java
    while root is not None and root.getCause() is not None:
        root = root.getCause()
    cause = _line(root.toString()) if root is not None else ""
    return first if not cause or cause in first else f"{first} ({cause})"


def _line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip(".")


def _forgotten() -> bool:
    """Let go of a driver JVM that died (out of memory, say), so that a new one can start."""
    from pyspark import SparkContext  # noqa: PLC0415 (slow to import, and optional)
    from pyspark.sql import SparkSession  # noqa: PLC0415

    process = getattr(SparkContext._gateway, "proc", None)  # noqa: SLF001 (pyspark has no way back)
    if process is None or process.poll() is None:
        return False
    SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None  # noqa: SLF001
    SparkSession._instantiatedSession = SparkSession._activeSession = None  # noqa: SLF001
    return True

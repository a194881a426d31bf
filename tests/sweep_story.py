"""The story that the sweep kills: its chapters, the world they happen in, and what is seen of it.

Every chapter begins in a saved state: ledger, lake, MLflow's store, fetched models. Saved states
are put back where they were, because their files keep absolute paths; so snapshots have the same
ids in every run of a chapter. Each run is a process of its own, forked from one that has imported
everything and done nothing; Spark runs in one JVM for all, as a cluster would. Both only save time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow as pa
from conftest import free_port
from mlflow import MlflowClient
from mlflow.store.db import utils as schema
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches
from sqlalchemy.orm import configure_mappers
from sweep_effects import Effect, Effects, Point, read

from config import machine
from config.settings import Settings
from daemon import composition, operate, runner
from daemon.ledger import Ledger
from handlers.append import Mode, append
from handlers.cards import Recipe, cards
from handlers.endpoint import LOG, LocalEndpoint
from handlers.evidence import PROOF
from handlers.facts import Model
from handlers.licence import LICENCE
from handlers.registry import SCORER

NAME, TABLE = "cards", "lake.shop.cards"
ROWS = 1200
PATIENCE = 180
"""Seconds after which a process of the story is ended, as one that hangs."""
OF_THE_SERVER = (LICENCE, LOG)
"""What belongs to the running endpoint and not to the state that is put back."""

IMPORTED_LATE = (
    "alembic.command", "daemon.accounting", "daemon.reconcile", "distutils.version",
    "handlers.spark", "handlers.train", "httpcore", "matplotlib.backends.backend_agg",
    "matplotlib.figure", "mlflow.pyfunc",
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.model_registry.sqlalchemy_workspace_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.tracing.processor.otel",
    "pyarrow.dataset", "pyspark.sql.functions", "pyspark.sql.pandas.types", "sklearn.metrics",
    "sqlalchemy.dialects.sqlite",
)  # fmt: skip

Body = Callable[["World"], None]


@dataclass(frozen=True, slots=True)
class Chapter:
    """What happened before a start of the daemon, and how it must end."""

    name: str
    after: str | None
    before: tuple[Body, ...]
    states: tuple[str, ...]
    """The decisions that stand in the end, all chapters together."""


class World:
    """One state with everything around it, and the processes that act on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.journal = home / "journal"
        self.stray = home / "stray"
        self.log = home / "log"
        pipeline = {
            "table": TABLE,
            "label": "fraud_trx",
            "row_key": ["transaction_id"],
            "ignore": ["event_time"],
            "delta": {"min_rows": 1, "rewrites": "added", "pin": True},
            "train": {"strategy": "fresh", "rounds": 25, "holdout": 0.3},
            "promote": {"min_gain": 0.02, "confidence": 0},
            "endpoint": {"port": free_port()},
        }
        self.settings = Settings.model_validate(
            {"state_dir": home / "state", "pipelines": {NAME: pipeline}}
        )
        self._served: dict[str, Model | None] = {}
        self._spark, self._end_spark = _spark(self.settings)

    @property
    def state(self) -> Path:
        """The folder that the daemon owns."""
        return self.settings.state_dir

    def process(self, body: Callable[[], object]) -> int:
        """Run a body in a process of its own; gives its exit status, negative for a signal."""
        sys.stdout.flush()
        child = os.fork()
        if not child:
            _become(self.log, body)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def do(self, body: Body) -> None:
        """Do something that is not the daemon's, in a process that must get through."""
        code = self.process(lambda: body(self))
        assert code == 0, f"status {code}: {self.log.read_text(encoding='utf-8')[-3000:]}"

    def look(self, kill_at: Point | None = None) -> int:
        """Run `once`; gives its exit status, -9 where it was killed."""
        return self.process(partial(self._look, kill_at))

    def _look(self, kill_at: Point | None) -> None:
        self.attach()
        Effects(self.state, self.journal, self.stray, kill_at).wrap()
        if troubled := runner.once(self.settings):
            raise RuntimeError(f"{troubled} did not get through")

    def attach(self) -> None:
        """Make the running Spark the one of this process."""
        from pyspark import SparkConf, SparkContext  # noqa: PLC0415 (not where processes fork)
        from pyspark.java_gateway import launch_gateway  # noqa: PLC0415
        from pyspark.sql import SparkSession  # noqa: PLC0415

        port, secret = self._spark
        os.environ["PYSPARK_GATEWAY_PORT"] = str(port)  # noqa: TID251 (pyspark's only way in)
        os.environ["PYSPARK_GATEWAY_SECRET"] = secret  # noqa: TID251
        gateway = launch_gateway()  # type: ignore[no-untyped-call]
        jvm: Any = gateway.jvm
        running = jvm.org.apache.spark.SparkContext.getOrCreate()
        conf = SparkConf(_jvm=jvm, _jconf=running.conf())
        context = SparkContext(
            gateway=gateway, conf=conf,
            jsc=jvm.org.apache.spark.api.java.JavaSparkContext.fromSparkContext(running),
        )  # fmt: skip
        SparkSession(context, jvm.org.apache.spark.sql.SparkSession.getDefaultSession().get())

    def effects(self) -> list[Effect]:
        """Give what the daemon completed since the state was put back."""
        return read(self.journal)

    def strays(self) -> list[str]:
        """Give what it did meanwhile that is part of no known effect."""
        return self.stray.read_text(encoding="utf-8").splitlines() if self.stray.exists() else []

    def save(self, name: str) -> None:
        """Keep the state as it is, and which model the endpoint serves."""
        saved = self.home / "saved" / name
        shutil.copytree(self.state, saved, ignore=shutil.ignore_patterns(*OF_THE_SERVER))
        local = composition.endpoint(self.settings, NAME)
        assert isinstance(local, LocalEndpoint)
        about = local._about()
        self._served[name] = Model(about["model_version"], about["run_id"]) if about else None

    def put_back(self, name: str | None) -> None:
        """Make the state what it was, and have the endpoint serve what it served."""
        self.journal.unlink(missing_ok=True)
        self.stray.unlink(missing_ok=True)
        served = self._served.get(name) if name else None
        if served is None:
            self._end_servers()
        kept = OF_THE_SERVER if served else ()
        for path in sorted(self.state.rglob("*"), reverse=True):  # what is inside comes first
            if not path.is_dir():
                if path.name not in kept:
                    path.unlink()
            elif not any(path.iterdir()):
                path.rmdir()
        if name:
            shutil.copytree(self.home / "saved" / name, self.state, dirs_exist_ok=True)
        if served:
            scorer = self.state / "models" / NAME / served.run_id / SCORER
            self.do(lambda its: composition.endpoint(its.settings, NAME).deploy(served, scorer))

    def servers(self) -> list[psutil.Process]:
        """Give the live processes of the endpoint."""
        home, found = str(self.state.resolve() / "endpoints" / NAME), []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                if home in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def _end_servers(self) -> None:
        """End them at once: nobody waits for their answers."""
        servers = self.servers()
        for server in servers:
            server.kill()
        psutil.wait_procs(servers, PATIENCE)

    def ledger(self) -> Ledger:
        """Open the ledger."""
        return composition.ledger(self.settings)

    def close(self) -> None:
        """Leave no process behind."""
        self._end_servers()
        self._end_spark()


def _become(log: Path, body: Callable[[], object]) -> None:
    """Be a process that does nothing but this, and ends."""
    signal.alarm(PATIENCE)
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        body()
    except BaseException:  # noqa: BLE001 (nothing may return into the parent's work)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def _spark(settings: Settings) -> tuple[tuple[int, str], Callable[[], None]]:
    """Start Spark in a process of its own; gives the way to it, and how to end it."""
    machine.look(settings).export(settings)
    answer, tell = os.pipe()
    waits, release = os.pipe()
    child = os.fork()
    if not child:
        os.close(release)
        _become(settings.state_dir.parent / "spark.log", partial(_host, settings, tell, waits))
    os.close(tell)
    os.close(waits)
    with os.fdopen(answer) as file:
        port, secret = json.load(file)

    def end() -> None:
        os.close(release)
        os.waitpid(child, 0)

    return (port, secret), end


def _host(settings: Settings, tell: int, waits: int) -> None:
    from pyspark import SparkContext  # noqa: PLC0415 (see `attach`)

    signal.alarm(0)
    composition.sessions(settings)()
    gateway: Any = SparkContext._gateway
    way = gateway.gateway_parameters
    with os.fdopen(tell, "w") as file:
        json.dump([way.port, way.auth_token], file)
    os.read(waits, 1)  # until the sweep ends, however it ends


def warm() -> None:
    """Import what a look imports on its way, and learn what MLflow asks the installation each time.

    What is not listed is imported by each process anew: slower, and nothing else.
    """
    for name in IMPORTED_LATE:
        import_module(name)
    configure_mappers()
    revision = schema._get_latest_schema_revision()  # type: ignore[no-untyped-call]
    schema._get_latest_schema_revision = lambda: revision
    warn_dependency_requirement_mismatches(["numpy"])


# -- what happens ----------------------------------------------------------------------------


def arrives(batch: int, mode: Mode = "append", *, labelled: bool = True) -> Body:
    """Commit a batch; merged, it changes some rows that are there and brings new ones."""
    rows = cards(Recipe(ROWS, 0, batch))
    if mode == "merge":
        rows = pa.concat_tables([rows, cards(Recipe(ROWS, 0, 0)).slice(0, ROWS // 4)])
    if not labelled:
        column = rows.schema.get_field_index("fraud_trx")
        rows = rows.set_column(column, rows.field(column), pa.nulls(len(rows), pa.int32()))

    def commit(world: World) -> None:
        world.attach()
        sessions = composition.sessions(world.settings)
        append(sessions, TABLE, rows, mode, ["transaction_id"], world.home / "scratch")

    return lambda world: world.do(commit)


def table_created(world: World) -> None:
    """Somebody creates the table, and commits nothing to it."""

    def create(its: World) -> None:
        its.attach()
        from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415 (see `attach`)

        fields = from_arrow_schema(cards(Recipe(1)).schema)
        columns = ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in fields)
        session = composition.sessions(its.settings)()
        session.sql(f"CREATE NAMESPACE {TABLE.rpartition('.')[0]}")
        session.sql(f"CREATE TABLE {TABLE} ({columns}) USING iceberg")

    world.do(create)


def killed(name: str) -> Body:
    """The daemon looks, and is killed after the first effect of this name."""

    def kill(world: World) -> None:
        assert world.look(Point(name, "after")) == -signal.SIGKILL, f"{name} did not happen"

    return kill


def rolled_back(world: World) -> None:
    """An operator makes the former champion the champion."""
    operate.rollback(world.ledger(), NAME, None, "")


def dropped(world: World) -> None:
    """An operator closes the parked delta."""
    (parked,) = world.ledger().parked(NAME)
    operate.drop(world.ledger(), NAME, parked.sequence, "")


def experiment_deleted(world: World) -> None:
    """Somebody deletes the experiment in MLflow, with all its runs."""

    def delete(its: World) -> None:
        client = MlflowClient(f"sqlite:///{its.state.resolve()}/mlflow.db")
        found = client.get_experiment_by_name(f"retraind-{NAME}")
        assert found is not None
        client.delete_experiment(found.experiment_id)

    world.do(delete)


def ledger_lost(world: World) -> None:
    """The ledger's file is gone."""
    (world.state / "ledger.db").unlink()


def proof_spoilt(world: World) -> None:
    """The champion's proof asks for other answers than the model gives."""
    champion = world.ledger().champion(NAME)
    assert champion is not None
    path = world.state / "models" / NAME / champion.model.run_id / PROOF
    proof = pd.read_parquet(path)
    proof["retraind_score_0"] += 0.25
    proof.to_parquet(path, index=False)


def endpoint_stopped(world: World) -> None:
    """An operator stops the endpoint."""
    world.do(lambda its: composition.endpoint(its.settings, NAME).stop())


FIRST = ("promoted",)
THIRD = ("promoted", "kept", "promoted")
PARKED = (*THIRD, "kept", "parked")
STORY = (
    Chapter("the first start", None, (table_created,), ()),
    Chapter("the first delta", "the first start", (arrives(0),), FIRST),
    Chapter("no drift", "the first delta", (arrives(1),), ("promoted", "kept")),
    Chapter("drift", "no drift", (arrives(2),), THIRD),
    Chapter("a merge", "drift", (arrives(3, "merge"),), (*THIRD, "kept")),
    Chapter("a poisoned batch", "a merge", (arrives(4, labelled=False),), PARKED),
    Chapter(
        "dropped, experiment deleted", "a poisoned batch", (dropped, experiment_deleted),
        (*PARKED, "dropped"),
    ),
    Chapter(
        "two poisoned batches", "no drift",
        (arrives(2, labelled=False), arrives(3, labelled=False)),
        ("promoted", "kept", "split", "parked", "parked"),
    ),
    Chapter("rolled back", "drift", (rolled_back,), THIRD),
    Chapter("rolled back to a bad one", "drift", (rolled_back, proof_spoilt), THIRD),
    Chapter("only a bad one", "the first delta", (endpoint_stopped, proof_spoilt), FIRST),
    Chapter("ledger lost", "a poisoned batch", (ledger_lost,), PARKED),
    Chapter(
        "killed twice, then rolled back", "drift",
        (
            arrives(3), killed("mlflow: create_model_version"),
            killed("mlflow: set_tag retraind.run_key"), rolled_back,
        ),
        (*THIRD, "promoted"),
    ),
)  # fmt: skip

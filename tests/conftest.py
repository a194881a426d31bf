"""Fixtures of the tests that run real Spark, Iceberg, MLflow and endpoints: one session for all."""

from __future__ import annotations

import itertools
import os
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import settings

from config.endpoint import LocalEndpoint as LocalSettings
from config.settings import Settings
from handlers.cards import Recipe, cards
from handlers.facts import Record

if TYPE_CHECKING:
    from daemon.doors import Doors
    from daemon.ledger import Ledger
    from daemon.reconcile import Reconciler
    from handlers.spark import Sessions
    from handlers.table import Table

NUMBERS = itertools.count(1)
DRAWING = "matplotlib.figure"
PORTS = random.SystemRandom()
settings.register_profile("repeatable", derandomize=True, database=None)
settings.register_profile("search", max_examples=5000, print_blob=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, where several processes share the work file by file."""
    if hasattr(config, "workerinput"):
        real = {item.path for item in items if item.get_closest_marker("real")}
        items.sort(key=lambda item: (item.path.stem != "test_sweep", item.path not in real))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Forget the tracking server of the test before: MLflow exports it to all that follows."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        os.environ.pop(name, None)  # noqa: TID251 (what a test is judged in)


def free_port() -> int:
    """Give a port that nobody listens on.

    It lies below those that the system gives to outgoing connections, which would take it before
    it is used, or while what listened on it is down. Tests in another process have others.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))  # noqa: TID251 (see above)
    share = 12_000 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # noqa: TID251
    while True:
        port = PORTS.randrange(share) + 20_000 + worker * share
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def pipeline(table: str, **changes: Any) -> dict[str, Any]:
    """Give the settings of a small, fast pipeline on the cards table."""
    return {
        "table": table,
        "label": "fraud_trx",
        "row_key": ["transaction_id"],
        "ignore": ["event_time"],
        "delta": {"min_rows": 1},
        "promote": {"min_gain": 0.02, "confidence": 0},
        "endpoint": {"port": free_port()},
        **changes,
        "train": {"strategy": "fresh", **changes.get("train", {"rounds": 25, "holdout": 0.3})},
    }


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the shared embedded lakehouse."""
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="session")
def sessions(lake: Path) -> Sessions:
    """Give the one Spark session that all real tests share."""
    from daemon import composition  # noqa: PLC0415 (the fast tests must not import Spark)

    settings = Settings.model_validate(
        {"state_dir": lake, "pipelines": {"any": pipeline("lake.any.table")}}
    )
    return composition.sessions(settings)


class Lab:
    """A table of its own, and the reconciler that watches it, with every door real."""

    def __init__(self, sessions: Sessions, lake: Path, home: Path) -> None:
        self.sessions = sessions
        self.lake = lake
        self.home = home
        self.name = f"lake.lab.t{next(NUMBERS)}"
        self.stopping = threading.Event()
        self.tracking = f"sqlite:///{lake}/mlflow.db"
        self.artifacts: Path | None = lake / "artifacts"
        self.clock: Callable[[], datetime] = partial(datetime.now, timezone.utc)
        self._changes: dict[str, Any] = {}
        self.port = free_port()
        self._open: list[Doors] = []

    def settings(self, **changes: Any) -> Settings:
        """Give the lab's settings; changes stay for what follows."""
        self._changes |= changes
        wanted = {"endpoint": {"port": self.port}, **self._changes}
        return Settings.model_validate(
            {
                "state_dir": self.home,
                "mlflow": {"tracking_uri": self.tracking},
                "pipelines": {self.pipeline: pipeline(self.name, **wanted)},
            }
        )

    @property
    def pipeline(self) -> str:
        """Name the pipeline after its table, so that labs do not share experiments."""
        return self.name.rpartition(".")[2]

    def ledger(self) -> Ledger:
        """Open the ledger as its owner."""
        from daemon import composition, owner  # noqa: PLC0415

        book = composition.ledger(self.settings())
        book.clock = self.clock
        assert book.claim(owner.myself(), book.owner())
        return book

    def doors(self) -> Doors:
        """Open the doors on the shared session."""
        from daemon.doors import Doors  # noqa: PLC0415
        from handlers.endpoint import LocalEndpoint  # noqa: PLC0415
        from handlers.registry import Registry  # noqa: PLC0415
        from handlers.table import Table  # noqa: PLC0415

        wanted = self.settings()
        mine = wanted.pipelines[self.pipeline]
        assert isinstance(mine.endpoint, LocalSettings)
        registry = Registry(self.tracking, None, self.pipeline, "lab", self.artifacts, "test")
        doors = Doors(
            Table(self.sessions, mine.table, mine.branch), registry,
            LocalEndpoint(mine.endpoint, self.home / "endpoint"),
        )  # fmt: skip
        self._open.append(doors)
        return doors

    def reconciler(self, book: Ledger, **changes: Any) -> Reconciler:
        """Build a reconciler, as a start of the daemon does."""
        from daemon.reconcile import Reconciler  # noqa: PLC0415
        from daemon.service import Activity  # noqa: PLC0415

        mine = self.settings(**changes).pipelines[self.pipeline]
        progress = Activity(self.stopping)
        models = self.home / "models"
        return Reconciler(self.pipeline, mine, self.doors(), book, models, progress, self.clock)

    def append(
        self, batch: int, rows: int = 1200, mode: Any = "append", **changes: Any
    ) -> pa.Table:
        """Append a generated batch; `changes` replace whole columns."""
        table = cards(Recipe(rows, 0, batch))
        for column, values in changes.items():
            position = table.schema.get_field_index(column)
            field = table.schema.field(position)
            table = table.set_column(position, field, pa.array(values, field.type))
        self.commit(table, mode)
        return table

    def commit(self, rows: pa.Table, mode: Any = "append") -> None:
        """Commit rows as one snapshot."""
        from handlers.append import append  # noqa: PLC0415

        append(self.sessions, self.name, rows, mode, ["transaction_id"], self.lake / "tmp")

    def sql(self, text: str) -> list[Any]:
        """Run SQL; `{t}` stands for the table."""
        found: list[Any] = self.sessions().sql(text.format(t=self.name)).collect()
        return found

    def table(self, branch: str = "main") -> Table:
        """Open the door to the lab's table."""
        from handlers.table import Table  # noqa: PLC0415

        return Table(self.sessions, self.name, branch)

    def close(self) -> None:
        """Stop what was served."""
        for doors in self._open:
            doors.endpoint.stop()


@pytest.fixture
def lab(
    sessions: Sessions, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lab]:
    """Give a lab with a table of its own; it draws no pictures, which take a second a model."""
    monkeypatch.setitem(sys.modules, DRAWING, None)
    lab = Lab(sessions, lake, tmp_path)
    yield lab
    lab.close()


States = Callable[[], list[str]]


def told(book: Ledger, name: str) -> list[tuple[str, int]]:
    """Give state and rows of every decision, oldest first."""
    records: list[Record] = list(reversed(book.history(name, 1000)))
    return [(record.state.value, record.delta.rows) for record in records]

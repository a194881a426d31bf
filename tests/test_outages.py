"""Outages of everything around the daemon: work is delayed, never lost or repeated.

Every recovery here is the daemon's own: no test but those that say so calls `retry`.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import psutil
import pyarrow as pa
import pytest
import structlog
from conftest import Lab, free_port, told
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow_server import Fault, Line, Lot, MlflowServer, all_well
from sites import Site, until

from daemon import owner
from daemon.accounting import accounting
from daemon.ledger import Ledger
from daemon.level import AGAIN_AFTER
from daemon.reconcile import Reconciler
from daemon.retry import LONGEST_DELAY, UNREADABLE_ATTEMPTS
from daemon.store import now
from handlers import endpoint as endpoint_module
from handlers import licence as licence_module
from handlers.cards import Recipe, cards
from handlers.facts import GiveUp, Record, State
from handlers.licence import Licence
from handlers.registry import KEY
from handlers.spark import Sessions

pytestmark = pytest.mark.real
TIMEOUT, RETRIES = 2, 1
"""Limits of a request to MLflow."""


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.moment = now()

    def __call__(self) -> datetime:
        """Tell the time."""
        return self.moment

    def jump(self, **span: float) -> None:
        """Set the clock forward, or back."""
        self.moment += timedelta(**span)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Give a real MLflow server, whose start overlaps with the tests before the first use."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"), free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def line(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Give a line to the server, used by a client that loses its patience soon."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(RETRIES))
    server.wait()
    with closing(Line(server.url)) as line:
        yield line


@pytest.fixture
def clock() -> Clock:
    """Give a clock of one's own."""
    return Clock()


@pytest.fixture
def remote(lab: Lab, line: Line, clock: Clock) -> Lab:
    """Give a lab whose MLflow is at the other end of the line."""
    lab.tracking, lab.artifacts, lab.clock = line.url, None, clock
    return lab


@pytest.fixture
def other(sessions: Sessions, lake: Path, tmp_path: Path) -> Iterator[Lab]:
    """Give a second lab, whose MLflow works."""
    other = Lab(sessions, lake, tmp_path / "other")
    yield other
    other.close()


def start(lab: Lab, book: Ledger | None = None, **changes: Any) -> tuple[Ledger, Reconciler]:
    """Fill a table, and let the first delta make the first champion."""
    lab.append(0)
    book = book or lab.ledger()
    reconciler = lab.reconciler(book, **changes)
    reconciler.tick()
    assert told(book, lab.pipeline) == [("promoted", 1200)], book.standing(lab.pipeline).doing
    return book, reconciler


def serving(lab: Lab) -> str | None:
    """Ask the endpoint which version answers."""
    return lab.doors().endpoint.serving()


def recover(lab: Lab, reconciler: Reconciler, clock: Clock, book: Ledger) -> int:
    """Look again, each time after the longest delay, until nothing is open; gives the looks."""
    for look in range(1, 10):
        clock.jump(seconds=LONGEST_DELAY)
        reconciler.tick()
        if not reconciler.troubled:
            return look
    raise AssertionError(book.standing(lab.pipeline).doing)


def adds_up(lab: Lab, book: Ledger) -> bool:
    """Say whether every snapshot of the table has its state."""
    table, name = lab.table(), lab.pipeline
    view = accounting(book.standing(name), table.log(), table.elsewhere(), book.fates(name))
    return bool(view["adds_up"])


# -- MLflow ----------------------------------------------------------------------------------


def runs(lab: Lab) -> list[Run]:
    """Give all runs of a lab's experiment."""
    client = MlflowClient(lab.tracking)
    experiment = client.get_experiment_by_name(f"lab-{lab.pipeline}")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def assert_evidence(lab: Lab, book: Ledger) -> None:
    """Assert that each decision has one run and one version, and that nothing else is left."""
    records = book.history(lab.pipeline, 100)
    found = runs(lab)
    keys = [run.data.tags[KEY] for run in found if KEY in run.data.tags]
    assert sorted(keys) == sorted(record.key for record in records)
    statuses = {(KEY in run.data.tags, run.info.status) for run in found}
    assert statuses <= {(True, "FINISHED"), (False, "KILLED")}
    versions = MlflowClient(lab.tracking).search_model_versions(f"name = 'lab-{lab.pipeline}'")
    mine = {(record.model.version, record.model.run_id) for record in records if record.model}
    assert {(str(version.version), version.run_id) for version in versions} == mine


def killed_after(line: Line, server: MlflowServer, last: str) -> Fault:
    """Kill the server between a request of this path and the one after it."""
    seen = len(line.paths)

    def fault(_: int, path: str) -> Lot:  # noqa: ARG001 (the request before this one counts)
        if any(last in path for path in line.paths[seen:-1]):
            server.kill()
        return "answered"

    return fault


def test_a_killed_mlflow_server_delays_its_pipeline_and_no_other(
    remote: Lab, other: Lab, line: Line, server: MlflowServer, clock: Clock
) -> None:
    """Killed between two writes, the delta waits and is closed once the server is back, once.

    Meanwhile the head that is seen moves on, the endpoint answers, and a pipeline whose MLflow
    works goes on.
    """
    book, reconciler = start(remote)
    others = start(other, book)[1]
    remote.append(1)
    line.fault = killed_after(line, server, "model-versions/create")
    began = monotonic()
    reconciler.tick()
    assert monotonic() - began < 10 * TIMEOUT * (RETRIES + 1)
    work = book.pending(remote.pipeline)
    assert work is not None
    assert "MLflow" in work.trouble
    assert (work.attempts, work.faults) == (1, 0)

    server.start()  # takes a while, in which everything else goes on
    line.fault = lambda *_: "lost"
    remote.append(2, 400)
    other.append(1)
    reconciler.tick()
    others.tick()
    head = remote.table().head()
    assert head is not None
    assert book.standing(remote.pipeline).head_id == head.snapshot_id
    assert serving(remote) == "1"
    assert [rows for _, rows in told(book, other.pipeline)] == [1200, 1200]

    server.wait()
    line.fault = all_well
    recover(remote, reconciler, clock, book)
    reconciler.tick()
    assert [rows for _, rows in told(book, remote.pipeline)] == [1200, 1200, 400]
    assert_evidence(remote, book)
    assert sum(run.info.status == "KILLED" for run in runs(remote)) == 1
    assert adds_up(remote, book)


def first_of_each(lot: Lot, among: str = "") -> Fault:
    """Do this to the first request of each path that holds `among`."""
    met: set[str] = set()

    def fault(_: int, path: str) -> Lot:
        if path in met or among not in path:
            return "answered"
        met.add(path)
        return lot

    return fault


def from_then_on(lot: Lot, first: str, count: int) -> Fault:
    """Do this to so many requests, beginning with the first of this path."""
    left = [count]

    def fault(_: int, path: str) -> Lot:
        if not left[0] or (left[0] == count and first not in path):
            return "answered"
        left[0] -= 1
        return lot

    return fault


WEATHERS: dict[str, Fault] = {
    "each answer is lost once": first_of_each("answer lost"),
    "each request fails once": first_of_each("failed"),
    "a run is made, but slowly": first_of_each("answered late", "runs/create"),
    "a version is made, but slowly": first_of_each("answered late", "model-versions/create"),
    "nothing answers for a while": from_then_on("kept waiting", "runs/log-batch", 4),
    "everything fails for a while": from_then_on("failed", "model-versions/create", 6),
    "the last answer is lost": from_then_on("answer lost", "runs/update", 6),
}


def test_whatever_becomes_of_answers_one_run_is_left(remote: Lab, line: Line, clock: Clock) -> None:
    """Slow answers, errors, answers lost with the work done: one run and one version in the end."""
    book, reconciler = start(remote)
    for batch, (weather, fault) in enumerate(WEATHERS.items(), 1):
        remote.append(batch, 300)
        failed, line.fault = line.failed, fault
        reconciler.tick()
        line.fault = all_well
        assert line.failed > failed, f"{weather}: the requests have other paths"
        if reconciler.troubled:
            recover(remote, reconciler, clock, book)
        assert len(book.history(remote.pipeline, 100)) == batch + 1, weather
        assert_evidence(remote, book)


def test_a_rollback_needs_no_mlflow_and_is_not_forgotten(
    remote: Lab, line: Line, clock: Clock
) -> None:
    """A known model is deployed although MLflow is down, and MLflow's alias follows once it is up.

    The alias tells a ledger that is rebuilt which champion a person chose.
    """
    book, reconciler = start(remote)
    remote.append(6)
    reconciler.tick()
    assert serving(remote) == "2"
    line.fault = lambda *_: "lost"
    former = book.before(remote.pipeline, "2")
    assert former is not None
    book.rollback(remote.pipeline, "me", former, "looks odd")
    reconciler.tick()
    assert serving(remote) == "1"
    line.fault = all_well
    clock.jump(seconds=AGAIN_AFTER.total_seconds() + 1)
    reconciler.tick()
    book.close()
    (remote.home / "ledger.db").unlink()
    book = remote.ledger()
    remote.reconciler(book).tick()
    champion = book.champion(remote.pipeline)
    assert champion is not None
    assert champion.model.version == serving(remote) == "1"


# -- the endpoint ----------------------------------------------------------------------------


def server_of(lab: Lab) -> psutil.Process:
    """Give the process that serves a lab's model."""
    licence = Licence.read(lab.home / "endpoint")
    assert licence is not None
    assert licence.process is not None
    return licence.process


def test_a_stolen_port_delays_the_deployment_and_nothing_else(lab: Lab) -> None:
    """The endpoint dies and another program takes its port: training goes on, `status` says so.

    Once the port is free, the champion of that moment is deployed.
    """
    book, reconciler = start(lab)
    server = server_of(lab)
    server.kill()
    psutil.wait_procs([server], 10)
    port = lab.port
    with socket.create_server(("127.0.0.1", port)):
        lab.append(6)
        reconciler.tick()
        assert told(book, lab.pipeline)[-1] == ("promoted", 1200)
        assert f"Port {port}" in book.standing(lab.pipeline).doing
    reconciler.tick()
    assert serving(lab) == "2"
    assert not reconciler.troubled
    assert [d.version for d in reversed(book.deployments(lab.pipeline))] == ["1", "2"]


def test_a_hung_endpoint_is_replaced_and_holds_nothing_up(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stands still costs a tick its timeouts, no more, and makes way for another."""
    answers, starts, stops = 1.0, 8.0, 1.0
    monkeypatch.setattr(endpoint_module, "ANSWER_WITHIN", answers)
    monkeypatch.setattr(licence_module, "STOP_WITHIN", stops)
    settings = {"port": free_port(), "start_within": starts}
    book, reconciler = start(lab, endpoint=settings)
    server = server_of(lab)
    server.suspend()
    lab.append(6)
    began = monotonic()
    reconciler.tick()
    seconds = monotonic() - began
    assert told(book, lab.pipeline)[-1] == ("promoted", 1200)
    assert seconds < 2 * (3 * answers + starts + 2 * stops) + 30, f"{seconds:.0f} s"
    for _ in range(3):  # on a busy machine the new server may need another look
        if serving(lab) != "2":
            reconciler.tick()
    assert serving(lab) == "2"
    assert server_of(lab) != server


# -- the disk --------------------------------------------------------------------------------


class Filesystem:
    """A small filesystem of its own, filled to the last byte or nearly so."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._ballast = home / "ballast"
        self.home.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(home)]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a filesystem can be mounted by root only")

    def fill(self, leave: int = 0) -> None:
        """Leave no more than so many bytes."""
        with self._ballast.open("wb") as file:
            while True:
                try:
                    os.write(file.fileno(), bytes(4096))
                except OSError as full:
                    assert full.errno == errno.ENOSPC  # noqa: PT017 (how it is known to be full)
                    break
        os.truncate(self._ballast, self._ballast.stat().st_size - leave)

    def free(self) -> None:
        """Make room."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it, whoever still looks at it."""
        subprocess.run(["umount", "--lazy", str(self.home)], check=True)  # noqa: S607 (see above)


class Quota:
    """A limit of the kernel on the size of this process's files: works for any user."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.home.mkdir()
        self._most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, leave: int = 0) -> None:
        """Let no file grow beyond so many bytes."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (leave, self._most[1]))

    def free(self) -> None:
        """Let files grow."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._most)

    close = free


Disk = Filesystem | Quota


@pytest.fixture(params=[Filesystem, Quota])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """Give a disk that can be full."""
    with closing(request.param(tmp_path / "disk")) as disk, structlog.testing.capture_logs():
        yield disk


@pytest.fixture
def cramped(disk: Disk, sessions: Sessions, clock: Clock) -> Iterator[Lab]:
    """Give a lab whose MLflow and models lie on the disk."""
    lab = Lab(sessions, disk.home, disk.home / "state")
    lab.tracking, lab.clock = f"sqlite:///{disk.home}/mlflow.db", clock
    yield lab
    disk.free()
    lab.close()


def steps(reconciler: Reconciler, wanted: str, act: Callable[[], None]) -> None:
    """Act when the work comes to a step for the first time."""
    decider: Any = reconciler._decider
    follow = decider._progress

    def progress(step: str, done: int, total: int) -> None:
        if step == wanted:
            decider._progress = follow
            act()
        follow(step, done, total)

    decider._progress = progress


def test_a_full_disk_delays_everything_and_loses_nothing(
    cramped: Lab, disk: Disk, clock: Clock
) -> None:
    """Full before a look, while evidence is written, before a deployment: it goes on with room.

    While the ledger cannot be written nothing is trained, and what serves goes on serving.
    """
    book, reconciler = start(cramped)
    cramped.append(1, 300)
    disk.fill()
    for _ in range(2):
        reconciler.tick()
    disk.free()
    assert len(book.history(cramped.pipeline)) == 1
    assert serving(cramped) == "1"
    recover(cramped, reconciler, clock, book)
    for batch, room in enumerate((0, 20_000, 60_000), 2):
        cramped.append(batch, 300)
        steps(reconciler, "recording", partial(disk.fill, room))
        reconciler.tick()
        disk.free()
        assert len(book.history(cramped.pipeline)) == batch, f"{room} bytes are enough"
        work = book.pending(cramped.pipeline)
        assert work is not None
        assert work.faults == 0
        disk.fill()
        clock.jump(seconds=LONGEST_DELAY)
        steps(reconciler, "reading", partial(pytest.fail, "what cannot be kept is not begun"))
        reconciler.tick()
        disk.free()
        reconciler = cramped.reconciler(book)
        recover(cramped, reconciler, clock, book)
        assert len(book.history(cramped.pipeline)) == batch + 1
    assert_evidence(cramped, book)
    assert adds_up(cramped, book)


def test_a_full_disk_delays_a_deployment(cramped: Lab, disk: Disk, clock: Clock) -> None:
    """Full after the verdict, the former champion serves on, and the new one follows with room."""
    book, reconciler = start(cramped)
    settle: Any = book.settle

    def settles(record: Record) -> None:
        settle(record)
        disk.fill()

    book.settle = settles  # type: ignore[method-assign]
    cramped.append(6)
    reconciler.tick()
    book.settle = settle  # type: ignore[method-assign]
    assert told(book, cramped.pipeline)[-1] == ("promoted", 1200)
    reconciler.tick()
    assert serving(cramped) == "1"
    disk.free()
    recover(cramped, reconciler, clock, book)
    assert serving(cramped) == "2"


# -- clocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_set_puts_nothing_off(
    remote: Lab, line: Line, clock: Clock, days: int
) -> None:
    """A day forward or back: what was postponed is tried within the longest delay from there."""
    book, reconciler = start(remote)
    remote.append(1, 300)
    line.fault = lambda *_: "lost"
    for attempt in range(1, 3):
        reconciler.tick()
        work = book.pending(remote.pipeline)
        assert work is not None
        assert work.attempts == attempt
        clock.jump(days=days)
        clock.jump(seconds=LONGEST_DELAY)
    line.fault = all_well
    reconciler.tick()
    assert [rows for _, rows in told(book, remote.pipeline)] == [1200, 300]
    assert book.history(remote.pipeline, 1)[0].delta.rows == 300, "the newest comes first"
    with (
        closing(Ledger(remote.home / "ledger.db")) as other,
        pytest.raises(GiveUp, match="Another retraind"),
    ):
        owner.claim(other, owner.myself(), Event().wait)


WAITS = {"quiet_for": 60.0, "cooldown": 120.0, "max_wait": 600.0}


@pytest.mark.parametrize("days", [-1, 1])
@pytest.mark.parametrize("wait", WAITS)
def test_a_clock_that_is_set_makes_no_wait_longer(
    lab: Lab, clock: Clock, wait: str, days: int
) -> None:
    """However the clock is set, what waits is acted on within the time that is configured."""
    lab.clock = clock
    least = 1000 if wait == "max_wait" else 1
    book, _ = start(lab)
    reconciler = lab.reconciler(book, delta={"min_rows": least, wait: WAITS[wait]})
    lab.append(1, 300)
    reconciler.tick()
    assert book.standing(lab.pipeline).doing.startswith("not now")
    clock.jump(days=days)
    reconciler.tick()
    next_at = book.standing(lab.pipeline).next_at
    assert next_at is None or next_at <= clock() + timedelta(seconds=WAITS[wait])
    clock.jump(seconds=WAITS[wait])
    reconciler.tick()
    assert [rows for _, rows in told(book, lab.pipeline)] == [1200, 300]


# -- Spark -----------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a site of one's own."""
    site = Site(tmp_path)
    yield site
    site.close()


def kill_driver(daemon: subprocess.Popen[str]) -> None:
    """Kill the one JVM of a daemon."""
    (driver,) = [c for c in psutil.Process(daemon.pid).children() if "java" in c.name()]
    driver.kill()


def test_a_dead_driver_is_replaced(site: Site) -> None:
    """When Spark's JVM dies under the daemon, the next tick starts another and work goes on.

    It dies once while nothing is to be done, and once while a delta is open.
    """
    site.run("append", "--rows", "2000")
    daemon = site.start()
    until(lambda: len(site.decisions()) == 1, "the first delta is decided")
    kill_driver(daemon)
    site.run("append", "--rows", "1000", "--batch", "1")
    until(lambda: len(site.decisions()) == 2, "the second delta is decided")
    site.run("append", "--rows", "1500", "--batch", "2")
    until(lambda: site.step().get("name") or len(site.decisions()) == 3, "the third one is open")
    kill_driver(daemon)
    site.run("append", "--rows", "500", "--batch", "3")
    until(lambda: len(site.decisions()) == 4, "all deltas are decided")
    assert [d["rows"] for d in site.decisions()] == [500, 1500, 1000, 2000]
    assert {d["state"] for d in site.decisions()} <= {"promoted", "kept"}
    assert daemon.poll() is None


# -- data files ------------------------------------------------------------------------------


def cut_short(path: Path) -> None:
    """Lose the end of a file."""
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    """Write something else over a file, and remove the checksum that would tell at once."""
    path.write_bytes(bytes(path.stat().st_size))
    path.with_name(f".{path.name}.crc").unlink(missing_ok=True)


def added_by_head(lab: Lab) -> Path:
    """Give the one data file that the newest snapshot added."""
    head = lab.table().head()
    assert head is not None
    (found,) = lab.sql(
        "SELECT data_file.file_path AS path FROM {t}.entries "
        f"WHERE snapshot_id = {head.snapshot_id} AND status = 1"
    )
    return Path(found.path.removeprefix("file:"))


@pytest.mark.parametrize(
    ("mode", "harm"), [("append", cut_short), ("append", Path.unlink), ("merge", overwrite)]
)
def test_a_bad_data_file_stops_nothing_but_its_own_rows(
    lab: Lab, clock: Clock, mode: str, harm: Callable[[Path], None]
) -> None:
    """Attempts are counted, the snapshots beside it are trained on, what follows goes on.

    Once the file is repaired, `retry` has its rows trained on.
    """
    lab.clock = clock
    book, reconciler = start(lab)
    lab.append(1, 300)
    known = cards(Recipe(1200, 0, 0)).slice(0, 1 if mode == "merge" else 0)
    lab.commit(pa.concat_tables([known, cards(Recipe(200, 0, 2))]), mode)
    path, head = added_by_head(lab), lab.table().head()
    whole = path.read_bytes()
    harm(path)
    lab.append(3, 400)
    for _ in range(3 * UNREADABLE_ATTEMPTS):
        reconciler.tick()
        clock.jump(seconds=LONGEST_DELAY)
    (parked,) = book.parked(lab.pipeline)
    assert head is not None
    assert parked.delta.end_id == head.snapshot_id
    assert parked.delta.way == ("changed" if mode == "merge" else "appended")
    assert f"({UNREADABLE_ATTEMPTS} attempts)" in parked.reason
    lab.append(4, 500)
    reconciler.tick()
    assert [rows for state, rows in told(book, lab.pipeline) if state in ("promoted", "kept")] == [
        1200, 300, 400, 500,
    ]  # fmt: skip
    path.write_bytes(whole)
    book.retry(lab.pipeline, "me", [parked])
    reconciler.tick()
    again = book.history(lab.pipeline, 1)[0]
    assert (again.retry_of, again.delta.rows) == (parked.sequence, 200)
    assert again.state in (State.PROMOTED, State.KEPT), again.reason
    assert adds_up(lab, book)


# -- the ledger ------------------------------------------------------------------------------


def test_a_damaged_ledger_is_told_with_the_remedy(site: Site) -> None:
    """Commands and the daemon's start end with a sentence that says what to do, and no traceback.

    A daemon under which it happens goes on looking, and its pages say it, too.
    """
    daemon = site.start()
    path = site.home / "state" / "ledger.db"
    until(lambda: "does not exist (yet)" in str(site.get("/api/status")), "the table is waited for")
    with path.open("r+b") as file:
        file.seek(24)  # the count of changes: what the daemon has read before, it reads again
        file.write(b"\xff")
        file.seek(100)
        file.write(b"\xff" * (path.stat().st_size - 100))
    until(lambda: "is damaged" in str(site.get("/api/status")), "the pages tell it")
    assert site.get("/healthz") == "ok"
    assert daemon.poll() is None
    daemon.kill()
    daemon.wait()
    for command in ("status", "once", "run"):
        told = site.run(command, code=1)
        assert "it is rebuilt from MLflow" in told
        assert "Traceback" not in told

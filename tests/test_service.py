"""The clock and the ladder for stopping, with work that does not notice being asked."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from builders import PIPELINE, TABLE, UUID, close, ledger, park, promote
from conftest import free_port

from config.settings import Pipeline, Settings
from daemon import dashboard, owner, runner, service
from daemon.ledger import Ledger
from daemon.reconcile import Reconciler
from daemon.service import Activity, Clockwork, Service
from daemon.store import NotOwner
from handlers.facts import Delta, GiveUp, State, TryLater

ROOT = Path(__file__).resolve().parent.parent
STUBBORN = """
import sys, threading
from pathlib import Path
from daemon import logs, owner, service
from daemon.ledger import Ledger

class Deaf:
    troubled = False
    def tick(self):
        print("ticking", flush=True)
        threading.Event().wait(60)

logs.configure(to=sys.stderr)
stopping = threading.Event()
book = Ledger(Path(sys.argv[1]))
owner.claim(book, owner.myself(), stopping.wait)
work = service.Clockwork(Deaf(), 60.0, service.Activity(stopping), threading.Lock())
service.Service({"deaf": work}, book, stopping, float(sys.argv[2])).run()
"""


class Ticker:
    """Stands in for a reconciler: counts its ticks."""

    troubled = False

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.ticks = 0
        self.ticked = threading.Event()
        self._then = then

    def tick(self) -> None:
        """Count, and do what the test wants."""
        self.ticks += 1
        self.ticked.set()
        self._then()


def serving(book: Ledger, ticker: Ticker, every: float = 0.05) -> tuple[Service, threading.Event]:
    """Make a service with one pipeline."""
    stopping = threading.Event()
    work = Clockwork(cast("Reconciler", ticker), every, Activity(stopping), threading.Lock())
    return Service({"cards": work}, book, stopping, 5.0), stopping


def stubborn(tmp_path: Path, within: float) -> subprocess.Popen[str]:
    """Start a daemon whose work takes a minute and notices nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(tmp_path / "ledger.db"), str(within)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ticking\n"
    return process


def test_work_that_does_not_end_is_left_at_the_last_rung(tmp_path: Path) -> None:
    """After `stop_within` the process leaves with status 1 and says which work it left."""
    process = stubborn(tmp_path, 1.0)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert 1.0 <= time.monotonic() - began < 15
    last = json.loads(errors.splitlines()[-1])
    assert (last["event"], last["pipelines"]) == ("left_at_last_rung", ["deaf"])


def test_the_second_signal_leaves_at_once(tmp_path: Path) -> None:
    """Who asks twice is not kept waiting, however long `stop_within` is."""
    process = stubborn(tmp_path, 600.0)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "stopping" not in process.stderr.readline():
        pass
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 15


def test_a_pipeline_ticks_at_once_and_again(tmp_path: Path) -> None:
    """The first look is taken at the start, the next ones follow, and none after the stop."""
    ticker = Ticker()
    book = ledger(tmp_path / "ledger.db")
    daemon, _ = serving(book, ticker)
    assert daemon.unready() == ["cards"]
    daemon.start()
    assert ticker.ticked.wait(5)
    ticker.ticked.clear()
    assert ticker.ticked.wait(5)
    daemon.stop()
    assert daemon.unready() == []
    count = ticker.ticks
    time.sleep(0.2)
    assert ticker.ticks == count
    assert book.owner() is None


def test_losing_the_state_stops_the_daemon(tmp_path: Path) -> None:
    """A tick that finds another owner ends the whole daemon, not only itself."""

    def taken() -> None:
        raise NotOwner("process 7 owns it now")

    ticker = Ticker(taken)
    daemon, stopping = serving(ledger(tmp_path / "ledger.db"), ticker, 60.0)
    daemon.start()
    assert stopping.wait(5)
    daemon.stop()


def test_an_error_in_a_tick_does_not_stop_the_clock(tmp_path: Path) -> None:
    """Whatever one tick throws, the next one comes."""
    ticker = Ticker(lambda: 1 / 0)
    daemon, _ = serving(ledger(tmp_path / "ledger.db"), ticker)
    daemon.start()
    end = time.monotonic() + 10
    while ticker.ticks < 3 and time.monotonic() < end:
        ticker.ticked.wait(0.1)
    daemon.stop()
    assert ticker.ticks >= 3


def test_a_look_comes_at_once(tmp_path: Path) -> None:
    """Who announces a commit does not wait for the next poll, and the polls go on afterwards."""
    ticker = Ticker()
    daemon, _ = serving(ledger(tmp_path / "ledger.db"), ticker, 3600.0)
    daemon.look("cards")  # before the start: the first look is one
    daemon.start()
    for _ in range(3):
        assert ticker.ticked.wait(5)
        ticker.ticked.clear()
        daemon.look("cards")
    assert ticker.ticked.wait(5)
    assert daemon._scheduler.get_job("cards").next_run_time is not None
    daemon.stop()
    with pytest.raises(TryLater, match="being stopped"):
        daemon.look("cards")


def test_a_look_asked_for_during_one_follows_it_once(tmp_path: Path) -> None:
    """A commit made while a tick runs may have come too late for it: one more tick sees to it."""
    go_on = threading.Event()
    ticker = Ticker(lambda: go_on.wait(10))
    daemon, _ = serving(ledger(tmp_path / "ledger.db"), ticker, 3600.0)
    daemon.start()
    assert ticker.ticked.wait(5)
    ticker.ticked.clear()
    for _ in range(100):
        daemon.look("cards")
    assert ticker.ticks == 1
    go_on.set()
    assert ticker.ticked.wait(5)
    daemon.stop()
    assert ticker.ticks == 2


def test_no_look_is_lost_however_it_falls(tmp_path: Path) -> None:
    """Asked for at any moment, before, during or right after a tick: a later tick begins."""
    ticker = Ticker()
    daemon, _ = serving(ledger(tmp_path / "ledger.db"), ticker, 3600.0)
    daemon.start()
    assert ticker.ticked.wait(5)
    for pause in range(300):
        ticker.ticked.clear()
        daemon.look("cards")
        assert ticker.ticked.wait(5), f"look {pause} was lost"
        threading.Event().wait(pause % 10 / 10_000)  # so that they fall differently
    daemon.stop()


def test_being_asked_to_stop_reaches_the_work() -> None:
    """Progress is noted until the wish to stop is there; then the work is told to try later."""
    stopping = threading.Event()
    activity = Activity(stopping)
    activity("training", 3, 10)
    assert (activity.step.name, activity.step.done, activity.step.total) == ("training", 3, 10)
    stopping.set()
    with pytest.raises(TryLater, match="asked to stop while training"):
        activity("training", 4, 10)


def test_a_taken_port_is_told() -> None:
    """Two daemons cannot serve their pages on one port; the remedy names the setting."""
    bound = service.bind("127.0.0.1", 0)
    bound.listen()
    with pytest.raises(GiveUp, match=r"127\.0\.0\.1.*http\.port"):
        service.bind("127.0.0.1", bound.getsockname()[1])
    bound.close()


@pytest.fixture
def site(tmp_path: Path) -> Any:
    """Serve the pages of a ledger with a hostile name in it."""
    nasty = "lake.db.<script>alert(1)</script>"
    settings = Settings(
        state_dir=tmp_path, pipelines={"cards": Pipeline(table=nasty, label="y")}
    )  # fmt: skip
    book = ledger(tmp_path / "ledger.db")
    book.looked("cards", None, "waiting: <script>alert(2)</script>")
    waiting = ["cards"]
    steps = {"cards": service.Step("training", 3, 10)}
    bound = service.bind("127.0.0.1", 0)
    pages = dashboard.app(settings, book, lambda: steps, lambda: waiting)
    with service.pages(pages, bound):
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", trust_env=False, timeout=10
        )
        yield client, waiting, steps


def test_the_pages_answer(site: Any) -> None:
    """Health is always well; readiness follows the first look; the page shows the work."""
    client, waiting, _ = site
    assert (client.get("/healthz").status_code, client.get("/healthz").text) == (200, "ok")
    assert client.get("/readyz").status_code == 503
    waiting.clear()
    assert client.get("/readyz").json() == {"ready": True, "waiting": []}
    status = client.get("/api/status").json()
    assert status["activity"]["cards"] == {"name": "training", "done": 3, "total": 10}
    assert client.get("/api/history?pipeline=cards&limit=5").json() == []
    assert "3 of 10" in client.get("/").text


def test_what_needs_a_person_is_on_the_page(site: Any, tmp_path: Path) -> None:
    """A halt, a parked delta and doubts about the champion are told there, with what helps."""
    client, _, _ = site
    with closing(ledger(tmp_path / "ledger.db", owned=False)) as book:
        token = book.one("SELECT token FROM owner")
        assert token is not None
        book._token = token["token"]
        promote(book, 1)
        park(book, 2)
        back = Delta(TABLE, "main", UUID, None, 3, (), note="parted", gone=(2, 1))
        close(book, book.open(PIPELINE, back), State.SKIPPED)
        book.halt(PIPELINE, "snapshot 4 is a <delete>", 4)
        book.pinned(PIPELINE, "2 tag(s) keep <them>")
    page = client.get("/").text
    for told in (
        "halted: snapshot 4 is a &lt;delete&gt;; <code>retraind resume cards</code> lets it pass",
        "up to 100 rows it learnt from, in 1 snapshot(s), were rolled back",
        "2 tag(s) keep &lt;them&gt;",
        'deltas/2">2</a></td><td class="num">100</td><td class="why">parked: because the test',
    ):
        assert told in page


def test_what_is_shown_is_escaped(site: Any) -> None:
    """Names and errors come from outside: none of them becomes markup, and no script may run."""
    client, _, steps = site
    steps.clear()
    page = client.get("/")
    assert "&lt;script&gt;alert(1)" in page.text
    assert "&lt;script&gt;alert(2)" in page.text
    assert page.text.count("<script") == 1
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; ")
    assert "unsafe" not in policy


def test_the_pages_answer_before_the_state_is_owned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health is told from the first second: while the former owner is watched, too."""
    claiming, go_on = threading.Event(), threading.Event()

    def claim(*_: object) -> None:
        claiming.set()
        go_on.wait(10)
        raise GiveUp("Another one acts.")

    monkeypatch.setattr(owner, "claim", claim)
    port = free_port()
    settings = Settings.model_validate(
        {"state_dir": tmp_path, "http": {"port": port}, "pipelines": {"cards": {
            "table": TABLE, "label": "fraud"}}}
    )  # fmt: skip

    def run() -> None:
        with pytest.raises(GiveUp):
            runner.run(settings)

    daemon = threading.Thread(target=run)
    daemon.start()
    assert claiming.wait(10)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert client.get("/healthz").text == "ok"
        assert client.get("/readyz").json() == {"ready": False, "waiting": ["cards"]}
        assert client.get("/").status_code == 200
    go_on.set()
    daemon.join()

"""Changes are told as they come, cost nothing while there are none, and keep no daemon alive."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import PIPELINE, close, delta, ledger, model, promote

from config.settings import Pipeline, Settings
from daemon import dashboard, service, stream, watch
from daemon.ledger import Ledger
from daemon.service import Step
from daemon.watch import Watch
from handlers.facts import State

ROOT = Path(__file__).resolve().parent.parent
DAEMON = """
import sys, threading
from pathlib import Path
from config.settings import Pipeline, Settings
from daemon import dashboard, logs, owner, service
from daemon.ledger import Ledger

logs.configure(to=sys.stderr)
stopping = threading.Event()
book = Ledger(Path(sys.argv[1]))
owner.claim(book, owner.myself(), stopping.wait)
settings = Settings(pipelines={"cards": Pipeline(table="lake.bank.cards", label="fraud")})
bound = service.bind("127.0.0.1", 0)
with service.pages(dashboard.app(settings, book, dict, list), bound):
    print(bound.getsockname()[1], flush=True)
    service.Service({}, book, stopping, 5.0).run()
"""


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Give a ledger with a champion."""
    with closing(ledger(tmp_path / "ledger.db")) as book:
        promote(book, 1)
        yield book


@pytest.fixture
def steps() -> dict[str, Step]:
    """Give what the pipeline does."""
    return {PIPELINE: Step()}


@pytest.fixture
def client(book: Ledger, steps: dict[str, Step]) -> Iterator[httpx.Client]:
    """Give a client of the pages."""
    settings = Settings(pipelines={PIPELINE: Pipeline(table="lake.bank.cards", label="fraud")})
    bound = service.bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    pages = dashboard.app(settings, book, lambda: dict(steps), list)
    with service.pages(pages, bound), httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@contextmanager
def listening(client: httpx.Client, last: str = "") -> Iterator[Iterator[str]]:
    """Give the lines of a stream of events."""
    with client.stream("GET", "/api/events", headers={"Last-Event-ID": last}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        yield answer.iter_lines()


def told(lines: Iterator[str]) -> dict[str, Any]:
    """Wait for the next event; gives its data."""
    line = next(line for line in lines if line.startswith("data:"))
    found: dict[str, Any] = json.loads(line.removeprefix("data:"))
    return found


def test_a_change_is_told_as_it_comes(
    client: httpx.Client, book: Ledger, steps: dict[str, Step]
) -> None:
    """Of the ledger, by whichever process, and of what a pipeline does; each with its kind."""
    with listening(client) as lines:
        first = told(lines)
        assert set(first["changed"]) == {"ledger", "activity"}
        steps[PIPELINE] = Step("training", 3, 10)
        moved = told(lines)
        assert moved["changed"] == ["activity"]
        assert moved["activity"][PIPELINE] == {"name": "training", "done": 3, "total": 10}
        with closing(ledger(book.path, owned=False)) as other:
            other.pause(PIPELINE, "ann", "x")
        assert told(lines)["changed"] == ["ledger"]
        book.resume(PIPELINE, "ann")
        assert told(lines)["changed"] == ["ledger"]


def test_who_comes_back_is_told_what_was_missed(client: httpx.Client, book: Ledger) -> None:
    """With the last version seen nothing is told twice, and what came meanwhile at once."""
    with listening(client) as lines:
        last = told(lines)["version"]
    with listening(client, last) as lines:
        assert next(lines) == "retry: 2000"
        book.pause(PIPELINE, "ann", "x")
        now = told(lines)["version"]
        assert now != last
    with listening(client, last) as lines:
        assert told(lines)["version"] == now


def test_silence_is_filled(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment now and then keeps proxies from closing the connection."""
    monkeypatch.setattr(stream, "SIGN_OF_LIFE", 0.5)
    with listening(client) as lines:
        told(lines)
        assert next(line for line in lines if line.startswith(":")) == ": nothing new"


def test_the_version_is_for_those_who_poll(client: httpx.Client, book: Ledger) -> None:
    """Who has the present one is told so, without a body; any change makes another."""
    first = client.get("/api/version")
    tag = first.headers["etag"]
    assert tag == f'"{first.json()["version"]}"'
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        same = client.get("/api/version", headers={"If-None-Match": known})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    book.pause(PIPELINE, "ann", "x")
    until(lambda: client.get("/api/version", headers={"If-None-Match": tag}).status_code == 200)


def until(met: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 10
    while not met():
        assert time.monotonic() < end
        threading.Event().wait(0.02)


def test_every_write_that_is_shown_changes_the_version(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever daemon or operator notes; but no heartbeat, which nobody is shown."""
    monkeypatch.setattr(watch, "FRESH", 0.0)
    waiting = ["cards"]
    seen = Watch(book, dict, lambda: list(waiting))
    versions = [seen.now().version]
    for write in (
        lambda: book.looked(PIPELINE, None, "waiting"),
        lambda: book.pinned(PIPELINE, "2 tags"),
        lambda: book.open(PIPELINE, delta(2)),
        lambda: book.postpone(book.pending(PIPELINE), "down", book.clock()),  # type: ignore[arg-type]
        lambda: close(book, book.pending(PIPELINE), State.PARKED),  # type: ignore[arg-type]
        lambda: book.deploying(PIPELINE, "1"),
        lambda: book.deployed(PIPELINE, "1", "fine"),
        lambda: book.halt(PIPELINE, "x", 9),
        lambda: book.resume(PIPELINE, "ann"),
        lambda: book.retry(PIPELINE, "ann", book.parked(PIPELINE)),
        lambda: book.rollback(PIPELINE, "ann", model(2), "x"),
        lambda: book.refuse(PIPELINE, model(2), "differs"),
        waiting.clear,
    ):
        write()
        versions.append(seen.now().version)
        book.beat()
        assert seen.now().version == versions[-1]
    assert len(set(versions)) == len(versions)


def test_open_streams_do_not_hold_up_the_end(tmp_path: Path) -> None:
    """A daemon with listeners stops as soon as one without, and ends their streams in order."""
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(tmp_path / "ledger.db")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=20) as client,
        listening(client) as lines,
        listening(client) as others,
    ):
        told(lines)
        told(others)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert not [line for line in [*lines, *others] if line.startswith("data:")]
        _, errors = process.communicate(timeout=20)
    spent = time.monotonic() - began
    print(f"ended after {spent:.2f} s")  # noqa: T201 (shown by -rP)
    assert (process.returncode, spent < 4) == (0, True), errors
    assert "rror" not in errors

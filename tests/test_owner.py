"""At most one daemon acts on a state, and a dead one is in nobody's way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from builders import PIPELINE, UUID, delta, dump, ledger, model, moment, park, promote, record
from sites import until

from daemon import owner, runner
from daemon.ledger import Ledger
from daemon.store import NotOwner, Owner, now
from handlers.facts import Cursor, GiveUp, State

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = """
import sys, threading
from pathlib import Path
from daemon import owner
from daemon.ledger import Ledger

book = Ledger(Path(sys.argv[1]))
owner.claim(book, owner.myself("http://127.0.0.1:8090"), threading.Event().wait)
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the place of a ledger."""
    return tmp_path / "ledger.db"


@pytest.fixture
def book(path: Path) -> Iterator[Ledger]:
    """Give a ledger that nobody owns."""
    with closing(ledger(path, owned=False)) as book:
        yield book


@pytest.fixture
def other(path: Path) -> Iterator[Ledger]:
    """Give another process's view of the same ledger."""
    with closing(ledger(path, owned=False)) as other:
        yield other


@pytest.fixture
def daemon(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that owns the state."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIMS, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


def claim(book: Ledger, wait: Callable[[float], object] | None = None) -> Owner:
    """Claim the state for this process; nobody is waited for unless the test says how."""

    def nobody(seconds: float) -> None:
        pytest.fail(f"waited {seconds} s")

    return owner.claim(book, owner.myself(), wait or nobody)


def elsewhere(book: Ledger, age: timedelta = timedelta()) -> Owner:
    """Let a daemon on another host own the state; its clock differs by `age`."""
    me = replace(owner.myself(), host="elsewhere", pid=1, beat_at=now() - age)
    assert book.claim(me, book.owner())
    with book.write() as db:
        db.execute("UPDATE owner SET beat_at = ?", (me.beat_at.isoformat(),))
    return me


def test_a_free_state_is_claimed_at_once(book: Ledger) -> None:
    """Whoever comes first owns the state and may write."""
    me = claim(book)
    found = book.owner()
    assert found is not None
    assert (found.token, found.pid, found.host) == (me.token, os.getpid(), socket.gethostname())
    book.beat()
    promote(book, 1)


def test_a_living_daemon_is_not_displaced(book: Ledger, daemon: subprocess.Popen[str]) -> None:
    """While the owner's process lives the claim is refused, with its pid and a remedy."""
    before = dump(book)
    with pytest.raises(GiveUp, match=f"process {daemon.pid} on {socket.gethostname()}") as refused:
        claim(book)
    assert "state_dir" in refused.value.remedy
    assert dump(book) == before
    found = owner.living(book)
    assert found is not None
    assert (found.pid, found.url) == (daemon.pid, "http://127.0.0.1:8090")


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_daemon_is_replaced_at_once(
    book: Ledger, daemon: subprocess.Popen[str], *, reaped: bool
) -> None:
    """After `kill -9` nobody waits, even while a zombie of the process is left."""
    daemon.kill()
    if reaped:
        daemon.wait()
    else:
        while psutil.Process(daemon.pid).status() != psutil.STATUS_ZOMBIE:
            threading.Event().wait(0.01)
    assert owner.living(book) is None
    claim(book)
    promote(book, 1)


def test_a_single_look_beats_as_long_as_it_works(
    book: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that trains for minutes is no dead owner; one that lost the state is told to stop."""
    monkeypatch.setattr(owner, "BEAT_EVERY", 0.01)
    stopping = threading.Event()
    before = claim(book).beat_at
    with runner._beating(book, stopping):
        until(lambda: _owner(other).beat_at > before, "it beats")
        assert other.claim(replace(owner.myself(), host="elsewhere", pid=7), other.owner())
        assert stopping.wait(5)


def _owner(book: Ledger) -> Owner:
    found = book.owner()
    assert found is not None
    return found


def test_a_pid_given_to_another_program_is_no_daemon(book: Ledger, other: Ledger) -> None:
    """The same pid with another start is another process."""
    earlier = replace(owner.myself(), started=owner.myself().started - 100)
    assert other.claim(earlier, None)
    assert owner.living(book) is None
    claim(book)


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_setting_the_clock_hides_no_daemon(
    book: Ledger, daemon: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """A clock that is set moves the moments at which the machine and its processes started."""
    boot = psutil.boot_time()
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: boot + seconds)
    with pytest.raises(GiveUp, match=f"process {daemon.pid}"):
        claim(book)
    assert owner.living(book) is not None


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(0), timedelta(hours=1)])
def test_a_daemon_on_another_host_is_seen_by_its_heartbeat(
    book: Ledger, other: Ledger, skew: timedelta
) -> None:
    """As soon as the heartbeat moves the claim is refused, however the clocks differ."""
    elsewhere(other, skew)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            other.beat()

    with pytest.raises(GiveUp, match="process 1 on elsewhere"):
        claim(book, wait)
    assert len(waits) == 2


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(0), timedelta(hours=1)])
def test_a_dead_daemon_on_another_host_is_replaced_after_a_while(
    book: Ledger, other: Ledger, skew: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat that stands still for `DEAD_AFTER` is dead, however the clocks differ."""
    elsewhere(other, skew)
    clock = 0.0

    def wait(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    monkeypatch.setattr(owner, "monotonic", lambda: clock)
    claim(book, wait)
    assert clock == pytest.approx(owner.DEAD_AFTER)
    promote(book, 1)


def test_a_daemon_that_leaves_while_it_is_watched_is_replaced_at_once(
    book: Ledger, other: Ledger
) -> None:
    """A former owner that gives the state up need not be watched to its end."""
    elsewhere(other)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        other.release()

    me = claim(book, wait)
    assert len(waits) == 1
    found = book.owner()
    assert found is not None
    assert found.token == me.token


def test_a_third_one_may_be_faster(path: Path, book: Ledger, other: Ledger) -> None:
    """Who watches a dead owner is refused when somebody else replaces it meanwhile."""
    elsewhere(other)
    with closing(ledger(path, owned=False)) as third:

        def wait(seconds: float) -> None:  # noqa: ARG001 (time passes)
            me = replace(owner.myself(), host="third", pid=3)
            assert third.claim(me, third.owner())

        with pytest.raises(GiveUp, match="process 3 on third"):
            claim(book, wait)
        third.beat()


def test_pages_take_an_old_heartbeat_for_dead(book: Ledger, other: Ledger) -> None:
    """What the pages show of another host's daemon depends on its last heartbeat."""
    me = elsewhere(other)
    late = timedelta(seconds=owner.DEAD_AFTER)
    assert owner.living(book, me.beat_at + late / 2) == me
    assert owner.living(book, me.beat_at + late) is None


@pytest.mark.parametrize("former", ["none", "dead", "elsewhere"])
def test_of_many_claims_exactly_one_wins(
    path: Path, former: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many start at the same moment, one becomes the owner and all others are told."""
    monkeypatch.setattr(owner, "DEAD_AFTER", 0.05)
    count = 6
    together = threading.Barrier(count)
    won: list[str] = []
    refused: list[str] = []

    def start(book: Ledger) -> None:
        together.wait()
        try:
            won.append(claim(book, threading.Event().wait).token)
        except GiveUp as error:
            refused.append(error.what)

    with ExitStack() as stack:
        books = [stack.enter_context(closing(ledger(path, owned=False))) for _ in range(count)]
        if former == "dead":
            assert books[0].claim(replace(owner.myself(), started=1.0), None)
        elif former == "elsewhere":
            elsewhere(books[0])
        threads = [threading.Thread(target=start, args=[book]) for book in books]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = books[0].owner()
    assert found is not None
    assert won == [found.token]
    assert len(refused) == count - 1


RACE = """
import os, sys, threading
from pathlib import Path
from daemon import owner
from daemon.ledger import Ledger
from handlers.facts import GiveUp

path, count = Path(sys.argv[1]), int(sys.argv[2])
starts, go = os.pipe()
stays, leave = os.pipe()
for _ in range(count):
    if os.fork() == 0:
        os.close(go)
        os.close(leave)
        os.read(starts, 1)
        try:
            book = Ledger(path)
            owner.claim(book, owner.myself(), threading.Event().wait)
            told = f"won {os.getpid()}"
        except GiveUp as error:
            told = f"refused {error.what}"
        os.write(1, f"{told}\\n".encode())  # one line at a time, as `print` need not
        os.read(stays, 1)
        os._exit(0)
os.close(go)
sys.stdin.readline()
os.close(leave)
"""


def test_of_many_processes_exactly_one_wins(path: Path) -> None:
    """The same among processes, on a state that none of them has seen before."""
    count = 4
    with subprocess.Popen(
        [sys.executable, "-c", RACE, str(path), str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = [process.stdout.readline().split(" ", 1) for _ in range(count)]
        process.communicate("\n")
    winners = [text.strip() for word, text in lines if word == "won"]
    refused = [text for word, text in lines if word == "refused"]
    assert len(winners) == 1, lines
    assert len(refused) == count - 1
    assert all(f"process {winners[0]} on" in text for text in refused)


def test_who_lost_the_state_changes_nothing_any_more(book: Ledger, other: Ledger) -> None:
    """A daemon that was taken for dead finds out at its next write, whichever it is."""
    claim(book)
    parked = park(book, 1)
    promote(book, 2)
    work = book.open(PIPELINE, delta(3))
    assert other.claim(replace(owner.myself(), host="elsewhere", pid=7), other.owner())
    calls: list[Callable[[], object]] = [
        book.beat,
        lambda: book.looked(PIPELINE, Cursor(UUID, 9), "idle"),
        lambda: book.open(PIPELINE, delta(4)),
        lambda: book.postpone(work, "an outage", moment()),
        lambda: book.settle(record(work, State.PROMOTED, 3, "2")),
        lambda: book.settle(record(work, State.PROMOTED, 3, "stale")),
        lambda: book.restore([replace(parked, sequence=77)], model(2)),
        lambda: book.deployed(PIPELINE, "2", "answers"),
        lambda: book.refuse(PIPELINE, model(2), "differs"),
    ]
    before = dump(book)
    for call in calls:
        with pytest.raises(NotOwner, match="process 7 on elsewhere owns it now"):
            call()
    assert dump(book) == before
    other.settle(record(work, State.SKIPPED))


def test_operators_need_not_own_the_state(book: Ledger, other: Ledger) -> None:
    """Commands write beside a running daemon, and beside none."""
    claim(book)
    parked = park(book, 1)
    promote(book, 2)
    other.pause(PIPELINE, "ann", "")
    book.release()
    other.resume(PIPELINE, "ann")
    other.rollback(PIPELINE, "ann", model(2), "")
    other.retry(PIPELINE, "ann", [parked])
    assert len(other.audit()) == 4


def test_nobody_acts_on_a_state_without_an_owner(book: Ledger) -> None:
    """Who never claimed the state cannot write as a daemon."""
    with pytest.raises(NotOwner, match="it has none"):
        book.open(PIPELINE, delta(1))


def test_a_release_frees_the_state(book: Ledger, other: Ledger) -> None:
    """After an orderly end the next daemon starts at once, even on another host."""
    claim(book)
    book.release()
    assert book.owner() is None
    claim(other)
    with pytest.raises(NotOwner):
        book.beat()


def test_a_release_takes_nothing_from_another(book: Ledger, other: Ledger) -> None:
    """Who lost the state, or never had it, releases nothing."""
    other.release()
    claim(book)
    assert other.claim(owner.myself(), other.owner())
    owned = other.owner()
    book.release()
    book.release()
    assert other.owner() == owned
    other.beat()

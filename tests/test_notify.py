"""Who is told what: once, never late for the daemon, and without a secret in any word."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import structlog
from builders import PIPELINE, close, delta, ledger, lived, park, promote, record
from conftest import free_port
from inbox import SECRET, Inbox
from typer.testing import CliRunner

from config.loading import load
from config.notify import Notify
from config.settings import ConfigError
from daemon import composition, logs, news
from daemon import notifier as notifier_module
from daemon.__main__ import cli
from daemon.ledger import Ledger
from daemon.notifier import MOST_ATTEMPTS, Notifier
from handlers.facts import State
from handlers.herald import targets

LINK = "https://retraind.example.com"


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """Give a server that takes messages."""
    with closing(Inbox()) as inbox:
        yield inbox


class Site:
    """A ledger whose news are told; its clock goes on as the test says."""

    def __init__(self, home: Path, *urls: str, **wanted: Any) -> None:
        self.home = home
        self.urls = urls
        self.wanted = Notify.model_validate({"urls": urls, **wanted})
        self.ahead = timedelta()
        self.begin()

    def now(self) -> datetime:
        """Give the time of this ledger."""
        return datetime.now(timezone.utc) + self.ahead

    def begin(self) -> None:
        """Start a daemon's life."""
        self.book = ledger(self.home / "ledger.db")
        self.book.clock = self.now
        told = targets(url.get_secret_value() for url in self.wanted.urls)
        self.notifier = Notifier(self.wanted, [PIPELINE], self.book, told, LINK)
        self.notifier.round()

    def restart(self) -> None:
        """End it as a kill does, and start another."""
        self.book.close()
        self.begin()

    def later(self, **span: float) -> None:
        """Let time pass, and go round."""
        self.ahead += timedelta(**span)
        self.notifier.round()

    def decide(self, number: int, state: State, version: int | None = None, **more: Any) -> None:
        """Close a delta now."""
        champion = self.book.champion(PIPELINE)
        against = champion.model.version if champion else None
        work = self.book.open(PIPELINE, delta(number))
        closed = record(work, state, version, against)
        self.book.settle(replace(closed, closed_at=self.now(), **more))

    def serve(self, version: int) -> None:
        """Let the endpoint be level."""
        self.book.deployed(PIPELINE, str(version), "answers")


@pytest.fixture
def open_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Give what makes the site of a test."""
    made: list[Site] = []

    def make(*urls: str, **wanted: Any) -> Site:
        made.append(Site(tmp_path, *urls, **wanted))
        return made[-1]

    yield make
    for site in made:
        site.book.close()


Open = Callable[..., Site]


def test_a_decision_is_told_once_with_its_sentence_and_the_link(
    open_site: Open, inbox: Inbox
) -> None:
    """However often one goes round, and after a restart, it is told once."""
    site = open_site(inbox.url)
    site.decide(1, State.PROMOTED, 1)
    site.serve(1)
    site.decide(2, State.PARKED)
    for _ in range(3):
        site.notifier.round()
    site.restart()
    site.notifier.round()
    promoted, parked = inbox.texts
    assert promoted.splitlines()[0] == "retraind, cards: another champion"
    assert "version 1: promoted: because the test says so" in promoted
    assert promoted.endswith(LINK)
    assert "Delta 2 is parked: parked: because the test says so" in parked


def test_what_was_decided_before_is_no_news(tmp_path: Path, inbox: Inbox) -> None:
    """Nobody is flooded by the past when telling begins; an open delta counts once it is closed."""
    with closing(ledger(tmp_path / "ledger.db")) as book:
        promote(book, 1)
        book.deployed(PIPELINE, "1", "answers")
        park(book, 2)
        book.open(PIPELINE, delta(3))
    site = Site(tmp_path, inbox.url)
    with closing(site.book):
        work = site.book.pending(PIPELINE)
        assert work is not None
        site.book.settle(replace(record(work, State.PARKED), closed_at=site.now()))
        site.notifier.round()
    assert [text.splitlines()[1].split(":")[0] for text in inbox.texts] == ["Delta 3 is parked"]


def test_a_kill_before_it_is_sent_loses_nothing(open_site: Open, inbox: Inbox) -> None:
    """What was decided just before the end is told by the next life."""
    site = open_site(inbox.url)
    site.decide(1, State.PARKED)
    site.restart()
    assert len(inbox.got) == 1


def test_challengers_that_keep_losing_are_told_in_one(open_site: Open, inbox: Inbox) -> None:
    """`kept` is told after so many in a row, and again after as many; a promotion begins anew."""
    site = open_site(inbox.url, events=["kept"], kept_in_row=3)
    site.decide(1, State.PROMOTED, 1)
    for number in range(2, 9):
        site.decide(number, State.KEPT, number)
        site.notifier.round()
    site.decide(9, State.PROMOTED, 9)
    for number in (10, 11):
        site.decide(number, State.KEPT, number)
    site.notifier.round()
    told = [text.splitlines()[1].split(":")[0] for text in inbox.texts]
    assert told == ["3 in a row; delta 4", "6 in a row; delta 7"]


def test_degraded_and_recovered_are_told_once_each(open_site: Open, inbox: Inbox) -> None:
    """An alarm that goes on is told once, and its end once, across a restart."""
    site = open_site(inbox.url, events=["degraded", "recovered"])
    site.decide(1, State.PROMOTED, 1)
    site.serve(1)
    for number in (2, 3):
        site.decide(number, State.KEPT, number, live=lived(1, 0.5, alarm=50.0))
        site.notifier.round()
        site.restart()
    site.decide(4, State.PROMOTED, 4, live=lived(1, 0.5, alarm=50.0))
    site.serve(4)
    for _ in range(2):
        site.notifier.round()
    degraded, recovered = inbox.texts
    assert "Champion 1 does worse on live rows than it promised" in degraded
    assert recovered.splitlines()[0] == "retraind, cards: recovered"


def test_a_rollback_and_a_fall_back_are_told(open_site: Open, inbox: Inbox) -> None:
    """Who brought a version back and why is told, and what a failed deployment led to."""
    site = open_site(inbox.url, events=["rolled_back"])
    models = []
    for number in (1, 2):
        site.decide(number, State.PROMOTED, number)
        champion = site.book.champion(PIPELINE)
        assert champion is not None
        models.append(champion.model)
    site.book.rollback(PIPELINE, "ann", models[0], "answers oddly")
    site.book.refuse(PIPELINE, models[0], "differs")
    site.notifier.round()
    assert "Rolled back, version 1 is champion: answers oddly" in inbox.texts[0]
    assert "Fell back, version 2 is champion: differs" in inbox.texts[1]
    assert len(inbox.texts) == 2


def test_what_is_stuck_is_told_when_it_is_old_enough(open_site: Open, inbox: Inbox) -> None:
    """A delta and a deployment that fail for long are told, and their recovery; short ones not."""
    site = open_site(inbox.url, events=["stuck", "recovered"], stuck_after="10m")
    site.decide(1, State.PROMOTED, 1)
    site.later(minutes=9)
    site.serve(1)
    site.later(minutes=9)
    assert inbox.texts == []
    work = site.book.open(PIPELINE, delta(2))
    site.book.postpone(work, "MLflow is out.", site.now())
    site.later(minutes=9)
    site.restart()
    assert inbox.texts == []
    site.later(minutes=2)
    site.later(minutes=2)
    assert "Delta 2 failed 1 times: MLflow is out." in inbox.texts[0]
    close(site.book, work, State.SKIPPED)
    site.notifier.round()
    site.later(minutes=1)
    assert "Delta 2 is closed." in inbox.texts[1]
    assert len(inbox.texts) == 2


def test_a_deployment_that_fails_for_long_is_told(open_site: Open, inbox: Inbox) -> None:
    """What keeps it is told with it; its end as well, by whichever version it comes."""
    site = open_site(inbox.url, events=["stuck", "recovered"], stuck_after="10m")
    site.decide(1, State.PROMOTED, 1)
    site.book.looked(PIPELINE, None, "waiting; the port is taken")
    site.notifier.round()
    site.later(minutes=11)
    site.later(minutes=11)
    assert "Version 1 should serve, and could not be proven to: waiting; the port" in inbox.texts[0]
    site.decide(2, State.PROMOTED, 2)
    site.serve(2)
    site.notifier.round()
    assert "Version 1 serves, or another one should." in inbox.texts[1]
    assert len(inbox.texts) == 2


def test_what_nobody_wants_to_hear_is_not_told(open_site: Open, inbox: Inbox) -> None:
    """Events that are not listed are never told, nor the recovery from them."""
    site = open_site(inbox.url, events=["parked", "recovered"], stuck_after="1s")
    site.decide(1, State.PROMOTED, 1)
    site.later(minutes=5)
    site.serve(1)
    site.later(minutes=5)
    assert inbox.texts == []


def test_a_flood_is_one_message(open_site: Open, inbox: Inbox) -> None:
    """No more messages an hour than allowed: the last one tells all the rest, or they wait."""
    site = open_site(inbox.url, most_per_hour=3)
    for number in range(1, 7):
        site.decide(number, State.PARKED)
    site.notifier.round()
    assert len(inbox.got) == 3
    assert inbox.texts[2].startswith("retraind, cards: 4 things happened\n- Delta 3 is parked")
    site.decide(7, State.PARKED)
    site.later(minutes=30)
    site.restart()
    assert len(inbox.got) == 3
    site.later(minutes=31)
    assert len(inbox.got) == 4
    assert "Delta 7" in inbox.texts[3]


@pytest.mark.parametrize(
    ("count", "left", "parts"),
    [(0, 5, []), (3, 5, [1, 1, 1]), (3, 3, [1, 1, 1]), (5, 3, [1, 1, 3]), (5, 1, [5]), (5, 0, []),
     (2, -1, [])],
)  # fmt: skip
def test_how_notices_are_bundled(count: int, left: int, parts: list[int]) -> None:
    """All are in some message, and there are no more messages than are left."""
    assert news.bundles(count, left) == parts


def test_a_receiver_that_is_down_gets_it_when_it_is_up(open_site: Open, inbox: Inbox) -> None:
    """It is tried again, less and less often; who took it already gets it once."""
    port = free_port()
    down = f"json://ann:{SECRET}@127.0.0.1:{port}/"
    site = open_site(inbox.url, down)
    site.decide(1, State.PARKED)
    site.notifier.round()
    site.notifier.round()
    assert len(inbox.got) == 1
    site.later(seconds=11)
    site.restart()
    with closing(Inbox(port)) as second:
        site.later(minutes=2)
        site.later(minutes=2)
        assert len(second.got) == 1
    assert len(inbox.got) == 1


def test_who_has_a_part_of_it_is_told_the_rest(open_site: Open, inbox: Inbox) -> None:
    """Where one message tells several things, each target gets those that it does not have."""
    port = free_port()
    site = open_site(inbox.url, f"json://127.0.0.1:{port}/", most_per_hour=2)
    site.decide(1, State.PARKED)
    site.notifier.round()
    site.later(seconds=11)
    for number in (2, 3):
        site.decide(number, State.PARKED)
    with closing(Inbox(port)) as second:
        site.later(minutes=10)
    assert second.texts[0].count("\n- Delta") == 3
    assert inbox.texts[1].count("\n- Delta") == 2
    assert "Delta 1" not in inbox.texts[1]


def test_a_receiver_that_stays_down_is_given_up(
    open_site: Open, inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """After some attempts it gets no more of that message; each is one event without a secret."""
    site = open_site(inbox.url)
    inbox.status = 500
    stream = io.StringIO()
    logs.configure(to=stream)
    site.decide(1, State.PARKED)
    for _ in range(MOST_ATTEMPTS + 3):
        site.later(hours=1)
    structlog.reset_defaults()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["event"] for line in lines} == {"not_notified"}
    assert [line["given_up"] for line in lines] == [False] * (MOST_ATTEMPTS - 1) + [True]
    assert lines[0]["targets"] == ["1 (JSON)"]
    assert SECRET not in stream.getvalue() + "".join(capsys.readouterr())
    inbox.status = 200
    site.decide(2, State.PARKED)
    site.notifier.round()
    assert len(inbox.got) == 1


def test_nobody_to_be_told_leaves_nothing_behind(tmp_path: Path, inbox: Inbox) -> None:
    """Without addresses nothing is kept, so that what happens then is no news later."""
    path = tmp_path / "retraind.yaml"
    base = f"state_dir: {tmp_path}\npipelines: {{cards: {{table: a.b.c, label: y}}}}\n"
    path.write_text(base, encoding="utf-8")
    site = Site(tmp_path, inbox.url)
    with closing(site.book):
        assert composition.notifier(load(path), site.book) is None
        site.decide(1, State.PARKED)
        site.notifier.round()
        assert inbox.texts == []


@contextmanager
def threaded(notifier: Notifier) -> Iterator[None]:
    """Let it run as the daemon does."""
    done = threading.Event()
    thread = threading.Thread(target=notifier.run, args=[done], daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(10)
        assert not thread.is_alive()


def eventually(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        threading.Event().wait(0.02)


def test_a_slow_receiver_delays_no_decision(
    open_site: Open, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a message is on its way, the ledger is free: decisions are taken as without it."""
    monkeypatch.setattr(notifier_module, "LOOK_EVERY", 0.05)
    site = open_site(inbox.url)
    with threaded(site.notifier):
        inbox.go_on.clear()
        site.decide(1, State.PARKED)
        eventually(lambda: site.book.one("SELECT 1 FROM notices"))
        began = time.monotonic()
        for number in range(2, 12):
            site.decide(number, State.PARKED)
        assert time.monotonic() - began < 2
        assert inbox.got == []
        inbox.go_on.set()
        eventually(lambda: len(inbox.got) >= 11)
    assert len(inbox.got) == 11


def test_it_ends_where_another_process_acts(open_site: Open, inbox: Inbox) -> None:
    """Who lost the state tells nobody anything any more."""
    site = open_site(inbox.url)
    site.decide(1, State.PARKED)
    with closing(Ledger(site.home / "ledger.db")) as other, other.write(owned=False) as db:
        db.execute("UPDATE owner SET token = 'another'")
    assert site.notifier.attempt() is False
    assert inbox.got == []


# -- secrets -------------------------------------------------------------------------------------

BASE = "pipelines: {cards: {table: a.b.c, label: y}}\n"


@pytest.mark.parametrize(
    "text",
    [
        f"notify: {{urls: 'json://{SECRET}'}}\n",
        f"notify: {{urls: [['json://{SECRET}']]}}\n",
        f"notify: 'json://{SECRET}'\n",
        f"notify: ['json://{SECRET}']\n",
        f"notify: {{urls: ['json://{SECRET}'], link: {SECRET}}}\n",
        f"notify: {{urls: ['json://{SECRET}\n",
        f"notify: {{urls: [json://{SECRET}]]]}}\n",
        "notify: {urls: ['json://${NOT_SET}/x']}\n",
    ],
)
def test_a_mistake_shows_no_secret(text: str, tmp_path: Path) -> None:
    """Whatever is wrong near the addresses, the message has the place and not the value."""
    path = tmp_path / "retraind.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert SECRET not in str(caught.value)
    assert "notify" in str(caught.value) or "line" in str(caught.value)


def test_addresses_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, as a JSON list, or a part of one where its name stands; neither is ever printed."""
    path = tmp_path / "retraind.yaml"
    path.write_text(BASE + "notify: {urls: ['json://a:${PASS}@b/']}\n", encoding="utf-8")
    monkeypatch.setenv("PASS", SECRET)
    found = load(path)
    assert found.notify.urls[0].get_secret_value() == f"json://a:{SECRET}@b/"
    assert SECRET not in repr(found) + str(found) + found.model_dump_json()
    monkeypatch.setenv("RETRAIND_NOTIFY__URLS", f'["json://c/{SECRET}"]')
    assert load(path).notify.urls[0].get_secret_value() == f"json://c/{SECRET}"
    monkeypatch.setenv("RETRAIND_NOTIFY__URLS", f"json://c/{SECRET}")
    with pytest.raises(ConfigError, match="RETRAIND_NOTIFY__URLS") as caught:
        load(path)
    assert SECRET not in str(caught.value)


def call(path: Path, *words: str) -> tuple[int, str]:
    """Run a command; gives its status and all it prints."""
    done = CliRunner().invoke(cli, [*words, "--config", str(path)])
    structlog.reset_defaults()
    return done.exit_code, done.output + str(done.exception or "")


def test_a_test_message_says_who_did_not_take_it(tmp_path: Path, inbox: Inbox) -> None:
    """Each target has its line, by place and service; one that fails makes the status 1."""
    path = tmp_path / "retraind.yaml"
    dead = f"json://ann:{SECRET}@127.0.0.1:{free_port()}/"
    urls = [inbox.url, dead, f"nonsense-{SECRET}"]
    path.write_text(
        f"state_dir: {tmp_path}\n{BASE}notify: {{urls: {json.dumps(urls)}}}\n", encoding="utf-8"
    )
    status, told = call(path, "notify-test", "--json")
    assert status == 1
    found = json.loads(told[: told.rindex("]") + 1])
    assert [(one["what"], one["ok"]) for one in found] == [
        ("target 1 (JSON)", True), ("target 2 (JSON)", False), ("target 3 (unknown)", False),
    ]  # fmt: skip
    assert SECRET not in told
    assert len(inbox.got) == 1
    path.write_text(
        f"state_dir: {tmp_path}\n{BASE}notify: {{urls: {json.dumps(urls[:1])}}}\n",
        encoding="utf-8",
    )
    status, told = call(path, "notify-test")
    assert (status, SECRET in told) == (0, False)


def test_with_nobody_to_tell_a_test_is_refused(tmp_path: Path) -> None:
    """It says which setting is missing."""
    path = tmp_path / "retraind.yaml"
    path.write_text(f"state_dir: {tmp_path}\n{BASE}", encoding="utf-8")
    status, told = call(path, "notify-test")
    assert status == 1
    assert "notify.urls" in told


def test_the_ledger_holds_no_secret(open_site: Open, inbox: Inbox) -> None:
    """What was sent to whom is kept without the address."""
    site = open_site(inbox.url)
    site.decide(1, State.PARKED)
    site.notifier.round()
    assert SECRET.encode() not in (site.home / "ledger.db").read_bytes()

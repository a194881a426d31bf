"""What Prometheus scrapes of the daemon: from the ledger, from the work, and what plots it."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, cast

import pandas as pd
import pytest
from builders import EPOCH, PIPELINE, TABLE, close, delta, ledger, lived, park, promote, record
from conftest import free_port
from fastapi.testclient import TestClient
from lake import Row
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from world import Daemon, World, later

from config.endpoint import LocalEndpoint as LocalSettings
from config.settings import Pipeline, Settings
from daemon import blame, dashboard
from daemon.ledger import Ledger
from daemon.metrics import Meter
from daemon.reading import RECORD
from daemon.service import Activity, Clockwork, Service
from handlers.endpoint import LocalEndpoint
from handlers.facts import Drifted, GiveUp, State, TryLater
from handlers.table import Table

Samples = dict[str, dict[tuple[str, ...], float]]
"""Name of a sample -> values of its labels but the pipeline's -> its value."""


def samples(text: str) -> Samples:
    """Read an exposition as Prometheus does."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(v for k, v in sorted(sample.labels.items()) if k != "pipeline")
            assert labels not in found.get(sample.name, {}), f"{sample.name} twice"
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


class Site:
    """A ledger with the pages on it."""

    def __init__(self, home: Path) -> None:
        self.book = ledger(home / "ledger.db")
        settings = Settings(state_dir=home, pipelines={PIPELINE: Pipeline(table=TABLE, label="y")})
        self.meter = Meter([PIPELINE], self.book, lambda: EPOCH + timedelta(hours=1))
        pages = dashboard.app(settings, self.book, dict, list, meter=self.meter)
        self.client = TestClient(pages, base_url="http://127.0.0.1")

    def scrape(self) -> Samples:
        """Ask as Prometheus does."""
        answer = self.client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return samples(answer.text)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give the pages of an empty ledger."""
    site = Site(tmp_path)
    with closing(site.book):
        yield site


def judge(book: Ledger, number: int, **changes: Any) -> None:
    """Let a delta be kept, with this beside its verdict."""
    champion = book.champion(PIPELINE)
    against = champion.model.version if champion else None
    work = book.open(PIPELINE, delta(number))
    book.settle(replace(record(work, State.KEPT, number, against), **changes))


def test_a_new_ledger_has_no_figures_that_it_does_not_know(site: Site) -> None:
    """Counts begin at nought; what is not known yet is left out instead of being told as nought."""
    found = site.scrape()
    assert found["retraind_ledger_up"] == {(): 1}
    assert found["retraind_deltas_total"][("promoted",)] == 0
    assert found["retraind_parked_deltas"] == {(): 0}
    for unknown in ("retraind_lag_seconds", "retraind_champion_info", "retraind_live_loss"):
        assert unknown not in found


def test_what_was_decided_is_counted_from_the_ledger(site: Site, tmp_path: Path) -> None:
    """Deltas by state, parked ones that nobody took up, the open one; a restart forgets none."""
    book = site.book
    promote(book, 1)
    for number in (2, 3):
        park(book, number)
    book.retry(PIPELINE, "ann", [book.parked(PIPELINE)[0]])
    retried = book.pending(PIPELINE)
    assert retried is not None
    book.postpone(retried, "an outage", EPOCH)
    site.meter.clock = lambda: retried.opened_at + timedelta(seconds=90)
    found = site.scrape()
    assert found["retraind_deltas_total"][("promoted",)] == 1
    assert found["retraind_deltas_total"][("parked",)] == 2
    assert found["retraind_deltas_total"][("kept",)] == 0
    assert found["retraind_parked_deltas"] == {(): 1}
    assert found["retraind_open_deltas"] == {(): 1}
    assert found["retraind_open_delta_attempts"] == {(): 1}
    assert found["retraind_open_delta_age_seconds"] == {(): 90}
    book.close()
    again = Site(tmp_path)
    with closing(again.book):
        later_on = again.scrape()
    for name in ("retraind_deltas_total", "retraind_parked_deltas", "retraind_champion_info"):
        assert later_on[name] == found[name]


def test_champion_pause_and_halt_are_told(site: Site) -> None:
    """The champion is a label; whether the endpoint serves it follows its proof."""
    promote(site.book, 1)
    found = site.scrape()
    assert found["retraind_champion_info"] == {("1",): 1}
    assert (found["retraind_endpoint_level"], found["retraind_paused"]) == ({(): 0}, {(): 0})
    site.book.deployed(PIPELINE, "1", "answers")
    site.book.halt(PIPELINE, "a rewrite", 7)
    found = site.scrape()
    assert (found["retraind_endpoint_level"], found["retraind_paused"]) == ({(): 1}, {(): 1})
    assert found["retraind_halted"] == {(): 1}
    promote(site.book, 2)
    found = site.scrape()
    assert found["retraind_champion_info"] == {("2",): 1}
    assert found["retraind_endpoint_level"] == {(): 0}


def test_live_metric_promise_alarm_and_drift_are_told(site: Site) -> None:
    """They are the newest judged delta's; the alarm is over once another version is champion."""
    promote(site.book, 1)
    moved = (
        Drifted("amount", "feature", 0.3, "large", "> 1"),
        Drifted('odd "name"\n', "feature", 0.01, "small", ""),
        Drifted("prediction", "prediction", 0.2, "moderate", ""),
    )
    judge(site.book, 2, live=lived(1, 0.5, alarm=50.0), drift=moved)
    close(site.book, site.book.open(PIPELINE, delta(3)), State.SKIPPED)
    found = site.scrape()
    assert found["retraind_live_loss"] == {("log_loss",): 0.5}
    assert found["retraind_live_promised_loss"] == {("log_loss",): 0.3}
    assert found["retraind_live_score"] == {("log_loss",): 0.5, ("auc",): 0.8}
    assert found["retraind_live_rows"] == {(): 100}
    assert found["retraind_live_evidence"] == {(): 50}
    assert found["retraind_live_alarm"] == {(): 1}
    assert found["retraind_drift_psi"] == {
        ("amount", "feature"): 0.3, ('odd "name"\n', "feature"): 0.01,
        ("prediction", "prediction"): 0.2,
    }  # fmt: skip
    promote(site.book, 4)
    judge(site.book, 5, live=lived(1, 0.5, alarm=50.0))
    assert site.scrape()["retraind_live_alarm"] == {(): 0}


def test_the_alarm_of_an_earlier_reign_is_over(site: Site) -> None:
    """What was seen of a champion before it was brought back does not count against it."""
    promote(site.book, 1)
    judge(site.book, 2, live=lived(1, 0.5, alarm=50.0))
    assert site.scrape()["retraind_live_alarm"] == {(): 1}
    champion = site.book.champion(PIPELINE)
    assert champion is not None
    site.book.rollback(PIPELINE, "ann", champion.model, "once more")
    assert site.scrape()["retraind_live_alarm"] == {(): 0}


def test_openmetrics_is_spoken_too(site: Site) -> None:
    """A scraper that asks for OpenMetrics gets what its strict parser takes."""
    promote(site.book, 1)
    judge(site.book, 2, live=lived(1))
    site.meter.tally(PIPELINE).stepped("training", 3.0)
    answer = site.client.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    parsed = list(openmetrics.text_string_to_metric_families(answer.text))  # type: ignore[no-untyped-call]
    families = {f.name for f in parsed}
    assert {"retraind_deltas", "retraind_champion", "retraind_step_duration_seconds"} <= families


def test_a_ledger_out_of_reach_is_a_figure(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scrape goes on with what the process itself counted."""
    site.meter.tally(PIPELINE).ticked("failed")

    def out(*_: object) -> None:
        raise TryLater("The disk is gone.")

    monkeypatch.setattr(site.book, "all", out)
    found = site.scrape()
    assert found["retraind_ledger_up"] == {(): 0}
    assert found["retraind_ticks_total"] == {("failed",): 1}
    assert "retraind_deltas_total" not in found


def test_pipelines_that_are_configured_no_more_are_left_out(site: Site) -> None:
    """What the ledger remembers of others is no figure of this daemon."""
    site.book.open("former", delta(1))
    site.book.pause("former", "ann", "")
    text = site.client.get("/metrics").text
    assert "former" not in text
    assert f'pipeline="{PIPELINE}"' in text


# -- the work itself -----------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give doors in memory."""
    return World(tmp_path)


WANTED = Pipeline.model_validate({
    "table": TABLE, "label": "label", "row_key": ["key"], "delta": {"min_rows": 1},
    "train": {"strategy": "fresh", "rounds": 5, "holdout": 0.3}, "promote": {"confidence": 0},
})  # fmt: skip


class Counted:
    """A daemon whose work is counted."""

    def __init__(self, world: World) -> None:
        self._book = Ledger(world.home / "ledger.db")
        self._meter = Meter([PIPELINE], self._book, lambda: world.now)
        self._daemon = Daemon(world, WANTED, self._meter.tally(PIPELINE))

    def tick(self) -> Samples:
        """Tick, and give what is told then."""
        self._daemon.reconciler.tick()
        return samples(self._meter.exposition("")[0].decode())

    def close(self) -> None:
        """Leave."""
        self._daemon.close()
        self._book.close()


def rows(first: int, label: float | None = None) -> list[Row]:
    """Make 200 rows whose label follows from `x`, or is this one."""
    return [
        Row(key, key % 7, float(key % 7 > 3) if label is None else label, 0.0, 4)
        for key in range(first, first + 200)
    ]


def test_lag_is_counted_behind_an_open_delta_too(world: World) -> None:
    """Snapshots, rows, and the age of the oldest commit; all nought once the two are level."""
    with closing(Counted(world)) as counted:
        assert counted.tick()["retraind_lag_snapshots"] == {(): 0}
        world.lake.append(rows(0))
        began = world.now
        world.out = {"registry"}
        later(world, 60)
        counted.tick()
        world.lake.append(rows(1000))
        later(world, 60)
        found = counted.tick()
        assert found["retraind_open_deltas"] == {(): 1}
        assert found["retraind_lag_snapshots"] == {(): 2}
        assert found["retraind_lag_rows"] == {(): 400}
        assert found["retraind_lag_seconds"] == {(): (world.now - began).total_seconds()}
        world.out = set()
        later(world, 600)
        for _ in range(4):
            found = counted.tick()
        assert found["retraind_lag_snapshots"] == {(): 0}
        assert found["retraind_lag_seconds"] == {(): 0}
        assert found["retraind_deltas_total"][("promoted",)] >= 1


def test_the_last_look_is_the_last_that_succeeded(world: World) -> None:
    """A table out of reach is not looked at, and each attempt counts as a failure."""
    with closing(Counted(world)) as counted:
        seen = world.now.timestamp()
        assert counted.tick()["retraind_last_look_timestamp_seconds"] == {(): seen}
        world.out = {"table"}
        counts = []
        for _ in range(2):
            later(world, 60)
            found = counted.tick()
            assert found["retraind_last_look_timestamp_seconds"] == {(): seen}
            counts.append(sum(found["retraind_failures_total"].values()))
        assert 0 < counts[0] < counts[1]


def test_what_ends_a_delta_is_counted(world: World) -> None:
    """Rows that cannot be trained on are a failure of the delta; a deployment is a step."""
    with closing(Counted(world)) as counted:
        counted.tick()
        world.lake.append(rows(0))
        counted.tick()
        world.lake.append(rows(1000, label=1.0))
        found = counted.tick()
        assert found["retraind_failures_total"] == {("delta", "give_up"): 1}
        assert found["retraind_parked_deltas"] == {(): 1}
        assert found["retraind_step_duration_seconds_count"] == {("deploying",): 1}


def test_steps_are_timed_and_ticks_counted(tmp_path: Path) -> None:
    """A step lasts until the next begins or the tick ends; each tick has one outcome."""

    class Work:
        troubled = False
        deeds = iter([1, 0])

        def tick(self) -> int:
            for step in ("reading", "training", "training", "judging"):
                activity(step, 0, 1)
            return next(self.deeds)

    with closing(ledger(tmp_path / "ledger.db")) as book:
        meter = Meter([PIPELINE], book)
        activity = Activity(threading.Event(), meter.tally(PIPELINE))
        work = Clockwork(cast("Any", Work()), 60.0, activity, threading.Lock())
        daemon = Service({PIPELINE: work}, book, threading.Event(), 1.0)
        for _ in range(3):
            daemon._tick(PIPELINE, work)
        found = samples(meter.exposition("")[0].decode())
    assert found["retraind_ticks_total"] == {("acted",): 1, ("idle",): 1, ("failed",): 1}
    assert found["retraind_step_duration_seconds_count"] == {
        ("reading",): 3, ("training",): 3, ("judging",): 3,
    }  # fmt: skip


def raised(call: Callable[[], object]) -> Exception:
    """Give what a call raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 (whatever it is)
        return error
    pytest.fail("it raises nothing")


def test_a_failure_is_put_down_to_the_door_it_came_by(tmp_path: Path) -> None:
    """The first door on the way counts, whatever raised behind it; a fault of ours is ours."""

    def out() -> NoReturn:
        raise KeyError("deep inside")

    table = raised(Table(cast("Any", out), "lake.a.b").head)
    assert (blame.door(table), blame.kind(table)) == ("table", "unforeseen")
    endpoint = LocalEndpoint(LocalSettings(port=free_port()), tmp_path)
    silent = raised(lambda: endpoint.predict(pd.DataFrame({"x": [1.0]})))
    assert (blame.door(silent), blame.kind(silent)) == ("endpoint", "try_later")
    with closing(ledger(tmp_path / "ledger.db")) as book:
        book._db.execute("DROP TABLE snapshots")
        lost = raised(lambda: book.fates(PIPELINE))
    assert (blame.door(lost), blame.kind(lost)) == ("ledger", "try_later")
    assert (blame.door(raised(out)), blame.kind(raised(out))) == ("daemon", "unforeseen")
    rows = GiveUp("One class only.")
    assert (blame.door(rows), blame.kind(rows)) == ("delta", "give_up")
    assert all(importlib.util.find_spec(module) for module in blame.DOORS)


# -- how fast it is ------------------------------------------------------------------------------


def test_a_scrape_is_cheap(tmp_path: Path) -> None:
    """50 pipelines with 10,000 deltas in the ledger are told in well under 100 ms."""
    names = [f"p{number}" for number in range(50)]
    moved = [Drifted(f"column {n}", "feature", 0.1, "small", "> 1: 10% then") for n in range(20)]
    with closing(ledger(tmp_path / "ledger.db")) as book:
        work = book.open(PIPELINE, delta(1))
        kept = replace(record(work, State.KEPT, 1), live=lived(1), drift=tuple(moved))
        text = json.dumps(RECORD.dump_python(replace(kept, reason="x" * 6000), mode="json"))
        with book.write() as db:
            for name in names:
                db.execute("INSERT INTO pipelines (name) VALUES (?)", (name,))
                db.executemany(
                    "INSERT INTO deltas (pipeline, sequence, state, delta, record, retry_of, "
                    "opened_at) VALUES (?, ?, ?, '{}', ?, ?, ?)",
                    [
                        (name, number, "parked" if number % 10 == 0 else "kept", text,
                         number - 1 if number % 20 == 11 else None, EPOCH.isoformat())
                        for number in range(1, 201)
                    ],
                )  # fmt: skip
        meter, took = Meter(names, book), []
        for _ in range(10):
            began = time.perf_counter()
            body, _ = meter.exposition("")
            took.append(time.perf_counter() - began)
    print(f"{min(took) * 1000:.0f} ms, the first {took[0] * 1000:.0f} ms")  # noqa: T201 (shown by -rP)
    assert body.count(b"retraind_parked_deltas{") == 50
    assert body.count(b"retraind_drift_psi{") == 1000
    assert min(took) < 0.1

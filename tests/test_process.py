"""Real processes, killed with real signals: the daemon as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
from inbox import SECRET, Inbox
from sites import ROOT, Site, until

from config.loading import load
from daemon import composition
from handlers.cards import Recipe, cards

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a site of one's own."""
    site = Site(tmp_path)
    yield site
    site.close()


def test_an_appended_file_is_served(site: Site) -> None:
    """`append --file` in another process: the verdict stands in `history`, the endpoint follows.

    Then the daemon ends on SIGTERM with status 0, while its endpoint goes on serving.
    """
    daemon = site.start()
    until(lambda: "does not exist (yet)" in str(site.get("/api/status")), "the table is waited for")
    batch = site.home / "batch.parquet"
    rows = cards(Recipe(3000))
    pq.write_table(rows, batch)
    appended = site.ask("append", "--file", str(batch))
    until(lambda: site.version() == "1", "the first model is served")
    (decision,) = site.ask("history")
    assert decision["snapshot_to"] == appended["snapshot"]
    assert (decision["state"], decision["rows"]) == ("promoted", 3000)
    assert site.get("/readyz") == {"ready": True, "waiting": []}
    assert "version 1" in site.get("/")
    frame = rows.select([n for n in rows.column_names if n != "event_time"]).slice(0, 2)
    body = {"dataframe_records": frame.to_pylist()}
    answer = httpx.post(
        f"http://127.0.0.1:{site.endpoints['payments']}/invocations", json=body, trust_env=False
    ).json()
    assert answer["model_version"] == "1"
    assert all(0 < p < 1 for p in answer["predictions"])

    refusal = site.run("run", code=1)
    assert f"process {daemon.pid}" in refusal or "cannot be served" in refusal
    assert "acts on this state: process" in site.run("once", code=1)

    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(60) == 0
    assert site.version() == "1"
    events = [json.loads(line)["event"] for line in site.log().splitlines() if line[:1] == "{"]
    assert events[-2:] == ["stopping", "stopped"]
    assert site.ask("status")["daemon"]["running"] is False


def test_it_is_scraped_and_tells_what_happened(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit shows on `/metrics` and as one message, also after a kill; no log has a secret."""
    with closing(Inbox()) as inbox:
        monkeypatch.setenv("RETRAIND_NOTIFY__URLS", json.dumps([inbox.url]))
        daemon = site.start()
        site.run("append", "--rows", "3000")
        until(lambda: site.version() == "1", "the first model is served")
        until(lambda: inbox.got, "it is told")
        until(lambda: 'outcome="acted"' in site.get("/metrics"), "the tick ends")
        found = site.get("/metrics")
        for told in (
            'retraind_deltas_total{pipeline="payments",state="promoted"} 1.0',
            'retraind_champion_info{pipeline="payments",version="1"} 1.0',
            'retraind_step_duration_seconds_count{pipeline="payments",step="training"} 1.0',
            'retraind_step_duration_seconds_count{pipeline="payments",step="deploying"} 1.0',
            'retraind_ticks_total{outcome="acted",pipeline="payments"}',
            'retraind_lag_snapshots{pipeline="payments"} ',
        ):
            assert told in found, told
        until(
            lambda: 'retraind_lag_rows{pipeline="payments"} 0.0' in site.get("/metrics"), "no lag"
        )
        logs = site.log()
        daemon.kill()
        daemon.wait()
        site.start()
        # By then the first round of telling is over: it comes before the first look.
        until(lambda: 'outcome="idle"' in (site.get("/metrics") or ""), "it looks again")
        assert 'state="promoted"} 1.0' in site.get("/metrics")
        assert SECRET not in logs + site.log() + site.get("/") + str(site.get("/api/status"))
    assert len(inbox.got) == 1
    assert f"http://127.0.0.1:{site.port}" in inbox.texts[0]


def test_killed_in_mid_training_the_delta_is_finished_once(site: Site) -> None:
    """A kill -9 while trees are grown, start again: one run, one decision, one deployment."""
    site.configure(rounds=20_000)
    site.run("append", "--rows", "3000")
    daemon = site.start()
    until(lambda: site.step().get("name") == "training", "training begins")
    until(lambda: site.step().get("done", 0) > 20, "some rounds are done")
    daemon.kill()
    daemon.wait()
    assert site.version() is None
    (status,) = site.ask("status")["pipelines"]
    assert status["open"]["delta"] == 1
    assert site.ask("history") == []

    site.configure(rounds=30)
    site.run("append", "--rows", "2000", "--batch", "1")
    site.start()
    until(lambda: len(site.decisions()) == 2, "both deltas are decided")
    until(lambda: site.version() is not None, "a model is served")
    assert sorted(d["rows"] for d in site.decisions()) == [2000, 3000]
    settings = load(site.config)
    book = composition.ledger(settings)
    first = book.deployments("payments")[-1]
    assert (first.version, first.outcome) == ("1", "deployed")
    promoted = [d for d in site.decisions() if d["state"] == "promoted"]
    assert len(book.deployments("payments")) == len(promoted)
    book.close()
    runs = _runs(site)
    assert sorted(runs) == ["FINISHED", "FINISHED"]


def _runs(site: Site) -> list[str]:
    """Give the states of all MLflow runs."""
    from mlflow import MlflowClient  # noqa: PLC0415 (slow to import)

    client = MlflowClient(f"sqlite:///{site.home}/state/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name.startswith("retraind")]
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


def test_ctrl_c_in_mid_training_stops_within_its_time(site: Site) -> None:
    """SIGINT ends the training between two rounds, loses nothing, and `once` finishes the work."""
    site.configure(rounds=100_000)
    site.run("append", "--rows", "2000")
    daemon = site.start()
    until(lambda: site.step().get("done", 0) > 20, "training is under way")
    began = time.monotonic()
    daemon.send_signal(signal.SIGINT)
    assert daemon.wait(60) == 0
    assert time.monotonic() - began < 30
    site.configure(rounds=10)
    site.run("retry")
    site.run("once")
    assert [d["state"] for d in site.ask("history")] == ["promoted"]
    assert site.version() == "1"


def test_ports_and_folders_that_cannot_be_had_are_told(site: Site) -> None:
    """A taken port and a state_dir that is a file end with status 1 and the remedy."""
    import socket  # noqa: PLC0415 (one use)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.port))
        taken.listen()
        assert "http.port" in site.run("run", code=1)
    (site.home / "state").write_text("in the way", encoding="utf-8")
    assert "state_dir" in site.run("status", code=1)
    (site.home / "state").unlink()


def test_the_demo_tells_the_whole_story(tmp_path: Path) -> None:
    """`demo --batches 3`: promoted, kept, promoted; the endpoint answers all along; status 0."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "demo", "--batches", "3", "--state", str(tmp_path / "d")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=590,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    text = " ".join(done.stdout.split())
    assert "promoted: no champion yet" in text
    assert "kept champion 1" in text
    assert "promoted: log loss" in text
    assert "2 promoted, 1 kept" in text
    assert ", 0 failed." in text
    book = composition.ledger(load(tmp_path / "d" / "demo.yaml"))
    served = book.deployments("cards")
    assert [d.version for d in reversed(served)] == ["1", "3"]
    print(f"the demo took {time.monotonic() - began:.0f} s")  # noqa: T201 (shown by -rP)

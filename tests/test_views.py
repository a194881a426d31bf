"""What pages, commands and programs are shown: plain facts, and texts as they are."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import Any

import pytest
from builders import (
    PIPELINE,
    TABLE,
    close,
    delta,
    delta_of,
    dump,
    learnt,
    ledger,
    lived,
    model,
    moment,
    park,
    promote,
    record,
    snapshot,
    verdict,
)
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from rich.console import Console

from config.settings import Settings
from daemon import dashboard, operate, views
from daemon.accounting import accounting
from daemon.ledger import Ledger
from daemon.screen import account_text, history_text, status_text
from handlers.facts import (
    Breach,
    BrokenContract,
    Changes,
    Cursor,
    Decision,
    Delta,
    Drifted,
    Live,
    Look,
    Record,
    Snapshot,
    State,
    Way,
)

HOSTILE = ["[red]x[/red]", "[/]", "<script>alert(1)</script>", ":smile: [link=http://x]y[/link]"]
STATUS = {"daemon", "state_dir", "pipelines"}
STANDING = {
    "name", "table", "branch", "cursor", "head", "doing", "next_at", "waits_since",
    "paused", "halted", "pins", "champion", "deployed", "endpoint", "open", "parked", "last",
}  # fmt: skip
CHAMPION = {"version", "run_id", "since", "how", "reason", "doubts", "live"}
PARKED = {"delta", "rows", "reason", "breaches"}
DECISION = {
    "pipeline", "delta", "state", "reason", "closed_at", "seconds", "snapshot_from",
    "snapshot_to", "snapshots", "rows", "read", "removed_rows", "breaches", "version", "run_id",
    "against", "metric", "challenger", "champion", "gain", "held_out_rows", "retry_of", "drift",
    "decision", "gain_low", "gain_high", "evidence", "evidence_rows", "detectable", "live",
    "forced",
}  # fmt: skip
LIVE = {
    "delta", "version", "rows", "scores", "measure", "loss", "promised", "alarm", "alarmed",
    "told", "contender", "contender_gain",
}  # fmt: skip
BREACH = {"rule", "column", "count", "of", "examples", "sentence"}
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Give the ledger of a daemon that runs."""
    with closing(ledger(tmp_path / "ledger.db")) as book:
        yield book


@pytest.fixture
def wanted(tmp_path: Path) -> Settings:
    """Give settings with one pipeline."""
    pipelines: Any = {PIPELINE: {"table": TABLE, "label": "fraud"}}
    return Settings(state_dir=tmp_path, pipelines=pipelines)


def drawn(thing: Any, *, terminal: bool = False) -> str:
    """Draw what a command shows, as the command does."""
    console = Console(file=io.StringIO(), width=400, force_terminal=terminal, color_system=None)
    console.print(thing, markup=False)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def breach(sentence: str = "amount: 3 of 100 rows are below 0") -> Breach:
    """Make a breach of the data contract."""
    return Breach("min", "amount", 3, 100, ("id=7: -1.0",), sentence)


def quarantine(book: Ledger, wanted: Delta, *breaches: Breach) -> Record:
    """Park a delta that breaks the data contract."""
    why = f"parked: {BrokenContract(breaches)}"
    closed = record(book.open(PIPELINE, wanted), State.PARKED, reason=why)
    book.settle(replace(closed, breaches=breaches))
    return closed


def fill(book: Ledger) -> None:
    """Let everything happen that a view tells of."""
    quarantine(book, delta(1), breach())
    promote(book, 2)
    book.deployed(PIPELINE, "2", "answers")
    work = book.open(PIPELINE, delta(3))
    book.settle(replace(record(work, State.KEPT, 3, "2"), verdict=verdict("2", promote=False)))
    book.looked(PIPELINE, Cursor("u", 4), "delta 4")
    book.postpone(book.open(PIPELINE, delta(4)), "an outage", moment())
    book.pause(PIPELINE, "ann", "maintenance")


def strict(view: Any) -> Any:
    """Send a view through JSON as a browser reads it: without NaN and Infinity."""
    return json.loads(json.dumps(view, allow_nan=False))


def test_an_empty_ledger_has_a_status(wanted: Settings, book: Ledger) -> None:
    """Before the first look everything is told to be missing, and nothing is written."""
    before = dump(book)
    view = strict(views.status(wanted, book))
    (standing,) = view["pipelines"]
    assert set(view) == STATUS
    assert set(standing) == STANDING
    missing = {"cursor", "head", "next_at", "paused", "champion", "deployed", "open", "last"}
    missing |= {"waits_since"}
    assert {key for key in STANDING if standing[key] is None} == missing
    assert (standing["doing"], standing["parked"]) == ("not looked yet", [])
    assert (standing["halted"], standing["pins"]) == (False, "")
    assert dump(book) == before
    assert "not looked yet" in drawn(status_text(view))
    assert "nothing yet" in drawn(status_text(view))


def test_a_status_tells_everything_under_the_same_keys(wanted: Settings, book: Ledger) -> None:
    """Programs rely on the keys; a new one is added here on purpose."""
    fill(book)
    view = strict(views.status(wanted, book))
    (standing,) = view["pipelines"]
    assert set(view) == STATUS
    assert set(view["daemon"]) == {"running", "pid", "host", "url"}
    assert view["daemon"]["running"]
    assert set(standing) == STANDING
    assert set(standing["champion"]) == CHAMPION
    assert set(standing["open"]) == {"delta", "rows", "attempts", "trouble", "next_try_at"}
    assert set(standing["last"]) == DECISION
    assert (standing["cursor"], standing["head"], standing["deployed"]) == (3, 4, "2")
    (parked,) = standing["parked"]
    assert set(parked) == PARKED
    assert (parked["delta"], parked["rows"], standing["paused"]) == (1, 100, "maintenance")
    assert [set(found) for found in parked["breaches"]] == [BREACH]
    assert (standing["open"]["delta"], standing["open"]["attempts"]) == (4, 1)
    text = drawn(status_text(view))
    for told in (
        "version 2", "an outage (attempt 1)", "maintenance", TABLE,
        "delta 1, 100 rows: parked: the data contract is broken: amount: 3 of 100 rows",
    ):  # fmt: skip
        assert told in text
    assert "lets it pass" not in text


def test_a_status_tells_when_nobody_runs(wanted: Settings, book: Ledger) -> None:
    """After the daemon's end its pid is not shown any more."""
    book.release()
    view = strict(views.status(wanted, book))
    assert view["daemon"] == {"running": False, "pid": None, "host": None, "url": None}
    assert "not running" in drawn(status_text(view))


def standing(wanted: Settings, book: Ledger) -> tuple[dict[str, Any], str]:
    """Give where the pipeline stands, for programs and drawn."""
    view = strict(views.status(wanted, book))
    found: dict[str, Any] = view["pipelines"][0]
    return found, drawn(status_text(view))


def test_what_happened_to_a_champions_rows_is_told(wanted: Settings, book: Ledger) -> None:
    """Rows that were rolled back or deleted since it learnt are doubts, until they come back."""
    close(book, book.open(PIPELINE, delta(1)))
    close(book, book.open(PIPELINE, delta_of([snapshot(2, 1234)], 1)), State.PROMOTED, 2)
    found, text = standing(wanted, book)
    assert found["champion"]["doubts"] == []
    assert "doubt" not in text
    deletes = snapshot(3, 0, "delete", deleted_records="5678")
    close(book, book.open(PIPELINE, delta_of([deletes], 2)), State.SKIPPED)
    back = replace(delta(2), start_id=1, end_id=1, snapshots=(), note="rolled back", gone=(3, 2))
    close(book, book.open(PIPELINE, back), State.SKIPPED)
    found, text = standing(wanted, book)
    assert found["champion"]["doubts"] == [
        "up to 1,234 rows it learnt from, in 1 snapshot(s), were rolled back",
        "5,678 rows were deleted since; it may have learnt from some of them",
    ]
    assert all(f"doubt     {doubt}" in text for doubt in found["champion"]["doubts"])
    close(book, book.open(PIPELINE, delta_of([snapshot(2, 1234)], 1)), State.SKIPPED)
    found, _ = standing(wanted, book)
    assert len(found["champion"]["doubts"]) == 1


def test_a_champion_that_nobody_decided_on_has_no_doubts(wanted: Settings, book: Ledger) -> None:
    """A model whose decision is not in the ledger is shown all the same."""
    book.restore([promoted(book, 1)], None)
    book.rollback(PIPELINE, "ann", model(77), "from elsewhere")
    found, _ = standing(wanted, book)
    assert (found["champion"]["version"], found["champion"]["doubts"]) == ("77", [])


def promoted(book: Ledger, number: int) -> Record:
    """Promote the delta of one snapshot; gives the record."""
    promote(book, number)
    return book.history(PIPELINE, 1)[0]


def test_a_halt_is_told_with_what_ends_it(wanted: Settings, book: Ledger) -> None:
    """A halt is a pause of its own kind, with the command that lets it pass."""
    book.halt(PIPELINE, "snapshot 2 is a delete", 3)
    found, text = standing(wanted, book)
    assert (found["halted"], found["paused"]) == (True, "halted: snapshot 2 is a delete")
    assert "halted: snapshot 2 is a delete; `retraind resume` lets it pass" in text
    operate.resume(book, PIPELINE)
    found, text = standing(wanted, book)
    assert (found["halted"], found["paused"]) == (False, None)
    assert "halted" not in text


def test_the_next_moment_and_the_pins_are_told(wanted: Settings, book: Ledger) -> None:
    """Programs are told when it goes on, everybody which snapshots are kept."""
    promote(book, 1)
    book.looked(PIPELINE, None, "not now: few rows", NOON)
    book.pinned(PIPELINE, "off: access denied")
    found, text = standing(wanted, book)
    assert (found["next_at"], found["pins"]) == ("2026-01-31T12:00:00+00:00", "off: access denied")
    assert "pins      off: access denied" in text


def test_a_decision_tells_how_its_rows_were_read(book: Ledger) -> None:
    """Appended, changed or apart, or the whole table; with what was taken away and what broke."""
    rewrite = snapshot(2, 70, "overwrite", deleted_records="90")
    ways: list[Way] = ["appended", "changed", "apart", "whole"]
    for way in ways:
        close(book, book.open(PIPELINE, replace(delta_of([rewrite], 1), way=way)), State.SKIPPED)
    measured = replace(delta_of([rewrite], 1), way="changed", changes=Changes(new=3, removed=23))
    close(book, book.open(PIPELINE, measured))
    close(book, book.open(PIPELINE, delta(1)))
    quarantine(book, delta_of([snapshot(3)], 2), breach("one"), breach("two"))
    view = strict(views.history(reversed(book.history())))
    assert [item["read"] for item in view] == [*ways, "changed", "whole", "appended"]
    assert [item["rows"] for item in view] == [0, 70, 0, 140, 3, 100, 100]
    assert [item["removed_rows"] for item in view] == [20, 20, 20, 20, 23, 0, 0]
    assert [found["sentence"] for found in view[-1]["breaches"]] == ["one", "two"]
    assert view[-1]["breaches"][0]["examples"] == ["id=7: -1.0"]


# -- what was served, and what moved -------------------------------------------------------------


def moved(name: str = "amount", psi: float = 0.3) -> Drifted:
    """Make a column that drifted."""
    return Drifted(name, "feature", psi, "large", "> 80: 10.0% then, 31.0% now")


def test_a_trend_tells_how_what_was_served_did(book: Ledger) -> None:
    """Oldest first; only decided deltas; the drift is that of the newest."""
    assert strict(views.trend([]))["points"] == []
    promote(book, 1)
    park(book, 2)
    for number, rival in ((3, 0.25), (4, math.inf)):
        work = book.open(PIPELINE, delta(number))
        found = verdict("1", promote=False, rival=rival)
        closed = replace(record(work, State.KEPT, number, "1"), verdict=found, drift=(moved(),))
        book.settle(closed)
    view = strict(views.trend(book.history(PIPELINE)))
    assert [(p["delta"], p["served"], p["value"]) for p in view["points"]] == [
        (1, None, None), (3, "1", 0.25), (4, "1", None),
    ]  # fmt: skip
    assert [p["promoted"] for p in view["points"]] == ["1", None, None]
    assert (view["metric"], view["delta"], view["against"]) == ("log_loss", 4, "1")
    (column,) = view["drift"]
    assert column == {
        "name": "amount", "kind": "feature", "psi": 0.3, "size": "large",
        "told": "> 80: 10.0% then, 31.0% now",
    }  # fmt: skip
    assert strict(views.history(book.history()))[0]["drift"] == [column]


@pytest.mark.parametrize("text", HOSTILE)
def test_the_page_shows_chart_and_drift_and_no_markup_of_others(
    wanted: Settings, book: Ledger, text: str
) -> None:
    """An inline chart without a script of its own; names of columns come out as they are."""
    promote(book, 1)
    work = book.open(PIPELINE, delta(2))
    book.settle(replace(record(work, State.KEPT, 2, "1"), drift=(moved(text),)))
    client = TestClient(dashboard.app(wanted, book, dict, list), "http://localhost")
    page = client.get("/").text
    assert '<svg class="chart"' in page
    assert "delta 2: version 1, 0.4" in page
    assert escape(text, quote=False).replace("'", "&#39;") in page
    assert page.count("<script") == 1
    assert '<script src="./static/page.js" defer></script>' in page
    (trend,) = client.get("/api/trend").json().values()
    assert trend["drift"][0]["name"] == text


# -- what was served, live ------------------------------------------------------------------------


def serve(book: Ledger, number: int, live: Live, decision: Decision = Decision.WAIT) -> Record:
    """Close the delta of one snapshot, on which the champion did so."""
    against = live.version
    found = replace(
        verdict(against, promote=decision is Decision.PROMOTE),
        decision=decision, evidence=3.0, interval=(-0.1, 0.3), gathered=40, detectable=0.2,
    )  # fmt: skip
    state = State.PROMOTED if decision is Decision.PROMOTE else State.KEPT
    closed = record(book.open(PIPELINE, delta(number)), state, number, against)
    closed = replace(closed, verdict=found, live=live)
    book.settle(closed)
    return closed


def test_a_decision_tells_its_evidence_and_how_what_served_did(book: Ledger) -> None:
    """The interval and the evidence of all looks, and the champion's loss before it was learnt."""
    promote(book, 1)
    live = replace(lived(1, 0.31, alarm=1.5), contender="7", gain=Look(80, 0.02, None))
    serve(book, 2, live)
    (item, _) = strict(views.history(book.history()))
    assert set(item) == DECISION
    assert (item["state"], item["decision"], views.outcome(item)) == ("kept", "wait", "kept, waits")
    told = ("evidence", "evidence_rows", "gain_low", "gain_high", "detectable")
    assert [item[key] for key in told] == [3.0, 40, -0.1, 0.3, 0.2]
    assert item["live"] == {
        "delta": 2, "version": "1", "rows": 100, "scores": {"log_loss": 0.31, "auc": 0.8},
        "measure": "log loss", "loss": {"rows": 100, "mean": 0.31, "error": 0.01},
        "promised": 0.3, "alarm": 1.5, "alarmed": False, "told": None,
        "contender": "7", "contender_gain": {"rows": 80, "mean": 0.02, "error": None},
    }  # fmt: skip
    assert set(item["live"]) == LIVE
    assert "kept, waits" in drawn(history_text([item]))


FAILS = (
    "Champion 1 does worse on live rows than it promised: log loss 0.4100 on the last 300 rows "
    "against 0.3000 (evidence "
)


def test_a_champion_that_fails_is_told_while_it_reigns(wanted: Settings, book: Ledger) -> None:
    """In the status, on the page and beside the decision; its successor has a clean record."""
    book.clock = moment
    client = TestClient(dashboard.app(wanted, book, dict, list), "http://localhost")
    promote(book, 1)
    assert standing(wanted, book)[0]["champion"]["live"] is None
    serve(book, 2, lived(1))
    found, text = standing(wanted, book)
    assert set(found["champion"]["live"]) == LIVE
    assert "live      log loss 0.3000 (standard error 0.0100) on the 100 rows of delta 2" in text
    assert "fails" not in text
    assert "does worse" not in client.get("/").text
    serve(book, 3, lived(1, 0.41, alarm=57.2))
    found, text = standing(wanted, book)
    assert found["champion"]["live"]["told"] == f"{FAILS}57)"
    assert f"fails     {FAILS}57)" in text
    page = client.get("/").text
    assert page.count(f"{FAILS}57)") == 2, "at the champion, and at the decision"
    assert "log loss 0.4100</span>" in page
    assert '± 0.0196 on the 100 rows of <a href="./pipelines/cards/deltas/3">delta 3</a>' in page
    assert 'class="alarm"' in page
    serve(book, 4, lived(1, 0.41, alarm=1e140), Decision.PROMOTE)
    found, text = standing(wanted, book)
    assert (found["champion"]["version"], found["champion"]["live"]) == ("4", None)
    assert "fails" not in text
    assert client.get("/").text.count(f"{FAILS}above a million)") == 1


def test_a_trend_shows_live_losses_with_their_intervals(book: Ledger) -> None:
    """The loss by the proper score; where only an older record tells, that on held-out rows."""
    promote(book, 1)
    serve(book, 2, lived(1, 0.4, alarm=21))
    serve(book, 3, lived(1, 0.4, error=None))
    regression = replace(learnt(), task="regression")
    closed = record(book.open(PIPELINE, delta(4)), State.KEPT, 4, "1")
    scored = replace(verdict("1"), champion={"rmse": 3.0}, metric="rmse")
    book.settle(replace(closed, verdict=scored, learnt=regression))
    view = strict(views.trend(book.history(PIPELINE)))
    assert view["metric"] == "squared_error"
    told = [(p["value"], p["low"], p["high"], p["alarm"]) for p in view["points"]]
    assert told == [
        (None, None, None, False), (0.4, pytest.approx(0.3804), pytest.approx(0.4196), True),
        (0.4, None, None, False), (9.0, None, None, False),
    ]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_was_forced_is_told_with_who_and_why(
    wanted: Settings, book: Ledger, text: str
) -> None:
    """At the champion, and at the decision that had kept it from being one."""
    promote(book, 1)
    close(book, book.open(PIPELINE, delta(2)), State.KEPT, 2)
    close(book, book.open("other", delta(2)), State.KEPT, 2)
    book.promote(PIPELINE, "ann", model(2), text)
    found, shown = standing(wanted, book)
    told = f"forced by ann: {text}"
    assert (found["champion"]["how"], found["champion"]["reason"]) == ("forced", told)
    assert found["last"]["forced"] == told
    assert told in shown
    view = strict(views.history(book.history(), book.forced()))
    assert [item["forced"] for item in view] == [None, told, None]
    lines = drawn(history_text(view)).splitlines()
    assert [told in line for line in lines] == [False, False, True, False]
    assert "kept, then forced" in lines[2]
    client = TestClient(dashboard.app(wanted, book, dict, list), "http://localhost")
    assert client.get("/api/history").json()[1]["forced"] == told
    assert client.get("/").text.count(escape(told, quote=False).replace("'", "&#39;")) == 3


# -- the account ---------------------------------------------------------------------------------


def accounted(book: Ledger, *log: Snapshot, elsewhere: Sequence[Snapshot] = ()) -> dict[str, Any]:
    """Hold a log against the ledger."""
    known = book.fates(PIPELINE)
    found: dict[str, Any] = strict(accounting(book.standing(PIPELINE), log, list(elsewhere), known))
    return found


def test_an_account_is_drawn_with_its_sum(book: Ledger) -> None:
    """One line a snapshot, the totals, and in words whether they add up."""
    promote(book, 1)
    park(book, 2)
    book.looked(PIPELINE, None, "not now: few rows")
    log = [snapshot(1), snapshot(2), snapshot(3, 1234)]
    text = drawn(account_text(accounted(book, *log, elsewhere=[snapshot(9)])))
    lines = text.splitlines()
    assert lines[0] == PIPELINE
    assert "trained" in lines[2]
    assert "quarantined" in lines[3]
    assert "1,234  waiting" in lines[4]
    assert lines[4].rstrip().endswith("not now: few rows")
    assert "elsewhere" in lines[5]
    assert text.endswith(
        "\n3 snapshot(s) in the branch's history: 1 trained (100 rows), 1 quarantined (100 rows), "
        "1 waiting (1,234 rows). They add up.\n"
    )


def test_an_account_that_does_not_add_up_says_so(book: Ledger) -> None:
    """A snapshot before the cursor without a decision is shown, and told at the end."""
    close(book, book.open(PIPELINE, delta(2)))
    text = drawn(account_text(accounted(book, snapshot(1), snapshot(2))))
    assert "unaccounted" in text
    assert text.endswith("They do not add up: some are unaccounted for.\n")
    assert "history: none. They add up." in drawn(account_text(accounted(book)))


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("text", HOSTILE)
def test_an_account_comes_out_literally(book: Ledger, text: str, *, terminal: bool) -> None:
    """Operations and reasons come from outside: none of them styles or vanishes."""
    book.settle(record(book.open(PIPELINE, delta(1)), State.PARKED, reason=text))
    strange = snapshot(2, 5, f"{text}\x1b[31m")
    shown = drawn(account_text(accounted(book, snapshot(1), strange)), terminal=terminal)
    assert shown.count(text) == 2
    assert "\x1b[31m" not in shown


def test_a_champion_that_does_not_serve_yet_is_told(wanted: Settings, book: Ledger) -> None:
    """Between verdict and deployment both versions are shown."""
    promote(book, 1)
    view = views.status(wanted, book)
    assert "deployed  nothing" in drawn(status_text(view))
    book.deployed(PIPELINE, "1", "answers")
    promote(book, 2)
    assert "deployed  version 1" in drawn(status_text(views.status(wanted, book)))


def test_a_history_has_the_same_keys_for_every_state(book: Ledger) -> None:
    """Whatever became of a delta, its decision has the same shape."""
    fill(book)
    view = strict(views.history(book.history()))
    assert [item["delta"] for item in view] == [3, 2, 1]
    assert all(set(item) == DECISION for item in view)
    kept, promoted, parked = view
    assert (kept["against"], kept["champion"]["log_loss"]) == ("2", 0.4)
    assert (promoted["against"], promoted["champion"]) == (None, None)
    assert (parked["metric"], parked["challenger"], parked["version"]) == (None, None, None)
    assert parked["snapshots"] == [
        {
            "id": 1,
            "kind": "append",
            "rows": 100,
            "state": "quarantined",
            "reason": parked["reason"],
        }
    ]


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_left_out(book: Ledger, score: float) -> None:
    """JSON knows neither NaN nor Infinity, and browsers refuse them."""
    work = book.open(PIPELINE, delta(1))
    closed = record(work, State.KEPT, 1)
    book.settle(replace(closed, verdict=verdict(challenger=score, promote=False)))
    (item,) = strict(views.history(book.history()))
    assert item["challenger"] == {"log_loss": None, "auc": 0.9}
    assert item["gain"] is None


def test_a_history_drawn_shows_every_decision(book: Ledger) -> None:
    """One line a decision, with its reason; and a sentence when there is none."""
    assert drawn(history_text([])) == "No decision yet.\n"
    fill(book)
    view = views.history(book.history())
    lines = drawn(history_text(view)).splitlines()
    assert len(lines) == 1 + len(view)
    for line, item in zip(lines[1:], view, strict=True):
        assert item["reason"] in line
        assert item["state"] in line


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("text", HOSTILE)
def test_markup_comes_out_literally(
    wanted: Settings, book: Ledger, text: str, *, terminal: bool
) -> None:
    """A reason or an error is shown as it is, and neither styles nor vanishes."""
    close(book, book.open(PIPELINE, delta(1)), State.PROMOTED, 1)
    book.rollback(PIPELINE, "ann", model(1), text)
    work = book.open(PIPELINE, delta(2))
    book.settle(record(work, State.PARKED, reason=text))
    book.looked(PIPELINE, None, f"doing {text}")
    book.postpone(book.open(PIPELINE, delta(3)), f"trouble {text}", moment())
    operate.pause(book, PIPELINE, f"paused {text}")
    status = drawn(status_text(views.status(wanted, book)), terminal=terminal)
    for word in ("doing", "trouble", "paused"):
        assert f"{word} {text}" in status
    assert f": {text}" in status
    assert text in drawn(history_text(views.history(book.history())), terminal=terminal)


@given(text=st.text(st.characters(codec="utf-8", max_codepoint=0x2FFF), max_size=40))
@examples(max_examples=40, deadline=None)
def test_no_text_commands_the_terminal(text: str) -> None:
    """Escape sequences in an error or a column's name stay letters."""
    item = dict.fromkeys(DECISION) | {
        "closed_at": "2026-01-01T00:00:00+00:00", "pipeline": "p", "delta": 1, "rows": 1,
        "state": "parked", "reason": text,
    }  # fmt: skip
    shown = drawn(history_text([item]))
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert all(letter in shown for letter in text if letter.isprintable())


def test_large_numbers_and_sentences_are_not_cut(book: Ledger) -> None:
    """Snapshot ids have up to 19 digits, reasons several sentences."""
    largest = replace(snapshot(1, rows=1_234_567), id=2**63 - 1)
    work = book.open(PIPELINE, delta_of([largest]))
    reason = "parked: " + "a long sentence; " * 12
    book.settle(record(work, State.PARKED, reason=reason))
    (item,) = strict(views.history(book.history()))
    assert item["snapshot_to"] == 2**63 - 1
    text = drawn(history_text([item]))
    assert "1,234,567" in text
    assert reason.strip() in text

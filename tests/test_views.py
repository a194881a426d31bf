"""What pages, commands and programs are shown: plain facts, and texts as they are."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
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
    ledger,
    model,
    moment,
    park,
    promote,
    record,
    snapshot,
    verdict,
)
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from rich.console import Console

from config.settings import Settings
from daemon import operate, views
from daemon.ledger import Ledger
from daemon.screen import history_text, status_text
from handlers.facts import Cursor, State

HOSTILE = ["[red]x[/red]", "[/]", "<script>alert(1)</script>", ":smile: [link=http://x]y[/link]"]
STATUS = {"daemon", "state_dir", "pipelines"}
STANDING = {
    "name", "table", "branch", "cursor", "head", "doing", "paused", "champion", "deployed",
    "endpoint", "open", "parked", "unread_rows", "last",
}  # fmt: skip
DECISION = {
    "pipeline", "delta", "state", "reason", "closed_at", "seconds", "snapshot_from",
    "snapshot_to", "snapshots", "rows", "version", "run_id", "against", "metric", "challenger",
    "champion", "gain", "held_out_rows", "retry_of",
}  # fmt: skip


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


def fill(book: Ledger) -> None:
    """Let everything happen that a view tells of."""
    park(book, 1)
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
    missing = {"cursor", "head", "paused", "champion", "deployed", "open", "last"}
    assert {key for key in STANDING if standing[key] is None} == missing
    assert (standing["doing"], standing["parked"]) == ("not looked yet", [])
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
    assert set(standing["champion"]) == {"version", "run_id", "since", "how", "reason"}
    assert set(standing["open"]) == {"delta", "rows", "attempts", "trouble", "next_try_at"}
    assert set(standing["last"]) == DECISION
    assert (standing["cursor"], standing["head"], standing["deployed"]) == (3, 4, "2")
    assert (standing["parked"], standing["paused"]) == ([1], "maintenance")
    assert (standing["open"]["delta"], standing["open"]["attempts"]) == (4, 1)
    text = drawn(status_text(view))
    for told in ("version 2", "an outage (attempt 1)", "maintenance", "delta 1;", TABLE):
        assert told in text


def test_a_status_tells_when_nobody_runs(wanted: Settings, book: Ledger) -> None:
    """After the daemon's end its pid is not shown any more."""
    book.release()
    view = strict(views.status(wanted, book))
    assert view["daemon"] == {"running": False, "pid": None, "host": None, "url": None}
    assert "not running" in drawn(status_text(view))


def test_rows_that_were_not_read_are_told(wanted: Settings, book: Ledger) -> None:
    """Rows that came by overwrite or merge are not passed over in silence."""
    promote(book, 1)
    assert "unread" not in drawn(status_text(views.status(wanted, book)))
    close(book, book.open(PIPELINE, delta_of([snapshot(2, 1234, "overwrite")], 1)), State.SKIPPED)
    view = views.status(wanted, book)
    assert view["pipelines"][0]["unread_rows"] == 1234
    assert "1,234 rows came by overwrite or merge" in drawn(status_text(view))


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
            "state": "parked",
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

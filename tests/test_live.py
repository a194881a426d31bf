"""What is told of a champion that fails: since when, and by how much."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

import pytest
from builders import PIPELINE, TABLE, delta, ledger, lived, promote, record
from structlog.testing import capture_logs

from config.settings import Pipeline
from daemon.doors import Doors
from daemon.reconcile import Reconciler
from handlers.facts import Look, State
from handlers.live import _failing

PROMISE = Look(600, 0.3, 0.005)


def look(loss: float, rows: int = 100) -> Look:
    """Make a mean loss."""
    return Look(rows, loss, 0.01)


@pytest.mark.parametrize(
    ("losses", "rows", "loss"),
    [
        ([look(0.5)], 100, 0.5),
        ([*[look(0.29)] * 50, look(0.4), look(0.5)], 200, 0.45),
        ([look(0.5), look(0.5), look(0.3), look(0.5)], 400, 0.45),
        ([look(0.6), *[look(0.2)] * 5, look(0.4, 300)], 300, 0.4),
    ],
)
def test_the_loss_since_the_change_is_told(losses: list[Look], rows: int, loss: float) -> None:
    """A long good reign does not hide it, nor a better delta in between; more rows count more."""
    found = _failing(PROMISE, losses)
    assert found.rows == rows
    assert found.gain == pytest.approx(loss)


def test_a_champion_that_fails_is_logged_once_a_delta(tmp_path: Path) -> None:
    """With the sentence that the pages show; a delta on which it does not fail says nothing."""
    pipeline = Pipeline(table=TABLE, label="fraud")
    doors = cast("Doors", SimpleNamespace(table=None, registry=None, endpoint=None))
    with closing(ledger(tmp_path / "ledger.db")) as book, capture_logs() as logs:
        promote(book, 1)
        reconciler = Reconciler(PIPELINE, pipeline, doors, book, tmp_path, lambda *_: None)
        for number, alarm in ((2, 1.0), (3, 57.0)):
            work = book.open(PIPELINE, delta(number))
            closed = replace(
                record(work, State.KEPT, against="1"), live=lived(1, 0.41, alarm=alarm)
            )
            reconciler._settled(work, Mock(return_value=closed))
    (told,) = [event for event in logs if event["event"] == "champion_fails"]
    assert (told["delta"], told["version"], told["evidence"]) == (3, "1", 57.0)
    assert told["log_level"] == "warning"
    assert told["reason"].startswith("Champion 1 does worse on live rows than it promised")

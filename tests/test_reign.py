"""Which earlier looks count against a champion, and which begin anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import PIPELINE, delta, lived, model, record

from config.settings import Pipeline
from daemon import owner
from daemon.ledger import Ledger
from daemon.reign import look_back
from handlers.facts import Decision, Look, Record, State

CARDS = Pipeline(table="lake.bank.cards", label="fraud")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Ledger]:
    """Open a ledger of one's own."""
    found = Ledger(tmp_path / "ledger.db")
    found.claim(owner.myself(), found.owner())
    yield found
    found.close()


def decide(book: Ledger, number: int, state: State, against: str | None, **changes: object) -> None:
    """Settle a delta whose challenger gained as much as its number says."""
    work = book.open(PIPELINE, delta(number))
    closed = record(work, state, number, against)
    assert closed.verdict is not None
    wins = state is State.PROMOTED
    seen = replace(
        closed.verdict, looks=(Look(100, float(number), 0.1),), signal=Look(100, 1.0, 0.1),
        decision=Decision.PROMOTE if wins else Decision.WAIT, loss=Look(20, 0.25, 0.01),
        **changes,  # type: ignore[arg-type] # (fields of a verdict)
    )  # fmt: skip
    live = lived(against) if against else None
    assert closed.learnt is not None
    learnt = replace(closed.learnt, label="fraud", task="binary")
    book.settle(replace(closed, verdict=seen, live=live, learnt=learnt, closed_at=work.opened_at))


def gains(book: Ledger) -> list[float]:
    """Tell which looks count."""
    return [look.gain for look in look_back(book, PIPELINE, CARDS).looks]


def test_looks_count_since_the_champion_reigns(book: Ledger) -> None:
    """All decisions against today's champion count, oldest first; earlier reigns do not."""
    assert gains(book) == []
    decide(book, 1, State.PROMOTED, None)
    assert gains(book) == []
    decide(book, 2, State.KEPT, "1")
    decide(book, 3, State.PROMOTED, "1")
    assert gains(book) == []
    decide(book, 4, State.KEPT, "3")
    decide(book, 5, State.KEPT, "3")
    reign = look_back(book, PIPELINE, CARDS)
    assert [look.gain for look in reign.looks] == [4.0, 5.0]
    assert [live.version for live in reign.lives] == ["3", "3"]
    assert reign.promise == Look(20, 0.25, 0.01)
    assert reign.contender == model(5)
    assert len(reign.signals) == 5


def test_a_rollback_begins_a_reign_anew(book: Ledger) -> None:
    """What was gathered against a model before it was replaced says nothing after a rollback."""
    decide(book, 1, State.PROMOTED, None)
    decide(book, 2, State.KEPT, "1")
    decide(book, 3, State.PROMOTED, "1")
    book.rollback(PIPELINE, "ann", model(1), "3 was rude")
    assert gains(book) == []
    assert look_back(book, PIPELINE, CARDS).contender is None


def test_a_rebuilt_ledger_knows_all_looks(book: Ledger, tmp_path: Path) -> None:
    """Evidence is in the records: a ledger that was lost and rebuilt gathers on from there."""
    decide(book, 1, State.PROMOTED, None)
    decide(book, 2, State.KEPT, "1")
    decide(book, 3, State.KEPT, "1")
    records: list[Record] = book.history(PIPELINE)[::-1]
    again = Ledger(tmp_path / "again.db")
    again.claim(owner.myself(), again.owner())
    again.restore(records, model(1))
    assert gains(again) == [2.0, 3.0]
    again.close()


def test_looks_by_another_metric_do_not_count(book: Ledger) -> None:
    """A gain in AUC cannot be added to one in log loss."""
    decide(book, 1, State.PROMOTED, None)
    decide(book, 2, State.KEPT, "1", metric="auc")
    decide(book, 3, State.KEPT, "1")
    assert gains(book) == [3.0]

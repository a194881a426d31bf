"""Every strategy on a real table and tracking server: it decides, it is recorded, it reproduces."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Lab

from daemon.ledger import Ledger
from daemon.reproduce import reproduce
from handlers.facts import Learnt, Record

pytestmark = pytest.mark.real
QUICK = {"rounds": 10, "holdout": 0.3}


def learnt(record: Record) -> Learnt:
    """Give what went into a challenger."""
    assert record.learnt is not None
    return record.learnt


def again(lab: Lab, book: Ledger, record: Record) -> dict[str, Any]:
    """Make a model once more, under settings that have changed since."""
    mine = lab.settings(train={"rounds": 7, "seed": 3, "members": 2}).pipelines[lab.pipeline]
    return reproduce(record, mine, lab.doors(), book, lab.home / "again")


def test_every_strategy_takes_over_from_the_one_before_it(lab: Lab) -> None:
    """Strategies are changed from delta to delta, and each model comes out again."""
    book = lab.ledger()
    strategies = ("fresh", "ensemble", "continue", "window", "tournament", "full", "ensemble")
    for number, strategy in enumerate(strategies):
        lab.append(number, 600)
        wanted = {**QUICK, "strategy": strategy, "window": 2, "max_rounds": 60}
        lab.reconciler(book, train=wanted).tick()
    records = book.history(lab.pipeline)[::-1]
    assert [learnt(record).strategy for record in records] == list(strategies)
    kinds = [{(m.kind, m.sequence) for m in learnt(r).members if not m.within} for r in records]
    assert kinds[1] == {("fresh", 0), ("window", 0), ("full", 1)}
    assert learnt(records[3]).window_start == records[2].delta.start_id
    assert 400 < learnt(records[3]).train_rows < 1200
    assert kinds[4] == {("ensemble", 0), ("window", 0), ("full", 0)}
    assert learnt(records[5]).train_rows > 2000
    assert {("fresh", 0), ("fresh", 2), ("fresh", 5), ("window", 0), ("full", 6)} <= kinds[6]
    for record in records:
        view = again(lab, book, record)
        assert view["reproduced"], view


def test_a_model_whose_rows_were_taken_back_is_no_member(lab: Lab) -> None:
    """After a rollback the ensemble goes on with those that stand; what was pooled comes again."""
    book = lab.ledger()
    reconciler = lab.reconciler(book, train={**QUICK, "strategy": "ensemble"})
    for number in range(3):
        lab.append(number, 500)
        reconciler.tick()
    second, first = book.history(lab.pipeline)[1:3]
    lab.sql(f"CALL lake.system.rollback_to_snapshot('{{t}}', {second.delta.end_id})")
    lab.append(5, 500)
    while reconciler.tick():
        pass
    newest = book.history(lab.pipeline, 1)[0]
    used = {m.sequence for m in learnt(newest).members if m.run_id}
    assert used == {first.sequence, second.sequence}
    undone = next(r for r in book.history(lab.pipeline) if r.sequence == 3)
    assert undone.model is not None
    for record in (newest, undone):
        assert again(lab, book, record)["reproduced"]


def test_a_sample_is_drawn_before_the_rows_are_read(lab: Lab) -> None:
    """Spark gives about as many rows as are wanted, the same ones each time."""
    book = lab.ledger()
    reconciler = lab.reconciler(book, train={**QUICK, "strategy": "full", "max_rows": 500})
    for number in range(3):
        lab.append(number, 800)
        reconciler.tick()
    newest = book.history(lab.pipeline, 1)[0]
    assert 250 < learnt(newest).train_rows < 450
    assert again(lab, book, newest)["reproduced"]

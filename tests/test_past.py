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
    """Strategies are changed from delta to delta, and each model comes out again.

    Where more is read than is wanted, Spark thins it out, the same way each time.
    """
    book = lab.ledger()
    strategies = ("fresh", "continue", "window", "tournament", "ensemble", "full")
    for number, strategy in enumerate(strategies):
        lab.append(number, 400)
        wanted = {**QUICK, "strategy": strategy, "window": 2, "max_rows": 700, "refresh_share": 0.3}
        lab.reconciler(book, train=wanted).tick()
    records = book.history(lab.pipeline)[::-1]
    assert [learnt(record).strategy for record in records] == list(strategies)
    _, continued, window, tournament, ensemble, full = map(learnt, records)
    assert [m.kind for m in continued.members] == ["served"]
    assert window.window_start == records[1].delta.start_id
    assert 400 < window.train_rows < 620
    outer = {(m.kind, m.sequence) for m in tournament.members if not m.within}
    assert outer == {("ensemble", 0), ("window", 0), ("full", 0)}
    inner = {(m.kind, m.sequence) for m in ensemble.members}
    assert inner == {("fresh", 0), ("fresh", 1), ("fresh", 4), ("window", 0), ("full", 4)}
    assert 350 < full.train_rows < 620
    for record in records[1:]:
        view = again(lab, book, record)
        assert view["reproduced"], view


def test_a_model_whose_rows_were_taken_back_is_no_member(lab: Lab) -> None:
    """After a rollback the ensemble goes on with those that stand; what was pooled comes again."""
    wanted = {**QUICK, "strategy": "ensemble", "window_member": False, "refresh_share": None}
    book = lab.ledger()
    reconciler = lab.reconciler(book, train=wanted)
    for number in range(3):
        lab.append(number, 300)
        reconciler.tick()
    second = book.history(lab.pipeline)[1]
    lab.sql(f"CALL lake.system.rollback_to_snapshot('{{t}}', {second.delta.end_id})")
    lab.append(5, 300)
    while reconciler.tick():
        pass
    newest = book.history(lab.pipeline, 1)[0]
    assert {m.sequence for m in learnt(newest).members if m.run_id} == {1, 2}
    undone = next(r for r in book.history(lab.pipeline) if r.sequence == 3)
    assert undone.model is not None
    assert again(lab, book, undone)["reproduced"]

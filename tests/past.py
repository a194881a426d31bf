"""A ledger with a history like that of a pipeline in use: every state, all kinds of trouble."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

from builders import (
    PIPELINE,
    close,
    delta,
    delta_of,
    learnt,
    lived,
    model,
    park,
    promote,
    record,
    snapshot,
    verdict,
)

from daemon.ledger import Ledger
from daemon.reading import RECORD
from handlers.facts import (
    Breach,
    Cursor,
    Decision,
    Drifted,
    Look,
    Record,
    Snapshot,
    State,
    Weighed,
)

BIG = 8_744_736_658_442_914_487
"""A snapshot's id as Iceberg draws them: above 2^53."""
BREACH = Breach("max_null", "amount", 12, 100, ("null",), "12 of 100 values of amount are null")
DRIFT = (Drifted("amount", "feature", 0.4, "large", "above 90: 10% then, 31% now"),)
MEMBERS = (
    Weighed("fresh", "", 0, 0.6, 0.21, 0.22, 1.0),
    Weighed("fresh", "run-1", 1, 0.4, 0.25, None, 2.0, by="run-9"),
    Weighed("full", "run-2", 2, 0.0, float("inf"), None, 0.0, "it learnt from these rows"),
)


def big(number: int) -> Snapshot:
    """Make a snapshot with an id above 2^53."""
    return replace(snapshot(number), id=BIG + number, parent_id=BIG + number - 1)


def judged(book: Ledger, number: int, decision: Decision) -> Record:
    """Close a delta by a comparison that has every figure that there is; gives its record."""
    champion = book.champion(PIPELINE)
    against = champion.model.version if champion else None
    won = decision is Decision.PROMOTE
    work = book.open(PIPELINE, delta_of([big(number)], BIG + number - 1))
    state = State.PROMOTED if won else State.KEPT
    look = Look(20, 0.1, 0.02)
    said = replace(
        verdict(against, promote=won), decision=decision, looks=(look, Look(80, 0.05, None)),
        signal=look, evidence=float("inf") if won else 3.0, interval=(-0.1, float("nan")),
        gathered=100, detectable=0.2, loss=look,
        challenger={"log_loss": 0.3, "auc": float("nan")},
    )  # fmt: skip
    found = replace(
        record(work, state, number, against), verdict=said, drift=DRIFT,
        learnt=replace(learnt(), strategy="ensemble", members=MEMBERS, notes=("few rows",)),
        live=replace(lived(against, alarm=25.0), contender="7", gain=look) if against else None,
    )  # fmt: skip
    book.settle(found)
    return found


def fill(book: Ledger) -> None:
    """Write the history; the last delta is open."""
    book.looked(PIPELINE, Cursor("7f0c0b1e", BIG + 99), "training on delta 12")
    promote(book, 1)
    judged(book, 2, Decision.WAIT)
    judged(book, 3, Decision.PROMOTE)
    close(book, book.open(PIPELINE, delta(4)), State.SKIPPED)
    broken = book.open(PIPELINE, delta(5))
    book.settle(replace(record(broken, State.PARKED), breaches=(BREACH,)))
    parked = park(book, 6)
    close(book, book.open(PIPELINE, delta(7, 9)), State.SPLIT)
    close(book, book.open(PIPELINE, delta(8), retry_of=parked.sequence), State.DROPPED)
    book.deploying(PIPELINE, "3")
    book.deployed(PIPELINE, "3", "100 held-out predictions agree")
    book.rollback(PIPELINE, "ann", model(1), "complaints")
    book.promote(PIPELINE, "bob", model(2), "the law asks")
    book.refuse(PIPELINE, model(2), "answers differ")
    book.deploying(PIPELINE, "1")
    book.halt(PIPELINE, "snapshot 9 is a delete", 9)
    book.resume(PIPELINE, "ann")
    book.pause(PIPELINE, "ann", "a <test>")
    work = book.open(PIPELINE, delta_of([big(12)], BIG))
    book.postpone(work, "MLflow is down.", book.clock() + timedelta(minutes=1))


def lengthen(book: Ledger, deltas: int) -> None:
    """Add so many kept deltas, each with a record as large as a real one."""
    kept = json.dumps(RECORD.dump_python(book.history(PIPELINE, 20)[-2], mode="json"))
    first = book.works(PIPELINE)[-1].sequence + 1
    with book.write() as db:
        db.executemany(
            "INSERT INTO deltas (pipeline, sequence, state, delta, record, opened_at, closed_at) "
            "SELECT pipeline, ?, state, delta, ?, opened_at, closed_at FROM deltas "
            "WHERE pipeline = ? AND sequence = 2",
            ((number, kept, PIPELINE) for number in range(first, first + deltas)),
        )

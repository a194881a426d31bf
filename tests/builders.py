"""Builds the nouns of the program for tests: plain functions, sensible defaults."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from daemon import owner
from daemon.ledger import Ledger
from daemon.reading import Work
from handlers.account import account
from handlers.facts import (
    Decision,
    Delta,
    Fate,
    Learnt,
    Live,
    Look,
    Model,
    Record,
    Snapshot,
    State,
    Verdict,
)

PIPELINE = "cards"
TABLE, UUID = "lake.bank.cards", "7f0c0b1e-0000-4000-8000-000000000001"
EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)
MOMENTS = itertools.count()


def moment() -> datetime:
    """Give a time later than all given before."""
    return EPOCH + timedelta(milliseconds=1500 * next(MOMENTS))


def snapshot(number: int, rows: int = 100, operation: str = "append", **summary: str) -> Snapshot:
    """Make the snapshot with this number; its parent is the one before it."""
    return Snapshot(
        id=number,
        parent_id=number - 1 if number > 1 else None,
        committed_at=EPOCH + timedelta(minutes=number),
        operation=operation,
        summary={
            "added-records": str(rows),
            "total-records": str(rows * number),
            **{name.replace("_", "-"): value for name, value in summary.items()},
        },
    )


def delta(
    first: int = 1, last: int | None = None, *, start: int | None = None, note: str = ""
) -> Delta:
    """Make the delta of the appends `first` to `last`; number 1 starts the table."""
    end = last or first
    began = start if start is not None else (first - 1 or None)
    return delta_of([snapshot(number) for number in range(first, end + 1)], began, note)


def delta_of(snapshots: Sequence[Snapshot], start: int | None = None, note: str = "") -> Delta:
    """Make the delta of these snapshots, which follow the snapshot `start`."""
    return Delta(TABLE, "main", UUID, start, snapshots[-1].id, tuple(snapshots), note)


def model(version: str | int) -> Model:
    """Make the model of this version."""
    return Model(str(version), f"run-{version}")


def verdict(
    against: str | None = None, *, promote: bool = True, challenger: float = 0.3, rival: float = 0.4
) -> Verdict:
    """Make the outcome of a comparison of log losses."""
    return Verdict(
        decision=Decision.PROMOTE if promote else Decision.KEEP,
        sentence=f"{'promoted' if promote else 'kept'}: log loss {challenger} against {rival}",
        metric="log_loss",
        rows=20,
        challenger={"log_loss": challenger, "auc": 0.9},
        champion={"log_loss": rival, "auc": 0.8} if against else None,
        trivial={"log_loss": rival},
        gain=rival - challenger,
        against=against,
    )


def lived(
    version: str | int, loss: float = 0.3, *, alarm: float = 1.0, error: float | None = 0.01
) -> Live:
    """Make how a version did on a delta; alarmed from 20 on."""
    alarmed = alarm >= 20
    return Live(
        str(version), 100, {"log_loss": loss, "auc": 0.8}, Look(100, loss, error), alarm, alarmed,
        promised=0.3, failing=Look(300, loss, None) if alarmed else None,
    )  # fmt: skip


def learnt() -> Learnt:
    """Make what went into a challenger."""
    parameters = {"max_depth": 4, "eta": 0.1, "tree_method": "hist", "rounds": 25}
    return Learnt("fresh", parameters, ("amount", "age"), 80, 20, 3, 0.2, "retraind")


FATES: dict[State, Fate] = {
    State.PROMOTED: Fate.TRAINED,
    State.KEPT: Fate.TRAINED,
    State.PARKED: Fate.QUARANTINED,
}


def record(
    work: Work,
    state: State,
    version: str | int | None = None,
    against: str | None = None,
    reason: str = "",
) -> Record:
    """Close a piece of work: promoted and kept ones have a verdict, and a model if a version."""
    judged = state in (State.PROMOTED, State.KEPT)
    why = reason or f"{state.value}: because the test says so"
    return Record(
        pipeline=work.pipeline,
        sequence=work.sequence,
        delta=work.delta,
        state=state,
        reason=why,
        opened_at=work.opened_at,
        closed_at=moment(),
        snapshots=account(work.delta, FATES.get(state, Fate.SKIPPED), why),
        retry_of=work.retry_of,
        learnt=learnt() if judged else None,
        verdict=verdict(against, promote=state is State.PROMOTED) if judged else None,
        model=model(version) if version is not None else None,
    )


def ledger(path: Path, *, owned: bool = True) -> Ledger:
    """Open a ledger as its owner, without waiting for a disk."""
    book = Ledger(path)
    book._db.execute("PRAGMA synchronous = OFF")
    book._db.execute("PRAGMA busy_timeout = 5000")
    if owned:
        assert book.claim(owner.myself(), book.owner())
    return book


def close(
    book: Ledger, work: Work, state: State = State.KEPT, version: str | int | None = None
) -> Record:
    """Settle a piece of work against the champion of the moment; gives the record."""
    champion = book.champion(work.pipeline)
    closed = record(work, state, version, champion.model.version if champion else None)
    book.settle(closed)
    return closed


def promote(book: Ledger, number: int, version: str | int | None = None) -> Model:
    """Let the delta of one snapshot promote a model; gives that model."""
    closed = close(book, book.open(PIPELINE, delta(number)), State.PROMOTED, version or number)
    assert closed.model is not None
    return closed.model


def park(book: Ledger, number: int) -> Record:
    """Let the delta of one snapshot be parked."""
    return close(book, book.open(PIPELINE, delta(number)), State.PARKED)


def dump(book: Ledger) -> str:
    """Give everything that the ledger's file holds, as text."""
    with sqlite3.connect(book.path) as db:
        text = "\n".join(db.iterdump())
    db.close()
    return text

"""A ledger with a long history, as years of decisions leave one; for pages and their benchmark."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from builders import EPOCH, UUID, ledger, record, snapshot

from config.settings import Settings
from daemon.ledger import Ledger
from daemon.reading import Work
from handlers.facts import (
    Cursor,
    Decision,
    Delta,
    Drifted,
    Learnt,
    Live,
    Look,
    Record,
    State,
    Verdict,
    Weighed,
)

COLUMNS = ("transaction_amount", "age", "credit_card_balance", "zip", "gender", "birth_place")
EVERY = timedelta(minutes=30)


def names(count: int) -> list[str]:
    """Give names of pipelines."""
    return [f"shop-{number:02d}" for number in range(1, count + 1)]


def settings(home: Path, count: int, **more: Any) -> Settings:
    """Give settings with so many pipelines."""
    pipelines = {
        name: {"table": f"lake.bank.{name.replace('-', '_')}", "label": "fraud",
               "endpoint": {"port": 21_000 + number}}
        for number, name in enumerate(names(count))
    }  # fmt: skip
    return Settings.model_validate({"state_dir": home, "pipelines": pipelines, **more})


def write(path: Path, pipelines: int, deltas: int, seed: int = 0) -> Ledger:
    """Write a ledger: so many pipelines, with so many deltas each."""
    chance = random.Random(seed)
    book = ledger(path)
    for name in names(pipelines):
        champion = ""
        with book.write() as db:
            book._ensure(db, name)
        for number in range(1, deltas + 1):
            work = Work(name, number, _delta(name, number), EPOCH + EVERY * number)
            closed = _closed(work, champion, chance, last=number == deltas)
            if closed.state is State.PROMOTED and closed.model:
                champion = closed.model.version
            _settle(book, closed)
        head = Cursor(UUID, deltas)
        book.looked(name, head, "idle")
        if champion:
            book.deployed(name, champion, f"answers as version {champion}; 100 predictions agree")
    return book


def _delta(name: str, number: int) -> Delta:
    made = replace(snapshot(number, 1440), committed_at=EPOCH + EVERY * number)
    return Delta(f"lake.bank.{name}", "main", UUID, number - 1 or None, number, (made,), "")


def _closed(work: Work, champion: str, chance: random.Random, *, last: bool) -> Record:
    number = work.sequence
    drifted = number % 40 > 34
    if number % 23 == 0:
        why = "amount: 3 of 1,440 rows are below 0"
        return _at(record(work, State.PARKED, reason=f"parked by the contract: {why}"))
    promoted = not champion or number % 40 == 37
    loss = 0.31 + chance.gauss(0, 0.01) + (0.05 if drifted else 0)
    gain = chance.gauss(0.03 if promoted else -0.002, 0.003)
    against = champion or None
    told = (
        f"promoted: log loss {loss - gain:.4f} against {loss:.4f} of version {against}"
        if promoted
        else f"kept: log loss {loss - gain:.4f} against {loss:.4f} of version {against}"
    )
    made = record(
        work, State.PROMOTED if promoted else State.KEPT, number, against,
        told if against else "promoted: the first model; log loss 0.31 against 0.42 of a constant",
    )  # fmt: skip
    verdict = Verdict(
        Decision.PROMOTE if promoted else Decision.KEEP, made.reason, "log_loss", 288,
        {"log_loss": loss - gain, "auc": 0.91, "average_precision": 0.71, "f1": 0.6},
        {"log_loss": loss, "auc": 0.9, "average_precision": 0.7, "f1": 0.59} if against else None,
        {"log_loss": 0.42}, gain if against else None, against,
        (Look(288, gain, 0.004), Look(1152, gain, 0.002)) if against else (),
        evidence=40.0 if promoted else 0.7,
        interval=(gain - 0.006, gain + 0.006) if against else None,
        gathered=1440, detectable=0.008, loss=Look(288, loss - gain, 0.01),
    )  # fmt: skip
    alarmed = drifted and number % 40 > 36
    live = Live(
        against, 1440, {"log_loss": loss, "auc": 0.9}, Look(1440, loss, 0.008),
        30.0 if alarmed else 0.8, alarmed, promised=0.31,
        failing=Look(2880, loss, 0.006) if alarmed else None,
    ) if against and not last else None  # fmt: skip
    drift = tuple(
        Drifted(column, "feature", psi, _size(psi), "more above 80")
        for column, psi in zip(COLUMNS, _spread(chance, drifted=drifted), strict=True)
    )
    return _at(replace(made, verdict=verdict, live=live, drift=drift, learnt=_learnt(number)))


def _spread(chance: random.Random, *, drifted: bool) -> list[float]:
    found = [abs(chance.gauss(0, 0.04)) + (0.2 if drifted else 0) for _ in COLUMNS]
    return sorted(found, reverse=True)


def _size(psi: float) -> Literal["large", "moderate", "small"]:
    return "large" if psi >= 0.25 else "moderate" if psi >= 0.1 else "small"


def _learnt(number: int) -> Learnt:
    members = tuple(
        Weighed(kind, f"run-{n}", n, weight, 0.31, reason="on the newest held-out rows")
        for n, (kind, weight) in enumerate([("fresh", 0.2), ("fresh", 0.3), ("full", 0.5)], 1)
    )
    parameters: Mapping[str, Any] = {"max_depth": 4, "eta": 0.1, "rounds": 100}
    return Learnt(
        "ensemble", parameters, COLUMNS, 1152, 288, 0, 0.2, "retraind", ("transaction_id",),
        "fraud", "binary", rows_digest=f"{number:064x}", environment={"xgboost": "3.2.0"},
        knobs={"members": 10}, members=members,
    )  # fmt: skip


def _at(closed: Record) -> Record:
    opened = closed.opened_at
    return replace(closed, closed_at=opened + timedelta(seconds=14))


def _settle(book: Ledger, closed: Record) -> None:
    """Settle as the daemon does, in one transaction a delta."""
    book.open(closed.pipeline, closed.delta)
    book.settle(closed)
